"""PGD (Madry et al. 2018, arXiv:1706.06083, eq. 2): projected steepest ascent from a random start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

from torch import Tensor

from redan.losses import cross_entropy
from redan.perturbations.balls import limited
from redan.perturbations.sparse import L1, inward, sparsest
from redan.protocols import Ball, Cost, Gradients, Loss, per_row
from redan.rows import Rows

_SHARE = 0.01  # of the coordinates, in a step in L1


@singledispatch
def direction(within: Ball, gradient: Tensor, x: Tensor) -> Tensor:  # noqa: ARG001
    """The step of size 1 from x that an iterative attack takes: the set's steepest."""
    return within.steepest(gradient)


@direction.register
def _(within: L1, gradient: Tensor, x: Tensor) -> Tensor:
    """In L1 the steepest step moves one coordinate, and stays on it when that has reached the box's face.

    So it is spread over the largest hundredth of the coordinates (SLIDE: Tramèr and Boneh 2019, arXiv:1904.13000,
    appendix B; their q = 99 %), of those that can still move.
    """
    count = math.ceil(_SHARE * math.prod(x.shape[1:]))
    return sparsest(inward(gradient, x, within.bounds), count)


def climb(x: Tensor, gradient: Tensor, rate: float | Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
    """One step of `rate` radii (one, or one a row) in the set's `direction`, projected back into the set."""
    limited(rows.within.radius)
    step = per_row(rate * rows.within.radius, x)
    return rows.within.project(x + step * direction(rows.within, gradient, x), rows.x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Projected gradient descent.

    steps: gradient queries a row; one more query judges the last iterate. rate: step size in radii, 2.5 / steps
    by default (Madry's choice). random_start: uniform in the set. In L1 a step is sparse, not steepest (`direction`).

    >>> PGD(steps=10).rate_in_radii
    0.25
    """

    steps: int = 40
    rate: float | None = None
    random_start: bool = True
    loss: Loss = cross_entropy

    @property
    def rate_in_radii(self) -> float:
        return 2.5 / max(1, self.steps) if self.rate is None else self.rate

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.within.sample(rows.x0, rows.draw) if self.random_start else rows.x0
        for _ in range(self.steps):
            gradient = referee.gradient(x, rows, self.loss).gradient
            rows, x, gradient = referee.survivors(rows, x, gradient)
            x = climb(x, gradient, self.rate_in_radii, rows)
        referee.reached(x, rows)
