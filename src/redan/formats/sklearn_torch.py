"""scikit-learn's linear models, MLPs and kernel machines as torch modules that compute the same scores.

Scores are on the scale of logits that targets answer on. Where an estimator's probabilities round to 0 or 1, the
module still knows their logarithms, so that there is a slope to climb.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from torch import nn

from redan.formats.sklearn_layers import (
    Affine,
    Columns,
    Exponential,
    Halves,
    Kernel,
    KernelMachine,
    OneVersusRest,
    linear,
)
from redan.protocols import Output

_KERNELS = {"linear": Kernel.LINEAR, "poly": Kernel.POLYNOMIAL, "rbf": Kernel.RBF, "sigmoid": Kernel.SIGMOID}


def exact_module(estimator: Any, output: Output) -> nn.Module | None:
    """The module that answers rows (N, d) with an estimator's scores (N, K) on the scale of logits, or None.

    Known are linear models, MLPClassifier and MLPRegressor, and kernel machines (SVC of two classes and OneClassSVM by
    LOGITS, SVR), alone or after StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA, TruncatedSVD and any
    selection of columns, also as the best of a search. Weights are float64, fixed copies. None for any other
    estimator or answer, and for LABELS.
    """
    if "sklearn" not in sys.modules:  # then nothing can be an estimator of its
        return None
    *before, last = _steps(estimator)
    scores = _scores(last, output)
    if scores is None:
        return None
    parts = []
    for step in before:
        part = _transform(step)
        if part is None:
            return None
        parts.append(part)
    return nn.Sequential(*parts, scores).double().requires_grad_(False).eval()


def _steps(estimator: Any) -> list[Any]:
    """What rows go through, with pipelines and searches opened; the estimator that answers is the last."""
    if hasattr(estimator, "steps"):
        inner = [_steps(step) for _, step in estimator.steps if step is not None and step != "passthrough"]
        return [step for steps in inner for step in steps] or [None]
    if hasattr(estimator, "best_estimator_"):
        return _steps(estimator.best_estimator_)
    return [estimator]


def _transform(step: Any) -> nn.Module | None:
    """What a step of a pipeline does to rows (N, d), or None where it is not known."""
    from sklearn.decomposition import PCA, TruncatedSVD
    from sklearn.feature_selection import SelectorMixin
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    match step:
        case StandardScaler():
            return Affine(shift=step.mean_ if step.with_mean else None, scale=step.scale_)
        case MinMaxScaler():
            limits = (float(step.feature_range[0]), float(step.feature_range[1]))
            return Affine(scale=1 / step.scale_, offset=step.min_, limits=limits if step.clip else None)
        case MaxAbsScaler():
            return Affine(scale=step.scale_, limits=(-1.0, 1.0) if getattr(step, "clip", False) else None)
        case RobustScaler():
            return Affine(shift=step.center_, scale=step.scale_)
        case PCA():
            spread = np.sqrt(step.explained_variance_)
            floor = np.finfo(spread.dtype).eps  # scikit-learn's own, for components without variance
            weight = step.components_ / (np.maximum(spread, floor)[:, None] if step.whiten else 1.0)
            return linear(weight, -weight @ step.mean_)
        case TruncatedSVD():
            return linear(step.components_, 0.0)
        case SelectorMixin():
            return Columns(step.get_support(indices=True))
        case _:
            return None


def _scores(last: Any, output: Output) -> nn.Module | None:
    match output:
        case Output.LOGITS:
            return _logits(last)
        case Output.PROBABILITIES:
            return _probabilities(last)
        case Output.SIGMOIDS:
            return _sigmoids(last)
        case Output.VALUE:
            return _value(last)
        case Output.LABELS:
            return None


def _logits(last: Any) -> nn.Module | None:
    """What `decision_function` computes."""
    from sklearn import linear_model
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.svm import SVC, LinearSVC, NuSVC, OneClassSVM

    match last:
        case (
            LinearDiscriminantAnalysis()
            | LinearSVC()
            | linear_model.LogisticRegression()
            | linear_model.PassiveAggressiveClassifier()
            | linear_model.Perceptron()
            | linear_model.RidgeClassifier()
            | linear_model.RidgeClassifierCV()
            | linear_model.SGDClassifier()
        ):
            return _of_two(_weights(last))
        case SVC() | NuSVC() if len(last.classes_) == 2:
            return _kernel(last, nn.Sequential(Halves()))
        case OneClassSVM():
            return _kernel(last, nn.Sequential(Halves()))
        case _:
            return None


def _probabilities(last: Any) -> nn.Module | None:
    """The logarithms of what `predict_proba` computes for classes that exclude each other."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.neural_network import MLPClassifier

    match last:
        case LogisticRegression() | LinearDiscriminantAnalysis():
            return _normalized(_weights(last), _against_the_rest(last))
        case SGDClassifier() if last.loss == "log_loss":
            return _normalized(_weights(last), True)
        case MLPClassifier() if last.out_activation_ == "softmax" or last.n_outputs_ == 1:
            return _normalized(_layers(last), False)
        case _:
            return None


def _sigmoids(last: Any) -> nn.Module | None:
    """The log-odds of what `predict_proba` computes for labels that do not exclude each other."""
    from sklearn.neural_network import MLPClassifier

    match last:
        case MLPClassifier() if last.out_activation_ == "logistic":
            return _layers(last)
        case _:
            return None


def _value(last: Any) -> nn.Module | None:
    """What `predict` of a regressor computes."""
    from sklearn import linear_model
    from sklearn.neural_network import MLPRegressor
    from sklearn.svm import SVR, LinearSVR, NuSVR

    match last:
        case (
            LinearSVR()
            | linear_model.ARDRegression()
            | linear_model.BayesianRidge()
            | linear_model.ElasticNet()
            | linear_model.ElasticNetCV()
            | linear_model.HuberRegressor()
            | linear_model.Lars()
            | linear_model.LassoCV()
            | linear_model.LinearRegression()
            | linear_model.OrthogonalMatchingPursuit()
            | linear_model.QuantileRegressor()
            | linear_model.Ridge()
            | linear_model.RidgeCV()
            | linear_model.SGDRegressor()
            | linear_model.TheilSenRegressor()
        ):
            return _weights(last)
        case SVR() | NuSVR():
            return _kernel(last, nn.Sequential())
        case MLPRegressor() if last.out_activation_ == "identity":
            return _layers(last)
        case MLPRegressor() if last.out_activation_ == "exp":
            return nn.Sequential(_layers(last), Exponential())
        case _:
            return None


def _weights(last: Any) -> nn.Linear:
    sparse = getattr(last.coef_, "toarray", None)
    return linear(last.coef_ if sparse is None else sparse(), last.intercept_)


def _of_two(raw: nn.Linear) -> nn.Module:
    return nn.Sequential(raw, Halves()) if raw.out_features == 1 else raw


def _normalized(raw: nn.Module, against_the_rest: bool) -> nn.Module:
    """Scores to logarithms of probabilities, as a softmax or as one sigmoid a class makes them."""
    *_, final = [part for part in raw.modules() if isinstance(part, nn.Linear)]
    if final.out_features == 1:
        return nn.Sequential(raw, Halves(), nn.LogSoftmax(1))
    return nn.Sequential(raw, OneVersusRest() if against_the_rest else nn.LogSoftmax(1))


def _against_the_rest(last: Any) -> bool:
    """Whether several classes were fit one by one, as scikit-learn before 1.8 could."""
    said = getattr(last, "multi_class", "auto")
    return said == "ovr" or (said != "multinomial" and getattr(last, "solver", "") == "liblinear")


def _layers(last: Any) -> nn.Sequential:
    """The layers of an MLP, without what comes after the last."""
    bends = {"identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
    parts: list[nn.Module] = []
    for weight, bias in zip(last.coefs_, last.intercepts_, strict=True):
        parts += [linear(weight.T, bias), bends[last.activation]()]
    return nn.Sequential(*parts[:-1])


def _kernel(last: Any, after: nn.Sequential) -> nn.Module | None:
    """Σ dual_coef · k(x, support vector) + intercept, or None for a kernel that is a function or a matrix."""
    kernel = _KERNELS.get(last.kernel) if isinstance(last.kernel, str) else None
    gamma = getattr(last, "_gamma", None)  # what "scale" and "auto" came to; scikit-learn has no public name for it
    if kernel is None or gamma is None or hasattr(last.support_vectors_, "toarray"):
        return None
    machine = KernelMachine(
        kernel=kernel,
        vectors=last.support_vectors_,
        weight=last.dual_coef_,
        bias=last.intercept_,
        gamma=float(gamma),
        offset=float(last.coef0),
        degree=float(last.degree),
    )
    return nn.Sequential(machine, *after)
