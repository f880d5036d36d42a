"""Sets of sparse changes, cut by the box that inputs live in: L1 by the sum of the changes, L0 by their number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from redan.perturbations.balls import ULPS, checked, in_box, limited, rounding, taken
from redan.protocols import per_row, wide
from redan.rows import Streams

_NEWTON_FIRST = 8  # rounds before every third one halves the bracket


def inward(gradient: Tensor, x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The gradient, 0 where x lies at a face of the box and the gradient points out of it."""
    low, high = bounds
    return gradient.masked_fill(((x <= low) & (gradient < 0)) | ((x >= high) & (gradient > 0)), 0)


def sparsest(gradient: Tensor, count: int | Tensor) -> Tensor:
    """The sign of the `count` (one, or one a row) largest coordinates of each row ÷ their number: of ℓ1 length 1.

    Equal coordinates at the threshold all count. 0 where the gradient is 0.
    """
    size = gradient.abs().flatten(1)
    counts = torch.as_tensor(count, device=size.device).expand(len(size)).clamp(1, size.shape[1])
    most = int(counts.max()) if len(counts) else 1
    threshold = size.topk(most, 1).values.gather(1, counts[:, None] - 1)
    signs = torch.where(wide(threshold[:, 0], gradient) <= gradient.abs(), gradient.sign(), 0)
    return signs / wide(signs.flatten(1).abs().sum(1).clamp_min(1), signs)


def _lowered(length: Tensor, room: Tensor, budget: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The t at which clamp(length - t, 0, room) sums up to the budget, from 0 on; and the largest t found below it.

    The sum falls in t and is piecewise linear, so Newton's method is exact on the last piece; it is neither convex
    nor concave, so a bracket holds it, from `low` up. A row that has settled waits for the others unchanged.
    """
    eps = torch.finfo(length.dtype).eps
    at, high = torch.zeros_like(budget), length.amax(1)
    going = torch.ones_like(budget, dtype=torch.bool)
    moved, turn = torch.empty_like(length), 0
    while bool(going.any()):
        torch.sub(length, at[:, None], out=moved).clamp_min_(0)
        torch.minimum(moved, room, out=moved)
        excess = moved.sum(1) - budget
        free = torch.lt(moved, room).logical_and_(moved).sum(1, dtype=length.dtype)  # those that t still shortens
        low, high = torch.where(excess >= 0, at, low), torch.where(excess >= 0, high, at)
        step = at + excess / free.clamp_min(1)
        newton = (step > low) & (step < high) & (turn < _NEWTON_FIRST or turn % 3 > 0)
        step = torch.where(newton, step, (low + high) / 2)
        going = going & (excess.abs() > eps * (ULPS * budget + free * at.abs())) & (step > low) & (step < high)
        at, turn = torch.where(going, step, at), turn + 1
    return at, low


@dataclass(frozen=True, slots=True)
class L1:
    """The absolute changes sum up to at most `radius`, inside the box.

    In the ball up to rounding: a few units in the last place of the box's magnitude for each coordinate.

    >>> import torch
    >>> L1(0.5).project(torch.tensor([[1.5, 0.75]]), torch.tensor([[0.75, 0.5]])).tolist()
    [[1.0, 0.75]]
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
        """The nearest point of ball and box, exactly (Croce and Hein 2021, arXiv:2103.01208, proposition 2.1).

        Each coordinate moves by clamp(|x - x0| - t, 0, its room up to the box's face) in its own direction, with the
        smallest t ≥ 0 that stays in the ball. The authors sort 2 D breakpoints; Newton's method takes a few passes.
        """
        low, high = self.bounds
        delta = x - x0
        budget = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device).expand(len(x))
        way, length = delta.sign(), delta.abs().flatten(1)
        # The room to the face that each coordinate moves toward: half the box's width, minus the offset from its
        # middle in that direction.
        room = (x0 - (low + high) / 2).mul_(way).sub_((high - low) / 2).neg_().clamp_min_(0).flatten(1)
        outside = torch.minimum(length, room).sum(1) > budget * (1 + 2 * ULPS * torch.finfo(x.dtype).eps)
        if not bool(outside.any()):
            return x.clamp(low, high)
        below = torch.zeros_like(budget)
        for _ in range(2):  # again on what is left: t is rounded at its own size, which may be far above the box's
            t, below = _lowered(length, room, budget, below)
            length, below = length - t[:, None], below - t
        moved = torch.minimum(length.clamp_min_(0), room).reshape(x.shape).mul_(way).add_(x0)
        return torch.where(wide(outside, x), moved, x).clamp_(low, high)  # a point inside stays as it is

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign of the largest coordinate, shared by equal ones; 0 where the gradient is 0.

        It leaves all coordinates but one as they are, and is deaf to the box: attacks that iterate use sparser
        steps than L2's and denser ones than this (`redan.evasion.pgd.direction`).
        """
        return sparsest(gradient, 1)

    def sample(self, x0: Tensor, draw: Streams) -> Tensor:
        """Uniform in the ball, then projected into the box (so denser on the box's faces than uniform).

        D signed exponential numbers, divided by the sum of their sizes and of one more (Barthe et al. 2005).
        """
        limited(self.radius)
        shape = x0.shape[1:]
        size = -torch.log1p(-draw.uniform((math.prod(shape) + 1,), x0.dtype))
        share = (size / size.sum(1, keepdim=True).clamp_min(torch.finfo(x0.dtype).tiny))[:, :-1].reshape(x0.shape)
        return self.project(x0 + per_row(self.radius, x0) * share * draw.signs(shape, x0.dtype), x0)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """Sum of the absolute changes: (N,)."""
        return (x - x0).flatten(1).abs().sum(1)

    def contains(self, x: Tensor, x0: Tensor, distance: Tensor | None = None) -> Tensor:
        distance = self.distance(x, x0) if distance is None else distance
        slack = rounding(x, self.bounds) * math.prod(x.shape[1:])
        radius = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device)
        near = distance <= radius * (1 + 2 * ULPS * torch.finfo(x.dtype).eps) + slack
        return near & in_box(x, self.bounds)


@dataclass(frozen=True, slots=True)
class L0:
    """At most `radius` coordinates change, by as much as the box allows.

    The radius is a count; a fraction of a coordinate allows none, so 2.7 means 2. Nothing is allowed for rounding: a
    coordinate has changed when its bits differ.

    >>> import torch
    >>> L0(1).project(torch.tensor([[3.0, 0.75]]), torch.tensor([[0.5, 0.25]])).tolist()
    [[1.0, 0.25]]
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

    def _first(self, size: Tensor) -> Tensor:
        """Whether each entry is among its row's `radius` largest, the earlier of equal ones first: (N, D) bool."""
        count = torch.as_tensor(self.radius, device=size.device).expand(len(size)).floor()
        whole = count >= size.shape[1]
        most = int(torch.where(whole, 0, count).clamp_min(1).amax()) if len(size) else 1
        last = size.topk(most, 1).values.gather(1, (count.clamp(1, most) - 1).long()[:, None])
        above, level = size > last, size == last
        left = count[:, None] - above.sum(1, keepdim=True)
        if bool((level.sum(1, keepdim=True) > left).any()):
            level &= level.cumsum(1) <= left
        return (above | level) & (count >= 1)[:, None] | whole[:, None]

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest point of the set, exactly; of several equally near, the one that keeps earlier coordinates.

        A coordinate that is kept goes to the box, c; that saves (x - x0)² - (x - c)², and the largest savings are
        kept.
        """
        low, high = self.bounds
        clipped = x.clamp(low, high)
        saved = ((clipped - x0) * ((x - x0) + (x - clipped))).flatten(1)
        kept = self._first(saved.masked_fill((clipped == x0).flatten(1), -1)).reshape(x.shape)
        return torch.where(kept, clipped, x0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The sign of the largest coordinate, times the box's width: one change, as large as one can be.

        ‖·‖₀ bounds no length, so the box does; the projection cuts the step off at its face.
        """
        return sparsest(gradient, 1) * (self.bounds[1] - self.bounds[0])

    def sample(self, x0: Tensor, draw: Streams) -> Tensor:
        """`radius` coordinates of each row, any as likely as any other, uniform in the box."""
        limited(self.radius)
        low, high = self.bounds
        kept = self._first(draw.uniform((math.prod(x0.shape[1:]),), x0.dtype)).reshape(x0.shape)
        return torch.where(kept, (low + (high - low) * draw.uniform(x0.shape[1:], x0.dtype)).clamp(low, high), x0)

    def distance(self, x: Tensor, x0: Tensor) -> Tensor:
        """How many coordinates differ: (N,)."""
        return (x != x0).flatten(1).sum(1, dtype=x.dtype)

    def contains(self, x: Tensor, x0: Tensor, distance: Tensor | None = None) -> Tensor:
        distance = self.distance(x, x0) if distance is None else distance
        radius = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device)
        return (distance <= radius) & in_box(x, self.bounds)
