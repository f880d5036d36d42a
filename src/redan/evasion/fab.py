"""FAB, the fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044, algorithm 1), for minimum norms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from redan.evasion.planes import Plane, gaps, nearest, pushed, shortened, ways
from redan.perturbations.halfspace import crossing
from redan.protocols import Ball, Cost, Gradients, wide
from redan.rows import Rows

_EARLY = 0.2  # of the steps, in which no backward step follows another


@dataclass(frozen=True, slots=True, kw_only=True)
class FAB:
    """Steps onto the nearest linearized boundary, drawn toward the boundary's point nearest to the clean input.

    steps: gradient queries a run; a query more judges its last point. restarts: runs, the first from the clean input,
    later ones from a random point within half the best distance so far, or half the radius. overshoot, η: steps go
    so many times as far as the boundary. backward, β: how much of the change is kept when a point reached the goal.
    pull, α_max: the largest weight of the step from the clean input. candidates: wrong classes, the likeliest at
    each point, whose boundaries are looked at; toward a wanted class it is one. search: queries at the end that look
    for the boundary between the best point and the clean input.

    FAB-T of AutoAttack is `Sweep(FAB())`. Against the authors' code: each point costs one query, which is both its
    gradient and its judgment, so that 150 steps cost as many passes as their 100. After the first fifth of the
    steps a point that a backward step left beyond the boundary is moved back again instead of stepped from: gradients
    far beyond the boundary mislead, and on the sample models that shortened L2 distances by up to a fifth. Rows that
    reached nothing in the first half of the steps are pushed farther in the second. They differentiate all classes,
    and have no search at the end (the paper has three steps of regula falsi). In Linf, L2 and L1 (SetError elsewhere).

    >>> FAB(steps=10).cost(10)
    Cost(queries=16, backwards=50)
    """

    steps: int = 150
    restarts: int = 1
    overshoot: float = 1.05
    backward: float = 0.9
    pull: float = 0.1
    candidates: int = 5
    search: int = 5

    def cost(self, classes: int) -> Cost:
        run = Cost(self.steps + 1, self.steps * ways(classes, self.candidates))
        return run.times(self.restarts) + Cost(self.search, 0)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        for restart in range(self.restarts):
            (rows,) = referee.survivors(rows)
            self._run(referee, rows, _start(referee, rows) if restart else rows.x0)
        shortened(referee, rows, self.search)

    def _run(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball], x: Tensor) -> None:
        loss = partial(gaps, most=self.candidates)
        back = found = torch.zeros_like(rows.ids, dtype=torch.bool)  # whether the last step was a backward one; ever
        for i in range(self.steps):
            gradient, value, reached = referee.gradient(x, rows, loss)
            rows, x, back, found, gradient, value, reached = referee.survivors(
                rows, x, back, found, gradient, value, reached
            )
            back, found = reached & ~back if i < _EARLY * self.steps else reached, found | reached
            far = torch.where(found, self.overshoot, 1 + pushed(self.overshoot - 1, i, self.steps))
            moved = self._stepped(x, nearest(rows.within, value, gradient), rows, far)
            x = torch.where(wide(back, x), rows.x0 + self.backward * (x - rows.x0), moved).clamp(*rows.within.bounds)
        referee.reached(x, rows)

    def _stepped(self, x: Tensor, plane: Plane, rows: Rows[Tensor, Ball], far: Tensor) -> Tensor:
        """A mean of the ways to the hyperplane from x and from the clean input, `far` times each (equations 8, 9)."""
        within, nothing = rows.within, torch.zeros_like(x)
        since = torch.linalg.vecdot(plane.normal.flatten(1), (x - rows.x0).flatten(1))
        here = crossing(within, x, plane.normal, -plane.value)
        clean = crossing(within, rows.x0, plane.normal, since - plane.value)
        near, apart = within.distance(here, nothing), within.distance(clean, nothing)
        weight = (near / (near + apart).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(self.pull)
        ahead, anew = x + wide(far, x) * here, rows.x0 + wide(far, x) * clean
        return torch.lerp(ahead, anew, wide(weight, x))


def _start(referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> Tensor:
    """A random point within half the best distance so far, half the radius, and half the way to the box's end."""
    low, high = rows.within.bounds
    corner = torch.where(rows.x0 > (low + high) / 2, low, high).to(rows.x0.dtype)
    ends = rows.within.distance(corner, rows.x0)
    radius = torch.as_tensor(rows.within.radius, dtype=ends.dtype, device=ends.device)
    reach = torch.minimum(torch.minimum(referee.best(rows).distance, ends), radius)
    return rows.within.sized(reach / 2).sample(rows.x0, rows.draw)
