"""What all norm balls share: the check of radius and box, the room for rounding, the box test, picking rows."""

from __future__ import annotations

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.protocols import Ball

ULPS = 4


def checked(radius: float | Tensor, bounds: tuple[float, float]) -> None:
    """Raise SettingError unless the radius is at least 0 (`math.inf` is no limit), and the box has a width."""
    if not bool((torch.as_tensor(radius) >= 0).all()):
        raise SettingError(f"a radius must be a number of at least 0, got {radius}; it is in units of the box")
    if not bounds[0] < bounds[1]:
        raise SettingError(f"bounds must be (low, high) with low < high, got {bounds}")


def limited(radius: float | Tensor) -> None:
    """Raise SettingError where a radius is infinite: nothing can be drawn uniformly, nor stepped in such radii."""
    if bool(torch.as_tensor(radius).isinf().any()):
        raise SettingError(
            "in a set without limit there is no random start, and no radius to count steps in; give it a finite "
            "radius, or use an attack that looks for the smallest change (DDN, FMN, PDPGD, SigmaZero)"
        )


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


def farthest(within: Ball, x0: Tensor) -> Tensor:
    """The distance from each input to the farthest corner of the box, in the set's unit: (N,)."""
    low, high = within.bounds
    corner = torch.where(x0 < (low + high) / 2, high, low).to(x0.dtype)
    return within.distance(corner, x0)
