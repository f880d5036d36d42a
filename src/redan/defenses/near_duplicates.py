"""Poison as rows that stand closer to another row than rows do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from redan.defenses.neighbors import nearest
from redan.defenses.suspicion import Numbers, Suspects


class Among(Enum):
    """Whose copy a row may be: of any other row, or of one with another label (a copy that was labeled anew)."""

    ANY = "any"
    OTHER_LABELS = "other labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Rows by the distance to their nearest other row, in features where there are some, in x otherwise.

    A row's number is minus that distance, over the median of all rows: 0 for an exact copy, -1 for a usual row, -2 for
    one twice as far. A row with no other row to compare with has the least number that another one has. No paper:
    the usual first look for rows that were added many times, or again with another label.

    Blind to poison that is not crowded.

    >>> from redan.data.samples import Samples
    >>> rows = np.array([[0.0], [0.0], [1.0], [3.0], [5.0]])
    >>> NearDuplicates()(Suspects(samples=Samples(rows, np.zeros(5, int))), seed=0).tolist()
    [-0.0, -0.0, -1.0, -2.0, -2.0]
    """

    among: Among = Among.ANY

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        rows = suspects.samples.x.reshape(len(suspects), -1) if suspects.features is None else suspects.features
        labels = suspects.samples.y if self.among is Among.OTHER_LABELS else None
        distance = nearest(np.asarray(rows, dtype=np.float64), 1, labels)[0][:, 0]
        finite = distance[np.isfinite(distance)]
        if not len(finite):
            return np.zeros(len(suspects))
        usual = float(np.median(finite)) or float(finite.max()) or 1.0
        return -np.where(np.isfinite(distance), distance, finite.max()) / usual
