"""Gradients of a student that was taught by the target's answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.targets.base import Target
from redan.targets.stand_in import StandIn

_ROUNDS, _COPIES, _EPOCHS, _BATCH = 3, 8, 6, 64
_REACH = 0.1  # of the box: how far rows are moved
_ROWS = 128


def student(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """The target with the gradients of a small network that learned its answers around rows x (n, …).

    Each round asks the target about copies of the rows, moved at random, mixed, and along the student's own gradients
    (Jacobian-based augmentation: Papernot et al. 2017, arXiv:1602.02697, section 4), and goes on teaching. A few
    thousand queries; the answers and what counts as a win stay the target's. None for a single class or number.
    """
    x = x[:_ROWS].to(target.dtype)
    with torch.no_grad():
        classes = target(x[:4]).shape[1]
    if classes < 2 or x[0].numel() < 2:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(tuple(x.shape[1:]), classes).to(x)
        inputs, scores = x[:0], torch.empty(0, classes).to(x)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(_ROUNDS):
            fresh = _around(network, x, target.bounds)
            with torch.no_grad():
                answers = torch.cat([target(part) for part in torch.split(fresh, _BATCH)])
            inputs, scores = torch.cat([inputs, fresh]), torch.cat([scores, _shape(answers)])
            _teach(network, optimizer, inputs, scores)
    network.eval()
    for weight in network.parameters():
        weight.requires_grad_(False)
    return StandIn(target, network)


def _network(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two strided convolutions for images, one hidden layer for all else."""
    if len(shape) == 3 and min(shape[1:]) >= 8:
        return nn.Sequential(
            nn.Conv2d(shape[0], 16, 4, stride=2, padding=1), nn.Softplus(beta=10),
            nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.Softplus(beta=10),
            nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(32 * 49, 64), nn.Softplus(beta=10), nn.Linear(64, classes),
        )  # fmt: skip
    size = int(torch.Size(shape).numel())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 128), nn.Softplus(beta=10), nn.Linear(128, classes))


def _shape(scores: Tensor) -> Tensor:
    """Scores as the student learns them: about their mean, of an ordinary size."""
    scores = scores.nan_to_num()
    centered = scores - scores.mean(1, keepdim=True)
    return 3 * centered / centered.std(1, keepdim=True).clamp_min(1e-6)


def _around(network: nn.Module, x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Copies of the rows: moved at random, mixed with one another, and down the student's own gradients."""
    low, high = bounds
    reach, copies = _REACH * (high - low), [x]
    for at in range(_COPIES):
        if at % 4 == 0:
            share = torch.rand(len(x), *[1] * (x.dim() - 1)).to(x)
            moved = share * x + (1 - share) * x[torch.randperm(len(x))]
        elif at % 2:
            moved = x + reach * 2 * (torch.rand_like(x) - 0.5)
        else:
            moved = _descended(network, x, reach)
        copies.append(moved.clamp(low, high))
    return torch.cat(copies)


def _descended(network: nn.Module, x: Tensor, reach: float) -> Tensor:
    moved, top = x + reach * (torch.rand_like(x) - 0.5), network(x).detach().argmax(1)
    for _ in range(4):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(network(moved), top), moved)
        moved = (moved + reach / 2 * slope.sign()).clamp(x - reach, x + reach)
    return moved.detach()


def _teach(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, scores: Tensor) -> None:
    with torch.enable_grad():
        for _ in range(_EPOCHS):
            for at in torch.split(torch.randperm(len(x)), _BATCH):
                optimizer.zero_grad()
                functional.mse_loss(network(x[at]), scores[at]).backward()  # type: ignore[no-untyped-call]  # torch's
                optimizer.step()
