"""Suspicion as the distance from the nearest class, each a Gaussian in feature space (Lee et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.rejection.features import Features, features_of

_PENALTY = 1e-6  # of squared weights, where the two kinds of rows can be told apart without error


@dataclass(frozen=True, slots=True)
class Gaussians:
    """Classes as Gaussians with one covariance: coordinates in which it is the identity, and the means in them.

    Directions in which the rows do not vary are left out, as the pseudo-inverse of a covariance does.
    """

    whiten: Tensor  # (D, R)
    means: Tensor  # (K, R)

    def distances(self, rows: Tensor) -> Tensor:
        """Squared Mahalanobis distances of rows (N, D) from each class: (N, K)."""
        apart = (rows @ self.whiten)[:, None] - self.means
        return apart.square().sum(2)


def gaussians(rows: Tensor, labels: Tensor) -> Gaussians:
    """Means of classes and their tied covariance (Lee et al. 2018, equation 1), from rows (N, D) and classes (N,).

    Computed in double precision. Raises DataError where the rows do not vary within their classes.
    """
    given, codes = torch.unique(labels, return_inverse=True)
    wide = rows.to(torch.float64)
    counts = codes.bincount(minlength=len(given)).to(wide.dtype)
    means = torch.zeros(len(given), rows.shape[1], dtype=wide.dtype, device=rows.device).index_add_(0, codes, wide)
    means = means / counts[:, None]
    centered = wide - means[codes]
    values, vectors = torch.linalg.eigh(centered.T @ centered / max(1, len(wide)))
    floor = len(values) * torch.finfo(wide.dtype).eps * float(values.abs().max()) if len(values) else 0.0
    kept = values > floor
    if not bool(kept.any()):
        raise DataError(
            f"the features of {len(rows)} rows do not vary within their {len(given)} classes, so there is no "
            "covariance; give more rows of each class"
        )
    whiten = vectors[:, kept] / values[kept].sqrt()
    return Gaussians(whiten.to(rows.dtype), (means @ whiten).to(rows.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mahalanobis:
    """The detector of Lee et al. 2018 (arXiv:1807.03888, algorithm 1). Build it with `mahalanobis`.

    A layer's number is the squared Mahalanobis distance from the nearest class, which is the paper's confidence
    (equation 2) with its sign turned. The score is their sum over layers, weighted; `weighted` finds the paper's
    weights. magnitude: of its input preprocessing, in units of the input: x moves against the sign of the number's
    gradient first, one more pass a layer. As in the authors' code it may leave the inputs' box.

    The sign's slope is zero wherever it has one, so the gradient in x is that at the moved input, exactly.
    """

    features: Features
    classes: tuple[Gaussians, ...] = field(repr=False)
    weights: tuple[float, ...]
    magnitude: float = 0.0

    surrogate = False

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.classes) or self.magnitude < 0:
            raise SettingError(
                f"{len(self.classes)} layers need as many weights, and a magnitude of 0 or more, got "
                f"{len(self.weights)} weights and {self.magnitude:g}; 0 leaves inputs as they are"
            )

    @property
    def stochastic(self) -> bool:
        return self.features.target.stochastic

    def score(self, x: Tensor) -> Tensor:
        weights = torch.tensor(self.weights, dtype=x.dtype, device=x.device)
        return self.layers(x) @ weights

    def layers(self, x: Tensor) -> Tensor:
        """Each layer's number for x (N, …): (N, L)."""
        if not self.magnitude:
            return torch.stack(self._nearest(x), 1)
        columns = []
        for at in range(len(self.classes)):
            with torch.enable_grad():
                here = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self._nearest(here)[at].sum(), here)
            moved = x - self.magnitude * torch.where(slope >= 0, 1.0, -1.0).to(x.dtype)
            columns.append(self._nearest(moved)[at])
        return torch.stack(columns, 1)

    def _nearest(self, x: Tensor) -> list[Tensor]:
        return [each.distances(part).amin(1) for each, part in zip(self.classes, self.features(x), strict=True)]


def mahalanobis(
    features: Features,
    x: Tensor,
    y: Tensor,
    *,
    weights: Sequence[float] | None = None,
    magnitude: float = 0.0,
) -> Mahalanobis:
    """The detector fit to clean training rows x (N, …) of classes y (N,).

    weights: of each layer; unless given, the reciprocal of its dimensions, so that each layer's number is about 1
    where the Gaussians fit (the paper has no weights without examples of attacks: see `weighted`). Raises DataError
    where labels do not fit the rows.
    """
    if y.shape != x.shape[:1] or not len(x):
        raise DataError(f"rows (N, …) need classes (N,), got {tuple(x.shape)} and {tuple(y.shape)}; give one a row")
    classes = tuple(gaussians(part, y.to(part.device)) for part in features_of(features, x))
    found = tuple(1 / each.whiten.shape[1] for each in classes) if weights is None else tuple(map(float, weights))
    return Mahalanobis(features=features, classes=classes, weights=found, magnitude=magnitude)


def weighted(detector: Mahalanobis, clean: Tensor, attacked: Tensor) -> Mahalanobis:
    """The detector with layers weighted by a logistic regression of attacked rows from clean ones, as in the paper.

    clean, attacked: rows (N, …) that are not used again to calibrate or to measure. The regression's constant is left
    out of the score, where it changes no order. Raises DataError where one kind is missing.
    """
    if not len(clean) or not len(attacked):
        raise DataError(
            f"{len(clean)} clean and {len(attacked)} attacked rows; weights are learned from both, give some of each"
        )
    with torch.no_grad():
        numbers = torch.cat([detector.layers(clean), detector.layers(attacked)]).to("cpu", torch.float64).numpy()
    kinds = np.repeat([-1.0, 1.0], [len(clean), len(attacked)])
    spread = np.maximum(numbers.std(0), np.finfo(np.float64).tiny)
    scaled = (numbers - numbers.mean(0)) / spread
    given = np.column_stack([scaled, np.ones(len(scaled))]) * kinds[:, None]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = given @ weights
        slopes = -given / (1 + np.exp(np.clip(margins, -500, 500)))[:, None]
        value = np.logaddexp(0, -margins).mean() + _PENALTY * float(weights @ weights)
        return float(value), slopes.mean(0) + 2 * _PENALTY * weights

    found = minimize(loss, np.zeros(given.shape[1]), jac=True, method="L-BFGS-B").x[:-1] / spread
    return replace(detector, weights=tuple(float(weight) for weight in found))
