"""Stages without a gradient, and what climbs through them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.errors import TargetError
from redan.evasion.pgd import PGD
from redan.perturbations.norms import Linf
from redan.samples import fashion_mnist, model
from redan.targets import StraightThrough, from_torch


def rounded(x: Tensor) -> Tensor:
    return (x * 8).round() / 8


def smooth(x: Tensor) -> Tensor:
    return x.sigmoid()


def test_it_answers_as_the_stage_and_climbs_as_the_stand_in() -> None:
    x = torch.rand(5, 3, requires_grad=True)
    for instead, slope in ((None, torch.ones_like(x)), (smooth, smooth(x) * (1 - smooth(x)))):
        stage = StraightThrough(rounded, instead)
        assert torch.equal(stage(x), rounded(x))
        assert torch.allclose(torch.autograd.grad(stage(x).sum(), x)[0], slope)


def test_a_rounded_input_no_longer_hides_a_network() -> None:
    images, labels = fashion_mnist()
    x, y = torch.from_numpy(images[:64]), torch.from_numpy(labels[:64])
    net = model("natural")

    class Rounds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rounded(x)

    def broken(stage: nn.Module) -> int:
        chain = nn.Sequential(stage, net).eval()
        return int(attack(chain, x, y, PGD(steps=20), within=Linf(0.1)).success.sum())

    hidden, climbed, bare = broken(Rounds()), broken(StraightThrough(rounded)), broken(nn.Identity())
    assert climbed > hidden + 20
    assert climbed >= bare - 6


@pytest.mark.parametrize("nested", [False, True])
def test_the_target_says_that_its_gradients_are_a_stand_in(nested: bool) -> None:
    stage = StraightThrough(rounded)
    module = nn.Sequential(nn.Sequential(stage), nn.Linear(3, 2)) if nested else nn.Sequential(stage, nn.Linear(3, 2))
    assert from_torch(module.eval()).surrogate
    assert not from_torch(nn.Linear(3, 2).eval()).surrogate


def test_a_stand_in_of_another_shape_is_refused() -> None:
    stage = StraightThrough(rounded, lambda x: x.sum(1, keepdim=True))
    with pytest.raises(TargetError, match=r"the stage answered \(5, 3\), and what is differentiated instead \(5, 1\)"):
        stage(torch.rand(5, 3, requires_grad=True))


def test_wrapping_switches_no_mode() -> None:
    inner = nn.Sequential(nn.Dropout().train(), nn.Identity().eval())
    inner.training = False
    StraightThrough(inner, nn.Dropout().train())
    assert (inner.training, inner[0].training, inner[1].training) == (False, True, False)


def test_a_stage_in_training_mode_is_not_hidden() -> None:
    assert StraightThrough(nn.Dropout()).training
    assert not StraightThrough(nn.Dropout().eval()).training
    assert not StraightThrough(rounded).training


def test_an_exact_stand_in_is_asked_alone_where_a_gradient_is_wanted() -> None:
    asked: list[str] = []

    def told(name: str, x: torch.Tensor) -> torch.Tensor:
        asked.append(name)
        return 2 * x

    stage = StraightThrough(lambda x: told("stage", x), lambda x: told("instead", x), exact=True)
    x = torch.ones(2, 3)
    assert torch.equal(stage(x), stage(x.clone().requires_grad_()))
    assert asked == ["stage", "instead"]
