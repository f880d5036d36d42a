"""A model and detectors in the plane, where what any attack can do is known by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from redan.rejection.detector import Scored
from redan.rejection.refusing import Refusing
from redan.targets import TorchTarget, from_torch

ROWS = 100
EPSILON = 0.15  # in L∞


class Side(nn.Module):
    """Class 1 where the first number is above one half."""

    def forward(self, x: Tensor) -> Tensor:
        half = 10 * (x[:, 0] - 0.5)
        return torch.stack([-half, half], 1)


def side() -> TorchTarget:
    return from_torch(Side().eval(), classes=2)


def clean_rows(count: int = ROWS) -> tuple[Tensor, Tensor]:
    """Rows of class 0 near (0.4, 0.4), each on the line where both numbers are the same."""
    first = 0.38 + 0.04 * torch.arange(count) / count
    return torch.stack([first, first], 1), torch.zeros(count, dtype=torch.int64)


def off_the_line(x: Tensor) -> Tensor:
    """How far the first number is above the second: an attack that moves both is not seen."""
    return x[:, 0] - x[:, 1]


def to_the_right(x: Tensor) -> Tensor:
    """The first number itself: whatever crosses to class 1 is seen."""
    return x[:, 0]


LINE = Scored(score=off_the_line)
RIGHT = Scored(score=to_the_right)


def blind_to_both() -> Refusing:
    """Refuses more than 0.05 off the line. Crossing takes 0.08 to 0.12: alone it is seen, with the second it is not."""
    return Refusing(target=side(), detector=LINE, threshold=0.05, scale=0.1)


def sees_all() -> Refusing:
    """Refuses from 0.45 on, where all is still class 0."""
    return Refusing(target=side(), detector=RIGHT, threshold=0.45, scale=0.05)
