"""Poison as the smaller one of two clusters in a class's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import SettingError

_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationClustering:
    """Activation clustering, Chen et al. 2018 (arXiv:1811.03728, algorithm 1 and section 4.2).

    In each class the features are reduced to `components` independent ones and split by 2-means. Independent
    components are whitened principal ones but for a rotation, which 2-means does not see, so the rotation is left out.
    The paper calls a cluster poison by its size, its silhouette or by training again; here a row's number is
    (b - a) / max(a, b) · s · (1 - 2 r): a and b are its squared distances to the centers of the smaller and the larger
    cluster, s the mean silhouette of the class, r the smaller cluster's share. So in equal halves, where none is the
    smaller, all are 0.

    components: at most the class's rows less 1 and the features' dimensions. starts: directions drawn by the seed,
    beside the principal ones; from the best split along each, 2-means goes on, and the tightest result is kept.
    A class with fewer than `least` rows scores 0.

    Blind where poison has no cluster of its own (blended adaptively, spread over many features), is half of a class, or
    so little of it that 2-means would rather cut the others in halves (5 % at 6 standard deviations).
    """

    components: int = 10
    starts: int = 16
    least: int = 10

    def __post_init__(self) -> None:
        if self.components < 1 or self.starts < 0 or self.least < 3:
            raise SettingError(
                f"clusters need components ≥ 1, starts ≥ 0 and least ≥ 3, got {self.components}, {self.starts} and "
                f"{self.least}; the defaults are 10, 16 and 10"
            )

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:
        features, labels = suspects.known_features(), suspects.samples.y
        scores = np.zeros(len(suspects))
        for label in np.unique(labels):
            mine = labels == label
            if int(mine.sum()) < self.least:
                continue
            reduced = whitened(features[mine], self.components)
            if reduced.shape[1]:
                drawn = np.random.default_rng(seed).standard_normal((self.starts, reduced.shape[1]))
                scores[mine] = _smaller(reduced, two_means(reduced, np.vstack([np.eye(reduced.shape[1]), drawn])))
        return scores


class Split(NamedTuple):
    """Two clusters of rows."""

    first: NDArray[np.bool_]  # (N,)
    centers: Numbers  # (2, D): of the first cluster and of the second one
    inertia: float  # the sum of squared distances to the own center


def whitened(rows: Numbers, components: int) -> Numbers:
    """The first principal components of rows (N, D), each of variance 1: (N, C), with C ≤ components.

    Directions without variance are left out. The sign of each is that of its largest weight, so that the order of
    rows does not matter.
    """
    centered = rows - rows.mean(0)
    if len(rows) > rows.shape[1] > 0:  # the covariance is smaller than the rows: several times cheaper
        first = max(0, rows.shape[1] - components)
        squares, columns = eigh(centered.T @ centered, subset_by_index=(first, rows.shape[1] - 1))
        values, right = np.sqrt(squares[::-1].clip(0)), columns.T[::-1]
    else:
        _, values, right = np.linalg.svd(centered, full_matrices=False)
    kept = int((values[:components] > values[:1] * 1e-6).sum()) if values[:1].any() else 0
    weights = right[:kept]
    signs = np.sign(weights[np.arange(kept), np.abs(weights).argmax(1)])
    return np.asarray(centered @ (weights * (signs / values[:kept])[:, None]).T * np.sqrt(len(rows)))


def two_means(rows: Numbers, directions: Numbers) -> Split:
    """The tightest of the splits of rows (N, D) in two that Lloyd's steps find from the best cut along each direction.

    >>> two_means(np.array([[0.0], [1.0], [9.0]]), np.eye(1)).inertia
    0.5
    """
    first = np.stack([_cut(along) for along in directions @ rows.T], 1)  # (N, S), a column for each direction
    total = rows.sum(0)
    for _ in range(_ROUNDS):  # Lloyd 1982, all starts at once
        upper, lower = _centers(rows, first, total)
        moved = rows @ (upper - lower).T > ((upper**2).sum(1) - (lower**2).sum(1)) / 2
        if np.array_equal(moved, first):
            break
        first = moved
    upper, lower = _centers(rows, first, total)
    sizes = first.sum(0)
    between = sizes * (upper**2).sum(1) + (len(rows) - sizes) * (lower**2).sum(1)
    inertia = np.where((sizes > 0) & (sizes < len(rows)), (rows**2).sum() - between, np.inf)
    best = int(inertia.round(6).argmin())  # rounded, so that the order of rows decides no tie
    return Split(first[:, best], np.stack([upper[best], lower[best]]), float(inertia[best]))


def _centers(rows: Numbers, first: NDArray[np.bool_], total: Numbers) -> tuple[Numbers, Numbers]:
    """The centers (S, D) of the first clusters and of the second ones; 0 for an empty one."""
    sums, sizes = first.T.astype(np.float64) @ rows, first.sum(0)[:, None]
    return sums / np.maximum(sizes, 1), (total - sums) / np.maximum(len(rows) - sizes, 1)


def _cut(along: Numbers) -> NDArray[np.bool_]:
    """The cut of numbers (N,) in two with the least sum of squares: which are above it."""
    ordered = np.sort(along)
    n = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    between = sums[:-1] ** 2 / n + (sums[-1] - sums[:-1]) ** 2 / (len(ordered) - n)
    return np.asarray(along > ordered[int(between.argmax())])


def _smaller(rows: Numbers, split: Split) -> Numbers:
    """Each row's place from the larger cluster's center, -1, to the smaller one's, 1, by the class's weight."""
    share = float(split.first.mean())
    small = 0 if share < 0.5 else 1
    squares = ((rows[:, None] - split.centers) ** 2).sum(2)
    most = squares.max(1)
    nearer = np.divide(squares[:, 1 - small] - squares[:, small], most, out=np.zeros(len(rows)), where=most > 0)
    return np.asarray(nearer * max(0.0, float(silhouettes(rows, split.first).mean())) * abs(1 - 2 * share))


def silhouettes(rows: Numbers, first: NDArray[np.bool_]) -> Numbers:
    """Each row's silhouette in a split in two (Rousseeuw 1987), (N,), by squared distances: from -1 to 1.

    The mean squared distance from a row to a cluster is that to its center plus the cluster's spread, so that N rows
    cost N and not N². A row alone in its cluster has 0, and so have all where there is one cluster.
    """
    if first.all() or not first.any():
        return np.zeros(len(rows))
    means = np.empty((len(rows), 2))
    for column, mine in enumerate((first, ~first)):
        members, size = rows[mine], int(mine.sum())
        center = members.mean(0)
        means[:, column] = ((rows - center) ** 2).sum(1) + ((members - center) ** 2).sum() / size
        means[mine, column] *= size / max(1, size - 1)  # a row is at no distance from itself
    own = np.where(first, means[:, 0], means[:, 1])
    other = np.where(first, means[:, 1], means[:, 0])
    most = np.maximum(own, other)
    values = np.divide(other - own, most, out=np.zeros(len(rows)), where=most > 0)
    for mine in (first, ~first):
        if mine.sum() == 1:
            values[mine] = 0.0
    return np.asarray(values)
