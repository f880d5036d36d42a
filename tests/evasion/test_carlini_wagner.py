"""Carlini and Wagner's three attacks: near the optimum of victims that know it, and past a distilled network."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import AttackResult, attack
from redan.evasion.carlini_wagner import CarliniWagnerL2
from redan.evasion.carlini_wagner_l0 import CarliniWagnerL0
from redan.evasion.carlini_wagner_linf import CarliniWagnerLinf
from redan.evasion.fgsm import FGSM
from redan.evasion.pgd import PGD
from redan.goals import Targeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0
from redan.protocols import Attack, Ball, Loss, Reply
from redan.referee import Closest
from redan.rows import Rows
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, FlippedSign, GridVictim, LinearVictim, SphereVictim, dual_l2, dual_linf

ROUNDING = 1e-5
ANY: dict[Any, Ball] = {Linf: Linf(100.0), L2: L2(100.0), L0: L0(1e6)}
LINEAR = LinearVictim.drawn(3, shape=(16,))


def nearest(one: Attack[Any, Any], victim: nn.Module, x: Tensor, y: Tensor, kind: Any, **options: Any) -> AttackResult:
    """The smallest distances, with no limit."""
    return attack(victim, x, y, one, within=ANY[kind], keep=Closest(), workers=1, **options)


# (attack, its set, the dual norm, within how many times the optimum of a linear victim: median, worst)
KNOWN: list[tuple[Any, Any, Any, float, float]] = [
    (CarliniWagnerL2(searches=8, steps=60), L2, dual_l2, 1.01, 1.08),
    (CarliniWagnerLinf(steps=400), Linf, dual_linf, 1.04, 1.12),
]


@pytest.mark.parametrize(("one", "kind", "dual", "median", "worst"), KNOWN)
def test_it_comes_near_the_optimum_of_a_linear_model(
    one: Any, kind: Any, dual: Any, median: float, worst: float
) -> None:
    x, y = LINEAR.rows(24)

    def factors(of: Attack[Any, Any]) -> Tensor:
        return nearest(of, LINEAR.module(), x, y, kind).distance / LINEAR.optimum(x, y, dual)

    found = factors(one)
    assert float(found.min()) > 1 - ROUNDING
    assert float(found.median()) < median
    assert float(found.max()) < worst
    for mutant in (DoesNothing(one), FlippedSign(one), replace(one, rate=0.0)):
        assert float(factors(mutant).median()) > median


def test_a_single_c_is_not_enough() -> None:
    """The search over c is what brings a success near: the first c presses far past the boundary."""
    x, y = LINEAR.rows(24)
    one = CarliniWagnerL2(searches=1, steps=480)

    found = nearest(one, LINEAR.module(), x, y, L2).distance / LINEAR.optimum(x, y, dual_l2)

    assert float(found.median()) > 1.01


@pytest.mark.slow
def test_it_comes_near_a_sphere_and_a_net_solved_on_a_grid() -> None:
    sphere = SphereVictim()
    x, y = sphere.rows(16)
    factors = nearest(KNOWN[0][0], sphere.module(), x, y, L2).distance / sphere.l2(x)
    assert float(factors.min()) > 1 - ROUNDING
    assert float(factors.max()) < 1.08

    grid = GridVictim.drawn(1)
    x, y = grid.rows(16)
    for one, kind, order in ((KNOWN[0][0], L2, 2), (KNOWN[1][0], Linf, math.inf)):
        known = grid.optimum(x, y, order)
        distance = nearest(one, grid.module(), x, y, kind).distance
        assert bool((distance >= known.low - ROUNDING).all())
        finite = known.high.isfinite()
        assert bool(distance[finite].isfinite().all())
        assert float((distance[finite] / known.high[finite]).median()) < 1.25  # it climbs one piece of many


def fewest(x: Tensor, y: Tensor) -> Tensor:
    """How many coordinates suffice on the linear victim: each moved to its face, the most useful first."""
    apart = (LINEAR.weights[1] - LINEAR.weights[0]) * (1 - 2 * y)[:, None]
    room = torch.where(apart > 0, 1 - x, x)
    gains = (apart.abs() * room).sort(1, descending=True).values.cumsum(1)
    with torch.no_grad():
        scores = LINEAR.module()(x)
    gap = (scores[:, 0] - scores[:, 1]).abs()
    count: Tensor = (gains < gap[:, None]).sum(1) + 1
    return count


def test_l0_changes_few_more_coordinates_than_suffice() -> None:
    x, y = LINEAR.rows(24)
    least = fewest(x, y)

    result = nearest(CarliniWagnerL0(steps=200), LINEAR.module(), x, y, L0)
    again = nearest(CarliniWagnerL0(steps=60), LINEAR.module(), x, y, L0)

    assert bool((result.distance >= least).all())
    assert float(result.distance.sum() / least.sum()) < 1.15
    assert bool((again.distance >= result.distance).all())  # a longer run begins as the shorter one
    assert float(nearest(CarliniWagnerL0(steps=8), LINEAR.module(), x, y, L0).distance.sum() / least.sum()) > 1.15


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        (CarliniWagnerL2(searches=4, steps=40), L2),
        (CarliniWagnerLinf(steps=120), Linf),
        (CarliniWagnerL0(steps=60), L0),
    ],
)
def test_the_scale_of_the_scores_makes_no_difference(one: Any, kind: Any) -> None:
    """Distilled and rescaled networks answer logits 100 times larger: c finds its own scale, bit for bit."""
    victim = LinearVictim.drawn(5, shape=(2, 4, 3), classes=4)
    x, y = victim.rows(12)
    louder = replace(victim, weights=victim.weights * 128, bias=victim.bias * 128)

    plain, loud = (nearest(one, each.module(), x, y, kind) for each in (victim, louder))

    assert torch.equal(plain.adversarial, loud.adversarial)
    assert bool(plain.success.all())


def test_a_win_inside_a_radius_ends_a_row_and_targets_are_met() -> None:
    victim = LinearVictim.drawn(7, shape=(12,), classes=4)
    x, y = victim.rows(16)
    one = CarliniWagnerL2(searches=6, steps=40)
    target = (y + 1) % 4

    whole = nearest(one, victim.module(), x, y, L2, goal=Targeted(target))
    early = attack(victim.module(), x, y, one, within=L2(whole.distance * 1.2), goal=Targeted(target), workers=1)

    with torch.no_grad():
        assert torch.equal(victim.module()(whole.adversarial).argmax(1), target)
    assert bool(early.success.all())
    assert bool((early.queries < whole.queries).all())


@dataclass(frozen=True, slots=True)
class _Seen:
    """Hands every question on and remembers the largest loss."""

    attack: Attack[Any, Any]
    losses: list[float]

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        seen = self

        class Passing:
            reached, survivors = staticmethod(referee.reached), staticmethod(referee.survivors)

            def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
                reply: Reply = referee.gradient(x, rows, loss)
                seen.losses.append(float(reply.loss.min()))
                return reply

        self.attack(Passing(), rows)


def test_confidence_presses_past_the_goal() -> None:
    x, y = LINEAR.rows(8)
    last = {}
    for confidence in (0.0, 2.0):
        losses: list[float] = []
        one = CarliniWagnerL2(searches=1, steps=120, confidence=confidence)
        nearest(_Seen(one, losses), LINEAR.module(), x, y, L2)
        last[confidence] = losses[-1]

    assert -0.05 < last[0.0] < 0.2
    assert 1.9 < last[2.0] < 2.4


@pytest.mark.slow
def test_distillation_hides_gradients_from_cross_entropy_and_nothing_from_the_logits() -> None:
    """Carlini and Wagner 2017, section VIII: 100 % of a distilled network (T = 100) is broken."""
    images, labels = fashion_mnist()
    x, y = torch.from_numpy(images[:160]), torch.from_numpy(labels[:160])
    victim = model("distilled")
    leaf = x.clone().requires_grad_()
    scores = victim(leaf)
    right = scores.argmax(1) == y
    (slopes,) = torch.autograd.grad(nn.functional.cross_entropy(scores, y, reduction="sum"), leaf)
    silent = (slopes.flatten(1).abs().amax(1) == 0)[right]

    assert float(silent.float().mean()) > 0.75
    for weak in (FGSM(), PGD()):
        broken = attack(victim, x, y, weak, within=Linf(0.1), workers=1).success[right]
        assert float(broken.float().mean()) < 0.3
    result = nearest(CarliniWagnerL2(searches=3, steps=50), victim, x, y, L2)
    assert bool(result.success.all())
    assert float(result.distance[right].median()) < 0.75  # 0.6 on the network trained without
