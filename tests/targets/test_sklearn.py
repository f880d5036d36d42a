"""Estimators as targets: each answer in the order of its classes, each refusal with its cause, known distances kept."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.engine.run import attack
from redan.errors import SettingError, TargetError
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access
from redan.targets import Output
from redan.targets.paired import Paired
from redan.targets.sklearn import from_sklearn

Rows = NDArray[np.float64]


@dataclass
class Speaking:
    """Whatever speaks scikit-learn's protocol: it answers what it was told to, row by row."""

    answers: Any
    classes_: Any

    def predict(self, X: Rows) -> Any:
        return self.answers

    def predict_proba(self, X: Rows) -> Any:
        return self.answers

    def decision_function(self, X: Rows) -> Any:
        return self.answers


def x(count: int = 3) -> Tensor:
    return torch.zeros(count, 2, dtype=torch.float64)


@pytest.mark.parametrize("classes", [["a", "b", "c"], [3, 10, 20], [-1.5, 0.0, 2.0], [False, True]])
def test_labels_become_class_numbers_in_the_order_of_the_classes(classes: list[Any]) -> None:
    order = [len(classes) - 1, 0, 1]
    estimator = Speaking(np.array(classes)[order], np.array(classes))
    target = from_sklearn(estimator, output=Output.LABELS)
    assert target(x()).argmax(1).tolist() == order
    assert (target.access, target.classes) == (Access.LABELS, len(classes))


def test_a_label_that_is_none_of_its_classes_is_refused() -> None:
    target = from_sklearn(Speaking(["a", "z", "b"], ["a", "b"]), output=Output.LABELS)
    with pytest.raises(TargetError, match="answered 'z', which is not one of its classes_"):
        target(x())


def test_probabilities_and_scores_come_on_the_scale_of_logits() -> None:
    shares = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    found = from_sklearn(Speaking(shares, [0, 1]))(x())
    np.testing.assert_allclose(found.softmax(1).numpy(), shares, atol=1e-15)
    logits = from_sklearn(Speaking(np.array([3.0, -1.0, 0.0]), [0, 1]), output=Output.LOGITS)(x())
    assert (logits[:, 1] - logits[:, 0]).tolist() == [3.0, -1.0, 0.0]


def test_labels_that_do_not_exclude_each_other_are_found_and_told() -> None:
    """As a forest answers them: (N, 2) a label, or (N, 1) for a label that it saw in one state only."""
    answers = [np.array([[0.3, 0.7]] * 3), np.ones((3, 1)), np.ones((3, 1))]
    target = from_sklearn(Speaking(answers, [np.array([0, 1]), np.array([0]), np.array([1])]))
    assert (target.output, target.classes) == (Output.SIGMOIDS, 3)
    np.testing.assert_allclose(target(x()).sigmoid().numpy(), [[0.7, 0.0, 1.0]] * 3, atol=1e-12)
    both = Speaking(np.array([[0, 1], [1, 1], [0, 0]]), [np.array([0, 1])] * 2)
    assert from_sklearn(both, output=Output.LABELS)(x()).tolist() == [[-1, 1], [1, 1], [-1, -1]]


class SVC:
    """A classifier that was fit without probabilities."""

    classes_ = ("a", "b")
    decision_function = predict = staticmethod(len)


@dataclass
class Ranked(Speaking):
    decision_function_shape: str = "ovo"


@dataclass
class Regressor:
    def predict(self, X: Rows) -> Any:
        return X.sum(1)


@pytest.mark.parametrize(
    ("estimator", "output", "cause"),
    [
        (SVC(), Output.PROBABILITIES, r"SVC has no predict_proba \(it was fit with .*use output: logits or labels"),
        (Regressor(), Output.PROBABILITIES, "Regressor has no predict_proba; use output: value"),
        (Regressor(), Output.LABELS, "Regressor has no classes_.*; use output: value"),
        (Ranked(None, [1, 2, 3]), Output.LOGITS, "a column for each pair of classes.*set it to 'ovr'"),
        (Speaking(None, [np.arange(3)] * 2), Output.PROBABILITIES, "one of them with 3 classes"),
        (object(), Output.LABELS, "object has no predict; give a fitted classifier"),
    ],
)
def test_what_an_estimator_does_not_answer_is_refused_with_the_cause(
    estimator: object, output: Output, cause: str
) -> None:
    with pytest.raises(TargetError, match=cause):
        from_sklearn(estimator, output=output)


def test_an_output_that_it_cannot_have_is_refused() -> None:
    with pytest.raises(SettingError, match="answers classes, and output: value is for regression"):
        from_sklearn(Speaking([0], [0, 1]), output=Output.VALUE)
    with pytest.raises(SettingError, match="exclude each other; use output: probabilities"):
        from_sklearn(Speaking([[0.1, 0.9]], [0, 1]), output=Output.SIGMOIDS)
    with pytest.raises(SettingError, match="bounds must be"):
        from_sklearn(Speaking([0], [0, 1]), bounds=(1, 0))


def test_named_columns_are_given_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(Regressor):
        feature_names_in_ = np.array(["age", "income"])

        def predict(self, X: Any) -> Any:
            return X["income"] * 2

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TargetError, match="named columns.*pip install pandas"):
        from_sklearn(Named(), output=Output.VALUE)
    pandas = ModuleType("pandas")
    pandas.DataFrame = lambda data, columns, copy: dict(zip(columns, data.T, strict=True))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    target = from_sklearn(Named(), output=Output.VALUE)
    assert target(torch.tensor([[1.0, 5.0], [2.0, 7.0]], dtype=torch.float64)).tolist() == [[10.0], [14.0]]


# With scikit-learn itself


@pytest.fixture(scope="module")
def cancer() -> tuple[Rows, NDArray[Any]]:
    """Breast cancer: standardized rows (569, 30), labels as words."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    rows, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(rows), np.array(["malignant", "benign"])[y]


@pytest.mark.extras
def test_an_estimator_is_asked_as_it_is(cancer: tuple[Rows, NDArray[Any]]) -> None:
    from sklearn.ensemble import RandomForestClassifier

    rows, y = cancer
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(rows, y)
    target = from_sklearn(forest, rows=rows, bounds=(-20, 20))
    inputs = torch.from_numpy(rows)
    np.testing.assert_allclose(target(inputs).exp().numpy(), forest.predict_proba(rows), atol=1e-12)
    decided = from_sklearn(forest, output=Output.LABELS)(inputs).argmax(1).numpy()
    assert (forest.classes_[decided] == forest.predict(rows)).all()
    assert (target.access, target.differentiable, target.dtype) == (Access.SCORES, False, torch.float64)
    assert (target.bounds, target.classes) == ((-20.0, 20.0), 2)


@pytest.mark.extras
@pytest.mark.parametrize("kind", ["L-inf", "L2"])
@pytest.mark.parametrize("output", [Output.PROBABILITIES, Output.LOGITS])
def test_gradients_break_exactly_the_rows_that_can_be_broken(
    cancer: tuple[Rows, NDArray[Any]], kind: str, output: Output
) -> None:
    """The distance of a row to a linear boundary is its margin over the dual norm of the weights."""
    from sklearn.linear_model import LogisticRegression

    rows, y = cancer
    model = LogisticRegression().fit(rows, y)
    order, radius = (1, 0.4) if kind == "L-inf" else (2, 1.5)
    within = Linf(radius) if kind == "L-inf" else L2(radius)
    rate = None if kind == "L-inf" else 10.0  # a long step, projected back, turns into the best direction
    distance = np.abs(model.decision_function(rows)) / np.linalg.norm(model.coef_[0], order)
    right = model.predict(rows) == y
    assert np.abs(distance - radius).min() > 1e-5
    breakable = ~right | (distance < radius)
    assert 50 < breakable.sum() < 500

    target = from_sklearn(model, bounds=(-20, 20), output=output, rows=rows)
    numbers = np.searchsorted(model.classes_, y)
    climbed = attack(target, rows, numbers, PGD(steps=40, rate=rate), within=within, seed=0)
    np.testing.assert_array_equal(np.asarray(climbed.success), breakable)
    broken = np.asarray(climbed.success) & right
    assert (np.asarray(climbed.distance)[broken] >= distance[broken] * (1 - 1e-9)).all()


@pytest.mark.extras
@pytest.mark.parametrize("output", [Output.PROBABILITIES, Output.LOGITS, Output.LABELS])
@pytest.mark.parametrize("count", [2, 3])
def test_classes_come_in_the_order_in_which_they_are_meant(
    cancer: tuple[Rows, NDArray[Any]], output: Output, count: int
) -> None:
    """Words are sorted by scikit-learn; the rows' class numbers follow the names of the system."""
    from sklearn.linear_model import LogisticRegression

    rows, y = cancer[0], cancer[1].copy()
    if count == 3:
        y[rows[:, 0] > 1.5] = "huge"
    names = ["malignant", "huge", "benign"] if count == 3 else ["malignant", "benign"]
    model = LogisticRegression(C=0.01).fit(rows, y)
    assert names != model.classes_.tolist()
    target = from_sklearn(model, bounds=(-20, 20), output=output, rows=rows, names=names)
    inputs = torch.from_numpy(rows)
    assert np.array_equal(np.array(names)[target(inputs).argmax(1).numpy()], model.predict(rows))
    if output is not Output.LABELS:
        assert isinstance(target, Paired)
        np.testing.assert_allclose(target.module(inputs).numpy(), target(inputs).numpy(), atol=1e-8)
    with pytest.raises(TargetError, match="fitted on the classes benign, .*malignant, but the system's are cat, dog"):
        from_sklearn(model, output=output, names=["cat", "dog"])


def test_numbers_have_no_names_to_be_ordered_by() -> None:
    target = from_sklearn(Speaking([[0.2, 0.8]] * 3, [0, 1]), names=["malignant", "benign"])
    assert target(x()).argmax(1).tolist() == [1, 1, 1]


@pytest.mark.extras
def test_by_scores_no_attack_beats_the_known_distance(cancer: tuple[Rows, NDArray[Any]]) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, y = (each[:200] for each in cancer)
    model = LogisticRegression().fit(*cancer)
    numbers, right = np.searchsorted(model.classes_, y), model.predict(rows) == y
    distance = np.abs(model.decision_function(rows)) / np.abs(model.coef_).sum()
    found = attack(from_sklearn(model, bounds=(-20, 20)), rows, numbers, Square(queries=300), within=Linf(0.4), seed=0)
    success, breakable = np.asarray(found.success), ~right | (distance < 0.4)
    assert not (success & ~breakable).any()
    assert (success & right).sum() > 0.7 * (breakable & right).sum()
    broken = success & right
    assert (np.asarray(found.distance)[broken] >= distance[broken] * (1 - 1e-9)).all()


@pytest.mark.extras
def test_a_model_that_answers_otherwise_than_its_weights_has_no_gradients(cancer: tuple[Rows, NDArray[Any]]) -> None:
    from sklearn.linear_model import LogisticRegression

    class Cautious(LogisticRegression):  # type: ignore[misc]
        def predict_proba(self, X: Rows) -> Any:
            return 0.9 * super().predict_proba(X) + 0.05

    model = Cautious().fit(*cancer)
    assert from_sklearn(model).access is Access.SCORES
    with pytest.raises(TargetError, match="no gradients for Cautious.*knowledge: scores"):
        from_sklearn(model, rows=cancer[0])


@pytest.mark.extras
def test_what_was_fit_on_float32_is_asked_in_float32(cancer: tuple[Rows, NDArray[Any]]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = cancer[0].astype(np.float32)
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        target = from_sklearn(model.fit(rows, cancer[1]), rows=rows)
        assert (target.dtype, target.access) == (torch.float32, Access.GRADIENTS)
        assert target(torch.from_numpy(rows)).dtype is torch.float32


@pytest.mark.extras
def test_what_is_not_fitted_or_has_no_such_answer_says_so(cancer: tuple[Rows, NDArray[Any]]) -> None:
    from sklearn import svm
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for unfitted in (svm.LinearSVC(), make_pipeline(StandardScaler(), svm.LinearSVC())):
        with pytest.raises(TargetError, match="is not fitted; call fit"):
            from_sklearn(unfitted, output=Output.LABELS)
    with pytest.raises(TargetError, match=r"SVC has no predict_proba \(it was fit with probability=False\)"):
        from_sklearn(make_pipeline(StandardScaler(), svm.SVC()).fit(*cancer))
    with pytest.raises(TargetError, match="its loss is neither log_loss nor modified_huber"):
        from_sklearn(SGDClassifier(random_state=0).fit(*cancer))


@pytest.mark.extras
def test_several_labels_of_a_forest_a_network_and_a_wrapper() -> None:
    from sklearn.datasets import make_multilabel_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.neural_network import MLPClassifier

    rows, y = make_multilabel_classification(60, 5, n_classes=3, random_state=0)
    for model in (
        RandomForestClassifier(3, random_state=0),
        MLPClassifier((4,), solver="lbfgs", max_iter=15000, random_state=0),
        OneVsRestClassifier(LogisticRegression()),
        MultiOutputClassifier(LogisticRegression()),
    ):
        model.fit(rows, y)
        target = from_sklearn(model, bounds=(0, 50))
        assert (target.output, target.classes) == (Output.SIGMOIDS, 3)
        by_label = model.predict_proba(rows)
        expected = np.stack([each[:, 1] for each in by_label], 1) if isinstance(by_label, list) else by_label
        np.testing.assert_allclose(target(torch.from_numpy(rows)).sigmoid().numpy(), expected, atol=1e-9)
        labels = from_sklearn(model, bounds=(0, 50), output=Output.LABELS)(torch.from_numpy(rows))
        assert ((labels > 0).numpy() == model.predict(rows).astype(bool)).all()


@pytest.mark.extras
def test_a_detector_of_outliers_has_two_classes(cancer: tuple[Rows, NDArray[Any]]) -> None:
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    for model in (IsolationForest(n_estimators=5, random_state=0), OneClassSVM()):
        model.fit(cancer[0])
        inputs, found = torch.from_numpy(cancer[0]), model.predict(cancer[0])
        for output in (Output.LOGITS, Output.LABELS):
            assert (from_sklearn(model, output=output)(inputs).argmax(1).numpy() == (found == 1)).all()


PAGE = Path(__file__).resolve().parents[2] / "docs" / "targets" / "sklearn.md"


@pytest.mark.extras
def test_the_program_on_the_page_runs() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(program, str(PAGE), "exec", dont_inherit=True), names)  # noqa: S102  # our page
    assert 50 < int(np.asarray(names["result"].success).sum()) < 500
