"""Carlini and Wagner's L0 attack (2017, arXiv:1608.04644, section VI.B): the L2 attack on ever fewer coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.penalty import Room, balanced, placed, roomy
from redan.evasion.schedules import Adam
from redan.losses import margin
from redan.perturbations.sparse import L0
from redan.protocols import Cost, Gradients, wide
from redan.rows import Rows

_HEAVIER = 2.0


class _Shrink(NamedTuple):
    """Each row's state."""

    room: Room
    adam: Adam
    weight: Tensor  # c: (N,)
    free: Tensor  # (N, …) bool, the coordinates that may change
    won: Tensor  # those of the last success
    there: Tensor  # its w
    share: Tensor  # of the coordinates that changed, to freeze after the next success: (N,)
    waited: Tensor  # queries since coordinates were frozen or given back


def _begun(rows: Rows[Tensor, L0], share: float) -> _Shrink:
    room, ones = roomy(rows.x0, rows.within.bounds), rows.x0.new_ones(len(rows))
    free = torch.ones_like(rows.x0, dtype=torch.bool)
    return _Shrink(room, Adam.start(room.w), ones, free, free, room.w, ones * share, ones * 0)


def _least_useful(score: Tensor, free: Tensor, share: Tensor) -> Tensor:
    """Whether each free coordinate is among that share of lowest score, at least one a row: (N, …) bool."""
    flat = score.masked_fill(~free, torch.inf).flatten(1)
    count = (free.flatten(1).sum(1) * share).floor().clamp_min(1)
    order = flat.argsort(stable=True, dim=1)
    place = torch.arange(flat.shape[1], device=flat.device)
    lowest = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, place < count[:, None])
    return lowest.reshape(free.shape) & free


def _frozen(shrink: _Shrink, hit: Tensor, score: Tensor) -> _Shrink:
    """After a success: what did least for it may change no more."""
    useless = _least_useful(score, shrink.free, shrink.share) & wide(hit, score)
    return shrink._replace(
        won=torch.where(wide(hit, score), shrink.free, shrink.won),
        there=torch.where(wide(hit, score), shrink.room.w, shrink.there),
        free=shrink.free & ~useless,
        waited=torch.where(hit, 0, shrink.waited),
    )


def _given_back(shrink: _Shrink, stuck: Tensor) -> _Shrink:
    """After too long without one: back to the last success, to freeze half as many, at a larger c."""
    where = wide(stuck, shrink.room.w)
    room = shrink.room._replace(w=torch.where(where, shrink.there, shrink.room.w))
    fresh = Adam.start(room.w)
    adam = Adam(
        torch.where(where, fresh.mean, shrink.adam.mean),
        torch.where(where, fresh.power, shrink.adam.power),
        torch.where(stuck, fresh.mean_left, shrink.adam.mean_left),
        torch.where(stuck, fresh.power_left, shrink.adam.power_left),
    )
    return shrink._replace(
        room=room,
        adam=adam,
        weight=torch.where(stuck, shrink.weight * _HEAVIER, shrink.weight),
        free=torch.where(where, shrink.won, shrink.free),
        share=torch.where(stuck, shrink.share / 2, shrink.share),
        waited=torch.where(stuck, 0, shrink.waited),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagnerL0:
    """Fewest coordinates: the L2 attack's loss on the free ones, of which each success freezes the least useful.

    steps: gradient queries a row. rate: Adam's step. share: of the free coordinates, frozen after a success; the
    lowest |∂ margin / ∂x · change| go first. patience: queries without a success after which a row goes back to its
    last one, with c doubled and the share halved. weight: the first c, as in `CarliniWagnerL2`. confidence: κ.

    Deviations from the authors' code: theirs ends at the first failure and freezes at most 0.3 · √(free ones) at a
    time; here it is a share, and a failure gives them back. Coordinates, not pixels, are counted (theirs, with
    `independent_channels`). No row waits for another.

    >>> CarliniWagnerL0(steps=300).cost(10)
    Cost(queries=300, backwards=300)
    """

    steps: int = 1000
    rate: float = 0.1
    share: float = 0.3
    patience: int = 30
    weight: float = 32.0
    confidence: float = 0.0

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L0]) -> None:
        bounds = rows.within.bounds
        shrink = _begun(rows, self.share)
        for at in range(self.steps):
            x, slope = placed(shrink.room, rows.x0, bounds)
            x = torch.where(shrink.free, x, rows.x0)
            reply = referee.gradient(x, rows, margin)
            rows, shrink, x, slope, reply = referee.survivors(rows, shrink, x, slope, reply)
            if not len(rows):
                return
            if not at:
                first = balanced(reply.loss, reply.gradient, self.weight, (bounds[1] - bounds[0]) ** 2)
                shrink = shrink._replace(weight=first)
            change, hit = x - rows.x0, reply.loss > self.confidence
            pressed = torch.where(hit, 0, shrink.weight)
            gradient = torch.addcmul(change * 2, reply.gradient, wide(pressed, x), value=-1).mul_(slope)
            adam = shrink.adam.seen(gradient * shrink.free)
            w = shrink.room.w - self.rate * adam.direction()
            if bool(hit.any()):
                shrink = _frozen(shrink, hit, (reply.gradient * change).abs())
            shrink = shrink._replace(room=shrink.room._replace(w=w), adam=adam, waited=shrink.waited + 1)
            stuck = shrink.waited >= self.patience
            if bool(stuck.any()):
                shrink = _given_back(shrink, stuck)
