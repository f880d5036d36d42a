"""The exact copies: the same scores as scikit-learn to the last digits, slopes that its own answers confirm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from redan.formats.sklearn_torch import exact_module
from redan.protocols import Access
from redan.targets import Output, Target
from redan.targets.paired import Paired
from redan.targets.sklearn import from_sklearn

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:UserWarning")  # tiny networks, a few rounds


def test_what_is_no_estimator_has_no_copy() -> None:
    assert exact_module(object(), Output.LOGITS) is None


def rows(count: int = 90, columns: int = 6) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(1.0, 2.0, (count, columns))


def classes(x: NDArray[np.float64], count: int) -> NDArray[Any]:
    """Words, by thirds of a bent score of the rows."""
    score = np.tanh(x[:, 0]) - 0.3 * x[:, 1] ** 2 + x[:, 2]
    cuts = np.quantile(score, np.arange(1, count) / count)
    return np.array(["cat", "ant", "bee", "dog"])[np.searchsorted(cuts, score)]


def values(x: NDArray[np.float64], count: int = 1) -> NDArray[Any]:
    y = np.stack([np.sin(x[:, i]) + x[:, i + 1] for i in range(count)], 1)
    return y[:, 0] if count == 1 else y


def labels(x: NDArray[np.float64]) -> NDArray[Any]:
    return (x[:, :3] > 1).astype(int)


def _classifiers() -> dict[str, tuple[Callable[[], Any], Output, int]]:
    """name -> (how to make it, its answer, number of classes)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import (
        LogisticRegression,
        LogisticRegressionCV,
        Perceptron,
        RidgeClassifier,
        RidgeClassifierCV,
        SGDClassifier,
    )
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC, LinearSVC, NuSVC, OneClassSVM

    def mlp(**settings: Any) -> Callable[[], Any]:
        return lambda: MLPClassifier((5, 4), max_iter=60, random_state=0, **settings)

    share, logits = Output.PROBABILITIES, Output.LOGITS
    made: dict[str, tuple[Callable[[], Any], Output, int]] = {
        "logistic": (LogisticRegression, share, 2),
        "logistic logits": (LogisticRegression, logits, 2),
        "multinomial": (LogisticRegression, share, 4),
        "multinomial logits": (LogisticRegression, logits, 3),
        "liblinear": (lambda: LogisticRegression(solver="liblinear"), share, 2),
        "logistic by folds": (
            lambda: LogisticRegressionCV(
                Cs=(1.0,), cv=2, l1_ratios=(0,), scoring="accuracy", max_iter=999, use_legacy_attributes=False
            ),
            share,
            3,
        ),
        "linear SVC": (LinearSVC, logits, 2),
        "linear SVC of three": (LinearSVC, logits, 3),
        "SGD": (lambda: SGDClassifier(random_state=0), logits, 2),
        "SGD log loss": (lambda: SGDClassifier(loss="log_loss", alpha=0.1, random_state=0), share, 2),
        "SGD one against the rest": (lambda: SGDClassifier(loss="log_loss", alpha=0.1, random_state=0), share, 3),
        "ridge": (RidgeClassifier, logits, 2),
        "ridge by folds": (RidgeClassifierCV, logits, 3),
        "perceptron": (lambda: Perceptron(random_state=0), logits, 3),
        "LDA": (LinearDiscriminantAnalysis, share, 2),
        "LDA of three": (LinearDiscriminantAnalysis, share, 3),
        "LDA logits": (LinearDiscriminantAnalysis, logits, 3),
        "MLP relu": (mlp(activation="relu"), share, 2),
        "MLP tanh": (mlp(activation="tanh"), share, 3),
        "MLP logistic": (mlp(activation="logistic"), share, 4),
        "MLP identity": (mlp(activation="identity"), share, 3),
        "SVC rbf": (SVC, logits, 2),
        "SVC poly": (lambda: SVC(kernel="poly", coef0=0.5, degree=2), logits, 2),
        "SVC linear": (lambda: SVC(kernel="linear"), logits, 2),
        "SVC sigmoid": (lambda: SVC(kernel="sigmoid", gamma=0.05), logits, 2),
        "NuSVC": (NuSVC, logits, 2),
        "one class": (OneClassSVM, logits, 2),
    }
    return made


_CLASSIFIERS = (
    "logistic",
    "logistic logits",
    "multinomial",
    "multinomial logits",
    "liblinear",
    "logistic by folds",
    "linear SVC",
    "linear SVC of three",
    "SGD",
    "SGD log loss",
    "SGD one against the rest",
    "ridge",
    "ridge by folds",
    "perceptron",
    "LDA",
    "LDA of three",
    "LDA logits",
    "MLP relu",
    "MLP tanh",
    "MLP logistic",
    "MLP identity",
    "SVC rbf",
    "SVC poly",
    "SVC linear",
    "SVC sigmoid",
    "NuSVC",
    "one class",
)


def check(target: Target[Any], x: NDArray[np.float64], on_bends: float = 0.05) -> None:
    """It is climbed along a copy whose slope is that of the estimator's own answers, by central differences."""
    assert isinstance(target, Paired), target
    assert (target.access, target.dtype) == (Access.GRADIENTS, torch.float64)
    inputs = torch.from_numpy(x)
    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(inputs.shape, generator=draw, dtype=torch.float64)
    mix = torch.randn(target(inputs).shape, generator=draw, dtype=torch.float64)
    step = 1e-5
    slope = ((target(inputs + step * direction) - target(inputs - step * direction)) / (2 * step) * mix).sum(1)
    climbing = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((target(climbing) * mix).sum(), climbing)
    ours = (gradient * direction).sum(1)
    few_digits = 15 if target.output in (Output.PROBABILITIES, Output.SIGMOIDS) else torch.inf
    moderate = target(inputs).abs().amax(1) < few_digits
    close = (ours - slope).abs() < 1e-4 * (1 + slope.abs())
    assert int(moderate.sum()) > 20
    assert float(close[moderate].double().mean()) >= 1 - on_bends
    assert float(ours.abs().max()) > 0


@pytest.mark.extras
@pytest.mark.parametrize("name", _CLASSIFIERS)
def test_a_classifier_is_climbed_along_its_exact_copy(name: str) -> None:
    build, output, count = _classifiers()[name]
    x = rows()
    model = build().fit(x, classes(x, count))
    target = from_sklearn(model, rows=x, bounds=(-50, 50), output=output)
    check(target, x)
    assert target.classes == count


@pytest.mark.extras
def test_all_named_classifiers_are_tried() -> None:
    assert tuple(_classifiers()) == _CLASSIFIERS


@pytest.mark.extras
def test_regressors_are_climbed_along_their_exact_copies() -> None:
    from sklearn import linear_model, neural_network, svm

    x = rows()
    for model, count in (
        (linear_model.LinearRegression(), 1),
        (linear_model.LinearRegression(), 3),
        (linear_model.Ridge(), 2),
        (linear_model.Lasso(alpha=0.01), 1),
        (linear_model.ElasticNet(alpha=0.01), 1),
        (linear_model.HuberRegressor(), 1),
        (linear_model.BayesianRidge(), 1),
        (linear_model.SGDRegressor(random_state=0), 1),
        (svm.LinearSVR(loss="squared_epsilon_insensitive", dual=False), 1),
        (svm.SVR(), 1),
        (svm.NuSVR(kernel="poly", degree=2), 1),
        (neural_network.MLPRegressor(hidden_layer_sizes=5, activation="tanh", max_iter=60, random_state=0), 1),
        (neural_network.MLPRegressor(hidden_layer_sizes=5, activation="relu", max_iter=60, random_state=0), 2),
    ):
        target = from_sklearn(model.fit(x, values(x, count)), rows=x, bounds=(-50, 50), output=Output.VALUE)
        check(target, x)
        assert target(torch.from_numpy(x)).shape == (len(x), count)


@pytest.mark.extras
def test_a_regressor_of_counts_ends_with_an_exponential() -> None:
    from sklearn.neural_network import MLPRegressor

    x = rows()
    model = MLPRegressor(loss="poisson", hidden_layer_sizes=5, max_iter=60, random_state=0).fit(x, np.abs(values(x)))
    check(from_sklearn(model, rows=x, bounds=(-50, 50), output=Output.VALUE), x)


@pytest.mark.extras
def test_labels_that_do_not_exclude_each_other_are_climbed_by_their_log_odds() -> None:
    from sklearn.neural_network import MLPClassifier

    x = rows()
    model = MLPClassifier((5,), max_iter=60, random_state=0).fit(x, labels(x))
    target = from_sklearn(model, rows=x, bounds=(-50, 50))
    check(target, x)
    assert target.output is Output.SIGMOIDS


@pytest.mark.extras
def test_what_comes_before_is_part_of_the_copy() -> None:
    """Each transformer alone, all of them in a row, a pipeline in a pipeline, a search."""
    from sklearn import decomposition, feature_selection, preprocessing
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline, make_pipeline

    x = rows()
    x[:, 5] = 2.0  # a column without variance
    y = classes(x, 3)
    every = (
        preprocessing.StandardScaler(),
        preprocessing.StandardScaler(with_mean=False),
        preprocessing.StandardScaler(with_std=False),
        preprocessing.MinMaxScaler((-1, 2)),
        preprocessing.MinMaxScaler(clip=True),
        preprocessing.MaxAbsScaler(),
        preprocessing.RobustScaler(),
        preprocessing.RobustScaler(with_centering=False, unit_variance=True),
        preprocessing.RobustScaler(with_scaling=False),
        decomposition.PCA(3),
        decomposition.PCA(3, whiten=True),
        decomposition.TruncatedSVD(3, random_state=0),
        feature_selection.VarianceThreshold(),
        make_pipeline(
            feature_selection.VarianceThreshold(), feature_selection.SelectKBest(feature_selection.f_classif, k=2)
        ),
        "passthrough",
    )
    for step in every:
        model = make_pipeline(step, LogisticRegression()).fit(x, y)
        check(from_sklearn(model, rows=x, bounds=(-50, 50)), x, on_bends=0.15)  # each column's extremes, where cut
    long = Pipeline(
        [
            ("first", make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(4))),
            ("nothing", "passthrough"),
            ("second", preprocessing.MinMaxScaler()),
            ("last", LogisticRegression()),
        ]
    )
    check(from_sklearn(GridSearchCV(long, {"last__C": [0.1, 10]}, cv=2).fit(x, y), rows=x, bounds=(-50, 50)), x)


@pytest.mark.extras
def test_there_is_a_slope_where_probabilities_round_to_one() -> None:
    from sklearn.linear_model import LogisticRegression

    x = rows()
    model = LogisticRegression(C=1e6).fit(x, (x[:, 0] > 1).astype(int))
    far = np.zeros((1, 6))
    far[0, 0] = 60.0
    assert model.predict_proba(far)[0, 1] == 1.0
    climbing = torch.from_numpy(far).requires_grad_()
    scores = from_sklearn(model, rows=x, bounds=(-99, 99))(climbing)
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), climbing)
    np.testing.assert_allclose(gradient.numpy(), -model.coef_, rtol=1e-9)


@pytest.mark.extras
def test_whatever_else_is_attacked_by_its_scores() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures
    from sklearn.svm import SVC

    x = rows()
    y, three = classes(x, 2), classes(x, 3)
    for model, output in (
        (RandomForestClassifier(3).fit(x, y), Output.PROBABILITIES),
        (make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=9999)).fit(x / 5, y), Output.PROBABILITIES),
        (SGDClassifier(loss="modified_huber").fit(x, y), Output.PROBABILITIES),
        (SVC().fit(x, three), Output.LOGITS),
        (SVC(kernel=lambda a, b: a @ b.T).fit(x, y), Output.LOGITS),
    ):
        assert exact_module(model, output) is None
        assert from_sklearn(model, rows=x, bounds=(-50, 50), output=output).access is Access.SCORES
    logistic = LogisticRegression().fit(x, y)
    assert exact_module(logistic, Output.LABELS) is None
    assert from_sklearn(logistic, rows=x, output=Output.LABELS).access is Access.LABELS


@pytest.mark.extras
def test_a_copy_is_fixed_and_its_own() -> None:
    from sklearn.linear_model import LogisticRegression

    x = rows()
    model = LogisticRegression().fit(x, classes(x, 2))
    module = exact_module(model, Output.LOGITS)
    assert isinstance(module, nn.Module)
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())
    before = module(torch.from_numpy(x))
    model.coef_[:] = 0
    assert torch.equal(module(torch.from_numpy(x)), before)
