"""Unlearning: the loss of rows that were found to be poison is driven up, that of the others down."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from redan.data.samples import Samples
from redan.defenses.repair import accuracy, only, without
from redan.defenses.training import Tuning, copied, rows, shuffled, step, trained
from redan.errors import DataError, SettingError
from redan.targets.torch import TorchTarget


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unlearned:
    """target: the repaired one, its module a copy. remembered: the share of isolated rows that still got their label,
    before and after each epoch; the last says whether the unlearning went as far as it was asked to."""

    target: TorchTarget
    remembered: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlearning:
    """The second stage of anti-backdoor learning, Li et al. 2021 (arXiv:2110.11571, section 3, global gradient
    ascent).

    Each step goes down the mean loss of a batch of the other rows minus the mean loss of a batch of isolated ones.
    until: the share of isolated rows that may still get their label; once it is reached, no further epoch is trained.
    None: all are, as in the paper, which gives back some of the accuracy that the ascent costs.

    Deviations: an isolated row whose loss is above `ceiling` (nats) pulls no more, so that the ascent is bounded; the
    module stays in evaluation mode, so that isolated rows do not enter the statistics of batch normalization; the
    stages are called one by one, so the model given is one that was trained to the end.

    Isolated rows that are clean are unlearned as well: isolate few, 1 % in the paper.

    >>> from redan.targets.torch import from_torch
    >>> target = from_torch(torch.nn.Linear(2, 2).eval())
    >>> samples = Samples(np.eye(2)[[0, 1, 0, 1, 0]], np.array([0, 1, 0, 1, 1]))
    >>> Unlearning(tuning=Tuning(epochs=200, rate=0.1))(target, samples, np.array([4]), seed=0).remembered[-1]
    0.0
    """

    until: float | None = None
    ceiling: float = 5.0
    tuning: Tuning = field(default_factory=lambda: Tuning(epochs=20, rate=0.001))

    def __post_init__(self) -> None:
        if (self.until is not None and not 0 <= self.until < 1) or self.ceiling <= 0:
            raise SettingError(
                f"unlearning needs until from 0 to below 1 and a ceiling above 0, got {self.until} and {self.ceiling}; "
                "the defaults are None and 5"
            )

    def __call__(self, target: TorchTarget, samples: Samples, suspicious: NDArray[np.int64], *, seed: int) -> Unlearned:
        """The target without what it learned of the rows at the positions suspicious (M,); the one given stays.

        Raises DataError for no positions or impossible ones, TrainingModeError for a module in training mode.
        """
        if not len(suspicious):
            raise DataError("there are no rows to unlearn; give the positions of those that a detector found")
        made = copied(target)
        clean, isolated = without(samples, suspicious), only(samples, suspicious)
        x, y = rows(made, clean)
        bad_x, bad_y = rows(made, isolated)
        draw = torch.Generator().manual_seed(seed)
        batch = self.tuning.batch
        again = chain.from_iterable(shuffled(len(bad_x), batch, draw) for _ in repeat(None))
        optimizer = torch.optim.SGD(trained(made), lr=self.tuning.rate, momentum=self.tuning.momentum)
        remembered = [accuracy(made, isolated)]
        for _ in range(self.tuning.epochs):
            if self.until is not None and remembered[-1] <= self.until:
                break
            for index in shuffled(len(x), batch, draw):
                bad = next(again)
                with torch.enable_grad():
                    up = cross_entropy(made(bad_x[bad]), bad_y[bad], reduction="none").clamp(max=self.ceiling).mean()
                    step(optimizer, cross_entropy(made(x[index]), y[index]) - up)
            remembered.append(accuracy(made, isolated))
        return Unlearned(target=made, remembered=tuple(remembered))
