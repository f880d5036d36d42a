"""What every repair does: suspicious rows taken out, and accuracy measured.

The plainest repair is the training itself, without what a detector found: `fit(without(samples, suspicious), seed)`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.defenses.training import rows
from redan.errors import DataError
from redan.targets.torch import TorchTarget

_BATCH = 256


def without(samples: Samples, suspicious: NDArray[np.int64]) -> Samples:
    """The samples but for the rows at the positions suspicious (M,), in their order; the samples given are not changed.

    Raises DataError for positions that are none, and where a class would lose its last row.

    >>> without(Samples(np.zeros((4, 2)), np.array([0, 1, 0, 1])), np.array([1, 2])).y
    array([0, 1])
    """
    out = np.asarray(suspicious)
    if out.dtype == bool or (len(out) and (out.min() < 0 or out.max() >= len(samples))):
        raise DataError(f"suspicious rows are positions from 0 to {len(samples) - 1}; give numpy.flatnonzero of a mask")
    stays = np.ones(len(samples), dtype=bool)
    stays[out.astype(np.int64)] = False
    lost = np.setdiff1d(samples.y, samples.y[stays])
    if len(lost):
        raise DataError(f"every row of class {lost[0]} would go, and nobody could learn it; take a smaller share out")
    return _taken(samples, np.flatnonzero(stays))


def only(samples: Samples, suspicious: NDArray[np.int64]) -> Samples:
    """The rows at the positions suspicious (M,), in that order."""
    return _taken(samples, np.asarray(suspicious, dtype=np.int64))


def _taken(samples: Samples, at: NDArray[np.int64]) -> Samples:
    return Samples(
        samples.x[at],
        samples.y[at],
        None if samples.ids is None else tuple(samples.ids[i] for i in at),
        None if samples.source is None else tuple(samples.source[i] for i in at),
        samples.split,
    )


def accuracy(target: TorchTarget, samples: Samples) -> float:
    """The share of rows that get their label. Raises DataError for no rows."""
    if not len(samples):
        raise DataError("there are no rows to measure accuracy on; give some that can be trusted")
    x, y = rows(target, samples)
    with torch.no_grad():
        right = [target(a).argmax(1) == b for a, b in zip(torch.split(x, _BATCH), torch.split(y, _BATCH), strict=True)]
    return int(torch.cat(right).sum()) / len(samples)
