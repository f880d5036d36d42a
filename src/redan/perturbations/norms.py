"""Norm balls around each input, cut by the box that inputs live in: L∞ and L2.

Radii are in units of the box (an ε of 8/255 on images in [0, 1]); one number, or one a row (N,).
A point belongs to a set when it lies in the box exactly and in the ball up to rounding: a few units in the
last place of the inputs' type at the box's largest magnitude, in each coordinate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from redan.perturbations.balls import ULPS, checked, in_box, limited, rounding, taken
from redan.protocols import per_row, wide
from redan.rows import Streams

_SMALL, _LARGE = 1e-12, 1e12  # lengths whose squares are safe in single precision


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return length


@dataclass(frozen=True, slots=True)
class Linf:
    """Every coordinate within `radius` of its own clean value, and inside the box.

    >>> import torch
    >>> Linf(0.1).project(torch.tensor([[0.5, 2.0]]), torch.tensor([[0.2, 0.95]])).tolist()
    [[0.30000001192092896, 1.0]]
    """

    radius: float | Tensor
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checked(self.radius, self.bounds)

    def sized(self, radius: float | Tensor) -> Self:
        return replace(self, radius=radius)

    def inside(self, bounds: tuple[float, float]) -> Self:
        return replace(self, bounds=bounds)

    def take(self, index: Tensor) -> Self:
        return replace(self, radius=taken(self.radius, index))

    def _edges(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        radius = per_row(self.radius, x0)
        return (x0 - radius).clamp_min(self.bounds[0]), (x0 + radius).clamp_max(self.bounds[1])

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest point of ball and box, exactly (in every norm at once)."""
        low, high = self._edges(x0)
        return torch.clamp(x, low, high)

    def steepest(self, gradient: Tensor) -> Tensor:
        """sign(g)."""
        return gradient.sign()

    def sample(self, x0: Tensor, draw: Streams) -> Tensor:
        """Uniform in ball and box."""
        limited(self.radius)
        low, high = self._edges(x0)
        return low + (high - low) * draw.uniform(x0.shape[1:], x0.dtype)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """Largest change of a coordinate: (N,)."""
        return (x - x0).flatten(1).abs().amax(1)

    def contains(self, x: Tensor, x0: Tensor, distance: Tensor | None = None) -> Tensor:
        distance = self.distance(x, x0) if distance is None else distance
        radius = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device)
        return (distance <= radius + rounding(x, self.bounds)) & in_box(x, self.bounds)


@dataclass(frozen=True, slots=True)
class L2:
    """Euclidean distance of at most `radius` from the clean input, and inside the box.

    >>> import torch
    >>> L2(1.0).project(torch.tensor([[3.0, 0.5]]), torch.tensor([[0.5, 0.5]])).tolist()
    [[1.0, 0.5]]
    """

    radius: float | Tensor
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checked(self.radius, self.bounds)

    def sized(self, radius: float | Tensor) -> Self:
        return replace(self, radius=radius)

    def inside(self, bounds: tuple[float, float]) -> Self:
        return replace(self, bounds=bounds)

    def take(self, index: Tensor) -> Self:
        return replace(self, radius=taken(self.radius, index))

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest point of ball and box, exactly.

        It is clamp(x0 + t·(x - x0)) with the largest t in (0, 1] that stays in the ball. In s = t² the squared
        length is concave and piecewise linear, so Newton's method from below ends after a few exact steps.
        """
        low, high = self.bounds
        delta = x - x0
        power = delta.square().flatten(1)
        budget = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device).square()
        tiny, ulps = torch.finfo(x.dtype).tiny, 8 * torch.finfo(x.dtype).eps
        scale = (budget / power.sum(1).clamp_min(tiny)).clamp_max(1)
        if bool((scale == 1).all()):
            return x.clamp(low, high)
        # The squared room to the face that each coordinate moves toward: half the box's width, minus the offset
        # from its middle in that direction.
        room = (x0 - (low + high) / 2).mul_(delta.sign()).sub_((high - low) / 2).square_().flatten(1)
        mask = torch.empty_like(power)
        while True:
            spent = torch.linalg.vecdot(torch.mul(power, scale[:, None], out=mask).ge_(room), room)
            slope = torch.linalg.vecdot(mask.neg_().add_(1), power)
            better = ((budget - spent) / slope.clamp_min(tiny)).clamp_max_(1)
            grown = better > scale * (1 + ulps)
            if not bool(grown.any()):
                break
            scale = torch.where(grown, better, scale)
        moved = torch.addcmul(x0, delta, wide(scale.sqrt(), x))
        return torch.where(wide(scale < 1, x), moved, x).clamp_(low, high)  # a point inside stays as it is

    def steepest(self, gradient: Tensor) -> Tensor:
        """g / ‖g‖₂; 0 where the gradient is 0."""
        length = _length(gradient)
        extreme = ~((length > _SMALL) & (length < _LARGE))  # its squares may have run under or over
        if bool(extreme.any()):
            peak = gradient.flatten(1).abs().amax(1)
            scaled = gradient / wide(torch.where(peak > 0, peak, 1), gradient)
            gradient = torch.where(wide(extreme, gradient), scaled, gradient)
            length = _length(gradient)
        return gradient / wide(torch.where(length > 0, length, 1), gradient)

    def sample(self, x0: Tensor, draw: Streams) -> Tensor:
        """Uniform in the ball, then projected into the box (so denser on the box's faces than uniform)."""
        limited(self.radius)
        direction = self.steepest(draw.normal(x0.shape[1:], x0.dtype))
        length = (draw.uniform((), torch.float64) ** (1 / math.prod(x0.shape[1:]))).to(x0.dtype)
        return self.project(x0 + per_row(length * self.radius, x0) * direction, x0)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """Euclidean length of the change: (N,)."""
        return _length(x - x0)

    def contains(self, x: Tensor, x0: Tensor, distance: Tensor | None = None) -> Tensor:
        distance = self.distance(x, x0) if distance is None else distance
        slack = rounding(x, self.bounds) * math.sqrt(math.prod(x.shape[1:]))
        radius = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device)
        near = distance <= radius * (1 + 2 * ULPS * torch.finfo(x.dtype).eps) + slack
        return near & in_box(x, self.bounds)
