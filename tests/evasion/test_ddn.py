"""DDN: near the optimum in L2 within few steps, and never below it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.evasion.ddn import DDN
from redan.perturbations.norms import L2
from redan.referee import Closest
from redan.testing import DoesNothing, FlippedSign, LinearVictim, SphereVictim, dual_l2


def distance(module: nn.Module, x: Tensor, y: Tensor, one: Any, bounds: tuple[float, float] = (0, 1)) -> Tensor:
    return attack(module, x, y, one, within=L2(math.inf), keep=Closest(), bounds=bounds, workers=1).distance


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.0, 5.0), (0.0, 255.0)])
def test_a_linear_model_in_thirty_steps(bounds: tuple[float, float]) -> None:
    victim = LinearVictim.drawn(0, bounds=bounds)
    x, y = victim.rows(24)
    best = victim.optimum(x, y, dual_l2)
    one = DDN(steps=30)
    ratio = distance(victim.module(), x, y, one, bounds) / best

    assert bool((ratio >= 1 - 1e-5).all())
    assert float(ratio.max()) < 1.05
    for mutant in (DoesNothing(one), FlippedSign(one), DDN(steps=5), DDN(steps=30, gamma=0.02)):
        assert float((distance(victim.module(), x, y, mutant, bounds) / best).max()) > 1.05, mutant


def test_a_sphere() -> None:
    victim = SphereVictim()
    x, y = victim.rows(24)
    ratio = distance(victim.module(), x, y, DDN(steps=60)) / victim.l2(x)

    assert bool((ratio >= 1 - 1e-5).all())
    assert float(ratio.max()) < 1.05


class _Flat(nn.Module):
    """Without a gradient where the sum of the inputs is below a bound: only noise leads away."""

    def forward(self, x: Tensor) -> Tensor:
        beyond = ((x - 0.5).square().sum(1) - 0.02).relu()
        return torch.stack([torch.full_like(beyond, 0.05), beyond], 1)


def test_a_plateau_is_left_by_noise() -> None:
    x, y = torch.full((6, 8), 0.5), torch.zeros(6, dtype=torch.int64)
    found = distance(_Flat().eval(), x, y, DDN(steps=60))

    assert bool((found >= math.sqrt(0.07) * (1 - 1e-5)).all())
    assert bool((found < math.sqrt(0.07) * 1.1).all())
