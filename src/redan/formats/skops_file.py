"""Estimators from skops files, of which only types that somebody has looked at are ever made.

skops trusts what cannot run a program or crash an interpreter. Of what it leaves out, this file knows two kinds by
name: plain Python of scikit-learn, and compiled parts whose memory a crafted file could overrun. A file with any of
the latter is opened in a process of its own.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from redan.errors import TargetError
from redan.formats.isolated import isolated

_KERNELS = (
    "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF "
    "RationalQuadratic Sum WhiteKernel"
)
_PLAIN = frozenset(
    {
        "numpy.dtype",
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.feature_selection._univariate_selection.r_regression",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        *(f"sklearn.gaussian_process.kernels.{name}" for name in _KERNELS.split()),
    }
)
"""Python without effects: nothing of it runs a program, opens a file or indexes memory."""
_COMPILED = frozenset(
    {
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
    }
)
"""Compiled code that follows indices from the file without checking them."""


def load_skops(path: Path) -> Any:
    """The estimator in a skops file. It cannot run a program: each type in it is known, and no other is made.

    Trees, forests and neighbours are answered by a process of their own (`Isolated`), because compiled code follows
    the indices that the file gives it. All others are loaded here.

    Raises TargetError where there is no such file, where it is no skops file, and where it holds other types, which
    are named.
    """
    if not path.is_file():
        raise TargetError(f"there is no file {path}; check system.model.sklearn in the threat model")
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise TargetError("reading .skops files needs skops; pip install 'redan[sklearn]'") from error
    try:
        asked = frozenset(skops.io.get_untrusted_types(file=path))
    except Exception as error:  # a crafted or a broken file may raise anything while it is read
        raise TargetError(_unreadable(path, error)) from error
    strange = sorted(asked - _PLAIN - _COMPILED)
    if strange:
        raise TargetError(
            f"{path.name} holds {', '.join(strange[:3])}{' and more' if len(strange) > 3 else ''}, which redan does "
            "not know to be harmless, so nothing of it was made; fit it without, or save it with joblib and pass "
            "--trust-pickle if you trust whoever made it"
        )
    if asked & _COMPILED:
        return isolated(path, sorted(asked))
    try:
        return skops.io.load(path, trusted=sorted(asked))
    except Exception as error:
        raise TargetError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return f"{path.name} is not a skops file; write one with skops.io.dump(estimator, '{path.stem}.skops')"
    return (
        f"{path.name} cannot be read as a skops file ({type(error).__name__}: {error}); write it again with the "
        "versions of scikit-learn and skops that are installed here"
    )
