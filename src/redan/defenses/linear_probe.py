"""What a linear model thinks of rows that it was not fitted to, where training networks anew would cost too much."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import softmax

from redan.defenses.suspicion import Numbers
from redan.errors import DataError, SettingError

__all__ = ["held_out_beliefs"]

_WIDEST = 512
_SHRINKAGE = 0.1


def held_out_beliefs(features: Numbers, y: NDArray[np.int64], classes: int, *, folds: int = 5, seed: int) -> Numbers:
    """Each row's class probabilities by linear discriminants that were fitted without it: (N, classes).

    Gaussians about the classes' means with one covariance (Fisher's discriminant), shrunk by a tenth toward a multiple
    of the identity; priors count one row more of each class. features: (N, D), projected at random on 512 dimensions
    where D is more. y: (N,), from 0 to classes - 1. Folds have their share of each class and hang on the rows' content
    and the seed alone, so the order of rows does not matter; copies are in one fold.

    Features of a network that was trained on the same rows know their labels already: a wrong label that the network
    has learned by heart is believed. Raises SettingError for fewer than 2 folds, DataError for
    labels that are no class.

    >>> held_out_beliefs(np.array([[0.0], [1.0], [9.0], [8.0]]), np.array([0, 0, 1, 1]), 2, folds=2, seed=0).shape
    (4, 2)
    """
    if folds < 2:
        raise SettingError(f"rows are held out in 2 folds at least, got {folds}; 5 is usual")
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise DataError(
            f"labels from {y.min()} to {y.max()} are not all classes from 0 to {classes - 1}; number the classes from 0"
        )
    rows = features - features.mean(0) if len(features) else features
    if rows.shape[1] > _WIDEST:
        rows = rows @ np.random.default_rng(seed).standard_normal((rows.shape[1], _WIDEST)) / np.sqrt(_WIDEST)
    fold = _folds(features, y, folds, seed)
    found = np.full((len(rows), classes), 1 / classes)
    for number in range(folds):
        out = fold == number
        if out.any() and not out.all():
            found[out] = softmax(_scores(rows[~out], y[~out], classes, rows[out]), axis=1)
    return found


def _folds(features: Numbers, y: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row, (N,): its rank, by a digest of its content, among its class's rows."""
    salt = str(seed).encode()
    digests = np.array([hashlib.blake2b(row.tobytes(), digest_size=8, key=salt).hexdigest() for row in features])
    fold = np.zeros(len(y), dtype=np.int64)
    for label in np.unique(y):
        mine = y == label
        fold[mine] = np.unique(digests[mine], return_inverse=True)[1] % folds
    return fold


def _scores(rows: Numbers, y: NDArray[np.int64], classes: int, asked: Numbers) -> Numbers:
    """Log-probabilities but for a constant a row: (M, classes)."""
    counts = np.bincount(y, minlength=classes)
    sums = np.zeros((classes, rows.shape[1]))
    np.add.at(sums, y, rows)
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], rows.mean(0))
    within = rows - means[y]
    covariance = within.T @ within / len(rows)
    variance = float(np.trace(covariance)) / max(1, len(covariance)) or 1.0
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * variance * np.eye(len(covariance))
    pull = linalg.solve(covariance, means.T, assume_a="pos")  # (D, classes)
    priors = np.log((counts + 1) / (counts.sum() + classes))
    return np.asarray(asked @ pull - 0.5 * (means.T * pull).sum(0) + priors)
