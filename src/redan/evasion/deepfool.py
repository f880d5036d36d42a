"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2): steps to the nearest linear boundary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from redan.evasion.planes import gaps, nearest, pushed, shortened, ways
from redan.perturbations.halfspace import dual
from redan.protocols import Ball, Cost, Gradients, wide
from redan.rows import Rows, take

_LEAST = 1e-4  # of the box's width: the shortest step, so that rounding does not hold a row before the boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFool:
    """Each step goes to the nearest hyperplane of the linearized model; a row ends when it reached the goal.

    steps: gradient queries a row, at most; a query more judges the last point. overshoot: how much farther than the
    hyperplane each step goes; in the second half of the steps it doubles each time, for rows that circle before a
    boundary. candidates: wrong classes, the likeliest at each point, whose boundaries are looked at; toward a wanted
    class it is one (the paper is untargeted). search: queries at the end that look for the boundary between the found
    point and the clean input.

    Deviations: the overshoot is applied in each step and not to the sum, as adv-lib does; the authors' code looks
    at the ten likeliest classes of the clean input; they have no search. A point is cut off at the box's faces
    (where a step that makes up for the cut, as FAB's, led farther away on the sample models). In Linf, L2 and L1
    (SetError elsewhere); the radius only decides what counts as a win.

    >>> DeepFool(steps=10).cost(10)
    Cost(queries=16, backwards=50)
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 5
    search: int = 5

    def cost(self, classes: int) -> Cost:
        return Cost(self.steps + 1 + self.search, self.steps * ways(classes, self.candidates))

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        everyone, x, loss = rows, rows.x0, partial(gaps, most=self.candidates)
        low, high = rows.within.bounds
        for i in range(self.steps):
            gradient, value, reached = referee.gradient(x, rows, loss)
            rows, x, gradient, value = take(~reached, rows, x, gradient, value)
            rows, x, gradient, value = referee.survivors(rows, x, gradient, value)
            value, normal = nearest(rows.within, value, gradient)
            away = value.abs() / dual(rows.within, normal.flatten(1)).clamp_min(torch.finfo(x.dtype).tiny)
            away = torch.where(away.isfinite(), away, 0) + _LEAST * (high - low)
            step = wide((1 + pushed(self.overshoot, i, self.steps)) * away.clamp_max(_longest(x, rows)), x)
            x = (x + step * rows.within.steepest(normal)).clamp(low, high)
        referee.reached(x, rows)
        shortened(referee, everyone, self.search)


def _longest(x: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
    """The box's diagonal in the set's norm: (N,). No step needs to be longer."""
    low, high = rows.within.bounds
    return rows.within.distance(torch.full_like(x, high), torch.full_like(x, low))
