"""Carlini and Wagner's L2 attack (2017, arXiv:1608.04644, section VI.A): Adam on distance and margin, in a tanh box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.penalty import Room, Search, balanced, narrowed, opened, placed, roomy
from redan.evasion.schedules import Adam
from redan.losses import margin
from redan.perturbations.norms import L2
from redan.protocols import Cost, Gradients, wide
from redan.rows import Rows


class _Climb(NamedTuple):
    """Each row's state."""

    room: Room
    adam: Adam
    search: Search
    hit: Tensor  # (N,) bool, in the present search
    nearest: Tensor  # squared distance of the nearest success: (N,)
    there: Tensor  # its w: (N, …)


def _begun(rows: Rows[Tensor, L2]) -> _Climb:
    room = roomy(rows.x0, rows.within.bounds)
    ones = rows.x0.new_ones(len(rows))
    return _Climb(room, Adam.start(room.w), opened(ones), ones < 0, ones * torch.inf, room.w)


def _restarted(climb: _Climb) -> _Climb:
    """The next search of each row: from its nearest success, or on from where it is."""
    won = wide(climb.nearest.isfinite(), climb.there)
    w = torch.where(won, climb.there, climb.room.w)
    return climb._replace(
        room=climb.room._replace(w=w),
        adam=Adam.start(w),
        search=narrowed(climb.search, climb.hit),
        hit=torch.zeros_like(climb.hit),
    )


def _remembered(climb: _Climb, hit: Tensor, distance: Tensor) -> _Climb:
    """The climb with this round's successes noted."""
    nearer = hit & (distance < climb.nearest)
    if not bool(nearer.any()):
        return climb._replace(hit=climb.hit | hit)
    return climb._replace(
        hit=climb.hit | hit,
        nearest=torch.where(nearer, distance, climb.nearest),
        there=torch.where(wide(nearer, climb.there), climb.room.w, climb.there),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagnerL2:
    """Minimum L2 norm: Adam on ‖x - x0‖² + c · max(κ - margin, 0), with a search over c in each row.

    searches: values of c a row; steps: gradient queries for each. rate: Adam's first step, which falls linearly to
    0. weight: the first c, in multiples of the one that balances loss and distance at x0. confidence: κ, in scores:
    how far past the goal the loss presses (the referee keeps the nearest input that reached the goal, past κ or not).

    Deviations from the authors' code, each for a smaller distance in as many passes: c starts at the scale of each
    row's gradient (theirs: 0.001) and moves geometrically; a search starts at the nearest success so far (theirs: at
    x0 again); steps fall, from 0.1 (theirs: 0.01 throughout); the box is roomier (`Room`). Their early end of a
    search whose loss stalls is left out: with falling steps the last ones gain most, and rows stay in step.

    >>> CarliniWagnerL2(searches=3, steps=100).cost(10)
    Cost(queries=300, backwards=300)
    """

    searches: int = 9
    steps: int = 200
    rate: float = 0.1
    weight: float = 64.0
    confidence: float = 0.0

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.searches * self.steps, self.searches * self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L2]) -> None:
        bounds = rows.within.bounds
        climb = _begun(rows)
        for at in range(self.searches * self.steps):
            step = at % self.steps
            if at and not step:
                climb = _restarted(climb)
            x, slope = placed(climb.room, rows.x0, bounds)
            reply = referee.gradient(x, rows, margin)
            rows, climb, x, slope, reply = referee.survivors(rows, climb, x, slope, reply)
            if not len(rows):
                return
            if not at:
                first = balanced(reply.loss, reply.gradient, self.weight, (bounds[1] - bounds[0]) ** 2)
                climb = climb._replace(search=opened(first))
            change = x - rows.x0
            flat = change.flatten(1)
            climb = _remembered(climb, reply.loss > self.confidence, torch.linalg.vecdot(flat, flat))
            pressed = torch.where(reply.loss <= self.confidence, climb.search.weight, 0)
            gradient = torch.addcmul(change * 2, reply.gradient, wide(pressed, x), value=-1).mul_(slope)
            adam = climb.adam.seen(gradient)
            w = climb.room.w - self.rate * (1 - step / self.steps) * adam.direction()
            climb = climb._replace(room=climb.room._replace(w=w), adam=adam)
