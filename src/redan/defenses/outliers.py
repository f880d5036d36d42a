"""Poison as rows far from their class, or in a thinner neighborhood than their neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from redan.defenses.neighbors import nearest
from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import SettingError

_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustMahalanobis:
    """Squared Mahalanobis distance from a class's center, both estimated without its farthest rows.

    The concentration steps of FAST-MCD (Rousseeuw and Van Driessen 1999, theorem 1) from one start, the rows nearest
    to the class's median by coordinates over their median absolute deviations, so that the order of rows and a seed
    do not matter; the paper takes the best of 500 random starts. The covariance of the kept rows is scaled to be that
    of a Gaussian, and blended with `shrinkage` of its mean variance times the identity, so that it can be inverted. A
    class with fewer than `least` rows has the covariance of all rows about the classes' means.

    keep: the share of a class's rows that estimates are from, above 1/2.

    Blind to poison inside of its class, and to more of it than 1 - keep.
    """

    keep: float = 0.75
    shrinkage: float = 0.01
    least: int = 20

    def __post_init__(self) -> None:
        if not 0.5 < self.keep <= 1 or not 0 < self.shrinkage <= 1 or self.least < 2:
            raise SettingError(
                f"robust distances need 0.5 < keep ≤ 1, 0 < shrinkage ≤ 1 and least ≥ 2, got {self.keep}, "
                f"{self.shrinkage} and {self.least}; the defaults are 0.75, 0.01 and 20"
            )

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        features, labels = suspects.known_features(), suspects.samples.y
        scores = np.zeros(len(suspects))
        within = features.copy()
        few = np.zeros(len(suspects), dtype=bool)
        for label in np.unique(labels):
            mine = labels == label
            within[mine] -= np.median(features[mine], axis=0)
            if int(mine.sum()) < self.least:
                few |= mine
            else:
                scores[mine] = self._distances(features[mine])
        if few.any():
            scores[few] = self._squared(within[few], np.zeros(features.shape[1]), np.cov(within.T, bias=True))
        return scores

    def _distances(self, rows: Numbers) -> Numbers:
        kept = max(2, int(self.keep * len(rows)))
        median = np.median(rows, axis=0)
        spread = np.median(np.abs(rows - median), axis=0)
        away = (np.divide(rows - median, spread, out=np.zeros_like(rows), where=spread > 0) ** 2).sum(1)
        dimensions = rows.shape[1]
        truncated = chi2.cdf(chi2.ppf(kept / len(rows), dimensions), dimensions + 2) if kept < len(rows) else 1.0
        least = np.inf
        for _ in range(_STEPS):  # the determinant falls with each step but for shrinkage, so it ends
            core = rows[np.argsort(away, kind="stable")[:kept]]
            covariance = np.cov(core.T, bias=True).reshape(dimensions, dimensions) * kept / len(rows) / truncated
            found = self._squared(rows, core.mean(0), covariance)
            within = float(np.sort(found)[:kept].sum()) + float(np.linalg.slogdet(self._blended(covariance))[1]) * kept
            if within >= least - 1e-9:
                break
            least, away = within, found
        return np.asarray(away)

    def _blended(self, covariance: Numbers) -> Numbers:
        variance = float(np.trace(covariance)) / len(covariance) or 1.0
        return (1 - self.shrinkage) * covariance + self.shrinkage * variance * np.eye(len(covariance))

    def _squared(self, rows: Numbers, center: Numbers, covariance: Numbers) -> Numbers:
        away = rows - center
        blended = self._blended(np.atleast_2d(covariance))
        return np.asarray(np.einsum("nd,nd->n", away, np.linalg.solve(blended, away.T).T))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOutlierFactor:
    """The local outlier factor, Breunig et al. 2000 (definitions 5 to 7): about 1 inside of a cluster, larger outside.

    A row's reachability density is the inverse of its mean reachability distance to its k nearest other rows; its
    factor is the mean of their densities over its own. Labels are not looked at. Exact copies of more than k rows have
    densities without bound, which are bounded here by 1e12 over the features' scale. k: at most N - 1 is used.

    Blind to poison that is as dense as k rows or more.
    """

    k: int = 20

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingError(f"a row needs one neighbor at least, got k={self.k}; 20 is usual")

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        features = suspects.known_features()
        k = min(self.k, len(suspects) - 1)
        if k < 1:
            return np.ones(len(suspects))
        distances, near = nearest(features, k)
        floor = max(float(np.abs(features).max()), 1.0) * 1e-12
        density = 1 / np.maximum(np.maximum(distances, distances[near, -1]).mean(1), floor)
        return np.asarray(density[near].mean(1) / density)
