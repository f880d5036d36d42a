"""Steps that bend: no point of an interval leaves their lines, and what is certain costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from redan.certification import bends, graph, passes
from redan.certification.bends import MaxPool, Relu, Tanh
from redan.certification.layers import Plan, Wire
from redan.certification.region import Region
from redan.certification.rounding import OWN, Rounding
from redan.certification.steps import Interval, Step
from redan.targets import from_torch

ends = st.floats(-40, 40, width=32) | st.floats(-2, 2, width=32) | st.sampled_from([0.0, -0.0, 1e-30, 30.0])
CURVES: dict[str, tuple[Step, Callable[[Tensor], Tensor]]] = {
    "relu": (Relu((-1,)), torch.relu),
    "tanh": (Tanh((-1,)), torch.tanh),
}


def left(name: str, low: float, high: float) -> float:
    """How far a point of the interval is outside the lines, at most; below 0 where none is."""
    step, curve = CURVES[name]
    box = Interval(torch.tensor([[low]], dtype=OWN), torch.tensor([[high]], dtype=OWN))
    parts = step.relaxed([box]).parts
    x = torch.linspace(0, 1, 2001, dtype=OWN) * (high - low) + low
    worst = []
    for sign in (-1.0, 1.0):
        back = step.backward(torch.full((1, 1), sign, dtype=OWN), parts)
        line = back.parents[0][0] * x + back.added
        worst.append(float((line - sign * curve(x)).max()))
    return max(worst)


@settings(max_examples=150)
@given(st.sampled_from(list(CURVES)), ends, ends)
def test_no_point_leaves_the_lines(name: str, one: float, other: float) -> None:
    assert left(name, min(one, other), max(one, other)) <= 1e-13


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.5, 3.0), (-3.0, -0.2), (-0.3, 0.1), (-8.0, 9.0), (0.0, 0.0)])
def test_lines_of_tanh_touch_it(low: float, high: float) -> None:
    """Each is as near as it can be: somewhere in the interval nothing is left between them."""
    assert left("tanh", low, high) > -1e-10


def test_a_line_that_is_too_low_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    line = bends._tanh_line

    def lowered(x: Interval) -> tuple[Tensor, Tensor]:
        slope, offset = line(x)
        return slope, offset - 0.01

    assert left("tanh", -1.0, 2.0) <= 0
    monkeypatch.setattr(bends, "_tanh_line", lowered)
    assert left("tanh", -1.0, 2.0) > 1e-3


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.sampled_from([(2, 2), (3, 1), (3, 2), (2, 3)]), st.integers(0, 1))
def test_no_point_leaves_a_pool(seed: int, sizes: tuple[int, int], padding: int) -> None:
    """Windows apart and overlapping; intervals narrow enough that some winners are certain."""
    kernel, stride = sizes
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 2, 6, 5, dtype=OWN, generator=draw)
    high = low + 0.4 * torch.rand(low.shape, dtype=OWN, generator=draw)
    pool = MaxPool((-1,), (kernel, kernel), (stride, stride), (padding, padding), (1, 1), ceil=False, image=(6, 5))
    z = functional.max_pool2d(low, kernel, stride, padding)
    a = torch.randn(6, *z.shape[1:], dtype=OWN, generator=draw)
    back = pool.backward(a, pool.relaxed([Interval(low, high)]).parts)
    x = low + (high - low) * torch.rand(200, *low.shape[1:], dtype=OWN, generator=draw).round(decimals=0)
    true = a.flatten(1) @ functional.max_pool2d(x, kernel, stride, padding).flatten(1).T
    bound = back.parents[0].flatten(1) @ x.flatten(1).T + torch.as_tensor(back.added)[:, None]

    assert bool((bound <= true + 1e-12).all())


def test_a_certain_winner_is_bounded_by_itself() -> None:
    low = torch.tensor([[[[0.9, 0.1], [0.2, 0.3]]]], dtype=OWN)
    pool = MaxPool((-1,), (2, 2), (2, 2), (0, 0), (1, 1), ceil=False, image=(2, 2))
    a = torch.tensor([[[[-1.0]]]], dtype=OWN)

    sure = pool.backward(a, pool.relaxed([Interval(low, low + 0.5)]).parts)
    unsure = pool.backward(a, pool.relaxed([Interval(low, low + 0.7)]).parts)

    assert sure.parents[0].flatten().tolist() == [-1, 0, 0, 0]
    assert float(sure.added) == 0
    assert float(unsure.added) == pytest.approx(-1.6)
    assert not bool(pool.open([Interval(low, low + 0.5)]).any())
    assert bool(pool.open([Interval(low, low + 0.7)]).all())


def test_what_cannot_be_above_zero_is_not_asked_how_far_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no bound is looser for it than where both sides are asked of all."""
    asked: list[tuple[int, int]] = []
    least = passes._least

    def counted(bounds: passes.Bounds, step: int, mask: Tensor, tiles: Any, signs: Sequence[int]) -> list[Tensor]:
        asked.extend((sign, int(mask.sum())) for sign in signs)
        return least(bounds, step, mask, tiles, signs)

    monkeypatch.setattr(passes, "_least", counted)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2)).eval()
        x = torch.rand(1, 6, dtype=OWN)
        steps = graph.steps_of(from_torch(model), (6,))
        around = Region(Interval(x - 0.2, x + 0.2), x, 0.2, 1.0)
        a = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=OWN)
        found = passes.refined(steps, around, Rounding(OWN))
        some = passes.lower(found, len(steps) - 1, a)
        above, below = (sum(count for sign, count in asked if sign == way) for way in (-1, 1))
        monkeypatch.setattr(Relu, "open", lambda _self, given: torch.ones_like(given[0].low, dtype=torch.bool))
        both = passes.lower(passes.refined(steps, around, Rounding(OWN)), len(steps) - 1, a)

    assert below < above
    assert some.tolist() == pytest.approx(both.tolist(), rel=1e-9)


def test_a_batch_of_boxes_is_bounded_as_its_rows_are() -> None:
    plan = Plan()
    plan.leaky(plan.clipped(plan.tanh(Wire(-1, (2, 4, 4))), -0.5, 0.25), 0.2)
    low = torch.randn(5, 2, 4, 4, dtype=OWN, generator=torch.Generator().manual_seed(0))
    known: dict[int, Interval] = {-1: Interval(low, low + 0.3)}
    rows: dict[int, list[Interval]] = {-1: [Interval(low[i : i + 1], low[i : i + 1] + 0.3) for i in range(5)]}
    for at, step in enumerate(plan.steps):
        known[at] = step.box([known[p] for p in step.parents])
        rows[at] = [step.box([rows[p][i] for p in step.parents]) for i in range(5)]
        for side in (0, 1):
            assert torch.equal(known[at][side], torch.cat([row[side] for row in rows[at]]))


@settings(max_examples=30)
@given(st.integers(0, 2**20), st.floats(0, 1))
def test_few_bent_numbers_are_bounded_as_many_are(seed: int, share: float) -> None:
    """The way for few bent numbers gives what the other gives for the same lines."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.randn(1, 3, 4, 4, dtype=OWN, generator=draw)
    high = low + 2 * torch.rand(low.shape, dtype=OWN, generator=draw) * (torch.rand(low.shape, generator=draw) < share)
    a = torch.randn(7, 3, 4, 4, dtype=OWN, generator=draw)
    lower, upper, offset = Relu((-1,)).relaxed([Interval(low, high)]).parts
    back = Relu((-1,)).backward(a, (lower, upper, offset))

    assert torch.equal(back.parents[0], torch.where(a > 0, lower, upper) * a)
    assert torch.allclose(torch.as_tensor(back.added), (a.clamp_max(0) * offset).flatten(1).sum(1), rtol=1e-12)
