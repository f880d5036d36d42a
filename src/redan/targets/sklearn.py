"""scikit-learn estimators and pipelines as targets: asked as they are, climbed along an exact copy where there is one.

Anything that speaks scikit-learn's protocol will do: `classes_` and one of `predict_proba`, `decision_function` and
`predict`. scikit-learn itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from redan.errors import SettingError, TargetError
from redan.formats.isolated import Isolated
from redan.formats.isolated_child import Described, asking, describe
from redan.formats.sklearn_layers import Columns
from redan.formats.sklearn_torch import exact_module
from redan.targets.base import Output, Target
from redan.targets.function import FunctionTarget, from_function
from redan.targets.paired import Paired, paired

__all__ = ["from_sklearn"]

Answer = Callable[[NDArray[Any]], NDArray[Any]]

_METHOD = {
    Output.PROBABILITIES: "predict_proba",
    Output.SIGMOIDS: "predict_proba",
    Output.LOGITS: "decision_function",
    Output.LABELS: "predict",
    Output.VALUE: "predict",
}


def from_sklearn(
    estimator: Any,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    output: Output = Output.PROBABILITIES,
    rows: ArrayLike | Tensor | None = None,
    names: Sequence[str] | None = None,
) -> Target[Tensor]:
    """A target from a fitted estimator, a pipeline or a search, for rows (N, d) in `bounds`.

    output: which of its answers the attacker sees: PROBABILITIES asks `predict_proba` (labels that do not exclude
    each other are told, and become SIGMOIDS), LOGITS `decision_function`, LABELS `predict` as class numbers in the
    order of `classes_`, VALUE `predict` of a regressor. bounds: the box of what the estimator is given, before any
    scaler in a pipeline. rows: real rows (N, d), which let it be climbed: a linear model, an MLP or a kernel machine,
    alone or after scalers, PCA or a selection of columns, gets gradients of an exact copy in torch, if the two answer
    those rows alike. All others are attacked by scores, and those that answer LABELS by labels. names: the classes in
    the order in which class numbers are meant, if it was fitted on words: its own order is that of the alphabet.
    Inputs are float64, or float32 where all that the estimator learned is.

    Raises TargetError where the estimator is not fitted, does not answer that way, has other classes than `names` or
    differs from its copy, SettingError for an output that it cannot have.

    >>> class Threshold:
    ...     classes_ = ["low", "high"]
    ...
    ...     def predict(self, X):
    ...         return ["high" if row[0] > 0.5 else "low" for row in X]
    >>> target = from_sklearn(Threshold(), output=Output.LABELS)
    >>> target(torch.tensor([[0.1], [0.9]], dtype=torch.float64)).argmax(1).tolist()
    [0, 1]
    """
    _refuse_unfitted(estimator)
    known = estimator.described if isinstance(estimator, Isolated) else describe(estimator)
    _refuse_impossible(known, output)
    if known.several and output is Output.PROBABILITIES:
        output = Output.SIGMOIDS
    order = _order(known, names)
    target = from_function(
        _answer(estimator, known, output, order),
        bounds=bounds,
        classes=None if known.classes is None else len(known.classes),
        output=output,
        dtype=torch.float32 if known.float32 else torch.float64,
    )
    if rows is None or output is Output.LABELS:
        return target
    return _climbed(estimator, target, torch.as_tensor(rows, dtype=target.dtype), known.called, order)


def _order(known: Described, names: Sequence[str] | None) -> list[int] | None:
    """Which of its own columns comes first, second…; None where they stay, or have no names to go by."""
    own = known.classes
    if names is None or own is None or known.several or not all(isinstance(each, str) for each in own):
        return None
    if sorted(names) != sorted(own):
        raise TargetError(
            f"{known.called} was fitted on the classes {', '.join(own[:5])}, but the system's are "
            f"{', '.join(names[:5])}; name the same classes in system.classes, in any order"
        )
    order = [own.index(name) for name in names]
    return None if order == list(range(len(order))) else order


def _refuse_unfitted(estimator: Any) -> None:
    if not hasattr(estimator, "fit"):  # only something that can be fitted can be unfitted
        return
    try:
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted
    except ModuleNotFoundError:  # then it is not one of scikit-learn's, and says so itself when it is asked
        return
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise TargetError(f"the {type(estimator).__name__} is not fitted; call fit before") from error
    except TypeError:  # it has a fit, and is no estimator
        return


def _refuse_impossible(known: Described, output: Output) -> None:
    """Raise, naming the cause, where an estimator does not answer that way."""
    method = _METHOD[output]
    if method not in known.methods:
        raise TargetError(f"{known.called} has no {method}{_why(known, method)}; {_instead(known)}")
    if output is Output.VALUE:
        if known.classes is not None:
            raise SettingError(
                f"{known.called} answers classes, and output: value is for regression; {_instead(known)}"
            )
        return
    if known.classes is None:
        raise TargetError(f"{known.called} has no classes_, so its columns have no names; {_instead(known)}")
    if output is Output.SIGMOIDS and not known.several:
        raise SettingError(f"the classes of {known.called} exclude each other; use output: probabilities")
    if output is Output.LOGITS and known.votes and len(known.classes) > 2:
        raise TargetError(
            f"the decision_function of {known.called} has a column for each pair of classes "
            "(decision_function_shape='ovo'); set it to 'ovr', which needs no new fit"
        )
    for labels in known.classes if known.several else ():
        if isinstance(labels, tuple) and len(labels) > 2:
            raise TargetError(
                f"{known.called} answers several outputs, one of them with {len(labels)} classes, and redan knows "
                "several labels of yes or no; give it one output at a time"
            )


def _why(known: Described, method: str) -> str:
    """What in the estimator's settings took a method away, where it is known."""
    match known.called, method:
        case (("SVC" | "NuSVC"), "predict_proba"):
            return " (it was fit with probability=False)"
        case "SGDClassifier", "predict_proba":
            return " (its loss is neither log_loss nor modified_huber)"
        case _:
            return ""


def _instead(known: Described) -> str:
    """The remedy: what it does answer."""
    has_classes = known.classes is not None
    ways = [
        ("probabilities", has_classes and "predict_proba" in known.methods),
        ("logits", has_classes and "decision_function" in known.methods),
        ("labels", has_classes and "predict" in known.methods),
        ("value", not has_classes and "predict" in known.methods),
    ]
    ready = [name for name, is_there in ways if is_there]
    return f"use output: {' or '.join(ready)}" if ready else "give a fitted classifier or regressor"


def _answer(estimator: Any, known: Described, output: Output, order: list[int] | None) -> Answer:
    try:
        ask = asking(estimator, _METHOD[output])
    except ModuleNotFoundError as error:
        raise TargetError(
            f"{known.called} was fit on named columns, which needs pandas to give them to it; pip install pandas"
        ) from error
    match output:
        case Output.SIGMOIDS:
            return lambda x: _shares(ask(x), known)
        case Output.LABELS:
            place = {own: i for i, own in enumerate(order or range(len(known.classes or ())))}
            numbers = {label: place[i] for i, label in enumerate(known.classes or ())}
            return lambda x: _numbers(np.asarray(ask(x)), known, numbers)
        case _ if order is not None:
            return lambda x: _ordered(np.asarray(ask(x)), order)
        case _:
            return ask


def _ordered(found: NDArray[Any], order: list[int]) -> NDArray[Any]:
    """Columns (N, K) in another order; one logit (N,) of the second of two classes is the first one's negative."""
    return found[:, order] if found.ndim > 1 else -found


def _shares(found: Any, known: Described) -> NDArray[Any]:
    """Probabilities of yes (N, L), also where the estimator answers (N, 2) for each label, or (N, 1) for one that it
    saw in one state only."""
    if not isinstance(found, list):
        return np.asarray(found)
    columns = []
    for each, labels in zip(found, known.classes or (), strict=True):
        yes = labels[-1] if isinstance(labels, tuple) else 1
        columns.append(each[:, -1] if each.shape[1] > 1 or yes else np.zeros(len(each)))
    return np.stack(columns, 1)


def _numbers(found: NDArray[Any], known: Described, numbers: dict[Any, int]) -> NDArray[Any]:
    """Labels as class numbers (N,); (N, L) of 0 and 1 stay."""
    if known.several:
        return found
    try:
        return np.array([numbers[label] for label in found.ravel().tolist()], dtype=np.int64)
    except KeyError as error:
        raise TargetError(
            f"{known.called} answered {error}, which is not one of its classes_; check what was fitted"
        ) from error


def _climbed(
    estimator: Any, target: FunctionTarget, rows: Tensor, called: str, order: list[int] | None
) -> Target[Tensor]:
    """The target with the gradients of its exact copy, if it has one; compared on the numbers that it answers.

    A probability near 1 says little of its logarithm's last digits, so it is probabilities that must agree.
    """
    module = exact_module(estimator, target.output)
    if module is None:
        return target
    module = (module if order is None else nn.Sequential(module, Columns(order))).to(target.dtype)
    match target.output:
        case Output.PROBABILITIES:
            paired(_unlogged(target), nn.Sequential(module, nn.Softmax(1)), rows, called=called)
        case Output.SIGMOIDS:
            paired(_unlogged(target), nn.Sequential(module, nn.Sigmoid()), rows, called=called)
        case _:
            return paired(target, module, rows, called=called)
    return Paired(target, module)


def _unlogged(target: FunctionTarget) -> FunctionTarget:
    return replace(target, output=Output.LOGITS, classes=None)
