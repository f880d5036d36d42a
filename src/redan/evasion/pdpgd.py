"""PDPGD, primal-dual proximal gradient descent (Matyasko and Chau 2021, arXiv:2106.01538, algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.schedules import Adam
from redan.losses import margin
from redan.perturbations.proximal import proximal
from redan.protocols import Ball, Cost, Gradients, wide
from redan.rows import Rows

_LAST = 0.01  # of the first primal step
_START = 0.01  # λ₀ ÷ λ₁, the weights of the norm and of the goal
_DUAL_LAST, _DUAL_MEAN = 0.1, 0.9
_MOST = -math.log(1e-6)  # |log λ₁|
_INNER, _CLOSE = 5, 0.01  # most rounds of the proximal step, and the relative change that ends them


class _Saddle(NamedTuple):
    """The primal and the dual variables of each row."""

    x: Tensor
    adam: Adam
    dual: Tensor  # (N,), log λ₁ ÷ λ₀
    share: Tensor  # (N,), moving mean of λ₀ ÷ (λ₀ + λ₁)


@dataclass(frozen=True, slots=True, kw_only=True)
class PDPGD:
    """Minimizes the norm plus a weight times softplus(-margin): Adam and a proximal step; the weight climbs.

    The proximal step is Adam's own: a few rounds in the metric of its preconditioner (Melchior et al. 2019,
    arXiv:1910.10094). In L0 it is that of L 2/3 (`proximal`), as the authors recommend; L0 counts coordinates. The
    radius of a finite set ends a row early (rule First) and steers nothing. Lengths are in units of the box's width.
    The softplus of the paper is taken of the margin, and the constants are those of the authors' code. It needs some
    200 steps, and is then the strongest in L0 and L1 on networks trained against small changes.

    steps: gradient queries a row; one more query judges the last iterate. rate: Adam's first step. dual_rate: the
    dual's, of log λ.

    >>> PDPGD(steps=100).cost(10)
    Cost(queries=101, backwards=100)
    """

    steps: int = 500
    rate: float = 0.1
    dual_rate: float = 0.1

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        width = rows.within.bounds[1] - rows.within.bounds[0]
        at = rows.x0.new_full((len(rows),), -math.log(_START))
        walk = _Saddle(rows.x0, Adam.start(rows.x0), at, torch.sigmoid(-at))
        for i in range(self.steps):
            gradient, loss, reached = referee.gradient(walk.x, rows, margin)
            rows, walk, gradient, loss, reached = referee.survivors(rows, walk, gradient, loss, reached)
            adam = walk.adam.seen(gradient * -wide(width * torch.sigmoid(-loss), gradient))
            rate = self.rate * _LAST ** (i / self.steps)
            change = (walk.x - rows.x0) / width - rate * adam.direction()
            x = _shrunk(rows, change, adam.scale(), rate, walk.share / (1 - walk.share))
            left = (self.steps - 1 - i) / max(1, self.steps - 1)
            ascent = self.dual_rate * (left * (1 - _DUAL_LAST) + _DUAL_LAST)
            dual = (walk.dual + torch.where(reached, -ascent, ascent)).clamp(-_MOST, _MOST)
            walk = _Saddle(x, adam, dual, walk.share.lerp(torch.sigmoid(-dual), 1 - _DUAL_MEAN))
        referee.reached(walk.x, rows)


def _shrunk(rows: Rows[Tensor, Ball], change: Tensor, scale: Tensor, rate: float, weight: Tensor) -> Tensor:
    """The proximal point of a change, in units of the box's width, in the metric `scale` and inside the box."""
    low, high = rows.within.bounds
    width = high - low

    def boxed(change: Tensor) -> Tensor:
        return (rows.x0 + width * change).clamp(low, high)

    peak = scale.flatten(1).amax(1)
    metric, weight = scale / wide(peak, scale), weight * rate / peak
    x = boxed(change)
    start = z = (x - rows.x0) / width
    going = torch.ones_like(weight, dtype=torch.bool)
    for _ in range(_INNER):
        shorter = boxed(proximal(rows.within, z - metric * (z - start), weight))
        x = torch.where(wide(going, x), shorter, x)
        last, z = z, (x - rows.x0) / width
        moved, size = ((part.flatten(1)).norm(dim=1) for part in (z - last, z))
        going = going & (moved > _CLOSE * size)
        if not bool(going.any()):
            break
    return x
