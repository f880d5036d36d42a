"""PDPGD: near the optimum of a linear model in each norm, soon and however steep, and never below it."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from redan.engine.run import attack
from redan.evasion.pdpgd import PDPGD, _shrunk
from redan.perturbations.norms import L2, Linf
from redan.perturbations.proximal import proximal
from redan.perturbations.sparse import L1
from redan.referee import Closest
from redan.testing import DoesNothing, FlippedSign, LinearVictim, dual_l2, dual_linf

DUALS: dict[Any, Any] = {Linf: dual_linf, L2: dual_l2, L1: lambda d: d.abs().amax(1)}


@pytest.mark.parametrize(("kind", "most"), [(Linf, 1.1), (L2, 1.05), (L1, 1.2)])
def test_near_the_optimum_of_a_linear_model(kind: Any, most: float) -> None:
    victim = LinearVictim.drawn(0)
    x, y = victim.rows(24)
    best = victim.optimum(x, y, DUALS[kind])

    def ratio(one: Any) -> Tensor:
        return attack(victim.module(), x, y, one, within=kind(math.inf), keep=Closest(), workers=1).distance / best

    one = PDPGD(steps=400)
    found = ratio(one)
    assert bool((found >= 1 - 1e-5).all())
    assert float(found.median()) < most
    for mutant in (DoesNothing(one), FlippedSign(one), PDPGD(steps=20)):
        assert float(ratio(mutant).median()) > most, mutant


@pytest.mark.parametrize("slope", [1.0, 50.0])
@pytest.mark.parametrize(("kind", "most"), [(Linf, 1.1), (L2, 1.05), (L1, 1.1)])
def test_near_in_100_steps_however_steep_the_scores_are(kind: Any, most: float, slope: float) -> None:
    drawn = LinearVictim.drawn(1, shape=(60,))
    victim = replace(drawn, weights=drawn.weights * slope, bias=drawn.bias * slope)
    x, y = victim.rows(24)
    best = victim.optimum(x, y, DUALS[kind])

    def ratio(one: Any) -> float:
        found = attack(victim.module(), x, y, one, within=kind(math.inf), keep=Closest(), workers=1)
        return float((found.distance / best).median())

    assert ratio(PDPGD(steps=100)) < most
    assert ratio(PDPGD(steps=100, dual_rate=0.01)) > most  # whose weights have no time to balance


@pytest.mark.parametrize(("kind", "order"), [(L1, 1), (L2, 2), (Linf, math.inf)])
def test_rounds_toward_the_proximal_step_end_far_from_it(kind: Any, order: float) -> None:
    """Why it is exact here: five rounds of the plain operator in the metric, as the authors make, are no substitute."""
    draw = torch.Generator().manual_seed(0)
    change = torch.randn(64, 30, generator=draw, dtype=torch.float64)
    scale = 10 ** (-0.9 * torch.rand(64, 30, generator=draw, dtype=torch.float64))  # above both floors
    weight = 10 ** (-2 * torch.rand(64, generator=draw, dtype=torch.float64))
    unit, peak = DUALS[kind](scale), scale.amax(1)

    def cost(z: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(z, ord=order, dim=1)
        found: Tensor = (scale * (z - change).square()).sum(1) / 2 + weight * unit * length
        return found

    rounds, same = change, torch.ones_like(change)
    for _ in range(5):
        ahead = rounds - scale / peak[:, None] * (rounds - change)
        rounds = proximal(kind(math.inf), ahead, weight * unit / peak, same)
    best = cost(_shrunk(kind(math.inf), change, scale, weight))
    assert bool((cost(rounds) >= best - 1e-9).all())
    assert float((cost(rounds) / best).median()) > 1.0005


def test_a_coordinate_without_a_slope_can_leave_zero() -> None:
    """The floor of the metric: without it the weight of a coordinate that the gradient passes by has no bound."""
    change, scale = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 1e-8]])
    for within in (L1(math.inf), L2(math.inf), Linf(math.inf)):
        assert bool((_shrunk(within, change, scale, torch.tensor([1e-3])) > 0.2).all())
