"""Transfer sets: each row once, no more than can be paid, and copies of growing parts of one sequence."""

from __future__ import annotations

import math

import pytest
import torch
from tests.extraction.learned import draw, linear
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.customer import Answer, Customer, Shows, Spending, View
from redan.extraction.pools import UniformPool
from redan.extraction.surrogates import ByLogLoss
from redan.extraction.transfer import SoftTrainer, Teaching, TransferSet, shares
from redan.targets import Target
from redan.targets.torch import from_torch

ROWS = torch.rand(60, 6, generator=draw(0))
UNIT = (0.0, 1.0)


def asking(queries: int = 1000, *, spending: Spending | None = None, view: View | None = None) -> TransferSet:
    customer = Customer(linear(), spending or Spending(), classes=3, view=view or View())
    return TransferSet(customer, queries, (6,), UNIT)


def teaching(*, soft: bool = True, balanced: bool = False) -> Teaching:
    return Teaching(trainer=ByLogLoss(), shape=(6,), bounds=UNIT, soft=soft, balanced=balanced)


def test_a_row_is_asked_once() -> None:
    transfer = asking()
    assert transfer.buy(torch.cat([ROWS[:3], ROWS[:4]])).at.tolist() == [0, 1, 2, 6]
    assert transfer.buy(ROWS[2:5]).at.tolist() == [2]
    assert (transfer.paid, transfer.customer.paid) == (5, 5)
    assert len(transfer.first(1000)[0]) == 5


@pytest.mark.parametrize(
    ("queries", "spending"),
    [(7, Spending()), (1000, Spending(queries=7)), (9, Spending(usd=0.07, usd_per_1000_queries=10))],
)
def test_no_more_is_bought_than_can_be_paid(queries: int, spending: Spending) -> None:
    transfer = asking(queries, spending=spending)
    assert len(transfer.buy(ROWS[:5]).at) == 5
    assert transfer.buy(ROWS[5:20]).at.tolist() == [0, 1]
    assert not len(transfer.buy(ROWS[20:30]).at)
    assert (transfer.left, transfer.paid, transfer.customer.paid) == (0, 7, 7)


def test_known_rows_are_free() -> None:
    transfer = asking(4)
    transfer.customer.ask(ROWS[:2].double())
    assert transfer.buy(ROWS[:10]).at.tolist() == [0, 1, 2, 3, 4, 5]
    assert (transfer.paid, transfer.customer.paid) == (4, 6)
    x, answer, paid = transfer.first(1)
    assert (len(x), len(answer.labels), paid) == (3, 3, 1)


def test_filling_ends_where_a_pool_has_nothing_new() -> None:
    transfer = asking(50)
    transfer.fill(iter([ROWS[:10], ROWS[:10], ROWS[:12]]))
    assert transfer.paid == 12
    transfer.fill(ROWS[:5] for _ in iter(int, 1))  # without end
    assert transfer.paid == 12
    transfer.fill(iter([ROWS[:12], ROWS]))
    assert transfer.paid == 50


class _Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (4 * x[:, :3]).masked_fill(x[:, :1] > 0.5, torch.nan)


def test_rows_that_failed_are_paid_for_and_not_learned() -> None:
    customer = Customer(from_torch(_Failing().eval(), classes=3), Spending(), classes=3)
    transfer = TransferSet(customer, 20, (6,), UNIT)
    transfer.buy(ROWS)
    x, answer, paid = transfer.first(20)
    assert (paid, customer.paid) == (20, 20)
    assert torch.equal(x, ROWS[:20][ROWS[:20, 0] <= 0.5].double())
    assert bool(answer.answered.all())
    assert not bool(answer.shown.isnan().any())


def test_stages_are_copies_of_the_first_answers() -> None:
    transfer = asking(40)
    transfer.buy(ROWS)
    stages = transfer.stages(teaching(), (10, 25, 40), 0)
    assert [(stage.queries, stage.paid) for stage in stages] == [(10, 10), (25, 25), (40, 40)]
    for stage in stages:
        alone = asking(stage.queries)
        alone.buy(ROWS)
        (again,) = alone.stages(teaching(), (stage.queries,), 0)
        assert torch.equal(again.copy.target(ROWS.double()), stage.copy.target(ROWS.double()))


def test_stages_beyond_the_last_answer_are_the_last_copy() -> None:
    transfer = asking(90)
    transfer.buy(ROWS[:15])
    stages = transfer.stages(teaching(), (10, 20, 90), 0)
    assert [(stage.queries, stage.paid) for stage in stages] == [(10, 10), (20, 15), (90, 15)]
    assert stages[1].copy is stages[2].copy
    assert stages[0].copy is not stages[1].copy


@pytest.mark.parametrize("points", [(), (0, 3), (5, 3), (3, 3), (3, 41)])
def test_impossible_points_are_refused(points: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match="points must rise from 1 to 40"):
        asking(40).stages(teaching(), points, 0)


def test_of_nothing_a_copy_answers_the_first_class() -> None:
    (stage,) = asking(40).stages(teaching(), (40,), 0)
    assert stage.paid == 0
    assert stage.copy.target(ROWS.double()).argmax(1).tolist() == [0] * len(ROWS)


@pytest.mark.parametrize("soft", [True, False])
def test_of_one_label_a_copy_answers_that_label(soft: bool) -> None:
    transfer = asking(view=View(shows=Shows.LABELS))
    labels = transfer.customer.ask(ROWS.double()).labels
    transfer.buy(ROWS[labels == 2])
    (stage,) = transfer.stages(teaching(soft=soft), (1000,), 0)
    assert set(stage.copy.target(ROWS.double()).argmax(1).tolist()) == {2}


def test_probabilities_of_one_label_still_teach() -> None:
    transfer = asking()
    labels = transfer.customer.ask(ROWS.double()).labels
    transfer.buy(ROWS[labels == 2])
    (stage,) = transfer.stages(teaching(), (1000,), 0)
    assert float((stage.copy.target(ROWS.double()).argmax(1) == labels).double().mean()) > 0.95


class _Remembering:
    """A trainer of labels that keeps what it was given."""

    def __init__(self) -> None:
        self.labels: list[int] = []

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int) -> Target[Tensor]:
        self.labels = y.tolist()
        return linear()


def test_rare_labels_are_repeated_until_all_are_alike() -> None:
    trainer = _Remembering()
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    answer = Answer(torch.eye(3)[labels].double(), labels, labels >= 0)
    made = Teaching(trainer=trainer, shape=(6,), bounds=UNIT, soft=False, balanced=True)
    made.copy(ROWS[:8].double(), answer, asking().customer, 0)
    assert sorted(trainer.labels) == [0] * 5 + [1] * 5 + [2] * 5


def test_a_trainer_that_does_not_fit_is_refused() -> None:
    assert isinstance(ByLogLoss(), SoftTrainer)
    with pytest.raises(SettingError, match="learns from labels alone"):
        Teaching(trainer=_Remembering(), shape=(6,), bounds=UNIT, soft=True)
    with pytest.raises(SettingError, match="bounds"):
        Teaching.of(ByLogLoss(), UniformPool(shape=(6,), bounds=(0.0, 2.0)), soft=True)


def test_raw_numbers_become_probabilities_and_rounded_ones_stay() -> None:
    raw = torch.tensor([[0.0, math.log(3)]]).double()
    torch.testing.assert_close(shares(raw, View(shows=Shows.RAW)), torch.tensor([[0.25, 0.75]]).double())
    noisy = torch.tensor([[-0.1, 1.1]]).double()
    torch.testing.assert_close(shares(noisy, View()), torch.tensor([[0.0, 1.0]]).double())
