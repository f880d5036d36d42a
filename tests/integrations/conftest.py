"""Rows whose fate is known, for a linear model; and the markers that this folder's tests use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

Rows = tuple[Tensor, Tensor]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "robustness: the plugin's own, where it is not installed as one")


@pytest.fixture
def linear() -> nn.Module:
    """Three scores, each the sum of two of six numbers: at L∞ ε a margin falls by 4 ε at the most."""
    model = nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3).repeat_interleave(2, 1))
    return model.eval()


@pytest.fixture
def known_rows() -> Callable[[int, int], Rows]:
    """(count, weak): rows (count, 6) in [0, 1] and classes; at L∞ 0.1 the last `weak` can be broken, and no other."""

    def make(count: int, weak: int) -> Rows:
        y = torch.arange(count) % 3
        own = torch.eye(3)[y].repeat_interleave(2, 1).bool()
        gap = torch.where(torch.arange(count) < count - weak, 0.5, 0.1)[:, None]  # margin: twice that, beside 0.4
        spread = 0.02 * torch.rand(count, 6, generator=torch.Generator().manual_seed(0))
        return torch.where(own, 0.4 + gap, 0.4) + spread, y

    return make
