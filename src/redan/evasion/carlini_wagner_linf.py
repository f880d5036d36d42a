"""Carlini and Wagner's L∞ attack (2017, arXiv:1608.04644, section VI.C): all change beyond τ is penalized, τ falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.penalty import Room, placed, roomy
from redan.evasion.schedules import Adam
from redan.losses import margin
from redan.perturbations.norms import Linf
from redan.protocols import Cost, Gradients, wide
from redan.rows import Rows

_FIRST_SHARE = 0.9  # of the nearest success, for τ
_HEAVIER = 2.0


class _Squeeze(NamedTuple):
    """Each row's state."""

    room: Room
    adam: Adam
    weight: Tensor  # c: (N,)
    share: Tensor  # of the nearest success, for the next τ
    limit: Tensor  # τ
    nearest: Tensor  # L∞ distance of the nearest success, inf before the first
    waited: Tensor  # queries since the last success or change of c


def _begun(rows: Rows[Tensor, Linf]) -> _Squeeze:
    room, ones = roomy(rows.x0, rows.within.bounds), rows.x0.new_ones(len(rows))
    return _Squeeze(room, Adam.start(room.w), ones, ones * _FIRST_SHARE, ones * 0, ones * torch.inf, ones * 0)


def _estimated(squeeze: _Squeeze, scale: float, loss: Tensor, gradient: Tensor, width: float) -> _Squeeze:
    """First τ and c, from the loss and its gradient at x0.

    τ is the distance at which a linear loss is won; c is where the loss outweighs the penalty on a coordinate whose
    derivative is `1 / scale` times the average.
    """
    slope = gradient.abs().flatten(1)
    whole = slope.sum(1)
    seen = (whole > 0) & loss.isfinite()
    limit = torch.where(seen, loss.abs() / whole, width / 2).clamp_max(width)
    return squeeze._replace(limit=limit, weight=torch.where(seen, scale * slope.shape[1] / whole, 1 / width))


def _tightened(squeeze: _Squeeze, hit: Tensor, distance: Tensor, patience: int) -> _Squeeze:
    """τ below a new nearest success; and where none came for so long, a larger share for τ, or c before the first."""
    nearer = hit & (distance < squeeze.nearest)
    nearest = torch.where(nearer, distance, squeeze.nearest)
    waited = torch.where(nearer, 0, squeeze.waited + 1)
    stuck = waited >= patience
    won = nearest.isfinite()
    share = torch.where(stuck & won, squeeze.share.sqrt(), squeeze.share)
    return squeeze._replace(
        weight=torch.where(stuck & ~won, squeeze.weight * _HEAVIER, squeeze.weight),
        share=share,
        limit=torch.where((nearer | stuck) & won, nearest * share, squeeze.limit),
        nearest=nearest,
        waited=torch.where(stuck, 0, waited),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagnerLinf:
    """Minimum L∞ norm: Adam on Σ max(|x - x0| - τ, 0) + c · max(κ - margin, 0), τ falling below each success.

    steps: gradient queries a row. rate: Adam's step, which falls linearly to 0. patience: queries without a nearer
    success after which c is doubled, or τ raised. weight: the first c, in multiples of 1 over the mean derivative.
    confidence: κ, in scores.

    Deviations from the authors' code: τ starts at the distance that would do for a linear model and not at 1, and c at
    each row's own scale and not at 0.00001; τ falls to 0.9 of the nearest success at once, and not when a run of
    1,000 steps has ended; where it cannot be met, the share goes from 0.9 to its root, 0.95, 0.97…, so that τ closes
    in on the distance found, and c stays (theirs is doubled). The box is roomier (`penalty.Room`).

    >>> CarliniWagnerLinf(steps=300).cost(10)
    Cost(queries=300, backwards=300)
    """

    steps: int = 1000
    rate: float = 0.03
    patience: int = 40
    weight: float = 0.1
    confidence: float = 0.0

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Linf]) -> None:
        bounds = rows.within.bounds
        squeeze = _begun(rows)
        for at in range(self.steps):
            x, slope = placed(squeeze.room, rows.x0, bounds)
            reply = referee.gradient(x, rows, margin)
            rows, squeeze, x, slope, reply = referee.survivors(rows, squeeze, x, slope, reply)
            if not len(rows):
                return
            if not at:
                squeeze = _estimated(squeeze, self.weight, reply.loss, reply.gradient, bounds[1] - bounds[0])
            change = x - rows.x0
            squeeze = _tightened(squeeze, reply.loss > self.confidence, change.abs().flatten(1).amax(1), self.patience)
            pressed = torch.where(reply.loss <= self.confidence, squeeze.weight, 0)
            beyond = torch.where(change.abs() > wide(squeeze.limit, change), change.sign(), 0)
            gradient = torch.addcmul(beyond, reply.gradient, wide(pressed, x), value=-1).mul_(slope)
            adam = squeeze.adam.seen(gradient)
            w = squeeze.room.w - self.rate * (1 - at / self.steps) * adam.direction()
            squeeze = squeeze._replace(room=squeeze.room._replace(w=w), adam=adam)
