"""The rows that a threat-model file names: those that are attacked, those the model is trained on, trusted ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.assessment.imports import called, named
from redan.data.samples import Samples, from_arrays, read_file
from redan.errors import DataError, NotBuiltError
from redan.evidence.folder import digest, file_digest
from redan.goals import Task
from redan.threat import system as said
from redan.threat.inputs import ImageInputs, TableInputs, TensorInputs
from redan.threat.schema import ThreatModel

__all__ = ["TASK", "Rows", "array_inputs", "order_of", "pool_rows", "rows_of"]

TASK = {
    said.Task.CLASSIFICATION: Task.CLASS,
    said.Task.MULTILABEL: Task.LABELS,
    said.Task.REGRESSION: Task.VALUE,
}


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one split, as the model takes them. digest: sha256 of where they came from. notes: what was done to
    them on the way in."""

    samples: Samples
    digest: str
    notes: tuple[str, ...]


def rows_of(model: ThreatModel, folder: Path, split: said.Split) -> Rows | None:
    """The rows of a split, or None where the file names none. Raises a RedanError that names the key."""
    source = getattr(model.system.data, split)
    if source is None:
        return None
    inputs = array_inputs(model)
    samples, found = _samples(source, folder, f"system.data.{split}")
    x, notes = _inputs(samples.x, inputs)
    y = _right_answers(samples.y, TASK[model.system.task])
    whole = found or digest(np.ascontiguousarray(x).tobytes() + samples.y.tobytes())
    return Rows(replace(samples, x=x, y=y, split=str(split)), whole, notes)


def pool_rows(model: ThreatModel, folder: Path, source: str | said.DataFile) -> tuple[NDArray[Any], str]:
    """The rows (N, …) that an attacker asks about, and the digest of where they came from. Their labels, if there are
    any, are not used. Raises a RedanError that names the key."""
    key = "extraction.pool"
    match source:
        case said.DataFile(path=path, x=str(array)):
            samples = read_file(folder / path, x=array, y=array)
            found = file_digest(folder / path)
        case said.DataFile():
            raise NotBuiltError(f"{key}.x with several columns is not built yet; save the inputs as one array")
        case _:
            where = f"{key} '{source}'"
            made = called(named(str(source), folder, where), where, folder)
            if not isinstance(made, dict) or "x" not in made:
                raise DataError(f"{where} must return a dict with x, got {type(made).__name__}")
            samples, found = from_arrays(made, where, x="x", y="x"), ""
    x, _ = _inputs(samples.x, array_inputs(model))
    return x, found or digest(np.ascontiguousarray(x).tobytes())


def order_of(model: ThreatModel, rows: int) -> NDArray[np.int64]:
    """Positions of the test rows that are drawn, in the order in which they are taken."""
    drawn = np.random.default_rng(model.statistics.seed).permutation(rows)
    return np.asarray(drawn[: model.statistics.rows], dtype=np.int64)


def array_inputs(model: ThreatModel) -> ImageInputs | TensorInputs | TableInputs:
    """The inputs, if they are numbers. Raises NotBuiltError for others."""
    inputs = model.system.inputs
    if not isinstance(inputs, ImageInputs | TensorInputs | TableInputs):
        raise NotBuiltError(
            f"inputs of kind {inputs.kind} are not built yet; redan attacks images, tensors and tables of numbers"
        )
    return inputs


def _samples(source: str | said.DataFile, folder: Path, key: str) -> tuple[Samples, str | None]:
    match source:
        case said.DataFile(path=path, x=str(x), y=y, id=ids, source=supplier):
            return read_file(folder / path, x=x, y=y, ids=ids, source=supplier), file_digest(folder / path)
        case said.DataFile():
            raise NotBuiltError(f"{key}.x with several columns is not built yet; save the inputs as one array")
    where = f"{key} '{source}'"
    made = called(named(str(source), folder, where), where, folder)
    if not isinstance(made, dict) or not {"x", "y"} <= set(made):
        raise DataError(f"{where} must return a dict with x and y (and id, source), got {type(made).__name__}")
    return from_arrays(
        made, where, x="x", y="y", ids="id" if "id" in made else None, source="source" if "source" in made else None
    ), None


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
