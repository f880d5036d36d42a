"""An attack in growing balls finds at a large radius what it finds at a small one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import redan
from redan import PGD, Linf
from redan.evasion.ladder import Ladder


class Moat(nn.Module):
    """Class 1 between 0.56 and 0.6 of the one pixel, and class 0, ever surer, outside."""

    def forward(self, x: Tensor) -> Tensor:
        off = (x.flatten(1).sum(1) - 0.58).abs() - 0.02
        return torch.stack([off, -off], 1)


def test_what_is_near_is_found_in_a_large_ball() -> None:
    x, y = torch.full((8, 1), 0.5), torch.zeros(8, dtype=torch.long)
    coarse = PGD(steps=3, rate=1.0, random_start=False)
    model = Moat().eval()
    found = {
        radius: redan.attack(model, x, y, coarse, within=Linf(radius)).success.sum().item() for radius in (0.08, 0.32)
    }
    assert found == {0.08: 8, 0.32: 0}  # the larger ball holds the smaller one
    ladder = Ladder(attack=coarse)
    assert redan.attack(model, x, y, ladder, within=Linf(0.32)).success.all()


def test_the_last_rung_is_the_attack_and_rungs_never_hurt() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(64, 1, 2, 2, generator=draw)
    y = model(x).argmax(1)
    plain = redan.attack(model, x, y, PGD(steps=5, random_start=False), within=Linf(0.2))
    alone, rungs = (
        redan.attack(model, x, y, Ladder(attack=PGD(steps=5, random_start=False), rungs=rungs), within=Linf(0.2))
        for rungs in ((1.0,), (0.25, 0.5, 1.0))
    )
    assert torch.equal(alone.adversarial, plain.adversarial)
    assert bool((rungs.success | ~plain.success).all())
    assert 0 < int(plain.success.sum()) < 64
    assert bool((rungs.distance[rungs.success] <= 0.2 + 1e-6).all())
