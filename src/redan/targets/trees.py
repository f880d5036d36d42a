"""Boosted trees as targets: XGBoost and LightGBM, from memory or from their own files, asked by their own libraries.

The answers are the library's, to the bit, computed with one thread: the same in every worker, and workers do not
compete for cores.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redan.errors import DataError, TargetError
from redan.formats.boosters import booster_of, is_xgboost, read_booster
from redan.targets.base import Output
from redan.targets.function import FunctionTarget, from_function

Answer = Callable[[NDArray[Any]], NDArray[Any]]


class Kind(Enum):
    """What a model's training objective makes of the sum over its trees."""

    MARGIN = auto()
    PROBABILITY = auto()
    CLASS = auto()
    NUMBER = auto()


_XGBOOST = {
    "binary:logistic": Kind.PROBABILITY,
    "binary:logitraw": Kind.MARGIN,
    "binary:hinge": Kind.CLASS,
    "multi:softprob": Kind.PROBABILITY,
    "multi:softmax": Kind.CLASS,
}
_LIGHTGBM = {"binary": Kind.PROBABILITY, "multiclass": Kind.PROBABILITY, "multiclassova": Kind.PROBABILITY}
_NUMBERS = ("reg:", "count:", "survival:")
_LIGHTGBM_NUMBERS = ("regression", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie")


@dataclass(frozen=True, slots=True)
class _Ensemble:
    """What is known of a model before it is asked. margins and values take rows (N, d) of the model's own type."""

    called: str
    objective: str
    kind: Kind
    inputs: int
    classes: int | None
    dtype: torch.dtype
    margins: Answer
    values: Answer


def from_xgboost(
    model: Any, *, bounds: tuple[float, float] = (0.0, 1.0), classes: int | None = None, output: Output | None = None
) -> FunctionTarget:
    """A target from an `xgboost.Booster` or a fitted `xgboost.XGBModel`; inputs (N, d) float32.

    bounds: the box inputs live in. classes: K, read from the model where it says so. output: what to ask for; by
    default probabilities, and the value of a regression. LOGITS are the raw margins; LABELS the class numbers. A
    wrapper that stopped early answers with its best iteration, as its own `predict` does. The model given is copied,
    and not changed.

    Raises TargetError without the package, for a booster that has no class scores to give, and for what `output`
    cannot be.
    """
    return _target(_xgboost(booster_of(model)), bounds, classes, output)


def from_lightgbm(
    model: Any, *, bounds: tuple[float, float] = (0.0, 1.0), classes: int | None = None, output: Output | None = None
) -> FunctionTarget:
    """A target from a `lightgbm.Booster` or a fitted `lightgbm.LGBMModel`; inputs (N, d) float64.

    The rest is as in `from_xgboost`; a model that stopped early answers with its best iteration, as LightGBM does.
    """
    return _target(_lightgbm(booster_of(model)), bounds, classes, output)


def load_trees(
    path: Path,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    output: Output | None = None,
    classes: int | None = None,
) -> FunctionTarget:
    """A target from a native file: XGBoost's .json or .ubj, LightGBM's .txt, told apart by content.

    Such a file holds numbers and no code; it is parsed by the library that wrote it. The arguments are those of
    `from_xgboost`. Raises TargetError for any other file, a pickle among them, and for one that cannot be parsed.
    """
    booster = read_booster(path)
    known = _xgboost(booster) if is_xgboost(booster) else _lightgbm(booster)
    return _target(known, bounds, classes, output)


def _xgboost(booster: Any) -> _Ensemble:
    if not is_xgboost(booster):
        raise TargetError(
            f"an xgboost.Booster or a fitted XGBModel is needed, got {type(booster).__name__}; other models have other "
            "targets"
        )
    booster = booster.copy()  # the thread count below is ours, not the user's
    booster.set_param({"nthread": 1})
    learner = json.loads(booster.save_config())["learner"]
    name = learner["gradient_booster"]["name"]
    if name not in ("gbtree", "dart"):
        raise TargetError(f"XGBoost's booster {name!r} has no trees; give its weights to a linear model's target")
    objective = learner["objective"]["name"]
    number = int(learner["learner_model_param"]["num_class"])
    kind = _kind("XGBoost", objective, _XGBOOST, _NUMBERS)

    def values(x: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = booster.inplace_predict(x)
        return found

    def margins(x: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = booster.inplace_predict(x, predict_type="margin")
        return found

    return _Ensemble(
        "XGBoost",
        objective,
        kind,
        int(booster.num_features()),
        None if kind is Kind.NUMBER else max(2, number),
        torch.float32,
        margins,
        values,
    )


def _lightgbm(booster: Any) -> _Ensemble:
    if not hasattr(booster, "num_model_per_iteration"):
        raise TargetError(
            f"a lightgbm.Booster or a fitted LGBMModel is needed, got {type(booster).__name__}; other models have "
            "other targets"
        )
    text = booster.model_to_string(num_iteration=1).split("\nTree=")[0]
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    objective = lines.get("objective", "").split(" ")[0]
    kind = _kind("LightGBM", objective, _LIGHTGBM, _LIGHTGBM_NUMBERS)

    def values(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(booster.predict(x, num_threads=1))

    def margins(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(booster.predict(x, raw_score=True, num_threads=1))

    return _Ensemble(
        "LightGBM",
        objective,
        kind,
        int(booster.num_feature()),
        None if kind is Kind.NUMBER else max(2, int(booster.num_model_per_iteration())),
        torch.float64,
        margins,
        values,
    )


def _kind(called: str, objective: str, known: dict[str, Kind], numbers: tuple[str, ...]) -> Kind:
    if objective.startswith(numbers):
        return Kind.NUMBER
    if objective not in known:
        raise TargetError(
            f"{called}'s objective {objective or 'of your own'!r} does not say what its answers mean; wrap its predict "
            "with redan.targets.from_function, and say output="
        )
    return known[objective]


# -- the target --------------------------------------------------------------------------------------------

_ALLOWED = {
    Kind.PROBABILITY: (Output.PROBABILITIES, Output.LOGITS, Output.LABELS),
    Kind.MARGIN: (Output.LOGITS, Output.LABELS),
    Kind.CLASS: (Output.LABELS, Output.LOGITS),
    Kind.NUMBER: (Output.VALUE,),
}
"""What each kind of model can be asked for, its own answer first."""


def _target(
    known: _Ensemble, bounds: tuple[float, float], classes: int | None, output: Output | None
) -> FunctionTarget:
    allowed = _ALLOWED[known.kind]
    output = allowed[0] if output is None else output
    if output not in allowed:
        names = " or ".join(f"Output.{one.name}" for one in allowed)
        raise TargetError(
            f"{known.called} trained with {known.objective!r} cannot answer {output.name.lower()}; say output={names}"
        )
    if known.classes is not None and classes is not None and classes != known.classes:
        raise TargetError(f"the {known.called} model has {known.classes} classes, got classes={classes}; leave it out")
    return from_function(
        _guarded(_answer(known, output), known),
        bounds=bounds,
        classes=known.classes,
        output=output,
        dtype=known.dtype,
    )


def _answer(known: _Ensemble, output: Output) -> Answer:
    match output:
        case Output.LOGITS:
            return known.margins
        case Output.LABELS if known.kind is Kind.PROBABILITY:
            return lambda x: _largest(known.values(x), 0.5)
        case Output.LABELS if known.kind is Kind.MARGIN:
            return lambda x: _largest(known.margins(x), 0.0)
        case _:
            return known.values


def _largest(found: NDArray[Any], edge: float) -> NDArray[Any]:
    """Class numbers of answers (N, K), or (N,) for the second of two."""
    return found > edge if found.ndim == 1 else found.argmax(1)


def _guarded(answer: Answer, known: _Ensemble) -> Answer:
    def ask(x: NDArray[Any]) -> NDArray[Any]:
        if x.ndim != 2 or x.shape[1] != known.inputs:
            raise DataError(
                f"the {known.called} model takes rows (N, {known.inputs}), got {x.shape}; give a column an input"
            )
        if not len(x):
            return np.zeros((0, known.classes or 1), dtype=x.dtype)
        return answer(np.ascontiguousarray(x))

    return ask
