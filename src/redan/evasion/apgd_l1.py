"""APGD in L1 (Croce and Hein 2021, arXiv:2103.01208, algorithm 1 and section 3.3): sparse steps, larger sets first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.track import begun, returned, seen
from redan.losses import cross_entropy
from redan.perturbations.sparse import L1, inward, sparsest
from redan.protocols import Cost, Gradients, Loss, wide
from redan.rows import Rows

_STAGES = ((3, 0.3), (2, 0.6), (1, 1.0))  # (radii of the set, share of the steps that are done at its end)
_CHECK = 0.04  # of a stage's steps
_SPARSER = 0.95  # a change that has lost one coordinate in 20 since the last checkpoint
_SHORTER, _LEAST = 1.5, 0.1  # what a step is divided by, and its least length in radii
_DENSER = 1.5  # the best change has so many times the coordinates of a step


class _Pace(NamedTuple):
    """What decides each row's step."""

    step: Tensor  # (N,), in radii
    changed: Tensor  # (N,), coordinates that the best change had at the last checkpoint


def _changed(x: Tensor, x0: Tensor) -> Tensor:
    return (x != x0).flatten(1).sum(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class APGDL1:
    """Auto-PGD in L1: steps as sparse as the best change so far, first in three and two times the radius.

    A step moves the largest coordinates of the gradient alike, two thirds as many as the best change has (rounded
    down, so that it can end at one; the authors' code rounds up, and stays at two). At each
    checkpoint the step is a whole radius again, from the best point, where that has become sparser; elsewhere it
    gets shorter, down to a tenth. No momentum. The schedule of radii is the one that AutoAttack uses: 3 ε, 2 ε and ε
    for 30, 30 and 40 % of the steps, each stage from the projected best point of the one before.

    steps: of all stages; a row costs one gradient query more for the start of each. loss: cross_entropy, dlr or
    targeted_dlr. The first start is Gaussian noise of one box's width, projected. Coordinates at a face of the box
    that the gradient pushes against are left out of a step (the authors spend a part of each step on them).

    >>> APGDL1(steps=100).cost(10).queries
    103
    """

    steps: int = 100
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        asked = self.steps + len(_STAGES)
        return Cost(asked, asked)

    def _stages(self) -> Iterator[tuple[int, int]]:
        """(radii, steps) of each."""
        done = 0
        for radii, share in _STAGES:
            until = math.ceil(round(share * self.steps, 6))
            yield radii, until - done
            done = until

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L1]) -> None:
        low, high = rows.within.bounds
        x = rows.x0 + (high - low) * rows.draw.normal(rows.x0.shape[1:], rows.x0.dtype)
        for radii, steps in self._stages():
            rows, x = self._climbed(referee, rows, x, radii, steps)

    def _climbed(
        self, referee: Gradients[Tensor], rows: Rows[Tensor, L1], x: Tensor, radii: int, steps: int
    ) -> tuple[Rows[Tensor, L1], Tensor]:
        """The rows that are left after one stage in a set of so many radii, and the best point of each."""
        x = _larger(rows, radii).project(x, rows.x0)
        track = begun(x, referee.gradient(x, rows, self.loss))
        pace = _Pace(torch.ones_like(track.loss), _changed(x, rows.x0))
        period = max(1, int(_CHECK * steps))
        for i in range(1, steps + 1):
            rows, track, pace = referee.survivors(rows, track, pace)
            within = _larger(rows, radii)
            step = pace.step * torch.as_tensor(within.radius, dtype=pace.step.dtype, device=pace.step.device)
            way = sparsest(inward(track.gradient, track.x, within.bounds), (pace.changed / _DENSER).long())
            x = within.project(track.x + wide(step, x) * way, rows.x0)
            track = seen(track, x, referee.gradient(x, rows, self.loss))
            if i % period == 0:
                changed = _changed(track.best, rows.x0)
                sparser = changed < _SPARSER * pace.changed
                track = returned(track, sparser)
                pace = _Pace(torch.where(sparser, 1, (pace.step / _SHORTER).clamp_min(_LEAST)), changed)
        rows, best = referee.survivors(rows, track.best)
        return rows, best


def _larger(rows: Rows[Tensor, L1], radii: int) -> L1:
    """The rows' set with so many times its radius."""
    return replace(rows.within, radius=rows.within.radius * radii)
