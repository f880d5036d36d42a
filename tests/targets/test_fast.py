"""The cheaper gradient of one-channel convolutions: the plain one's numbers, or the plain one itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.answers import evaluate
from redan.engine.run import attack
from redan.evasion.pgd import PGD
from redan.goals import Untargeted
from redan.losses import cross_entropy
from redan.perturbations.norms import L2, Linf
from redan.runners.local import one_thread_each
from redan.samples import fashion_mnist, model
from redan.targets import TorchTarget, from_torch
from redan.targets.fast import OneChannel, agrees, may_help
from redan.targets.torch import accelerated


def gradient(target: TorchTarget, x: Tensor, y: Tensor) -> Tensor:
    return evaluate(target, x, micro=256, goal=Untargeted(y), loss=cross_entropy).gradient


def rows(count: int) -> tuple[Tensor, Tensor]:
    x, y = fashion_mnist()
    return torch.from_numpy(x[:count]), torch.from_numpy(y[:count])


@pytest.mark.parametrize("name", ["natural", "robust", "residual"])
def test_gradients_are_the_plain_ones(name: str) -> None:
    x, y = rows(64)
    plain = from_torch(model(name))
    fast = accelerated(plain, x[:2])
    assert isinstance(fast, TorchTarget)
    assert fast.fast
    one, other = gradient(plain, x, y), gradient(fast, x, y)
    largest = one.flatten(1).abs().amax(1)
    assert bool(((one - other).flatten(1).abs().amax(1) <= 1e-5 * largest).all())
    assert not torch.equal(one, other), "the fast path was not taken at all"


def test_gradients_do_not_depend_on_the_batch() -> None:
    x, y = rows(64)
    fast = accelerated(from_torch(model("natural")), x[:2])
    assert isinstance(fast, TorchTarget)
    with one_thread_each():
        whole = gradient(fast, x, y)
        for size in (1, 2, 3, 7, 16, 33):
            assert torch.equal(gradient(fast, x[:size], y[:size]), whole[:size]), size


@pytest.mark.parametrize("within", [Linf(0.1), L2(1.5)])
@pytest.mark.parametrize("name", ["natural", "robust"])
def test_no_verdict_changes(name: str, within: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(128)
    fast = attack(model(name), x, y, PGD(steps=20), within=within)
    monkeypatch.setattr("redan.engine.run.accelerated", lambda target, x: target)
    plain = attack(model(name), x, y, PGD(steps=20), within=within)
    assert int((fast.success != plain.success).sum()) <= 1  # a row on the very edge may fall on either side
    assert abs(int(fast.success.sum()) - int(plain.success.sum())) <= 1


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(1, 5, 3, stride=2, padding=1),
        nn.Conv2d(1, 4, (4, 3), stride=(2, 1), padding=(1, 0), bias=False),
        nn.Conv2d(1, 3, 5),
    ],
)
def test_every_geometry(convolution: nn.Conv2d) -> None:
    x = torch.rand(3, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    assert agrees(nn.Sequential(convolution, nn.Flatten()), x)
    assert agrees(nn.Sequential(convolution.double(), nn.Flatten()), x.double())


@pytest.mark.parametrize(
    "convolution",
    [nn.Conv2d(1, 4, 3, dilation=2), nn.Conv2d(1, 4, 3, padding="same"), nn.Conv2d(2, 4, 3, groups=2)],
)
def test_other_geometries_keep_the_plain_path(convolution: nn.Conv2d) -> None:
    x = torch.rand(2, convolution.in_channels, 9, 9).requires_grad_()
    with OneChannel():
        fast = convolution(x)
    plain = convolution(x)
    found = [torch.autograd.grad(z.square().sum(), x)[0] for z in (fast, plain)]
    assert torch.equal(*found)


class Purified(nn.Module):
    """Asks for a gradient of its own in the forward pass, through which it is differentiated again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x if x.requires_grad else x.detach().requires_grad_()
            step = torch.autograd.grad(self.conv(inner).square().sum(), inner, create_graph=True)[0]
        scores: Tensor = self.conv(x - 0.01 * step).mean((2, 3))
        return scores


def test_a_model_that_needs_more_of_autograd_keeps_the_plain_path() -> None:
    x = torch.rand(2, 1, 8, 8)
    target = from_torch(Purified().eval())
    found = accelerated(target, x)
    assert isinstance(found, TorchTarget)
    assert not found.fast


def test_what_cannot_gain_is_left_alone() -> None:
    color = from_torch(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval())
    assert not may_help(color.module)
    assert accelerated(color, torch.rand(2, 3, 8, 8)) is color
    noisy = replace(from_torch(model("natural")), stochastic=True)
    assert accelerated(noisy, torch.rand(2, 1, 28, 28)) is noisy
