"""The facade itself, against a referee written for the purpose: needs none of the libraries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import redan
from redan.errors import SetError, SettingError
from redan.goals import Deviate, Targeted, Untargeted
from redan.integrations.facade import Aimed, Cotangent, Facade, Over, Unaligned, aimed
from redan.integrations.peers import ball, order, peer_attack
from redan.protocols import Access, Reply, needs
from redan.rows import Rows, Streams, take

WEIGHT = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])  # two inputs, three scores


@dataclass
class Asked:
    """A linear model's referee: rows in `gone` are decided, rows in `silent` get no answer."""

    gone: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    log: list[tuple[str, list[int]]] = field(default_factory=list)

    def survivors(self, rows: Rows[Tensor, Any], *state: Any) -> Any:
        stay = torch.tensor([int(i) not in self.gone for i in rows.ids], dtype=torch.bool)
        return take(stay, rows, *state)

    def scores(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        self.log.append(("scores", rows.ids.tolist()))
        lost = torch.tensor([int(i) in self.silent for i in rows.ids], dtype=torch.bool)
        return (x @ WEIGHT).masked_fill(lost[:, None], torch.nan)

    def reached(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        self.log.append(("reached", rows.ids.tolist()))
        return rows.goal.reached(x @ WEIGHT)

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Any) -> Reply:
        self.log.append(("gradient", rows.ids.tolist()))
        x = x.clone().requires_grad_()
        with torch.enable_grad():
            value = loss(x @ WEIGHT, rows.goal)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return Reply(slope, value.detach(), rows.goal.reached(x.detach() @ WEIGHT))


def rows_of(count: int, goal: Any = None) -> Rows[Tensor, Any]:
    x0 = torch.arange(2.0 * count).reshape(count, 2) / 10
    truth = torch.arange(count) % 3
    streams = Streams.start(0, [str(i) for i in range(count)])
    return Rows(torch.arange(count), x0, goal or Untargeted(truth), redan.Linf(0.1), streams)


def test_forward_and_backward_are_the_model_s() -> None:
    referee, rows = Asked(), rows_of(4)
    facade = Facade(referee, rows, Access.GRADIENTS)
    x = rows.x0.clone().requires_grad_()
    cotangent = torch.arange(12.0).reshape(4, 3)
    scores = facade(x)
    assert torch.equal(scores, rows.x0 @ WEIGHT)
    (slope,) = torch.autograd.grad(scores, x, cotangent)
    assert torch.equal(slope, cotangent @ WEIGHT.T)
    assert [verb for verb, _ in referee.log] == ["scores", "gradient"]


def test_a_cotangent_goes_with_its_rows() -> None:
    goal = Cotangent(Untargeted(torch.tensor([0, 1, 2])), torch.arange(9.0).reshape(3, 3))
    some = goal.take(torch.tensor([2, 0]))
    assert some.weight.tolist() == [[6, 7, 8], [0, 1, 2]]
    scores = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert some.reached(scores).tolist() == [True, False]  # rows 2 and 0 of the goal it stands for
    assert some.right(scores).tolist() == [False, True]
    assert some.loss(scores).tolist() == [6, 0]


def test_decided_rows_are_not_asked_again() -> None:
    referee, rows = Asked(), rows_of(4)
    facade = Facade(referee, rows, Access.GRADIENTS)
    before = facade(rows.x0)
    x = (rows.x0 + 1).requires_grad_()
    scores = facade(x)
    referee.gone |= {1, 2}
    (slope,) = torch.autograd.grad(scores.sum(), x)
    assert slope[[1, 2]].abs().sum() == 0
    assert slope[[0, 3]].abs().sum() > 0
    assert referee.log[-1] == ("gradient", [0, 3])
    later = facade(rows.x0 + 2)
    assert torch.equal(later[[1, 2]], (rows.x0 + 1)[[1, 2]] @ WEIGHT)
    assert torch.equal(later[[0, 3]], (rows.x0 + 2)[[0, 3]] @ WEIGHT)
    assert not torch.equal(later[[1, 2]], before[[1, 2]])
    referee.gone |= {0, 3}
    with pytest.raises(Over):
        facade(rows.x0)


def test_rows_without_an_answer_keep_their_last() -> None:
    referee, rows = Asked(), rows_of(3)
    facade = Facade(referee, rows, Access.SCORES)
    before = facade(rows.x0)
    referee.silent = {1}
    after = facade(rows.x0 + 1)
    assert torch.equal(after[1], before[1])
    assert not bool(after.isnan().any())
    assert torch.equal(after[[0, 2]], (rows.x0 + 1)[[0, 2]] @ WEIGHT)


def test_a_row_alone_owns_all_its_candidates_and_many_rows_none() -> None:
    facade = Facade(Asked(), rows_of(3), Access.SCORES)
    with pytest.raises(Unaligned):
        facade(torch.zeros(2, 2))
    with pytest.raises(SetError, match="often images alone"):
        facade(torch.zeros(3, 1, 2))
    referee, one = Asked(), rows_of(3).take(torch.tensor([2]))
    facade, candidates = Facade(referee, one, Access.SCORES), torch.arange(10.0).reshape(5, 2)
    assert torch.equal(facade(candidates), candidates @ WEIGHT)
    assert referee.log == [("scores", [2] * 5)]
    assert facade(candidates[:0]).shape == (0, 3)
    referee.silent = {2}
    assert torch.equal(facade(candidates[:2]), (candidates[-1:] @ WEIGHT).expand(2, 3))


def test_labels_alone_are_decisions() -> None:
    rows = rows_of(3)
    facade = Facade(Asked(), rows, Access.LABELS)
    seen = facade(rows.x0)
    assert set(seen.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(seen.argmax(1) != rows.goal.truth, rows.goal.reached(rows.x0 @ WEIGHT))  # type: ignore[attr-defined]
    goal = Targeted(torch.tensor([2, 2, 1]), torch.tensor([0, 1, 2]))
    aim = Facade(Asked(), rows_of(3, goal), Access.LABELS)(rows.x0)
    assert torch.equal(aim.argmax(1) == goal.label, goal.reached(rows.x0 @ WEIGHT))
    x = rows.x0.clone().requires_grad_()
    assert not facade(x).requires_grad


def test_the_goal_in_their_words() -> None:
    truth = torch.tensor([0, 1])
    assert aimed(Untargeted(truth)) == Aimed(truth, truth, False)
    told = aimed(Targeted(2, truth))
    assert (told.label.tolist(), told.truth.tolist(), told.targeted) == ([2, 2], [0, 1], True)
    assert aimed(Deviate(0.5, right_values=torch.zeros(2))).label.tolist() == [0, 0]
    with pytest.raises(SettingError, match="leave or reach a class"):
        aimed(object())  # type: ignore[arg-type]  # a goal of somebody's that has no label


def test_norms() -> None:
    for p, kind in ((float("inf"), redan.Linf), (2, redan.L2), (1, redan.L1), (0, redan.L0)):
        assert ball(p) is kind
        assert order(kind(1)) == p
    with pytest.raises(SettingError, match="p = 3"):
        ball(3)
    with pytest.raises(SetError, match="Lp balls"):
        order(redan.Spatial(10, 1))  # type: ignore[arg-type]  # that is the point


def test_a_value_says_what_it_needs_and_equals_its_twin() -> None:
    made = [
        peer_attack(
            "Nudge", lambda facade, rows: rows.x0, library="nobody's 1", options="", access=access, within=redan.L2
        )
        for access in (Access.SCORES, Access.SCORES, Access.LABELS)
    ]
    assert [type(attack).__name__ for attack in made] == ["Nudge"] * 3
    assert needs(made[0]) == (Access.SCORES, redan.L2)
    assert needs(made[2]) == (Access.LABELS, redan.L2)
    assert type(made[0]) is type(made[1])
    with pytest.raises(AttributeError):
        made[0].alone = True  # type: ignore[attr-defined]  # frozen


def test_what_it_returns_is_shown_and_a_radius_of_nothing_is_not_asked() -> None:
    model = torch.nn.Linear(2, 2).eval()
    x = torch.rand(4, 2)
    y = model(x).argmax(1)
    shown: list[int] = []

    def run(facade: Facade, rows: Rows[Tensor, Any]) -> Tensor:
        shown.append(len(rows))
        return rows.x0 + 0.01

    attack = peer_attack("Nudge", run, library="", options="", access=Access.LABELS, within=redan.Linf)
    radii = torch.tensor([0.0, 0.1, 0.2, 0.1])
    found = redan.attack(model, x.clamp(0.1, 0.9), y, attack, within=redan.Linf(radii), workers=1)
    assert shown == [2, 1]
    assert found.queries.tolist() == [0, 1, 1, 1]
    wrong = peer_attack(
        "Cut", lambda _, rows: rows.x0[:1], library="", options="", access=Access.LABELS, within=redan.Linf
    )
    with pytest.raises(SetError, match="must change each row"):
        redan.attack(model, x, y, wrong, within=redan.Linf(0.1), workers=1)
