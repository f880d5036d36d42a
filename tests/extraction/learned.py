"""Small victims and pools for extraction by examples, and trainers that take no time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from redan.extraction.label_only import linear_copy
from redan.extraction.trainers import ByAdam, SmallNetwork
from redan.targets import Target
from redan.targets.torch import TorchTarget, from_torch

CLASSES = 4
SHAPE = (1, 8, 8)
QUICK = ByAdam(network=SmallNetwork(channels=4, hidden=16), epochs=5, least_steps=80, rate=5e-3)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PROTOTYPES = torch.rand(CLASSES, *SHAPE, generator=draw(7))


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy prototypes (N, 1, 8, 8) and their classes."""
    y = torch.randint(CLASSES, (count,), generator=draw(seed))
    noise = 0.15 * torch.randn(count, *SHAPE, generator=draw(seed + 1000))
    return (0.5 * PROTOTYPES[y] + 0.25 + noise).clamp(0, 1), y


def nearest() -> TorchTarget:
    """A model of images that answers the nearest prototype's class."""
    centers = (0.5 * PROTOTYPES + 0.25).flatten(1)
    layer = nn.Linear(64, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(4 * centers)
        layer.bias.copy_(-2 * centers.square().sum(1))
    return from_torch(nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False), classes=CLASSES)


def linear(seed: int = 0, features: int = 6, classes: int = 3) -> Target[Tensor]:
    """A linear model of float64 whose classes meet near the middle of the unit box."""
    weights = 6 * torch.randn(classes, features, generator=draw(seed), dtype=torch.float64)
    return linear_copy(weights, -weights.sum(1) / 2, (features,), (0.0, 1.0)).target
