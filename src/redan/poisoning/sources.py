"""Whose rows were poisoned: counts and shares by supplier."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from redan.errors import SettingError
from redan.poisoning.budget import Poisoned

__all__ = ["OfSource", "by_source"]


class OfSource(NamedTuple):
    """One supplier's rows, added ones among them."""

    changed: int
    rows: int

    @property
    def share(self) -> float:
        """Of the supplier's rows: changed and added ones."""
        return self.changed / self.rows


def by_source(poisoned: Poisoned) -> dict[str, OfSource]:
    """How many rows of each supplier are not as they were, in the order in which suppliers first come.

    Raises SettingError where rows have no source.

    >>> import numpy as np
    >>> from redan.data.samples import Samples
    >>> rows = Samples(np.zeros((4, 2)), np.zeros(4, dtype=np.int64), source=("a", "b", "b", "a"))
    >>> by_source(Poisoned(samples=rows, changed=np.array([1])))["b"]
    OfSource(changed=1, rows=2)
    """
    source = poisoned.samples.source
    if source is None:
        raise SettingError("the samples have no source, so nobody's share can be told; give data.train.source")
    changed = Counter(source[at] for at in poisoned.changed.tolist())
    return {name: OfSource(changed[name], rows) for name, rows in Counter(source).items()}
