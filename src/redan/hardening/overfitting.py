"""Catastrophic overfitting: an alarm that rings when a model has learned the training's own attack and no other.

Single-step training can collapse within part of an epoch: its own attack is then answered rightly nearly always, and
PGD nearly never (Wong, Rice, Kolter 2020, arXiv:2001.03994, section 5.4; Andriushchenko and Flammarion 2020,
arXiv:2007.02617). So the same few rows are attacked by both, again and again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.hardening.inner import PGD_10, Ascent, Inner, served
from redan.hardening.objectives import Armed, Batch, right


class Reading(NamedTuple):
    """Accuracy on the watched rows under the training's own attack, and under the watch's stronger one."""

    own: float
    stronger: float

    @property
    def gap(self) -> float:
        return self.own - self.stronger


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How catastrophic overfitting is watched for, and what is done about it.

    every: steps from one look to the next. rows: how many are looked at, always the same. inner: the stronger attack.
    fall: the alarm rings where the training's own attack leaves that much more accuracy than the stronger one does, and
    the latter has fallen by that much from the highest so far (Wong's 0.2), or the gap was there the last time already.
    A model that merely learns badly loses both accuracies, and rings nothing.

    remedies: inner attacks to go on with, one an alarm, from the last good state; the last one stays. More steps cost
    more; see `docs`.
    """

    every: int = 100
    rows: int = 128
    inner: Inner = PGD_10
    fall: float = 0.2
    remedies: tuple[Inner, ...] = field(default=(Ascent(steps=2), Ascent(steps=4), PGD_10))

    def __post_init__(self) -> None:
        if self.every < 1 or self.rows < 2 or not 0 < self.fall < 1:
            raise SettingError(
                f"a watch needs every ≥ 1, rows ≥ 2 and fall between 0 and 1, got {self.every}, {self.rows} and "
                f"{self.fall}; the defaults are 100, 128 and 0.2"
            )

    def read(self, model: nn.Module, batch: Batch, objective: Armed) -> Reading:
        """Both accuracies on a batch, in evaluation mode."""
        pair = objective, objective.armed(self.inner)
        with served(model) as bare, torch.no_grad():
            own, stronger = (_share(right(bare(one.attacked(model, batch)), batch.y)) for one in pair)
        return Reading(own, stronger)

    def rings(self, readings: tuple[Reading, ...]) -> bool:
        """Whether the last of all readings since the training or a remedy began is an alarm.

        >>> Watch().rings((Reading(0.7, 0.65), Reading(0.9, 0.3)))
        True
        >>> Watch().rings((Reading(0.7, 0.65), Reading(0.4, 0.3)))
        False
        """
        *before, last = readings
        if last.gap <= self.fall:
            return False
        fallen = max((one.stronger for one in before), default=0.0) - last.stronger > self.fall
        return fallen or (bool(before) and before[-1].gap > self.fall)

    def good(self, readings: tuple[Reading, ...]) -> bool:
        """Whether the state at the last reading is one to come back to: no sign of a fall yet."""
        last = readings[-1]
        highest = max(one.stronger for one in readings)
        return last.gap <= self.fall / 2 and last.stronger >= highest - self.fall / 2


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)
