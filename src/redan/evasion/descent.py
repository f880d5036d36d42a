"""Momentum ascent with a falling step: what a short climb needs to break the rows that a long one breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.evasion.pgd import climb
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss
from redan.rows import Rows

_MOMENTUM = 0.75  # APGD's: the share of the new step, the rest is the last one's


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """A climb whose step falls by half a cosine from the radius to 0, three quarters of it and a quarter of the last.

    APGD halves its step where the loss stalls, and needs a hundred steps to see that; for ten or twenty the fall is
    set before. steps: gradient queries a row; one more query judges the last point.

    >>> Descent(steps=10).cost(10).queries
    11
    """

    steps: int = 10
    random_start: bool = False
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        self.climbed(referee, rows)

    def climbed(
        self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]
    ) -> tuple[Rows[Tensor, Ball], Tensor, Tensor]:
        """The rows that are left, their loss at the start and its highest value on the way: (N,) each."""
        x = before = rows.within.sample(rows.x0, rows.draw) if self.random_start else rows.x0
        first = highest = torch.full((len(rows),), -torch.inf, dtype=x.dtype, device=x.device)
        for i in range(self.steps):
            gradient, loss, _ = referee.gradient(x, rows, self.loss)
            first, highest = loss if i == 0 else first, torch.maximum(highest, loss)
            rows, x, before, gradient, first, highest = referee.survivors(rows, x, before, gradient, first, highest)
            ahead = climb(x, gradient, (1 + math.cos(math.pi * i / self.steps)) / 2, rows)
            if i:
                ahead = rows.within.project(x + _MOMENTUM * (ahead - x) + (1 - _MOMENTUM) * (x - before), rows.x0)
            x, before = ahead, x
        last = self.loss(referee.scores(x, rows), rows.goal)
        return referee.survivors(rows, first, torch.maximum(highest, last))
