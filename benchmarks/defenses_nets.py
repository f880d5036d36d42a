"""The networks whose certificates are measured, as plain torch modules: redan and its peers build the same ones.

All map images (N, 1, 28, 28) in [0, 1] to logits (N, 10), freshly drawn and in training mode. The tiny ones map rows of
a few numbers, so that all they do can be written down. Nothing but torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def small() -> nn.Module:
    """Two convolutions of stride 2 and two linear layers, 42,000 parameters: asked millions of times under noise."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 49, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )


def plain() -> nn.Module:
    """The form of Wong and Kolter 2018 (arXiv:1711.00851), without batch normalization: redan's sample `cnn`."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def normalized() -> nn.Module:
    """The same with batch normalization behind each layer but the last."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 100),
        nn.BatchNorm1d(100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def pooled() -> nn.Module:
    """A convolution, a max pool, a convolution, an average pool and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 49, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalization, and a shortcut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def residual() -> nn.Module:
    """Three blocks behind a convolution, the form of redan's sample `residual`."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


FORMS: dict[str, Callable[[], nn.Module]] = {
    "small": small,
    "plain": plain,
    "normalized": normalized,
    "pooled": pooled,
    "residual": residual,
}
