"""Transfer between members, and the whole beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.ensembles import Combine, Transfers, between, together, transfers
from redan.errors import SettingError
from redan.evasion.apgd import APGD
from redan.evasion.fgsm import FGSM
from redan.evasion.pgd import PGD
from redan.evidence.statistics import interval
from redan.perturbations.norms import Linf
from redan.referee import Worst
from redan.samples import fashion_mnist, model
from redan.targets import Target, from_torch

IMAGES, LABELS = (torch.from_numpy(rows[:24]) for rows in fashion_mnist())
NAMES = ("natural", "fast", "trades")
WITHIN = Linf(0.1)


@pytest.fixture(scope="module")
def trio() -> list[nn.Module]:
    return [model(name) for name in NAMES]


@pytest.fixture(scope="module")
def found(trio: list[nn.Module]) -> Transfers:
    return between(together(trio), IMAGES, LABELS, APGD(steps=10), within=WITHIN, workers=1)


def halves(*weights: tuple[float, float]) -> nn.Linear:
    """Two classes by the sign of w · x - 0.5 · sum(w)."""
    net = nn.Linear(2, 2).eval()
    w = torch.tensor(weights[0])
    with torch.no_grad():
        net.weight.copy_(torch.stack([-w, w]))
        net.bias.copy_(torch.stack([w.sum(), -w.sum()]) / 2)
    return net


def test_two_models_that_look_elsewhere_break_apart_and_two_alike_together() -> None:
    """One reads the first number, one the second: the other's number does not move, for its gradient is 0."""
    first, second = halves((1.0, 0.0)), halves((0.0, 1.0))
    x = torch.tensor([[0.6, 0.9], [0.6, 0.6], [0.9, 0.6], [0.2, 0.2]])
    y = torch.tensor([1, 1, 1, 0])
    made = transfers([first, second, first], x, y, FGSM(), within=Linf(0.15), names=("a", "b", "a again"))
    assert made.names == ("a", "b", "a again")
    assert made.right.all()
    assert [(made.rate(i, j).k, made.rate(i, j).n) for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))] == [
        (2, 4),
        (0, 4),
        (0, 4),
        (2, 4),
    ]
    assert torch.equal(made.broken[0, 2], made.broken[0, 0])
    assert made.rate(0, 0).interval == interval(2, 4)
    assert made.standing(0)[:2] == (2, 4)
    assert made.standing(0, 0, 1, 2)[:2] == (2, 4)


def test_only_rows_that_both_have_right_are_counted() -> None:
    first, other = halves((1.0, 0.0)), halves((-1.0, 0.0))
    x, y = torch.tensor([[0.6, 0.5], [0.9, 0.5], [0.4, 0.5]]), torch.tensor([1, 1, 1])
    made = transfers([first, other], x, y, FGSM(), within=Linf(0.15))
    assert made.right.tolist() == [[True, True, False], [False, False, True]]
    assert made.rate(0, 1)[:2] == (0, 0)
    assert (made.rate(0, 1).interval.low, made.rate(0, 1).interval.high) == (0, 1)
    assert made.rate(0, 0)[:2] == (1, 2)
    assert made.standing(0)[:2] == (1, 3)  # of all rows


def test_the_diagonal_is_a_plain_attack(found: Transfers, trio: list[nn.Module]) -> None:
    targets: list[Target[Tensor]] = [*(from_torch(net) for net in trio), together(trio)]
    for i, target in enumerate(targets):
        plain = attack(target, IMAGES, LABELS, APGD(steps=10), within=WITHIN, keep=Worst(), workers=1)
        assert torch.equal(found.broken[i, i], plain.success)
        right = found.right[i]
        first = attack(target, IMAGES, LABELS, APGD(steps=10), within=WITHIN, workers=1)
        assert found.rate(i, i)[:2] == (int((plain.success & right).sum()), int(right.sum()))
        assert int((first.success & right).sum()) == found.rate(i, i).k


def test_off_the_diagonal_it_is_the_other_model_s_answer(found: Transfers, trio: list[nn.Module]) -> None:
    made = attack(trio[0], IMAGES, LABELS, APGD(steps=10), within=WITHIN, keep=Worst(), workers=1).adversarial
    with torch.no_grad():
        wrong = trio[1](made).argmax(1) != LABELS
        right = (trio[0](IMAGES).argmax(1) == LABELS) & (trio[1](IMAGES).argmax(1) == LABELS)
    assert torch.equal(found.broken[0, 1], wrong)
    assert found.rate(0, 1)[:2] == (int((wrong & right).sum()), int(right.sum()))


def test_the_whole_falls_at_least_as_often_to_its_own_attack(found: Transfers) -> None:
    assert found.names == ("member 0", "member 1", "member 2", "whole")
    own = found.rate(3, 3)
    for member in range(3):
        rows = found.right[member] & found.right[3]
        assert int((found.broken[3, 3] & rows).sum()) >= found.rate(member, 3).k
    assert 0 < own.k < own.n
    assert found.standing(-1).k == own.n - own.k
    assert found.standing(-1, 0, 1, 2, 3).k <= found.standing(-1).k
    assert found.standing(-1, 0).k >= found.standing(-1).k


def test_members_of_other_types_are_shown_the_same_inputs() -> None:
    net = halves((1.0, 0.5))
    x, y = torch.rand(12, 2), torch.arange(12) % 2
    made = transfers([net, halves((1.0, 0.5)).double()], x, y, PGD(steps=4), within=Linf(0.2))
    assert torch.equal(made.right[0], made.right[1])
    assert torch.equal(made.broken[0, 1], made.broken[0, 0])


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_and_one_row(rows: int) -> None:
    net = halves((1.0, 0.0))
    x, y = torch.full((rows, 2), 0.6), torch.ones(rows, dtype=torch.int64)
    voted = together([from_torch(net, classes=2), net], Combine.VOTES)
    made = between(voted, x, y, PGD(steps=3), within=Linf(0.2))
    assert made.broken.shape == (3, 3, rows)
    assert made.rate(0, 2)[:2] == (rows, rows)
    assert made.standing(2)[:2] == (0, rows)


class Failing(nn.Module):
    """Answers NaN where the first number is above a line."""

    def __init__(self, line: float) -> None:
        super().__init__()
        self.inner, self.line = halves((1.0, 0.0)), line
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x)
        return answer.masked_fill(x[:, :1] > self.line, torch.nan)


def test_a_row_that_a_model_fails_on_is_not_counted() -> None:
    x, y = torch.tensor([[0.6, 0.5], [0.95, 0.5]]), torch.tensor([1, 1])
    made = transfers([halves((1.0, 0.0)), Failing(0.9)], x, y, FGSM(), within=Linf(0.15))
    assert made.right.tolist() == [[True, True], [True, False]]
    assert [made.rate(i, j).n for i in (0, 1) for j in (0, 1)] == [2, 1, 1, 1]
    assert made.standing(1)[:2] == (0, 2)
    assert not made.judged[1, 0, 1]


class Noisy(nn.Module):
    def __init__(self, noise: float = 0.01) -> None:
        super().__init__()
        self.inner, self.noise = halves((1.0, 0.0)), noise
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x + self.noise * torch.randn_like(x))
        return answer


def test_a_model_that_answers_at_random_is_judged_by_several_answers_and_repeats() -> None:
    random = from_torch(Noisy(), stochastic=True)
    x, y = torch.tensor([[0.6, 0.5], [0.9, 0.5]]), torch.tensor([1, 1])
    once, again = (
        between(together([random, halves((1.0, 0.0))]), x, y, PGD(steps=3), within=Linf(0.2), eot=2) for _ in range(2)
    )
    assert torch.equal(once.broken, again.broken)
    assert once.right.all()
    assert once.broken[:, :, 0].all()
    assert not once.broken[:, :, 1].any()


def test_a_row_that_one_answer_in_ten_has_wrong_is_right() -> None:
    rows = 100
    x, y = torch.full((rows, 2), 0.6), torch.ones(rows, dtype=torch.int64)
    x[:, 1] = torch.linspace(0, 1, rows)  # a name of its own for each
    random = from_torch(Noisy(0.1 / 1.2816), stochastic=True)
    made = transfers([halves((1.0, 0.0)), random], x, y, FGSM(), within=Linf(0.01))
    assert made.right.all()
    assert not made.broken.any()


def test_names_and_models_must_fit() -> None:
    some: dict[str, Any] = {"within": Linf(0.1)}
    x, y = torch.rand(2, 2), torch.tensor([0, 1])
    with pytest.raises(SettingError, match="1 names for 2 models"):
        transfers([halves((1.0, 0.0))] * 2, x, y, FGSM(), names=("one",), **some)
    with pytest.raises(SettingError, match="give one or more"):
        transfers([], x, y, FGSM(), **some)
