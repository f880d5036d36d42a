"""Momentum ascent with a falling step: what a short climb needs to break the rows that a long one breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.pgd import climb
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss, wide
from redan.rows import Rows

_MOMENTUM = 0.75


class Peak(NamedTuple):
    """The best that a climb saw in each row."""

    x: Tensor  # (N, …)
    loss: Tensor  # (N,)


def higher(peak: Peak, x: Tensor, loss: Tensor) -> Peak:
    """The better of two, row by row."""
    better = loss > peak.loss
    return Peak(torch.where(wide(better, x), x, peak.x), torch.where(better, loss, peak.loss))


def descend(
    referee: Gradients[Tensor], rows: Rows[Tensor, Ball], x: Tensor, peak: Peak, loss: Loss, steps: int
) -> tuple[Rows[Tensor, Ball], Peak]:
    """Climb from x, and the rows that are left with the best of `peak` and what was seen."""
    before = x
    for i in range(steps):
        reply = referee.gradient(x, rows, loss)
        rows, x, before, peak, gradient, value = referee.survivors(rows, x, before, peak, reply.gradient, reply.loss)
        if not len(rows):
            return rows, peak
        peak = higher(peak, x, value)
        step = (1 + math.cos(math.pi * i / steps)) / 2
        ahead = climb(x, gradient, step, rows)
        if i:
            ahead = rows.within.project(x + _MOMENTUM * (ahead - x) + (1 - _MOMENTUM) * (x - before), rows.x0)
        x, before = ahead, x
    referee.reached(x, rows)
    rows, peak = referee.survivors(rows, peak)
    return rows, peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """A climb whose step falls by half a cosine from the radius to 0, three quarters of it and a quarter of the last.

    steps: gradient queries a row; one more query judges the last point.

    >>> Descent(steps=10).cost(10).queries
    11
    """

    steps: int = 10
    random_start: bool = False
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.within.sample(rows.x0, rows.draw) if self.random_start else rows.x0
        nothing = Peak(x, torch.full_like(rows.ids, -torch.inf, dtype=x.dtype))
        descend(referee, rows, x, nothing, self.loss, self.steps)
