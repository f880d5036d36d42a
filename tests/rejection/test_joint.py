"""Joint attacks: the optimum of a linear program, a detector that sees one step and not two, and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.rejection.linear import optimum, rows, served
from tests.rejection.toys import EPSILON, blind_to_both, clean_rows, sees_all

from redan.engine.run import attack
from redan.errors import SettingError
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Sweep
from redan.evasion.orthogonal_pgd import BalancedPGD, Kept, OrthogonalPGD
from redan.evasion.pgd import PGD
from redan.goals import Untargeted
from redan.losses import margin
from redan.perturbations.norms import Linf
from redan.protocols import Attack, Cost, cost, needs
from redan.rejection.goal import Undetected, Unrefused
from redan.rejection.joint import Lagrangian, Penalized
from redan.rejection.refusing import refused
from redan.testing import DoesNothing, FlippedSign

SUM = Lagrangian(attack=PGD(steps=40, loss=margin))
JOINT: dict[str, Attack[Any, Any]] = {
    "margin": APGD(steps=60, loss=margin),
    "cross-entropy": APGD(steps=60),
    "sum": SUM,
    "orthogonal": OrthogonalPGD(steps=60, kept=Kept.BOTH),
    "detector": OrthogonalPGD(steps=60),
    "selective": OrthogonalPGD(steps=60, kept=Kept.NEITHER),
    "every": OrthogonalPGD(steps=60, every=2),
    "balanced": BalancedPGD(steps=60),
}
NEAR = {
    "margin": (1.05, 13),
    "cross-entropy": (1.05, 13),
    "sum": (1.3, 12),
    "detector": (1.3, 14),
    "orthogonal": (1.6, 14),
}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_optimum_of_a_linear_program_is_met(seed: int) -> None:
    """Model and detector are linear; of some rows the nearest input lies where both bind."""
    target, w, v = served(seed, slant=0.7 + 0.2 * seed)
    x, y = rows(w, v, 16)
    best, bare = optimum(x, w, v), optimum(x, w, 0 * v)
    assert int((best > 1.01 * bare).sum()) >= 2

    balanced = BalancedPGD(steps=100)
    assert int(attack(target, x, y, balanced, within=Linf(best * 1.15), goal=Undetected()).success.sum()) >= 15
    assert attack(target, x, y, balanced, within=Linf(best * 1.35), goal=Undetected()).success.all()
    for name in JOINT:
        assert not attack(target, x, y, JOINT[name], within=Linf(best * 0.999), goal=Undetected()).success.any()


@pytest.mark.parametrize("name", NEAR)
def test_the_others_come_near_where_the_detector_does_not_bind(name: str) -> None:
    target, w, v = served()
    x, y = rows(w, v, 16)
    factor, least = NEAR[name]
    found = attack(target, x, y, JOINT[name], within=Linf(optimum(x, w, v) * factor), goal=Undetected())
    assert int(found.success.sum()) >= least


@pytest.mark.parametrize("name", JOINT)
def test_what_one_step_shows_two_hide(name: str) -> None:
    """Known by construction: the model looks at the first number, the detector at the difference of both."""
    target, (x, y) = blind_to_both(), clean_rows(32)
    naive = attack(target.target, x, y, PGD(steps=20, random_start=False), within=Linf(EPSILON))
    assert naive.success.all()
    assert bool(refused(target(naive.adversarial)).all())

    joint = attack(target, x, y, JOINT[name], within=Linf(EPSILON), goal=Undetected())
    assert joint.success.all()
    answers = target(joint.adversarial)
    assert bool((answers.argmax(1) == 1).all())
    assert not attack(sees_all(), x, y, JOINT[name], within=Linf(EPSILON), goal=Undetected()).success.any()


def test_mutants_are_seen() -> None:
    """A penalty with its sign turned climbs what is refused; so does an attack on the model alone."""
    target, (x, y) = blind_to_both(), clean_rows(32)
    start = PGD(steps=20, random_start=False, loss=margin)
    mutants: list[Attack[Any, Any]] = [
        Lagrangian(attack=start, weights=(-3.0,)),
        Lagrangian(attack=start, weights=(0.0,)),
        FlippedSign(start),
        DoesNothing(start),
        FlippedSign(JOINT["balanced"]),
        FlippedSign(JOINT["detector"]),
    ]
    assert attack(target, x, y, Lagrangian(attack=start), within=Linf(EPSILON), goal=Undetected()).success.all()
    for mutant in mutants:
        assert not attack(target, x, y, mutant, within=Linf(EPSILON), goal=Undetected()).success.any()


def test_the_sum_is_a_margin_less_a_penalty() -> None:
    z = torch.tensor([[1.0, 3.0, 0.0, 4.0], [2.0, 1.0, 0.0, 0.5]])  # 1 above the threshold, and 1.5 below it
    about = Undetected(Untargeted()).about(torch.tensor([0, 0]), z)
    assert isinstance(about, Unrefused)
    goal = Penalized(about.goal, weight=3.0, slack=0.25)
    assert margin(goal.scores(z), goal).tolist() == [2 - 3 * 1.25, -1.0]
    assert goal.reached(z).tolist() == [False, False]
    (toward, other) = goal.ways(goal.scores(z), 2)
    assert toward.loss(toward.scores(z)).tolist() == [2 - 3 * 1.25, -1.0]  # the nearer class, as far
    assert bool((other.loss(other.scores(z)) < 0).all())


def test_what_it_costs_and_needs() -> None:
    inner = PGD(steps=10)
    assert cost(Lagrangian(attack=inner, weights=(1.0, 2.0)), 10) == Cost(22, 20)
    assert needs(Lagrangian(attack=inner)) == needs(inner)
    target, (x, y) = sees_all(), clean_rows(8)
    found = attack(target, x, y, Lagrangian(attack=inner, weights=(1.0, 2.0)), within=Linf(EPSILON), goal=Undetected())
    assert found.queries.tolist() == [22] * 8


def test_each_wrong_class_can_be_tried() -> None:
    target, (x, y) = blind_to_both(), clean_rows(8)
    for inner in (PGD(steps=20, loss=margin), Lagrangian(attack=PGD(steps=20, loss=margin))):
        assert attack(target, x, y, Sweep(inner), within=Linf(EPSILON), goal=Undetected()).success.all()


def test_a_goal_without_refusals_is_refused() -> None:
    x, y = clean_rows(4)
    with pytest.raises(SettingError, match="needs a model that refuses and the goal Undetected, not Untargeted"):
        attack(blind_to_both().target, x, y, SUM, within=Linf(EPSILON))
