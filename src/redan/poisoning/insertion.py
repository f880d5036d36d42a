"""Insertion: copies of the chosen rows with the label that the attacker wants them to get.

The plainest poison for chosen rows where labels may be other than the truth: what a clean-label attack is compared
with (Suciu et al. 2018, arXiv:1803.06975, has the attacker's choices that lie between).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import affordable

__all__ = ["Insertion"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Insertion:
    """As many copies of the chosen rows (T, …) as the budget has, added at the end with `label`.

    copies: the most of each chosen row; None: the whole budget, dealt out in turn. Added rows come from the first
    source that the attacker controls. Raises SettingError where labels may not be other than the truth, DataError for
    rows of another shape.

    >>> made = Insertion(targets=np.ones((1, 2)), label=1)(
    ...     Samples(np.zeros((4, 2)), np.array([0, 0, 1, 1])), Budget(share=0.5, may_change_labels=True), seed=0
    ... )
    >>> made.added, made.samples.y[-2:].tolist(), made.changed.tolist()
    (2, [1, 1], [4, 5])
    """

    targets: NDArray[Any]
    label: int
    copies: int | None = None

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:  # noqa: ARG002  (nothing is drawn)
        """The samples with the copies."""
        if not budget.may_change_labels:
            raise SettingError(
                "inserted rows have a wrong label, which the budget does not let be; set may_change_labels"
            )
        if self.targets.shape[1:] != samples.x.shape[1:] or not len(self.targets):
            raise DataError(
                f"chosen rows of shape {self.targets.shape} do not fit rows of {samples.x.shape[1:]}; give (T, …)"
            )
        affordable(samples, budget)
        count = budget.rows(samples)
        if self.copies is not None:
            count = min(count, self.copies * len(self.targets))
        new = self.targets[np.arange(count) % len(self.targets)].astype(samples.x.dtype)
        ids, source = samples.ids, samples.source
        made = Samples(
            np.concatenate([samples.x, new]),
            np.concatenate([samples.y, np.full(count, self.label, dtype=samples.y.dtype)]),
            None if ids is None else (*ids, *(f"inserted-{i}" for i in range(count))),
            None if source is None else (*source, *([(budget.sources or source)[0]] * count)),
            samples.split,
        )
        return Poisoned(samples=made, changed=np.arange(len(samples), len(made)), added=count)
