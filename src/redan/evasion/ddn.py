"""DDN (Rony et al. 2019, arXiv:1811.09600, algorithm 1): the nearest wrong answer in L2, direction and norm apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.schedules import climbable, cosine
from redan.losses import cross_entropy
from redan.perturbations.balls import farthest
from redan.perturbations.norms import L2
from redan.protocols import Cost, Gradients, Loss, wide
from redan.rows import Rows

_START = 0.1  # of the way to the farthest corner of the box
_SHORTEST, _FINEST = 0.01, 0.01  # the last step, in radii, and the last γ


class _Walk(NamedTuple):
    """Where each row stands."""

    x: Tensor
    radius: Tensor  # (N,), of the sphere that x lies on
    nearest: Tensor  # (N,), distance of the nearest x that reached the goal


@dataclass(frozen=True, slots=True, kw_only=True)
class DDN:
    """Decoupled direction and norm: a step along the gradient, then onto a sphere that shrinks by γ after a hit.

    The radius of a finite set ends a row early (rule First) and steers nothing. Where the paper has a step of 1 and a
    γ of 5 % for inputs in [0, 1], here a step is counted in radii and γ falls with it along the cosine: on a network
    without defense 30 steps so reach the median distance of the authors' 100, and no unit is tied to the box. The
    first radius is a tenth of the way to the farthest corner of the box. Nothing is rounded to 256 levels. Where the
    gradient is 0, the step is Gaussian noise (as in the authors' code).

    steps: gradient queries a row; one more query judges the last iterate. rate: first step, in radii. gamma: first γ.

    >>> DDN(steps=30).cost(10)
    Cost(queries=31, backwards=30)
    """

    steps: int = 100
    rate: float = 1.0
    gamma: float = 0.2
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L2]) -> None:
        most = farthest(rows.within, rows.x0)
        walk = _Walk(rows.x0, _START * most, torch.full_like(most, torch.inf))
        for i in range(self.steps):
            gradient, _, reached = referee.gradient(walk.x, rows, self.loss)
            rows, walk, most, gradient, reached = referee.survivors(rows, walk, most, gradient, reached)
            gamma = cosine(self.gamma, _FINEST, i, self.steps)
            hit = torch.where(reached, rows.within.distance(walk.x, rows.x0), torch.inf)
            nearest = torch.minimum(walk.nearest, hit)
            inner = torch.minimum(walk.radius * (1 - gamma), nearest)
            radius = torch.where(reached, inner, torch.minimum(walk.radius * (1 + gamma), most))
            step = wide(walk.radius * cosine(self.rate, _SHORTEST, i, self.steps), gradient)
            change = walk.x - rows.x0 + step * rows.within.steepest(climbable(gradient, rows.draw))
            x = rows.x0 + wide(radius, change) * rows.within.steepest(change)
            walk = _Walk(x.clamp(*rows.within.bounds), radius, nearest)
        referee.reached(walk.x, rows)
