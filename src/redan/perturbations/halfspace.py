"""The shortest way from a point to a hyperplane inside the box, in L∞, L2 and L1, and how far it is without a box.

Attacks by linearization take a model for flat and step onto its decision boundary (Croce and Hein 2020,
arXiv:1907.02044, section 3.1 and appendix A). The authors sort the coordinates; Newton's method (L∞, L2) and
bisection (L1) find the same point in a few passes over memory.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from redan.errors import SetError
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Ball, wide


@singledispatch
def dual(within: Ball, normal: Tensor) -> Tensor:  # noqa: ARG001
    """Length of normals (…, D) in the norm dual to the set's: (…). A gap of scores ÷ it is the way to a hyperplane.

    Raises SetError for a set that has no linear steps.

    >>> dual(Linf(0.1), torch.tensor([[3.0, -4.0]])), dual(L2(0.1), torch.tensor([[3.0, -4.0]]))
    (tensor([7.]), tensor([5.]))
    """
    raise SetError(f"no way to a hyperplane is known in {type(within).__name__}; use Linf, L2 or L1")


@dual.register
def _(within: Linf, normal: Tensor) -> Tensor:  # noqa: ARG001
    return normal.abs().sum(-1)


@dual.register
def _(within: L2, normal: Tensor) -> Tensor:  # noqa: ARG001
    length: Tensor = torch.linalg.vector_norm(normal, dim=-1)
    return length


@dual.register
def _(within: L1, normal: Tensor) -> Tensor:  # noqa: ARG001
    return normal.abs().amax(-1)


def crossing(within: Ball, x: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    """The shortest move from x (N, …) inside the box with normal · move = gap: (N, …).

    normal: (N, …); gap: (N,), of either sign. Where the box ends before the hyperplane the move goes to the box's
    faces, as near as it can. It is 0 where the normal or the gap is 0, or the gap is no finite number.

    >>> crossing(L2(1.0), torch.tensor([[0.5, 0.875]]), torch.tensor([[1.0, 1.0]]), torch.tensor([0.375])).tolist()
    [[0.25, 0.125]]
    """
    low, high = within.bounds
    gap = torch.where(gap.isfinite(), gap, 0)
    way = (normal * wide(gap.sign(), normal)).sign()
    size = normal.flatten(1).abs()
    peak = size.amax(1)
    peak = torch.where(peak > 0, peak, 1)  # so that squares neither run over nor under
    room = torch.where(way > 0, high - x, x - low).clamp_min_(0).flatten(1)
    needed = (gap.abs() / peak).clamp_max(torch.finfo(x.dtype).max)
    return _lengths(within, size / peak[:, None], room, needed).reshape(x.shape).mul_(way)


@singledispatch
def _lengths(within: Ball, size: Tensor, room: Tensor, gap: Tensor) -> Tensor:  # noqa: ARG001
    """How far each coordinate goes, at most its room, so that size · lengths = gap and the set's norm is least."""
    raise SetError(f"no way to a hyperplane is known in {type(within).__name__}; use Linf, L2 or L1")


@_lengths.register
def _(within: Linf, size: Tensor, room: Tensor, gap: Tensor) -> Tensor:  # noqa: ARG001
    """All as far as the others."""
    return _grown((size > 0).to(size.dtype), size, room, gap)


@_lengths.register
def _(within: L2, size: Tensor, room: Tensor, gap: Tensor) -> Tensor:  # noqa: ARG001
    """Each in proportion to its size."""
    return _grown(size, size, room, gap)


@_lengths.register
def _(within: L1, size: Tensor, room: Tensor, gap: Tensor) -> Tensor:  # noqa: ARG001
    """The largest first, each to the end of its room.

    The size of the last one that moves is bisected to neighboring numbers; equal ones share what is left.
    """
    gains = size * room
    low, high = torch.full_like(gap, -1.0), size.amax(1)
    while True:
        middle = (low + high) / 2
        if not bool(((low < middle) & (middle < high)).any()):
            break
        enough = torch.linalg.vecdot((size > middle[:, None]).to(size.dtype), gains) >= gap
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    whole = (size > high[:, None]).to(size.dtype)
    part = (size > low[:, None]).to(size.dtype) - whole
    left = (gap - torch.linalg.vecdot(whole, gains)).clamp_min(0)
    share = (left / torch.linalg.vecdot(part, gains).clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
    lengths: Tensor = (whole + part * share[:, None]) * room * (size > 0)
    return lengths


def _grown(rate: Tensor, size: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """min(t · rate, room) with the t that gains the gap.

    The gain is concave and piecewise linear in t, so Newton's method from below ends after a few exact steps. A row
    that has settled waits for the others unchanged.
    """
    info = torch.finfo(size.dtype)
    gains, slopes = size * room, size * rate
    t: Tensor = (gap / slopes.sum(1).clamp_min(info.tiny)).clamp_max_(info.max)
    while True:
        full = (rate * t[:, None] >= room).to(size.dtype)
        spent = torch.linalg.vecdot(full, gains)
        slope = torch.linalg.vecdot(full.neg_().add_(1), slopes)
        better = ((gap - spent) / slope.clamp_min(info.tiny)).clamp_max_(info.max)
        grown = better > t * (1 + 8 * info.eps)
        if not bool(grown.any()):
            break
        t = torch.where(grown, better, t)
    return torch.minimum(rate * t[:, None], room)
