"""Suspicion as the distance from the k-th nearest training row in feature space."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.rejection.features import Features, features_of

_NUMBERS = 2**22  # of a block of distances


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestRows:
    """The detector of Sun et al. 2022 (arXiv:2204.06507). Build it with `nearest_rows`.

    The score is the Euclidean distance of a row's features, brought to length 1, from the k-th nearest of the bank's.
    It needs no labels and no distribution. Deep k-nearest neighbors (Papernot and McDaniel 2018, arXiv:1803.04765)
    counts the neighbors of another label instead, which has no gradient of its own; a distance has one, so that an
    attacker who climbs it is not fooled.

    Several layers: the mean of their distances. Which rows are nearest is found by |a|² + |b|² - 2ab in blocks; the
    distance of the k-th by subtraction, and that is what has a gradient.
    """

    features: Features
    bank: tuple[Tensor, ...] = field(repr=False)  # (M, D) for each layer
    k: int
    normalized: bool = True

    surrogate = False

    def __post_init__(self) -> None:
        rows = min((len(part) for part in self.bank), default=0)
        if not 1 <= self.k <= rows:
            raise SettingError(f"k must be from 1 to the bank's {rows} rows, got {self.k}; 50 is usual of 50,000")

    @property
    def stochastic(self) -> bool:
        return self.features.target.stochastic

    def score(self, x: Tensor) -> Tensor:
        apart = [
            _kth_distance(_unit(part) if self.normalized else part, bank, self.k)
            for part, bank in zip(self.features(x), self.bank, strict=True)
        ]
        return torch.stack(apart).mean(0)


def nearest_rows(features: Features, x: Tensor, *, k: int = 50, normalized: bool = True) -> NearestRows:
    """The detector with a bank of clean training rows x (M, …).

    k: 50 of CIFAR-10's 50,000 rows in the paper; fewer rows want a smaller one. normalized: features of length 1, on
    which the paper's results rest. Raises DataError without rows, SettingError for a k that is not of them.
    """
    if not len(x):
        raise DataError("there are no rows to be near to; give clean training rows")
    found = features_of(features, x)
    return NearestRows(
        features=features, bank=tuple(map(_unit, found)) if normalized else found, k=k, normalized=normalized
    )


def _unit(rows: Tensor) -> Tensor:
    """Rows (N, D) of length 1; zeros stay."""
    return torch.nn.functional.normalize(rows, dim=1)


def _kth_distance(rows: Tensor, bank: Tensor, k: int) -> Tensor:
    """The distance of rows (N, D) from the k-th nearest of the bank (M, D): (N,)."""
    with torch.no_grad():
        center = bank.mean(0)  # less is canceled near the origin
        near, squares = bank - center, (bank - center).square().sum(1)
        block = max(1, _NUMBERS // len(bank))
        kth = [
            (squares - 2 * (part - center) @ near.T).topk(k, 1, largest=False).indices[:, -1]
            for part in rows.detach().tensor_split(max(1, -(-len(rows) // block)))
        ]
        at = torch.cat(kth)
    found: Tensor = torch.linalg.vector_norm(rows - bank[at], dim=1)
    return found
