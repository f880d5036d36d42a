"""EAD: near the optimum in L1 of victims that know it, and sparse."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from redan.engine.run import attack
from redan.evasion.ead import EAD, shrunk
from redan.perturbations.sparse import L1
from redan.protocols import Attack
from redan.referee import Closest
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, FlippedSign, LinearVictim

ROUNDING = 1e-5


def test_the_threshold_brings_changes_to_zero_and_keeps_the_box() -> None:
    x0 = torch.tensor([[0.5, 0.5, 0.5, 0.9]])
    x = torch.tensor([[0.55, 0.9, 0.1, 1.4]])

    found = shrunk(x, x0, 0.1, (0.0, 1.0))

    assert torch.allclose(found, torch.tensor([[0.5, 0.8, 0.2, 1.0]]))
    assert float(found[0, 0]) == 0.5


def factors(one: Attack[Any, Any]) -> Tensor:
    """Distances over the optimum of a linear victim, whose nearest wrong answer changes a single coordinate."""
    victim = LinearVictim.drawn(3, shape=(16,))
    x, y = victim.rows(24)
    best = victim.optimum(x, y, lambda apart: apart.abs().amax(1))
    result = attack(victim.module(), x, y, one, within=L1(1e3), keep=Closest(), workers=1)
    return result.distance / best


def test_it_comes_near_the_optimum_of_a_linear_model() -> None:
    one = EAD(searches=8, steps=100)

    found = factors(one)

    assert float(found.min()) > 1 - ROUNDING
    assert float(found.median()) < 1.08
    # β = 0 is the L2 attack, whose changes are long in L1.
    for mutant in (DoesNothing(one), FlippedSign(one), replace(one, beta=0.0), replace(one, rate=0.0)):
        assert float(factors(mutant).median()) > 1.08


def test_its_changes_are_sparse() -> None:
    images, labels = fashion_mnist()
    result = attack(
        model("natural"),
        images[:48],
        labels[:48],
        EAD(searches=3, steps=50),
        within=L1(1e3),
        keep=Closest(),
        workers=1,
    )
    changed = (result.adversarial != torch.from_numpy(images[:48])).flatten(1).sum(1)

    assert bool(result.success.all())
    assert float(changed[result.distance > 0].float().median()) < 0.15 * 784
