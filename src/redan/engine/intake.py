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


def checked_rows(x: ArrayLike | Tensor, y: ArrayLike | Tensor, target: Target[Tensor]) -> tuple[Tensor, Tensor]:
    """Inputs and labels as the target takes them. Raises DataError where they cannot mean what was intended."""
    inputs, labels = _tensor(x), _tensor(y)
    if not inputs.is_floating_point():
        raise DataError(
            f"inputs must be floating point in {target.bounds}, got {inputs.dtype}; scale them first (x / 255)"
        )
    if inputs.dim() < 2 or labels.shape != inputs.shape[:1]:
        raise DataError(
            f"inputs (N, …) need labels (N,), got {tuple(inputs.shape)} and {tuple(labels.shape)}; "
            "give one class number a row (for one-hot labels, y.argmax(1))"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"labels must be class numbers (integers from 0), got {labels.dtype}; convert them")
    inputs = inputs.detach().to(device=target.device, dtype=target.dtype)
    labels = labels.detach().to(device=target.device, dtype=torch.int64)
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


def count_classes(target: Target[Tensor], x: Tensor, y: Tensor) -> int:
    """K, from the target's word or its first answer; labels must fit it."""
    classes = target.classes
    if classes is None and len(x):
        for part in x.tensor_split(math.ceil(len(x) / 2)):
            first = evaluate(target, part, micro=2)
            if bool(first.answered.any()):
                classes = first.output.shape[1]
                break
        else:
            raise TargetError(f"the model failed on every row ({first.reasons[0]}); try it on one batch by hand")
    classes = classes or 2
    if classes < 2:
        raise TargetError(
            "the model answers one number a row, but class scores (N, K) with K of at least 2 are needed; "
            "for a binary model with one logit return torch.stack([-z, z], 1) / 2"
        )
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < classes):
        raise DataError(
            f"labels go from {int(y.min())} to {int(y.max())}, but the model has the classes 0 to {classes - 1}; "
            "number classes as the model does"
        )
    return classes


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
