"""PDPGD: near the optimum of a linear model in each norm, and never below it."""

import math
from typing import Any

import pytest
from torch import Tensor

from redan.engine.run import attack
from redan.evasion.pdpgd import PDPGD
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.referee import Closest
from redan.testing import DoesNothing, FlippedSign, LinearVictim, dual_l2, dual_linf


@pytest.mark.parametrize(
    ("kind", "dual", "most"), [(Linf, dual_linf, 1.1), (L2, dual_l2, 1.05), (L1, lambda d: d.abs().amax(1), 1.2)]
)
def test_near_the_optimum_of_a_linear_model(kind: Any, dual: Any, most: float) -> None:
    victim = LinearVictim.drawn(0)
    x, y = victim.rows(24)
    best = victim.optimum(x, y, dual)

    def ratio(one: Any) -> Tensor:
        return attack(victim.module(), x, y, one, within=kind(math.inf), keep=Closest(), workers=1).distance / best

    one = PDPGD(steps=400)
    found = ratio(one)
    assert bool((found >= 1 - 1e-5).all())
    assert float(found.median()) < most
    for mutant in (DoesNothing(one), FlippedSign(one), PDPGD(steps=20)):
        assert float(ratio(mutant).median()) > most, mutant
