"""What all norm balls share: the check of radius and box, the room for rounding, the box test, picking rows."""

from __future__ import annotations

import torch
from torch import Tensor

from redan.errors import SettingError

ULPS = 4


def checked(radius: float | Tensor, bounds: tuple[float, float]) -> None:
    """Raise SettingError unless the radius is finite and at least 0, and the box has a width."""
    values = torch.as_tensor(radius)
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise SettingError(f"a radius must be a finite number of at least 0, got {radius}; it is in units of the box")
    if not bounds[0] < bounds[1]:
        raise SettingError(f"bounds must be (low, high) with low < high, got {bounds}")


def rounding(x: Tensor, bounds: tuple[float, float]) -> float:
    """How far one coordinate may be off through rounding alone."""
    return ULPS * torch.finfo(x.dtype).eps * max(abs(bounds[0]), abs(bounds[1]))


def in_box(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Whether all coordinates lie in the box, exactly: (N,) bool."""
    flat = x.flatten(1)
    return (flat.amin(1) >= bounds[0]) & (flat.amax(1) <= bounds[1])


def taken(radius: float | Tensor, index: Tensor) -> float | Tensor:
    """The radius of some rows."""
    return radius[index] if isinstance(radius, Tensor) and radius.dim() else radius
