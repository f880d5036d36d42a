"""PGD (Madry et al. 2018, arXiv:1706.06083, eq. 2): projected steepest ascent from a random start."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss, per_row
from redan.rows import Rows


def climb(x: Tensor, gradient: Tensor, rate: float | Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
    """One step of `rate` radii (one, or one a row) in the norm's steepest direction, projected back into the set."""
    step = per_row(rate * rows.within.radius, x)
    return rows.within.project(x + step * rows.within.steepest(gradient), rows.x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PGD:
    """Projected gradient descent.

    steps: gradient queries a row; one more query judges the last iterate. rate: step size in radii, 2.5 / steps
    by default (Madry's choice). random_start: uniform in the set.

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
