"""Catastrophic overfitting: an alarm that rings when a model withstands single steps and nothing else.

Single-step training can collapse within part of an epoch: FGSM then breaks nearly nothing, and PGD nearly everything
(Wong, Rice, Kolter 2020, arXiv:2001.03994, section 5.4; Andriushchenko and Flammarion 2020, arXiv:2007.02617). So the
same few rows are attacked by both, again and again. The weak attack starts at the clean input, whatever the training's
does: a collapsed model is fooled by the noise of a random start alone, and hides behind it.

One look is not enough. Training by PGD at a high learning rate loses its accuracy under PGD for ten or twenty steps now
and then, and wins it back by itself; a collapse stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.hardening.inner import FGSM, PGD_10, Ascent, Inner
from redan.hardening.objectives import Adversarial, Batch, right
from redan.hardening.passes import served
from redan.protocols import Ball


class Reading(NamedTuple):
    """Accuracy on the watched rows under the weak attack, and under the strong one."""

    weak: float
    strong: float

    @property
    def gap(self) -> float:
        return self.weak - self.strong


AGAIN = 25
"""Steps from a look that found a gap to a second one, if no other is due before: more than a passing fall lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How catastrophic overfitting is watched for, and what is done about it.

    every: steps from one look to the next. rows: how many are looked at, always the same. fall: the alarm rings where
    the weak attack leaves that much more accuracy than the strong one does (Wong's 0.2), at two looks one after the
    other; the second comes 25 steps later, or `every` if that is less. A model that merely learns badly loses both
    accuracies, and rings nothing.

    remedies: inner attacks to go on with, one an alarm, from the last good state; the last one stays, and with none an
    alarm is only recorded. Two steps are tried first: the residual network of `redan.samples`, trained by FGSM at 0.2
    on 12,000 rows of Fashion-MNIST for 8 epochs, collapsed in the fifth and ended with a robust accuracy of 0.11; with
    two steps from there on it ended with 0.54, with N-FGSM, which costs no more than FGSM, with 0.42.
    """

    every: int = 100
    rows: int = 128
    weak: Inner = FGSM
    strong: Inner = PGD_10
    fall: float = 0.2
    remedies: tuple[Inner, ...] = (Ascent(steps=2), Ascent(steps=4), PGD_10)

    def __post_init__(self) -> None:
        if self.every < 1 or self.rows < 2 or not 0 < self.fall < 1:
            raise SettingError(
                f"a watch needs every ≥ 1, rows ≥ 2 and fall between 0 and 1, got {self.every}, {self.rows} and "
                f"{self.fall}; the defaults are 100, 128 and 0.2"
            )

    def read(self, model: nn.Module, batch: Batch, within: Ball) -> Reading:
        """Both accuracies on a batch, in evaluation mode."""
        pair = (Adversarial(within=within, inner=inner) for inner in (self.weak, self.strong))
        with served(model) as bare, torch.no_grad():
            return Reading(*(_share(right(bare(one.attacked(bare, batch)), batch.y)) for one in pair))

    def due(self, steps: int, readings: tuple[Reading, ...]) -> bool:
        """Whether to look after so many steps; readings: all since the training or a remedy began.

        >>> Watch().due(200, ()), Watch().due(225, (Reading(0.7, 0.65),)), Watch().due(225, (Reading(0.9, 0.3),))
        (True, False, True)
        """
        since = steps % self.every
        return not since or (since == AGAIN and bool(readings) and readings[-1].gap > self.fall)

    def rings(self, readings: tuple[Reading, ...]) -> bool:
        """Whether the last of all readings since the training or a remedy began is an alarm.

        >>> Watch().rings((Reading(0.7, 0.65), Reading(0.9, 0.3), Reading(0.9, 0.2)))
        True
        >>> Watch().rings((Reading(0.7, 0.65), Reading(0.9, 0.3), Reading(0.7, 0.6)))
        False
        """
        return len(readings) > 1 and min(one.gap for one in readings[-2:]) > self.fall

    def good(self, readings: tuple[Reading, ...]) -> bool:
        """Whether the state at the last reading is one to come back to: no sign of a fall yet."""
        last = readings[-1]
        highest = max(one.strong for one in readings)
        return last.gap <= self.fall / 2 and last.strong >= highest - self.fall / 2


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)
