"""The target, the rows and the user's own attacks that a threat-model file names.

The file is trusted as code: its folder joins `sys.path` for the functions it names. Models, data and run
folders are not: weights are safetensors, arrays are read without pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.assessment.imports import called, named
from redan.assessment.models import Loading, Served, check_access, served
from redan.data.ranges import Ranges
from redan.data.samples import Samples, from_arrays, read_file
from redan.errors import DataError, NotBuiltError, ThreatModelError
from redan.evidence.folder import digest, file_digest
from redan.goals import Task
from redan.protocols import Attack
from redan.targets import Target
from redan.targets.surrogates import Ensemble, ensemble
from redan.threat import system as said
from redan.threat.attackers import Evasion, Knowledge
from redan.threat.inputs import ImageInputs, TableInputs, TensorInputs
from redan.threat.schema import ThreatModel

_TASK = {
    said.Task.CLASSIFICATION: Task.CLASS,
    said.Task.MULTILABEL: Task.LABELS,
    said.Task.REGRESSION: Task.VALUE,
}
_SHOWN = 64  # rows on which a model's gradients are shown to be its own


@dataclass(frozen=True, slots=True)
class Built:
    """What an assessment works on. notes: what was done to the data on the way in."""

    target: Target[Tensor]
    surrogates: Mapping[str, Ensemble]  # by the attacker who holds them
    task: Task
    x: Tensor
    y: Tensor
    ids: tuple[str, ...] | None
    index: tuple[int, ...]  # position of each drawn row in the data
    model_digest: str | None
    data_digest: str | None
    notes: tuple[str, ...]


def _samples(model: ThreatModel, folder: Path) -> tuple[Samples, str | None]:
    test = model.system.data.test
    match test:
        case said.DataFile(path=path, x=str(x), y=y, id=ids, source=source):
            return read_file(folder / path, x=x, y=y, ids=ids, source=source), file_digest(folder / path)
        case said.DataFile():
            raise NotBuiltError("data.test.x with several columns is not built yet; save the inputs as one array")
    key = f"system.data.test '{test}'"
    made = called(named(str(test), folder, key), key, folder)
    if not isinstance(made, dict) or not {"x", "y"} <= set(made):
        raise DataError(f"{key} must return a dict with x and y (and id, source), got {type(made).__name__}")
    return from_arrays(made, key, x="x", y="y", ids="id" if "id" in made else None), None


def _array_inputs(model: ThreatModel) -> ImageInputs | TensorInputs | TableInputs:
    inputs = model.system.inputs
    if not isinstance(inputs, ImageInputs | TensorInputs | TableInputs):
        raise NotBuiltError(
            f"inputs of kind {inputs.kind} are not built yet; redan attacks images, tensors and tables of numbers"
        )
    return inputs


def _inputs(
    rows: NDArray[Any], inputs: ImageInputs | TensorInputs | TableInputs
) -> tuple[NDArray[Any], tuple[str, ...]]:
    if rows.dtype == object:
        raise DataError("the inputs are an array of objects; save them as one array of numbers (N, …)")
    notes: tuple[str, ...] = ()
    table = isinstance(inputs, TableInputs)
    if rows.dtype == np.uint8 and inputs.bounds == (0.0, 1.0):
        rows, notes = rows.astype(np.float32) / 255, ("inputs were uint8 and were divided by 255",)
    elif not np.issubdtype(rows.dtype, np.floating):
        wide = np.float64 if table else np.float32
        rows, notes = rows.astype(wide), (f"inputs were {rows.dtype} and became {np.dtype(wide)}",)
    shape = tuple(inputs.shape) if inputs.shape is not None else rows.shape[1:2]
    if rows.shape[1:] != shape and rows[0].size == int(np.prod(shape)):
        notes = (*notes, f"inputs of shape {rows.shape[1:]} became {shape}")
        rows = rows.reshape(len(rows), *shape)
    if rows.shape[1:] != shape:
        what = f"system.inputs.shape says {shape}" if inputs.shape is not None else "a table has one column a number"
        raise DataError(f"rows have the shape {rows.shape[1:]}, but {what}; correct one")
    return rows, notes


def _right_answers(y: NDArray[Any], task: Task) -> NDArray[Any]:
    """Class numbers (N,), a 0 or 1 a label (N, L), or values (N,). Raises DataError for anything else."""
    whole = np.issubdtype(y.dtype, np.integer) or y.dtype == bool
    match task:
        case Task.CLASS if np.issubdtype(y.dtype, np.integer) and y.ndim == 1:
            return y.astype(np.int64)
        case Task.LABELS if whole and y.ndim == 2:
            return y.astype(np.int64)
        case Task.VALUE if (whole or np.issubdtype(y.dtype, np.floating)) and (y.ndim == 1 or y.shape[1:] == (1,)):
            return y.reshape(len(y)).astype(np.float64)
    need, how = _NEEDED[task]
    raise DataError(f"{need}, got {y.dtype} {y.shape}; {how}")


_NEEDED = {
    Task.CLASS: (
        "labels must be class numbers (N,)",
        "number the classes from 0 in the order of system.classes",
    ),
    Task.LABELS: (
        "labels must be a 0 or 1 for each of them (N, L)",
        "give a column a label, in the order of system.classes",
    ),
    Task.VALUE: ("the right values must be numbers (N,)", "give one value a row"),
}


def _digest_of(found: Sequence[Served]) -> str | None:
    """sha256 of the model; of an attacker's surrogates too, where there are any."""
    told = [each.digest for each in found]
    return told[0] if len(told) == 1 else digest("".join(part or "" for part in told).encode())


def build(model: ThreatModel, folder: Path, *, trust_pickle: bool = False) -> Built:
    """Everything that the file names, with the rows drawn by its seed. Raises a RedanError that names the key.

    trust_pickle: whether a pickled model may be read, which can run any code.
    """
    if model.system.defenses:
        kinds = ", ".join(sorted({str(next(iter(d.root))) for d in model.system.defenses}))
        raise NotBuiltError(f"system.defenses ({kinds}) are not built yet; put them inside the model's forward")
    inputs, task = _array_inputs(model), _TASK[model.system.task]
    samples, data_digest = _samples(model, folder)
    rows, notes = _inputs(samples.x, inputs)
    y = _right_answers(samples.y, task)
    order = np.random.default_rng(model.statistics.seed).permutation(len(rows))[: model.statistics.rows]
    ranges = Ranges.of(rows) if isinstance(inputs, TableInputs) and inputs.bounds is None else None
    x = np.ascontiguousarray(rows[order])
    main, lent = served(
        Loading(
            model=model,
            folder=folder,
            rows=torch.from_numpy(x[:_SHOWN]),
            ranges=ranges,
            climbed=any(isinstance(a, Evasion) and a.knowledge is Knowledge.GRADIENTS for a in model.attackers),
            trust=trust_pickle,
        )
    )
    check_access(model, main.target)
    if ranges is not None:
        notes = (*notes, "every column was scaled to its own range in the data: ε is a share of that range")
        x = ranges.unit(x)
    return Built(
        target=main.target,
        surrogates={name: ensemble([each.target for each in held], main.target) for name, held in lent.items()},
        task=task,
        x=torch.from_numpy(x),
        y=torch.from_numpy(y[order]),
        ids=None if samples.ids is None else tuple(samples.ids[i] for i in order),
        index=tuple(int(i) for i in order),
        model_digest=_digest_of([main, *(each for held in lent.values() for each in held)]),
        data_digest=data_digest or digest(np.ascontiguousarray(rows).tobytes() + samples.y.tobytes()),
        notes=notes,
    )


def added_attacks(model: ThreatModel, folder: Path) -> dict[str, Attack[Any, Any]]:
    """The user's own attacks (`attacks.add`) by name: values, or classes that need no argument."""
    found: dict[str, Attack[Any, Any]] = {}
    for name in model.attacks.add:
        key = f"attacks.add '{name}'"
        attack = named(name, folder, key)
        if isinstance(attack, type):
            attack = called(attack, key, folder)
        if not callable(attack):
            raise ThreatModelError(f"{key} is no attack; an attack is called with a referee and rows")
        short = name.partition(":")[2]
        found[name if short in found else short] = attack
    return found
