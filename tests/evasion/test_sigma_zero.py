"""σ-zero and the others in L0: near the fewest changes that a linear model needs, and never below."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from redan.engine.run import attack
from redan.evasion.fmn import FMN
from redan.evasion.pdpgd import PDPGD
from redan.evasion.sigma_zero import SigmaZero
from redan.perturbations.sparse import L0
from redan.referee import Closest
from redan.testing import DoesNothing, FlippedSign, LinearVictim

VICTIM = LinearVictim.drawn(0, shape=(40,))


def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels and the fewest coordinates that change the answer: those that gain most, each at its face."""
    x = torch.rand(40, 40, generator=torch.Generator().manual_seed(0))
    scores = VICTIM.module()(x).detach().double()
    y = scores.argmax(1)
    gap = (scores.gather(1, y[:, None]) - scores.gather(1, 1 - y[:, None]))[:, 0]
    weights = (VICTIM.weights[1 - y] - VICTIM.weights[y]).double()
    gain = (weights * torch.where(weights > 0, 1 - x, -x)).abs()
    fewest = (gain.sort(1, descending=True).values.cumsum(1) <= gap[:, None]).sum(1) + 1
    return x, y, fewest


@pytest.mark.parametrize(
    ("one", "more"), [(SigmaZero(steps=200), 1.0), (FMN(steps=100), 0.25), (PDPGD(steps=300), 1.5)], ids=str
)
def test_near_the_fewest_changes(one: Any, more: float) -> None:
    x, y, fewest = rows()
    assert len(set(fewest.tolist())) > 2

    def extra(value: Any) -> Tensor:
        found = attack(VICTIM.module(), x, y, value, within=L0(math.inf), keep=Closest(), workers=1)
        return found.distance - fewest

    found = extra(one)
    assert bool((found >= 0).all())
    assert float(found.mean()) <= more
    for mutant in (DoesNothing(one), FlippedSign(one)):
        assert float(extra(mutant).mean()) > more, mutant
