"""A scikit-learn scorer: robust accuracy in `cross_val_score`, `GridSearchCV` and wherever a scorer goes.

>>> from redan.perturbations.norms import Linf
>>> robust_scorer(within=Linf(0.1)).mode
<Mode.DEFAULT: 'default'>
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from redan.errors import DataError, TargetError
from redan.protocols import Ball
from redan.robustness import Mode, robust_accuracy
from redan.targets import Target, from_sklearn

__all__ = ["RobustScorer", "robust_scorer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustScorer:
    """(estimator, X, y) -> robust accuracy, k / n. Build it with `robust_scorer`; it can be pickled for `n_jobs`."""

    within: Ball
    mode: Mode
    bounds: tuple[float, float]
    seed: int
    model: Callable[[Any], nn.Module | Target[Tensor]] | None

    def __call__(self, estimator: Any, X: ArrayLike, y: ArrayLike) -> float:
        rows = np.asarray(X)
        if not np.issubdtype(rows.dtype, np.floating):
            rows = rows.astype(np.float64)
        target = self._target(estimator, rows)
        score = robust_accuracy(
            target,
            rows,
            _numbers(estimator, np.asarray(y)),
            within=self.within,
            mode=self.mode,
            bounds=self.bounds,
            seed=self.seed,
            workers=1,  # the caller's n_jobs decides how many cores there are
        )
        return score.value

    def _target(self, estimator: Any, rows: NDArray[Any]) -> nn.Module | Target[Tensor]:
        if self.model is not None:
            return self.model(estimator)
        if not hasattr(estimator, "predict_proba"):
            raise TargetError(
                f"{type(estimator).__name__} has no predict_proba, so it cannot be attacked by its scores; calibrate "
                "it (CalibratedClassifierCV), or give robust_scorer(model=…) the torch module that it holds"
            )
        return from_sklearn(estimator, bounds=self.bounds, rows=rows)


def robust_scorer(
    *,
    within: Ball,
    mode: Mode | str = Mode.DEFAULT,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    model: Callable[[Any], nn.Module | Target[Tensor]] | None = None,
) -> RobustScorer:
    """A scorer that attacks the fitted estimator on the rows it is given.

    Accepted are classifiers (and pipelines that end with one) with `classes_` and `predict_proba`. Linear models, MLPs
    and kernel machines are attacked by exact gradients; all others by their scores alone (Square, as many queries as
    the mode says), which sees less than an attacker who has the model (`redan.targets.from_sklearn`). For an estimator
    that holds a torch module, model tells where: it gets the estimator and returns the module in evaluation mode, or a
    Target, that answers (N, K) for the same X, its columns in the order of `classes_` if there are any; it is then
    attacked by gradients. `operator.attrgetter("module_")` is such a function, and can be pickled.

    within is in units of X, and bounds are those of X, before any scaler of the pipeline. Rows wrong without an attack
    count as broken. For scikit-learn a scorer that raises is a score of NaN and a warning; pass error_score="raise".
    """
    return RobustScorer(within=within, mode=Mode(mode), bounds=bounds, seed=seed, model=model)


def _numbers(estimator: Any, y: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as class numbers: their positions in `classes_`; a module's labels are numbers already."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return y.astype(np.int64)
    strange = np.setdiff1d(y, classes)
    if len(strange):
        raise DataError(
            f"the estimator was not trained on the class {strange[0]} that it is tested on; use stratified folds"
        )
    return np.searchsorted(classes, y).astype(np.int64)
