"""Orthogonal and balanced PGD: right angles in closed form, steps one by one, whose turn it is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.rejection.linear import rows, served
from torch import Tensor

from redan.engine.run import attack
from redan.errors import SettingError
from redan.evasion.orthogonal_pgd import BalancedPGD, Kept, OrthogonalPGD, orthogonal
from redan.losses import cross_entropy, margin
from redan.perturbations.norms import L2, Linf
from redan.protocols import Best, Loss, Reply
from redan.rejection.goal import Undetected
from redan.rows import Rows, Streams


@given(
    rows=st.lists(st.lists(st.floats(-9, 9), min_size=6, max_size=6), min_size=2, max_size=2),
    size=st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_what_is_left_is_at_a_right_angle(rows: list[list[float]], size: float) -> None:
    g, other = (torch.tensor([row], dtype=torch.float64).reshape(1, 2, 3) for row in rows)
    other = other * size
    found = orthogonal(g, other)
    length, far = float(g.norm()), float(other.norm())
    if far < 1e-100 or length < 1e-100:
        assert torch.equal(found, g)
        return
    unit = other / far
    left = g - (g * unit).sum() * unit
    if float(left.norm()) > 1e-5 * length:
        assert float((found * unit).sum().abs()) <= 1e-12 * length
        assert torch.allclose(found, left, atol=1e-9 * length)
        assert torch.allclose(orthogonal(found, other), found, atol=1e-12 * length)
    elif float(left.norm()) < 1e-7 * length:
        assert torch.equal(found, g)  # along the other, or against it: as it is


def test_rows_are_projected_each_by_itself() -> None:
    g, other = torch.tensor([[1.0, 1.0], [1.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert orthogonal(g, other).tolist() == [[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]]


class Watch:
    """A referee that lets rows go on, and remembers where they were."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.places: list[Tensor] = []

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        self.places.append(x)
        here = x.detach().requires_grad_()
        value = loss(rows.goal.scores(self.target(here)), rows.goal)
        slopes = [torch.autograd.grad(column.sum(), here, retain_graph=True)[0] for column in value.unbind(1)]
        return Reply(torch.stack(slopes, 1), value.detach(), torch.zeros(len(x), dtype=torch.bool))

    def reached(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        self.places.append(x)
        return torch.zeros(len(x), dtype=torch.bool)

    def survivors(self, rows: Any, *state: Any) -> Any:
        return rows, *state

    def scores(self, x: Tensor, rows: Any) -> Tensor:
        raise NotImplementedError

    def best(self, rows: Any) -> Best[Tensor]:
        raise NotImplementedError


def walked(attacks: OrthogonalPGD | BalancedPGD, x: Tensor, y: Tensor, target: Any, within: Any) -> list[Tensor]:
    watch: Any = Watch(target)
    goal = Undetected().about(y, target(x))
    attacks(watch, Rows(torch.arange(len(x)), x, goal, within, Streams.start(0, [str(i) for i in range(len(x))])))
    return list(watch.places)


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize("kept", list(Kept))
def test_a_step_in_l2_leaves_the_other_condition_as_it_is(kept: Kept, loss: Loss) -> None:
    target, w, v = served()
    x, y = rows(w, v, 12)
    steps, across = 30, 0
    climbs = OrthogonalPGD(steps=steps, rate=0.03, kept=kept, random_start=False, loss=loss)  # never at the surface
    places = walked(climbs, x, y, target, L2(1.0, (-9.0, 9.0)))
    assert len(places) == steps + 1
    for before, after in pairwise(places):
        moved = after - before
        wrong = 10 * ((before - 0.5) @ w) > 0.05
        for row in range(len(x)):
            along_w, along_v, length = float(moved[row] @ w), float(moved[row] @ v), float(moved[row].norm())
            if wrong[row]:
                across += 1
                assert along_v < 0  # its turn: under the threshold
                assert (abs(along_w) < 1e-9 * length) == (kept in (Kept.BOTH, Kept.DETECTOR))
            else:
                assert along_w > 0
                assert (abs(along_v) < 1e-9 * length) == (kept in (Kept.BOTH, Kept.ANSWER))
    assert across > 20


def test_the_detector_s_turn_can_come_by_the_clock() -> None:
    target, w, v = served()
    x, y = rows(w, v, 6)
    places = walked(OrthogonalPGD(steps=9, every=3, random_start=False), x, y, target, L2(1.0, (-9.0, 9.0)))
    for step, (before, after) in enumerate(pairwise(places)):
        along = (after - before) @ v
        assert bool((along < 0).all()) == (step % 3 == 0)


def test_steps_fall_to_a_tenth() -> None:
    target, w, v = served()
    x, y = rows(w, v, 3)
    places = walked(OrthogonalPGD(steps=10, rate=0.05, random_start=False), x, y, target, L2(1.0, (-9.0, 9.0)))
    lengths = [float((b - a)[0].norm()) for a, b in pairwise(places)]
    assert lengths == pytest.approx([0.05 * (1 - 0.09 * step) for step in range(10)])


def test_it_is_repeatable_and_its_cost_is_the_worst_case() -> None:
    target, w, v = served()
    x, y = rows(w, v, 8)
    for climbs in (OrthogonalPGD(steps=12), BalancedPGD(steps=12)):
        found, again = (attack(target, x, y, climbs, within=Linf(0.01), goal=Undetected(), workers=n) for n in (1, 2))
        assert torch.equal(found.adversarial, again.adversarial)
        assert found.queries.tolist() == [13] * 8
        assert found.backwards.tolist() == [24] * 8
        assert climbs.cost(2) == (13, 24)


def test_a_balanced_step_is_the_weighted_sum_of_both_directions() -> None:
    """In L2, on linear conditions: a along w and d against v, of length 1 each, with the weight a row is at."""
    target, w, v = served()
    x, y = rows(w, v, 6)
    climbs = BalancedPGD(steps=20, rate=0.03, first=0.5, pace=0.4, random_start=False)
    places = walked(climbs, x, y, target, L2(1.0, (-9.0, 9.0)))
    balance, changes = torch.full((6,), 0.5, dtype=torch.float64).log(), 0
    for step, (before, after) in enumerate(pairwise(places)):
        left = 1 - step / 20
        wrong, accepted = 10 * ((before - 0.5) @ w) > 0.05, (before - 0.5) @ v < 0.02
        change = 0.4 * left * (wrong.double() - accepted.double())
        balance, changes = balance + change, changes + int((change != 0).sum())
        toward = w / w.norm() - balance.exp()[:, None] * v / v.norm()
        length = 0.03 * (0.1 + 0.9 * left)
        assert torch.allclose(after - before, length * toward / toward.norm(dim=1, keepdim=True), atol=1e-9)
    assert changes > 20


def test_what_cannot_be_is_refused() -> None:
    target, w, v = served()
    x, y = rows(w, v, 4)
    for climbs in (OrthogonalPGD(), BalancedPGD()):
        with pytest.raises(SettingError, match="needs a goal that has them.*not Untargeted"):
            attack(target.target, x, y, climbs, within=Linf(0.1))
    with pytest.raises(SettingError, match="every 2 steps or more, got 1"):
        OrthogonalPGD(every=1)
