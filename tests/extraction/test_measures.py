"""Measures of copies: counts and distances worked out by hand, curves of several seeds, and the bill."""

from __future__ import annotations

import pytest
import torch
from tests.extraction.learned import draw, linear
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.customer import Spending, View
from redan.extraction.knockoff import KnockoffNets
from redan.extraction.label_only import linear_copy
from redan.extraction.measures import Bill, Comparison, Milestone, Point, judged, measured_curve, milestones
from redan.extraction.pools import RowPool, UniformPool
from redan.extraction.surrogates import ByLogLoss, Copy
from redan.targets import Target
from redan.targets.torch import from_torch

ROWS = torch.rand(400, 6, generator=draw(0)).double()


class _Told(nn.Module):
    """Answers the logarithms of its input's first two numbers, NaN where the third is 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2].log().masked_fill(x[:, 2:] == 1, torch.nan)


class _Even(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.full_like(x[:, 0], 0.25).log(), torch.full_like(x[:, 0], 0.75).log()], 1)


MODEL, EVEN = (from_torch(module.eval(), classes=2) for module in (_Told(), _Even()))
X = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 1.0], [0.9, 0.1, 0.0], [0.4, 0.6, 0.0]])


def test_a_comparison_counts_rows_and_finds_the_worst() -> None:
    found = judged(MODEL, X, torch.tensor([1, 0, 1, 0])).compare(EVEN)
    assert (found.n, found.agreeing, found.disagreeing, found.errors) == (3, 2, 1, 1)
    assert found.fidelity == pytest.approx(2 / 3)
    assert found.worst == pytest.approx(0.65)
    assert found.worst_row == 2
    assert found.mean_distance == pytest.approx((0.0 + 0.65 + 0.15) / 3)
    assert (found.right, found.model_right) == (2, 1)
    assert found.accuracy == pytest.approx(2 / 3)
    interval = found.fidelity_interval(0.95)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.094, 0.992)
    assert found.accuracy_interval() == interval


def test_a_copy_of_itself_agrees_everywhere() -> None:
    found = judged(linear(), ROWS).compare(linear())
    assert (found.agreeing, found.worst, found.accuracy) == (400, 0.0, None)
    assert found.fidelity_interval().high == 1.0
    assert found.accuracy_interval() is None


def test_a_copy_that_fails_agrees_with_nothing() -> None:
    found = judged(EVEN, X).compare(MODEL)
    assert (found.n, found.agreeing, found.errors) == (4, 2, 0)
    assert (found.worst, found.worst_row) == (1.0, 1)
    first = linear_copy(torch.zeros(2, 3), torch.tensor([1.0, 0.0]), (3,), (0.0, 1.0)).target
    found = judged(first, X, torch.zeros(4).long()).compare(MODEL)
    assert (found.agreeing, found.right) == (1, 1)  # not the row without an answer


def test_no_rows_say_nothing() -> None:
    found = judged(linear(), ROWS[:0]).compare(linear())
    assert (found.n, found.fidelity, found.worst, found.worst_row) == (0, 0.0, 0.0, None)


def test_a_bill_says_price_savings_and_days() -> None:
    bill = Bill(queries=10_000, usd_per_1000_queries=1.5, queries_per_day=4000)
    assert (bill.spent, bill.days) == (15.0, 2.5)
    assert bill.saved(0) == -15.0
    assert bill.saved(10_000) == 0.0
    assert bill.saved(110_000) == 150.0
    assert Bill(queries=5).days is None
    with pytest.raises(SettingError, match="rate limit"):
        Bill(queries=5, queries_per_day=0)
    with pytest.raises(SettingError, match="price"):
        Bill(queries=-1)


def curve(seeds: tuple[int, ...], kept: list[tuple[int, int, Copy]] | None = None) -> tuple[Point, ...]:
    references = {"test": judged(linear(), ROWS, linear()(ROWS).argmax(1)), "uniform": judged(linear(), 1 - ROWS)}
    return measured_curve(
        KnockoffNets(pool=UniformPool(shape=(6,)), trainer=ByLogLoss(), queries=200, soft=False),
        linear(),
        references,
        classes=3,
        points=(15, 60, 200),
        view=View(),
        spending=Spending(),
        seeds=seeds,
        kept=None if kept is None else lambda queries, seed, copy: kept.append((queries, seed, copy)),
    )


def test_a_curve_has_a_copy_a_seed_and_budget() -> None:
    kept: list[tuple[int, int, Copy]] = []
    points = curve((0, 1, 2), kept)
    assert [(point.queries, point.paid) for point in points] == [(15, (15,) * 3), (60, (60,) * 3), (200, (200,) * 3)]
    assert [(queries, seed) for queries, seed, _ in kept] == [(q, s) for s in (0, 1, 2) for q in (15, 60, 200)]
    means = [point.fidelity("test").value for point in points]
    assert means == sorted(means)
    found = points[-1].fidelity("test")
    assert (len(found.rates), found.rows, found.errors) == (3, 400, 0)
    assert found.lower(0.05) < found.value < found.upper(0.05)
    right = points[-1].accuracy("test")
    assert right is not None
    assert right.rates == found.rates  # the right labels here are the model's own
    assert points[0].accuracy("uniform") is None
    assert points[0].worst("uniform") > points[-1].worst("uniform")
    references = judged(linear(), ROWS)
    assert references.compare(kept[-1][2].target).fidelity == points[-1].comparisons["test"][2].fidelity


def test_one_run_is_paid_for_once_and_a_small_pool_ends_it() -> None:
    asked: list[int] = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return torch.stack([x.sum(1), 3 - x.sum(1)], 1)

    model = from_torch(Counted().eval(), classes=2)
    points = measured_curve(
        KnockoffNets(pool=RowPool(name="few", rows=ROWS[:50]), trainer=ByLogLoss(), queries=500),
        model,
        {},
        classes=2,
        points=(10, 40, 500),
        view=View(),
        spending=Spending(),
    )
    assert [point.paid for point in points] == [(10,), (40,), (50,)]
    assert sum(asked) == 50


def made(rates: dict[int, tuple[int, ...]]) -> tuple[Point, ...]:
    """A curve of copies that agree on so many of 100 rows."""
    return tuple(
        Point(
            queries=queries,
            paid=(queries,) * len(hits),
            comparisons={
                "test": tuple(
                    Comparison(n=100, agreeing=hit, errors=0, worst=0.5, worst_row=0, mean_distance=0.1) for hit in hits
                )
            },
        )
        for queries, hits in rates.items()
    )


def test_milestones_are_the_first_budgets_that_reach_them() -> None:
    points = made({10: (80, 90, 85), 20: (90, 92, 91), 50: (99, 99, 99), 90: (97, 99, 99)})
    assert milestones(points, "test") == (
        Milestone(share=0.9, queries=20, shown=50),
        Milestone(share=0.95, queries=50, shown=None),
        Milestone(share=0.99, queries=50, shown=None),
    )


def test_of_one_copy_it_is_its_rows_that_show() -> None:
    points = made({10: (93,), 20: (97,), 50: (100,)})
    assert milestones(points, "test", (0.9, 0.95)) == (
        Milestone(share=0.9, queries=10, shown=20),
        Milestone(share=0.95, queries=20, shown=50),
    )
    with pytest.raises(SettingError, match="confidence"):
        milestones(points, "test", confidence=1.0)


def test_what_is_told_of_a_linear_copy_agrees_with_geometry() -> None:
    """Two classes along one axis with boundaries 0.1 apart: a tenth of uniform rows disagree."""

    def cut(at: float) -> Target[Tensor]:
        weights, biases = torch.tensor([[50.0], [-50.0]]), torch.tensor([-50 * at, 50 * at])
        return linear_copy(weights, biases, (1,), (0.0, 1.0)).target

    x = torch.linspace(0.0005, 0.9995, 1000).double()[:, None]
    found = judged(cut(0.5), x).compare(cut(0.6))
    assert found.disagreeing == 100
    assert found.worst == pytest.approx(torch.tensor(2.5).tanh().item(), abs=1e-3)
