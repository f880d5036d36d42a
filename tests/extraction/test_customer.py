"""The customer: pays for each row once, no more than it has, and sees only what the API shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.targets.torch import TorchTarget, from_torch

ROWS = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Its input times 4, NaN where the first number is above `fails`; it counts what it is asked."""

    def __init__(self, fails: float = 2.0) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return (4 * x).masked_fill(x[:, :1] > self.fails, torch.nan)


def asked(spending: Spending | None = None, *, fails: float = 2.0, view: View | None = None) -> Customer:
    target: TorchTarget = from_torch(Counting(fails).eval(), classes=3)
    return Customer(target, spending or Spending(), classes=3, view=view or View())


def test_what_is_asked_is_answered_with_probabilities() -> None:
    customer = asked()
    answer = customer.ask(ROWS)
    torch.testing.assert_close(answer.shown, (4 * ROWS).double().softmax(1))
    assert answer.labels.tolist() == ROWS.argmax(1).tolist()
    assert bool(answer.answered.all())
    assert (customer.paid, customer.left) == (12, float("inf"))


def test_no_more_is_bought_than_the_budget_allows_and_the_first_rows_come_first() -> None:
    customer = asked(Spending(queries=5))
    answer = customer.ask(ROWS)
    assert answer.answered.tolist() == [True] * 5 + [False] * 7
    assert bool(answer.shown[5:].isnan().all())
    assert answer.labels[5:].tolist() == [-1] * 7
    assert (customer.paid, customer.left) == (5, 0)
    assert not bool(customer.ask(ROWS[5:]).answered.any())
    assert customer.paid == 5


def test_nothing_is_paid_for_twice() -> None:
    customer = asked(Spending(queries=6))
    twice = torch.cat([ROWS[:3], ROWS[:3]])
    first = customer.ask(twice)
    assert customer.paid == 3
    torch.testing.assert_close(first.shown[:3], first.shown[3:])
    again = customer.ask(ROWS[[2, 0, 1, 3, 4, 5, 6]])
    assert customer.paid == 6
    assert again.answered.tolist() == [True] * 6 + [False]
    torch.testing.assert_close(again.shown[:3], first.shown[[2, 0, 1]], rtol=0, atol=0)
    known = customer.ask(ROWS[:6])  # what is known is told when the money is gone
    assert bool(known.answered.all())
    assert customer.paid == 6
    almost = ROWS[:1] + 1e-6
    assert not bool(customer.ask(almost).answered)


def test_the_model_sees_no_more_different_rows_than_are_paid() -> None:
    customer = asked(Spending(queries=7))
    for start in range(0, 12, 2):
        customer.ask(ROWS[start : start + 4])
    module = customer.target.module if isinstance(customer.target, TorchTarget) else None
    assert isinstance(module, Counting)
    assert len({tuple(row) for x in module.seen for row in x.tolist()}) == customer.paid == 7


def test_rows_that_fail_are_paid_and_have_no_answer() -> None:
    customer = asked(Spending(queries=12), fails=0.5)
    bad = ROWS[:, 0] > 0.5
    answer = customer.ask(ROWS)
    assert 0 < int(bad.sum()) < 12
    assert answer.answered.tolist() == (~bad).tolist()
    assert bool((answer.labels[bad] == -1).all())
    assert bool(answer.shown[bad].isnan().all())
    assert customer.paid == 12
    assert customer.ask(ROWS).answered.tolist() == (~bad).tolist()
    assert customer.paid == 12


def test_no_rows_cost_nothing() -> None:
    customer = asked(Spending(queries=1))
    answer = customer.ask(ROWS[:0])
    assert [tuple(part.shape) for part in answer] == [(0, 3), (0,), (0,)]
    assert customer.paid == 0
    broke = asked(Spending(queries=0))
    assert broke.ask(ROWS[:2]).labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("spending", "most"),
    [
        (Spending(), float("inf")),
        (Spending(queries=9, usd=1.0, usd_per_1000_queries=100.0), 9),
        (Spending(queries=20, usd=1.0, usd_per_1000_queries=100.0), 10),
        (Spending(usd=0.3, usd_per_1000_queries=100.0), 3),
        (Spending(usd=0.0299, usd_per_1000_queries=10.0), 2),
    ],
)
def test_money_limits_answers(spending: Spending, most: float) -> None:
    assert spending.most == most


def test_money_is_counted_by_the_answer() -> None:
    customer = asked(Spending(usd=0.05, usd_per_1000_queries=10.0))
    assert int(customer.ask(ROWS).answered.sum()) == customer.paid == 5
    assert customer.usd == pytest.approx(0.05)
    with pytest.raises(SettingError, match="without a price"):
        Spending(usd=1.0)


def test_labels_are_shown_alone() -> None:
    answer = asked(view=View(shows=Shows.LABELS)).ask(ROWS)
    assert set(answer.shown.flatten().tolist()) == {0, 1}
    assert answer.shown.argmax(1).tolist() == answer.labels.tolist() == ROWS.argmax(1).tolist()


def test_raw_scores_are_shown_as_they_are() -> None:
    answer = asked(view=View(shows=Shows.RAW)).ask(ROWS)
    torch.testing.assert_close(answer.shown, (4 * ROWS).double(), rtol=0, atol=0)


@pytest.mark.parametrize("decimals", [0, 1, 3])
def test_numbers_are_rounded(decimals: int) -> None:
    shown = asked(view=View(decimals=decimals)).ask(ROWS).shown
    assert float((shown - (4 * ROWS).double().softmax(1)).abs().max()) <= 0.5001 * 10**-decimals
    torch.testing.assert_close(shown * 10**decimals, (shown * 10**decimals).round(), rtol=0, atol=1e-9)


def test_only_the_top_few_are_shown() -> None:
    whole = (4 * ROWS).double().softmax(1)
    for top in (1, 2, 3, 5):
        shown = asked(view=View(top=top)).ask(ROWS).shown
        assert (shown > 0).sum(1).tolist() == [min(top, 3)] * 12
        torch.testing.assert_close(shown, torch.where(shown > 0, whole, 0.0))
        assert shown.argmax(1).tolist() == whole.argmax(1).tolist()


def test_noise_is_the_same_for_the_same_row_whoever_asks() -> None:
    view = View(noise=0.1, seed=3)
    whole = asked(view=view).ask(ROWS).shown
    other = asked(view=view)
    torch.testing.assert_close(other.ask(ROWS[[7]]).shown, whole[[7]], rtol=0, atol=0)
    torch.testing.assert_close(other.ask(ROWS.flip(0)).shown.flip(0), whole, rtol=0, atol=0)
    assert not torch.equal(asked(view=View(noise=0.1, seed=4)).ask(ROWS).shown, whole)
    many = torch.rand(2000, 3, generator=torch.Generator().manual_seed(1))
    errors = asked(view=view).ask(many).shown - (4 * many).double().softmax(1)
    assert float(errors.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(errors.mean())) < 0.01


def test_impossible_views_are_refused() -> None:
    with pytest.raises(SettingError, match="decimals"):
        View(decimals=-1)
    with pytest.raises(SettingError, match="top"):
        View(top=0)
    with pytest.raises(SettingError, match="noise"):
        View(noise=-0.1)


def test_what_was_asked_is_known() -> None:
    customer = asked(Spending(queries=2))
    customer.ask(ROWS[:3])
    assert customer.knows(ROWS[:4]).tolist() == [True, True, False, False]
    assert customer.knows(ROWS[:0]).tolist() == []
    assert customer.paid == 2
