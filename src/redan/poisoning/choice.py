"""Which rows a poisoner takes, and the samples with those rows put in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning.budget import Budget, Poisoned


def affordable(samples: Samples, budget: Budget) -> int:
    """How many rows the budget has. Raises SettingError where it is none, for nothing would be poisoned."""
    count = budget.rows(samples)
    if not count:
        raise SettingError(
            f"a share of {budget.share} of {len(samples)} rows is less than one row; raise the share, or give more rows"
        )
    return count


def usable(fit: NDArray[np.bool_], samples: Samples, budget: Budget) -> NDArray[np.int64]:
    """Positions of the rows that the attacker controls and that fit (N,). Raises SettingError where there are none."""
    open_to = budget.controlled(samples)
    open_to = open_to[fit[open_to]]
    if not len(open_to):
        raise SettingError(
            "the attacker controls no row that the attack can use; give the budget other sources, or the attack other "
            "classes"
        )
    return open_to


def drawn(
    fit: NDArray[np.bool_], samples: Samples, budget: Budget, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Positions of as many rows as the budget has, of those that the attacker controls and that fit (N,): ascending.

    Fewer where fewer fit; `Poisoned.share` tells how many. Raises SettingError where there are none.
    """
    count, open_to = affordable(samples, budget), usable(fit, samples, budget)
    return np.sort(generator.choice(open_to, min(count, len(open_to)), replace=False))


def put(samples: Samples, at: NDArray[np.int64], x: NDArray[Any], y: NDArray[Any]) -> Poisoned:
    """The samples with rows x (M, …) and labels y (M,) at positions (M,), which are all that it lists as changed."""
    rows = samples.x.astype(np.result_type(samples.x, x))  # a copy; strings may have become longer
    labels = samples.y.copy()
    rows[at], labels[at] = x, y
    return Poisoned(samples=replace(samples, x=rows, y=labels), changed=at.astype(np.int64))
