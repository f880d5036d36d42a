"""What comes in: rows, labels and attacks, refused where they cannot mean what was intended."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from redan.answers import evaluate
from redan.errors import DataError, SetError, SettingError, TargetError
from redan.goals import Task
from redan.protocols import Access, Attack, Ball, Bounded, is_ball, needs
from redan.targets import Target


def row_names(x: Tensor, ids: Sequence[object] | None = None) -> list[str]:
    """The rows' own ids, which key their random streams: those given, or a digest of each row's content.

    Equal rows are numbered, so that ids are unique.
    """
    if ids is not None:
        names = [str(i) for i in ids]
        if len(names) != len(x) or len(set(names)) < len(names):
            raise DataError(f"{len(names)} ids ({len(set(names))} different) for {len(x)} rows; give each row its own")
        return names
    content = np.ascontiguousarray(x.detach().cpu().numpy())
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in content]
    seen: Counter[str] = Counter()
    names = []
    for digest in digests:
        seen[digest] += 1
        names.append(digest if seen[digest] == 1 else f"{digest}.{seen[digest]}")
    return names


_PROBED = 8


def probes(x: Tensor, names: Sequence[str]) -> Tensor:
    """The rows that a cheaper gradient path is checked on: a few, the same in whatever order rows come."""
    return x[sorted(range(len(names)), key=names.__getitem__)[:_PROBED]]


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    """A tensor; an array that may not be written to is copied, since torch cannot share it."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


def checked_rows(
    x: ArrayLike | Tensor, y: ArrayLike | Tensor, target: Target[Tensor], task: Task = Task.CLASS
) -> tuple[Tensor, Tensor]:
    """Inputs, and labels of the task, as the target takes them.

    Raises DataError where they cannot mean what was intended.
    """
    inputs, labels = _tensor(x), _tensor(y)
    if not inputs.is_floating_point():
        raise DataError(
            f"inputs must be floating point in {target.bounds}, got {inputs.dtype}; scale them first (x / 255)"
        )
    labels = _checked_labels(labels, inputs, task)
    inputs = inputs.detach().to(device=target.device, dtype=target.dtype)
    labels = labels.to(device=target.device)
    low, high = (torch.tensor(bound, dtype=inputs.dtype) for bound in target.bounds)  # as the inputs can hold them
    if len(inputs):
        if not bool(inputs.isfinite().all()):
            raise DataError("inputs hold NaN or infinity; clean them, or leave those rows out and say so")
        least, most = float(inputs.min()), float(inputs.max())
        if least < float(low) or most > float(high):
            raise DataError(
                f"inputs lie in [{least:.6g}, {most:.6g}], outside the bounds ({low:.6g}, {high:.6g}); undo the "
                "normalization (give it to the target instead), or declare the true bounds"
            )
    return inputs, labels


def _checked_labels(labels: Tensor, inputs: Tensor, task: Task) -> Tensor:
    """Class numbers (N,), a 0 or 1 a label (N, L), or values (N,), as the task has them."""
    labels = labels.detach()
    if task is Task.LABELS:
        fits = inputs.dim() >= 2 and labels.dim() == 2 and len(labels) == len(inputs)
        if not fits or bool(((labels != 0) & (labels != 1)).any()):
            raise DataError(
                f"several labels a row need 0 or 1 for each of them, (N, L), got {labels.dtype} {tuple(labels.shape)} "
                f"for {len(inputs)} rows; give a column a label"
            )
        return labels.to(torch.int64)
    if task is Task.VALUE and labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if inputs.dim() < 2 or labels.shape != inputs.shape[:1]:
        each = "one class number a row (for one-hot labels, y.argmax(1))" if task is Task.CLASS else "one value a row"
        raise DataError(
            f"inputs (N, …) need labels (N,), got {tuple(inputs.shape)} and {tuple(labels.shape)}; give {each}"
        )
    if task is Task.VALUE:
        if not bool(labels.isfinite().all()):
            raise DataError("the right values hold NaN or infinity; clean them, or leave those rows out and say so")
        return labels.to(torch.float64)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"labels must be class numbers (integers from 0), got {labels.dtype}; convert them")
    return labels.to(torch.int64)


def count_classes(target: Target[Tensor], x: Tensor, y: Tensor, task: Task = Task.CLASS) -> int:
    """How many scores a row gets, from the target's word or its first answer; labels must fit it."""
    classes = target.classes if task is not Task.VALUE else 1
    if classes is None and len(x):
        for part in x.tensor_split(math.ceil(len(x) / 2)):
            first = evaluate(target, part, micro=2)
            if bool(first.answered.any()):
                classes = first.output.shape[1]
                break
        else:
            raise TargetError(f"the model failed on every row ({first.reasons[0]}); try it on one batch by hand")
    classes = classes or 2
    if task is Task.VALUE:
        return classes
    if task is Task.LABELS:
        if len(y) and y.shape[1] != classes:
            raise DataError(f"rows have {y.shape[1]} labels, and the model answers {classes}; give a column a label")
        return classes
    if classes < 2:
        raise TargetError(
            "the model answers one number a row, but class scores (N, K) with K of at least 2 are needed; "
            "for a binary model with one logit say so: redan.targets.from_torch(model, classes=2)"
        )
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < classes):
        raise DataError(
            f"labels go from {int(y.min())} to {int(y.max())}, but the model has the classes 0 to {classes - 1}; "
            "number classes as the model does"
        )
    return classes


def checked_knowledge(knowledge: Access | None, shown: Access) -> Access:
    """What the attacker may see. Raises SettingError where that is more than the model shows."""
    if knowledge is not None and knowledge > shown:
        seen = shown.name.lower()
        raise SettingError(
            f"the attacker's knowledge is {knowledge.name.lower()}, but this model shows {seen}; say knowledge=Access."
            f"{shown.name}, or give surrogates"
        )
    return shown if knowledge is None else knowledge


def refuse_misfits(attacks: Sequence[Attack[Any, Any]], within: Bounded, knowledge: Access) -> None:
    """Raise SetError or SettingError for an attack that needs another set, or more knowledge."""
    for attack in attacks:
        need = needs(attack)
        if need.access > knowledge:
            raise SettingError(
                f"{type(attack).__name__} needs {need.access.name.lower()}, but the attacker's knowledge is "
                f"{knowledge.name.lower()}; choose another attack, or declare more knowledge"
            )
        if need.within is Ball and not is_ball(within):
            raise SetError(
                f"{type(attack).__name__} moves in norm balls, and {type(within).__name__} is none; choose an attack "
                f"for {type(within).__name__} (redan's README lists them)"
            )
        if need.within is not Ball and not isinstance(within, need.within):
            raise SetError(
                f"{type(attack).__name__} moves in {need.within.__name__}, not in {type(within).__name__}; "
                f"choose an attack for {type(within).__name__} (redan's README lists them)"
            )
