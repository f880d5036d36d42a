"""What a poisoner may do to a training set, and the proof that it did no more.

A poisoner is a frozen value called with samples, a budget and a seed. It returns `Poisoned`; `held_to` compares it with
the clean samples, so that a share that is reported is a share that was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import SetError, SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """share: of the training rows that may be changed or added, above 0 and 1 at most. may_change_labels: whether their
    labels may be other than the truth. sources: the suppliers whose rows the attacker controls; empty: any.

    >>> Budget(share=0.01).rows(Samples(np.zeros((250, 4)), np.zeros(250, dtype=np.int64)))
    2
    """

    share: float
    may_change_labels: bool = False
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingError(
                f"a poisoner's share must be above 0 and 1 at most, got {self.share}; 0.01 is one row in 100"
            )

    def rows(self, samples: Samples) -> int:
        """How many rows may be changed or added: the share of all rows, rounded down."""
        return int(self.share * len(samples) + 1e-9)

    def controlled(self, samples: Samples) -> NDArray[np.int64]:
        """Positions of the rows that may be changed: (M,), ascending. Raises SettingError where no row has a source."""
        if not self.sources:
            return np.arange(len(samples))
        if samples.source is None:
            raise SettingError("the budget names sources, and the samples have none; give data.train.source")
        return np.flatnonzero(np.isin(np.array(samples.source), self.sources))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Poisoned:
    """A training set as the attacker leaves it.

    changed: positions in `samples` of the rows that are not as they were, (M,), ascending; added rows stand at the end
    and are among them. added: how many those are.
    """

    samples: Samples
    changed: NDArray[np.int64]
    added: int = 0

    @property
    def share(self) -> float:
        """Of the clean rows: changed and added ones."""
        return len(self.changed) / max(1, len(self.samples) - self.added)


class Poisoner(Protocol):
    """An attack on a training set."""

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        """The samples poisoned within the budget; the same for the same seed. The samples given are not changed."""
        ...


def held_to(poisoned: Poisoned, clean: Samples, budget: Budget) -> None:
    """Raise SetError unless the poisoned samples are the clean ones but for what the budget allows.

    Every row that is not listed must be there bit by bit with its label; no more rows than the budget has may be
    listed, of the attacker's own sources, and with their labels where those may not be changed.
    """
    made, changed = poisoned.samples, poisoned.changed
    n = len(clean)
    if len(changed) and (np.any(np.diff(changed) <= 0) or changed[0] < 0 or changed[-1] >= len(made)):
        raise SetError("the changed rows must be listed once each, in ascending order; the poisoner's list is not so")
    if len(made) < n:
        raise SetError(f"{n - len(made)} rows are gone; a poisoner changes and adds rows, and takes none away")
    if len(made) != n + poisoned.added:
        raise SetError(
            f"{len(made) - n} rows were added, and the poisoner says {poisoned.added}; its share would be a wrong one"
        )
    if len(changed) > budget.rows(clean):
        raise SetError(
            f"{len(changed)} rows are changed, and the budget has {budget.rows(clean)}; the poisoner overspent"
        )
    listed = np.zeros(len(made), dtype=bool)
    listed[changed] = True
    if not listed[n:].all():
        raise SetError("rows were added that are not listed as changed; the poisoner's list is not whole")
    same = np.flatnonzero(~listed[:n])
    if not np.array_equal(made.x[same], clean.x[same]) or not np.array_equal(made.y[same], clean.y[same]):
        raise SetError("a row that is not listed is not as it was; the poisoner's list is not whole")
    old = changed[changed < n]
    if not budget.may_change_labels and not np.array_equal(made.y[old], clean.y[old]):
        raise SetError("a label was changed, which the budget does not allow; use a clean-label poisoner")
    if budget.sources and not np.isin(old, budget.controlled(clean)).all():
        raise SetError("a row of another supplier was changed; the poisoner must keep to the budget's sources")
