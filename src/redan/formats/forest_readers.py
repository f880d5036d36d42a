"""Trees out of fitted models: XGBoost, LightGBM and scikit-learn, each checked against its library on real rows.

A split that is no comparison of one number with a threshold (categories, missing values that are numbers, linear
leaves) is refused by name: what redan counts is what the model does, or it does not count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redan.errors import TargetError
from redan.formats.boosters import booster_of, is_xgboost, read_booster
from redan.formats.forest import LEAF, Comparison, Floats, Forest, Precision, Whole, verified

_REMEDY = "attack the model by its scores instead"


class _Tree(NamedTuple):
    """One tree's nodes: children are positions in it, -1 both for a leaf."""

    feature: Whole
    threshold: Floats
    left: Whole
    right: Whole
    value: Floats  # (M, K)


def _planted(
    trees: Sequence[_Tree],
    base: Floats,
    inputs: int,
    comparison: Comparison,
    precision: Precision,
    sums: Precision,
) -> Forest:
    """The trees one after another in one set of arrays. The root of each is its first node."""
    if not trees:
        raise TargetError("the model holds no tree; train it first")
    starts = np.cumsum([0, *(len(tree.feature) for tree in trees[:-1])])

    def moved(part: Whole, start: int) -> Whole:
        return np.where(part == LEAF, LEAF, part + start)

    return Forest(
        feature=np.concatenate([tree.feature for tree in trees]),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=np.concatenate([moved(tree.left, start) for tree, start in zip(trees, starts, strict=True)]),
        right=np.concatenate([moved(tree.right, start) for tree, start in zip(trees, starts, strict=True)]),
        value=np.concatenate([tree.value for tree in trees]),
        roots=starts.astype(np.int64),
        base=base,
        inputs=inputs,
        comparison=comparison,
        precision=precision,
        sums=sums,
    )


def _column(values: Floats, column: int, classes: int) -> Floats:
    """Leaf values (M,) that count for one class of K: (M, K)."""
    wide = np.zeros((len(values), classes))
    wide[:, column] = values
    return wide


# -- files -------------------------------------------------------------------------------------------------


def load_forest(path: Path, rows: ArrayLike) -> Forest:
    """The trees of a native file (XGBoost's .json or .ubj, LightGBM's .txt), checked on real rows (N, d).

    Raises TargetError for any other file, and for what the two functions below refuse.
    """
    booster = read_booster(path)
    return forest_from_xgboost(booster, rows) if is_xgboost(booster) else forest_from_lightgbm(booster, rows)


# -- XGBoost -----------------------------------------------------------------------------------------------


def forest_from_xgboost(model: Any, rows: ArrayLike) -> Forest:
    """The trees of an `xgboost.Booster` or a fitted wrapper, checked on real rows (N, d); classes only.

    The format is XGBoost's documented JSON model. Raises TargetError for what is no sum of plain trees (DART, linear
    boosters, categorical splits, several outputs a leaf, regression), and where the two differ.
    """
    booster = booster_of(model)
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model, name = learner["gradient_booster"], learner["gradient_booster"]["name"]
    if name != "gbtree":
        raise TargetError(f"XGBoost's booster {name!r} is no sum of plain trees; {_REMEDY}")
    objective = learner["objective"]["name"]
    if objective not in ("binary:logistic", "binary:logitraw", "binary:hinge", "multi:softprob", "multi:softmax"):
        raise TargetError(f"XGBoost's objective {objective!r} answers no classes, so none can change; {_REMEDY}")
    parameters = learner["learner_model_param"]
    classes = max(1, int(parameters["num_class"]))
    base = np.array(json.loads(f"[{parameters['base_score'].strip('[]')}]"), dtype=np.float64)
    if objective == "binary:logistic":
        base = np.log(base) - np.log1p(-base)
    trees = [
        _xgboost_tree(tree, int(column), classes)
        for tree, column in zip(model["model"]["trees"], model["model"]["tree_info"], strict=True)
    ]
    forest = _planted(
        trees,
        np.broadcast_to(base, (classes,)).copy(),
        int(parameters["num_feature"]),
        Comparison.LESS,
        Precision.SINGLE,
        Precision.SINGLE,
    )

    def theirs(x: NDArray[Any]) -> ArrayLike:
        margins: ArrayLike = booster.inplace_predict(x.astype(np.float32), predict_type="margin")
        return margins

    return verified(forest, rows, theirs, called="XGBoost")


def _xgboost_tree(tree: dict[str, Any], column: int, classes: int) -> _Tree:
    if any(tree.get("split_type", ())) or tree.get("categories"):
        raise TargetError(f"the XGBoost model splits on categories, which have no thresholds; {_REMEDY}")
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise TargetError(f"the XGBoost model has leaves of several outputs; {_REMEDY}")
    conditions = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    left = np.array(tree["left_children"], dtype=np.int64)
    return _Tree(
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=conditions,
        left=left,
        right=np.array(tree["right_children"], dtype=np.int64),
        value=_column(np.where(left == LEAF, conditions, 0.0), column, classes),
    )


# -- LightGBM ----------------------------------------------------------------------------------------------

_CATEGORICAL, _MISSING_KIND, _ZERO_IS_MISSING = 1, 0b1100, 0b0100


def forest_from_lightgbm(model: Any, rows: ArrayLike) -> Forest:
    """The trees of a `lightgbm.Booster` or a fitted wrapper, checked on real rows (N, d); classes only.

    The format is LightGBM's text model. Raises TargetError for categorical splits, zeros that count as missing,
    linear leaves and objectives without classes, and where the two differ. A random forest of LightGBM's is read as the
    sum over its trees, as its raw scores are; the mean decides on the same class.
    """
    booster = booster_of(model)
    head, *blocks = _blocks(booster.model_to_string())
    objective = head.get("objective", "").split(" ")[0]
    if objective not in ("binary", "multiclass", "multiclassova"):
        raise TargetError(f"LightGBM's objective {objective!r} answers no classes, so none can change; {_REMEDY}")
    classes = int(head["num_tree_per_iteration"])
    trees = [_lightgbm_tree(block, at % classes, classes) for at, block in enumerate(blocks)]
    forest = _planted(
        trees,
        np.zeros(classes),
        int(head["max_feature_idx"]) + 1,
        Comparison.AT_MOST,
        Precision.DOUBLE,
        Precision.DOUBLE,
    )

    def theirs(x: NDArray[Any]) -> ArrayLike:
        margins: ArrayLike = booster.predict(x.astype(np.float64), raw_score=True, num_threads=1)
        return margins

    return verified(forest, rows, theirs, called="LightGBM")


def _blocks(text: str) -> list[dict[str, str]]:
    """The head and the trees of a model's text, as their lines key=value."""
    body = text.split("end of trees")[0]
    return [
        {key: value for key, _, value in (line.partition("=") for line in part.splitlines())}
        for part in body.split("\nTree=")
    ]


def _lightgbm_tree(block: dict[str, str], column: int, classes: int) -> _Tree:
    def numbers(key: str, kind: type[Any]) -> NDArray[Any]:
        return np.array(block.get(key, "").split(), dtype=kind)

    if block.get("is_linear", "0") != "0":
        raise TargetError(f"the LightGBM model has linear functions in its leaves; {_REMEDY}")
    values = numbers("leaf_value", np.float64)
    kinds = numbers("decision_type", np.int64)
    if (kinds & _CATEGORICAL).any():
        raise TargetError(f"the LightGBM model splits on categories, which have no thresholds; {_REMEDY}")
    if ((kinds & _MISSING_KIND) == _ZERO_IS_MISSING).any():
        raise TargetError(f"the LightGBM model takes zeros for missing values; {_REMEDY}")
    splits, leaves = len(kinds), len(values)

    def child(key: str) -> Whole:
        """A split by its number; a leaf, which the file writes as -1 - number, after all splits."""
        numbered = numbers(key, np.int64)
        return np.concatenate([np.where(numbered >= 0, numbered, splits - 1 - numbered), np.full(leaves, LEAF)])

    return _Tree(
        feature=np.concatenate([numbers("split_feature", np.int64), np.zeros(leaves, dtype=np.int64)]),
        threshold=np.concatenate([numbers("threshold", np.float64), np.zeros(leaves)]),
        left=child("left_child"),
        right=child("right_child"),
        value=_column(np.concatenate([np.zeros(splits), values]), column, classes),
    )


# -- scikit-learn ------------------------------------------------------------------------------------------


def forest_from_sklearn(estimator: Any, rows: ArrayLike) -> Forest:
    """The trees of a fitted scikit-learn classifier, checked on real rows (N, d).

    Decision and extra trees, random forests and extra-trees ensembles (means of probabilities), and gradient boosting
    with its default or zero start (sums). Raises TargetError for other estimators, for several outputs, and where the
    two differ. Classes are numbered in the order of `classes_`.
    """
    try:
        from sklearn import ensemble, tree
    except ImportError as error:
        raise TargetError("reading scikit-learn trees needs scikit-learn; run: pip install 'redan[sklearn]'") from error
    match estimator:
        case tree.DecisionTreeClassifier():
            return _mean_of([estimator], estimator, rows)
        case ensemble.RandomForestClassifier() | ensemble.ExtraTreesClassifier():
            return _mean_of(estimator.estimators_, estimator, rows)
        case ensemble.GradientBoostingClassifier():
            return _boosted(estimator, rows)
    raise TargetError(
        f"redan reads no trees from {type(estimator).__name__}, but from decision trees, random forests, extra trees "
        f"and gradient boosting of scikit-learn; {_REMEDY}"
    )


def _mean_of(members: Sequence[Any], whole: Any, rows: ArrayLike) -> Forest:
    if whole.n_outputs_ != 1:
        raise TargetError(f"the model answers {whole.n_outputs_} labels a row, which are not one class; {_REMEDY}")
    trees = []
    for member in members:
        counts = member.tree_.value[:, 0, :]
        trees.append(_sklearn_tree(member, counts / counts.sum(1, keepdims=True) / len(members)))
    return verified(_grown(trees, np.zeros(len(whole.classes_)), whole), rows, whole.predict_proba, called=_LIBRARY)


def _boosted(estimator: Any, rows: ArrayLike) -> Forest:
    if estimator.init is not None and estimator.init != "zero":
        raise TargetError(f"gradient boosting that starts from another model is no sum of trees alone; {_REMEDY}")
    stages = estimator.estimators_
    classes = stages.shape[1]
    trees = [
        _sklearn_tree(member, _column(estimator.learning_rate * member.tree_.value[:, 0, 0], column, classes))
        for stage in stages
        for column, member in enumerate(stage)
    ]
    forest = _grown(trees, _prior(estimator, classes), estimator)
    return verified(forest, rows, estimator.decision_function, called=_LIBRARY)


def _prior(estimator: Any, classes: int) -> Floats:
    """Where the sums begin: the log-odds, or the logarithms, of the classes' shares in the training data."""
    if estimator.init == "zero":
        return np.zeros(classes)
    share = np.asarray(estimator.init_.class_prior_, dtype=np.float64)
    if estimator.loss == "exponential":
        return np.array([math.log(share[1] / share[0]) / 2])
    return np.array([math.log(share[1] / share[0])]) if classes == 1 else np.log(share) - np.log(share).mean()


_LIBRARY = "scikit-learn"


def _sklearn_tree(member: Any, value: Floats) -> _Tree:
    tree = member.tree_
    return _Tree(
        feature=np.maximum(tree.feature, 0).astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        value=value,
    )


def _grown(trees: Iterable[_Tree], base: Floats, estimator: Any) -> Forest:
    return _planted(list(trees), base, estimator.n_features_in_, Comparison.AT_MOST, Precision.SINGLE, Precision.DOUBLE)
