"""PDPGD, primal-dual proximal gradient descent (Matyasko and Chau 2021, arXiv:2106.01538, algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.schedules import Adam
from redan.losses import margin
from redan.perturbations.halfspace import dual
from redan.perturbations.proximal import proximal
from redan.perturbations.sparse import L0, L1
from redan.protocols import Ball, Cost, Gradients, wide
from redan.rows import Rows

_WAY, _MOST_RATE = 75.0, 1.0  # of the default rate: times the steps, and at most
_CLIMB = 2.0  # of the default dual rate: times the root of the steps
_LAST = 0.01  # of the first primal step
_START = 0.01  # λ₀ ÷ λ₁, the weights of the norm and of the goal
_DUAL_LAST, _DUAL_MEAN = 0.1, 0.9
_MOST = -math.log(1e-6)  # |log λ₁|
_LEAST, _LEAST_SPARSE = 0.01, 0.1  # of the metric, of its peak; the latter in L1 and L0


class _Saddle(NamedTuple):
    """The primal and the dual variables of each row."""

    x: Tensor
    adam: Adam
    dual: Tensor  # (N,), log λ₁ ÷ λ₀
    share: Tensor  # (N,), moving mean of λ₀ ÷ (λ₀ + λ₁)


@dataclass(frozen=True, slots=True, kw_only=True)
class PDPGD:
    """Minimizes the norm plus a weight times softplus(-margin): Adam and a proximal step; the weight climbs.

    The proximal step is Adam's own (Melchior et al. 2019, arXiv:1910.10094), in the metric of its preconditioner. Here
    it is exact: five rounds toward it, as in the authors' code, leave all but the steepest coordinates far too long.
    The metric has a floor, since a coordinate without a gradient would otherwise never leave 0. The norm is weighed in
    units of the dual norm of the preconditioner, so that the weights do not depend on the norm or on the number
    of coordinates, and little on the slope of the scores (very shallow ones need more steps). In L0 the proximal step
    is that of L 2/3 (`proximal`), as the authors recommend; L0 counts coordinates. The radius of a finite set ends a
    row early (rule First) and steers nothing.
    Lengths are in units of the box's width. The softplus of the paper is taken of the margin.

    steps: gradient queries a row; one more query judges the last iterate. rate: Adam's first step; by default 75 ÷
    steps, at most 1, so that fewer steps go as far; in L0, on a network trained against small changes, 0.2 came nearer
    (median 7 coordinates for 10 in 200 steps), and on another farther (11 for 8). dual_rate: the dual's first step, of
    log λ; by default 2 ÷ √steps.

    >>> PDPGD(steps=100).cost(10)
    Cost(queries=101, backwards=100)
    """

    steps: int = 500
    rate: float | None = None
    dual_rate: float | None = None

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        low, high = rows.within.bounds
        width = high - low
        first = min(_MOST_RATE, _WAY / self.steps) if self.rate is None else self.rate
        climb = _CLIMB / math.sqrt(self.steps) if self.dual_rate is None else self.dual_rate
        at = rows.x0.new_full((len(rows),), -math.log(_START))
        walk = _Saddle(rows.x0, Adam.start(rows.x0), at, torch.sigmoid(-at))
        for i in range(self.steps):
            gradient, loss, reached = referee.gradient(walk.x, rows, margin)
            rows, walk, gradient, loss, reached = referee.survivors(rows, walk, gradient, loss, reached)
            adam = walk.adam.seen(gradient * -wide(width * torch.sigmoid(-loss), gradient))
            rate = first * _LAST ** (i / self.steps)
            x = (walk.x - width * rate * adam.direction()).clamp(low, high)
            change = _shrunk(rows.within, (x - rows.x0) / width, adam.scale(), rate * walk.share / (1 - walk.share))
            left = (self.steps - 1 - i) / max(1, self.steps - 1)
            ascent = climb * (left * (1 - _DUAL_LAST) + _DUAL_LAST)
            level = (walk.dual + torch.where(reached, -ascent, ascent)).clamp(-_MOST, _MOST)
            x = torch.where(change == 0, rows.x0, rows.x0 + width * change).clamp(low, high)
            walk = _Saddle(x, adam, level, walk.share.lerp(torch.sigmoid(-level), 1 - _DUAL_MEAN))
        referee.reached(walk.x, rows)


def _shrunk(within: Ball, change: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """The proximal point of a change in the metric `scale`, floored, with the weight in units of its dual norm."""
    sparse = isinstance(within, L1 | L0)
    peak = scale.flatten(1).amax(1)
    metric = scale.maximum(wide((_LEAST_SPARSE if sparse else _LEAST) * peak, scale))
    unit = peak if sparse else dual(within, metric.flatten(1).double())
    return proximal(within, change, weight * unit, metric)
