"""A linear model behind a linear detector: the nearest input that is accepted and wrong is a linear program."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from redan.rejection.detector import Scored
from redan.rejection.refusing import Refusing
from redan.targets import from_torch

WIDTH = 8


def served(seed: int = 0, slant: float = 0.7) -> tuple[Refusing, Tensor, Tensor]:
    """Class 1 where w · (x - ½) is above 0; refused where v · (x - ½) is above 0.02. slant: how far v is along w."""
    draw = torch.Generator().manual_seed(seed)
    w, other = torch.randn(2, WIDTH, generator=draw, dtype=torch.float64)
    w = w / w.norm()
    v = slant * w + (1 - slant**2) ** 0.5 * (other - (other @ w) * w) / (other - (other @ w) * w).norm()
    layer = nn.Linear(WIDTH, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-5 * w, 5 * w]))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    target = from_torch(layer.eval(), classes=2)
    detector = Scored(score=lambda x: (x - 0.5) @ v)
    return Refusing(target=target, detector=detector, threshold=0.02, scale=0.2), w, v


def rows(w: Tensor, v: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Clean rows that are class 0 and accepted."""
    x = 0.3 + 0.4 * torch.rand(40 * count, WIDTH, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    fine = ((x - 0.5) @ w < -0.03) & ((x - 0.5) @ v < 0)
    return x[fine][:count], torch.zeros(count, dtype=torch.int64)


def optimum(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """The least L∞ distance of each row from inputs in the box that are class 1 and accepted: (N,)."""
    found = []
    for row in x.numpy():
        each = np.eye(WIDTH)
        limits = np.block(
            [
                [-w.numpy()[None], np.zeros((1, 1))],
                [v.numpy()[None], np.zeros((1, 1))],
                [each, -np.ones((WIDTH, 1))],
                [-each, -np.ones((WIDTH, 1))],
            ]
        )
        room = np.concatenate(
            [
                [(row - 0.5) @ w.numpy(), 0.02 - (row - 0.5) @ v.numpy()],
                np.zeros(2 * WIDTH),
            ]
        )
        bounds = [*zip(-row, 1 - row, strict=True), (0, None)]
        found.append(linprog([0] * WIDTH + [1], A_ub=limits, b_ub=room, bounds=bounds).fun)
    return torch.tensor(found, dtype=torch.float64)
