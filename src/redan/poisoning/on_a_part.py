"""Rows that are made on a part of the training set and added to all of it, where the whole would take too long."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning.budget import Budget, Poisoned, Poisoner
from redan.poisoning.choice import affordable

__all__ = ["OnAPart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnAPart:
    """A poisoner that adds rows sees at most `rows` of the training rows and makes at most `made` of its own.

    The part is drawn by the seed, half of it from the rows that the attacker controls. What was made is repeated until
    the budget is spent: an attacker who adds 2,000 rows need not climb for each. A smaller training set is seen whole.

    Calls raise SettingError where the poisoner changes rows instead of adding them, and what the poisoner raises.
    """

    poisoner: Poisoner
    rows: int = 500
    made: int = 20

    def __post_init__(self) -> None:
        if self.rows < 2 or self.made < 1:
            raise SettingError(
                f"a part has 2 rows at least, and 1 made on it, got {self.rows} and {self.made}; 500 and 20 are usual"
            )

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        """The samples with as many rows added as the budget has."""
        count = affordable(samples, budget)
        part = _at(samples, self._part(samples, budget, np.random.default_rng(seed)))
        share = min(1.0, min(count, self.made) / len(part))
        found = self.poisoner(part, replace(budget, share=share), seed=seed)
        if not found.added or found.added != len(found.changed):
            raise SettingError("only a poisoner that adds rows can be run on a part of them; run this one on all")
        new = np.arange(len(part), len(found.samples))[np.arange(count) % found.added]
        x, y, source = found.samples.x[new], found.samples.y[new], found.samples.source
        made = replace(
            samples,
            x=np.concatenate([samples.x, x.astype(samples.x.dtype)]),
            y=np.concatenate([samples.y, y.astype(samples.y.dtype)]),
            ids=None if samples.ids is None else (*samples.ids, *_new_ids(samples.ids, count)),
            source=None if samples.source is None else (*samples.source, *((source or ())[i] for i in new.tolist())),
        )
        return Poisoned(samples=made, changed=np.arange(len(samples), len(made)), added=count)

    def _part(self, samples: Samples, budget: Budget, generator: np.random.Generator) -> NDArray[np.int64]:
        """Positions of the rows that are seen, ascending."""
        if len(samples) <= self.rows:
            return np.arange(len(samples))
        own = budget.controlled(samples)
        own = generator.choice(own, min(len(own), self.rows // 2), replace=False)
        others = np.setdiff1d(np.arange(len(samples)), own)
        return np.sort(np.concatenate([own, generator.choice(others, self.rows - len(own), replace=False)]))


def _at(samples: Samples, at: NDArray[np.int64]) -> Samples:
    ids, source = (
        None if names is None else tuple(names[i] for i in at.tolist()) for names in (samples.ids, samples.source)
    )
    return replace(samples, x=samples.x[at], y=samples.y[at], ids=ids, source=source)


def _new_ids(ids: tuple[str, ...], count: int) -> list[str]:
    """Ids that no row has yet."""
    taken = set(ids)
    free = (name for number in range(len(ids) + count) if (name := f"added-{number}") not in taken)
    return [name for name, _ in zip(free, range(count), strict=False)]
