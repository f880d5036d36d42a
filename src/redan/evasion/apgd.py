"""APGD, auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1): PGD that sets its own step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.pgd import climb
from redan.evasion.track import Track, begun, returned, seen
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss
from redan.rows import Rows

_MOMENTUM = 0.75
_FIRST_STEP = 2.0  # in radii
_FIRST_CHECK, _SHORTER, _LEAST = 0.22, 0.03, 0.06  # of all steps


class _Pace(NamedTuple):
    """What decides each row's step."""

    before: Tensor  # the point before x
    step: Tensor  # (N,), in radii
    rises: Tensor  # (N,), steps that raised the loss since the last checkpoint
    best_at_check: Tensor  # (N,)
    halved: Tensor  # (N,) bool, at the last checkpoint


def _moved(track: Track, before: Tensor, step: Tensor, rows: Rows[Tensor, Ball], momentum: float) -> Tensor:
    """A gradient step, then a weighted mean of it and the last move (equations 2 and 3)."""
    x = climb(track.x, track.gradient, step, rows)
    if momentum == 1:
        return x
    return rows.within.project(track.x + momentum * (x - track.x) + (1 - momentum) * (track.x - before), rows.x0)


def _checked(track: Track, pace: _Pace, since: int, threshold: float) -> tuple[Track, _Pace]:
    """Halve the step and go back to the best point where the climb stalls (conditions 1 and 2)."""
    few = pace.rises <= threshold * since
    stuck = ~pace.halved & (pace.best_at_check >= track.best_loss)
    halve = few | stuck
    return returned(track, halve), pace._replace(
        step=torch.where(halve, pace.step / 2, pace.step),
        rises=torch.zeros_like(pace.rises),
        best_at_check=track.best_loss,
        halved=halve,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class APGD:
    """Auto-PGD: momentum, a step that is halved when progress stalls, and a return to the best point then.

    steps: N_iter; a row costs one gradient query more, for its start. threshold: ρ, the share of rising steps
    below which a row's step is halved. loss: cross_entropy, dlr or targeted_dlr. The start is uniform in the
    set (the authors' code starts on the ball's surface). In L1 use APGDL1.

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
        track = begun(x, referee.gradient(x, rows, self.loss))
        ones = torch.ones_like(track.loss)
        pace = _Pace(x, ones * _FIRST_STEP, ones * 0, track.loss, ones.bool())
        period, shorter, least = (max(1, int(share * self.steps)) for share in (_FIRST_CHECK, _SHORTER, _LEAST))
        since = 0
        for i in range(self.steps):
            rows, track, pace = referee.survivors(rows, track, pace)
            x, last = _moved(track, pace.before, pace.step, rows, _MOMENTUM if i else 1), track
            track = seen(track, x, referee.gradient(x, rows, self.loss))
            pace = pace._replace(before=last.x, rises=pace.rises + (track.loss > last.loss))
            since += 1
            if since == period:
                track, pace = _checked(track, pace, since, self.threshold)
                period, since = max(period - shorter, least), 0
