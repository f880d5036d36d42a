"""APGD, auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1): PGD that sets its own step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.pgd import climb
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss, Reply, wide
from redan.rows import Rows

_MOMENTUM = 0.75
_FIRST_STEP = 2.0  # in radii
_FIRST_CHECK, _SHORTER, _LEAST = 0.22, 0.03, 0.06  # of all steps


class Track(NamedTuple):
    """Where each row's climb stands."""

    x: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor  # (N,), in radii
    rises: Tensor  # (N,), steps that raised the loss since the last checkpoint
    best_at_check: Tensor  # (N,)
    halved: Tensor  # (N,) bool, at the last checkpoint


def _begun(x: Tensor, reply: Reply) -> Track:
    gradient, loss, _ = reply
    ones = torch.ones_like(loss)
    return Track(
        x, x, gradient, loss, x, gradient, loss, ones * _FIRST_STEP, ones * 0, loss, torch.ones_like(loss).bool()
    )


def _moved(track: Track, rows: Rows[Tensor, Ball], momentum: float) -> Tensor:
    """A gradient step, then a weighted mean of it and the last move (equations 2 and 3)."""
    x = climb(track.x, track.gradient, track.step, rows)
    if momentum == 1:
        return x
    return rows.within.project(track.x + momentum * (x - track.x) + (1 - momentum) * (track.x - track.before), rows.x0)


def _seen(track: Track, x: Tensor, reply: Reply) -> Track:
    gradient, loss, _ = reply
    better = loss > track.best_loss
    at = wide(better, x)
    return track._replace(
        x=x,
        before=track.x,
        gradient=gradient,
        loss=loss,
        best=torch.where(at, x, track.best),
        best_gradient=torch.where(at, gradient, track.best_gradient),
        best_loss=torch.where(better, loss, track.best_loss),
        rises=track.rises + (loss > track.loss),
    )


def _checked(track: Track, since: int, threshold: float) -> Track:
    """Halve the step and go back to the best point where the climb stalls (conditions 1 and 2)."""
    few = track.rises <= threshold * since
    stuck = ~track.halved & (track.best_at_check >= track.best_loss)
    halve = few | stuck
    at = wide(halve, track.x)
    return track._replace(
        x=torch.where(at, track.best, track.x),
        gradient=torch.where(at, track.best_gradient, track.gradient),
        step=torch.where(halve, track.step / 2, track.step),
        rises=torch.zeros_like(track.rises),
        best_at_check=track.best_loss,
        halved=halve,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class APGD:
    """Auto-PGD: momentum, a step that is halved when progress stalls, and a return to the best point then.

    steps: N_iter; a row costs one gradient query more, for its start. threshold: ρ, the share of rising steps
    below which a row's step is halved. loss: cross_entropy, dlr or targeted_dlr. The start is uniform in the
    set (the authors' code starts on the ball's surface).

    >>> APGD(steps=100).cost(10).queries
    101
    """

    steps: int = 100
    threshold: float = 0.75
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps + 1)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.within.sample(rows.x0, rows.draw)
        track = _begun(x, referee.gradient(x, rows, self.loss))
        period, shorter, least = (max(1, int(share * self.steps)) for share in (_FIRST_CHECK, _SHORTER, _LEAST))
        since = 0
        for i in range(self.steps):
            rows, track = referee.survivors(rows, track)
            x = _moved(track, rows, _MOMENTUM if i else 1)
            track = _seen(track, x, referee.gradient(x, rows, self.loss))
            since += 1
            if since == period:
                track = _checked(track, since, self.threshold)
                period, since = max(period - shorter, least), 0
