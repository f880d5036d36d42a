"""The scikit-learn scorer: exact on linear victims, in its own label order, and inside cross-validation."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from redan.errors import DataError, TargetError
from redan.integrations.sklearn import robust_scorer
from redan.perturbations.norms import Linf
from redan.robustness import Mode

WEIGHT = np.array([3.0, -2.0, 1.0, 0.5])


class Logistic:
    """A fitted classifier of "bad" and "good" whose margin is x · WEIGHT − 1."""

    classes_ = np.array(["bad", "good"])

    def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:
        good = 1 / (1 + np.exp(1 - X @ WEIGHT))
        return np.stack([1 - good, good], 1)


@dataclass
class Holder:
    """An estimator that holds a torch module."""

    module_: nn.Module
    classes_: NDArray[Any]


def rows(count: int = 40) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows far enough from the box's walls, and the labels that the classifier gives them."""
    x = np.random.default_rng(0).uniform(0.2, 0.8, (count, 4))
    return x, Logistic.classes_[(x @ WEIGHT > 1).astype(int)]


def expected(x: NDArray[Any], radius: float) -> float:
    """The share of rows that no change within L∞ radius can break: margin above radius times the dual norm."""
    return float((np.abs(x @ WEIGHT - 1) > radius * np.abs(WEIGHT).sum()).mean())


@pytest.mark.parametrize("radius", [0.02, 0.1])
def test_by_scores_it_finds_the_optimum_of_a_linear_model(radius: float) -> None:
    x, y = rows()
    assert 0 < expected(x, radius) < 1
    assert robust_scorer(within=Linf(radius), mode="quick")(Logistic(), x, y) == expected(x, radius)


def test_by_gradients_it_finds_the_same() -> None:
    x, y = rows()
    module = nn.Linear(4, 2).double().eval()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.stack([0 * WEIGHT, WEIGHT])))
        module.bias.copy_(torch.tensor([0.0, -1.0]))
    scorer = robust_scorer(within=Linf(0.1), mode=Mode.QUICK, model=attrgetter("module_"))
    assert scorer(Holder(module, Logistic.classes_), x, y) == expected(x, 0.1)


def test_rows_wrong_without_an_attack_count_as_broken() -> None:
    x, y = rows()
    swapped = np.where(y == "bad", "good", "bad")
    assert robust_scorer(within=Linf(0.02), mode="quick")(Logistic(), x, swapped) == 0


def test_bounds_are_those_of_the_rows() -> None:
    x, y = rows()
    scorer = robust_scorer(within=Linf(2.0), bounds=(0, 100), mode="quick")

    class Scaled(Logistic):
        def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:
            return super().predict_proba(X / 100)

    assert scorer(Scaled(), 100 * x, y) == expected(x, 0.02)
    with pytest.raises(DataError, match="outside the bounds"):
        robust_scorer(within=Linf(2.0))(Scaled(), 100 * x, y)


def test_it_can_be_sent_to_other_processes() -> None:
    scorer = robust_scorer(within=Linf(0.1), mode="quick", model=attrgetter("module_"))
    assert repr(pickle.loads(pickle.dumps(scorer))) == repr(scorer)  # noqa: S301  # our own bytes


def test_what_cannot_be_scored_says_why() -> None:
    x, y = rows()
    scorer = robust_scorer(within=Linf(0.1), mode="quick")
    with pytest.raises(TargetError, match="object has no predict_proba"):
        scorer(object(), x, y)
    with pytest.raises(DataError, match="not trained on the class ugly"):
        scorer(Logistic(), x, np.where(np.arange(len(y)) == 3, "ugly", y))


@pytest.mark.extras
def test_cross_validation_beside_accuracy() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn (tools/extras.sh)")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_validate
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = (x - x.min(0)) / (x.max(0) - x.min(0))  # ε is a share of each column's range
    names = np.array(["malignant", "benign"])[y]
    scoring = {"accuracy": "accuracy", "robust": robust_scorer(within=Linf(0.05), mode="quick")}
    for estimator in (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
        RandomForestClassifier(20, random_state=0),
    ):
        found = cross_validate(estimator, x, names, cv=3, scoring=scoring, error_score="raise", return_estimator=True)
        for accuracy, robust in zip(found["test_accuracy"], found["test_robust"], strict=True):
            assert 0 < robust < accuracy
    linear, n = LogisticRegression(C=0.1).fit(x, names), len(x)
    margin = np.where(names == linear.classes_[1], 1, -1) * linear.decision_function(x)
    low = float((margin > 0.05 * np.abs(linear.coef_).sum()).mean())  # the box only helps the owner
    assert low <= scoring["robust"](linear, x, names) <= low + 12 / n  # type: ignore[operator]
