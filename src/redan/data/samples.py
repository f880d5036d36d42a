"""Rows with their ids and sources, and how they are read from files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import DataError, NotBuiltError


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows x (N, …) with labels y (N,). ids and source: one a row, or None where the data has none."""

    x: NDArray[Any]
    y: NDArray[Any]
    ids: tuple[str, ...] | None = None
    source: tuple[str, ...] | None = None
    split: str = "test"

    def __len__(self) -> int:
        return len(self.x)


def _column(arrays: Mapping[str, Any], name: str, where: str) -> NDArray[Any]:
    if name not in arrays:
        have = ", ".join(sorted(arrays)) or "none"
        raise DataError(f"{where} has no array '{name}'; it has {have}: name one of them in the threat model")
    return np.asarray(arrays[name])


def from_arrays(
    arrays: Mapping[str, Any], where: str, *, x: str, y: str, ids: str | None = None, source: str | None = None
) -> Samples:
    """Samples from named arrays. Raises DataError where names or lengths do not fit."""
    rows, labels = _column(arrays, x, where), _column(arrays, y, where)
    names, sources = (
        None if name is None else tuple(map(str, _column(arrays, name, where).tolist())) for name in (ids, source)
    )
    lengths = {"x": len(rows), "y": len(labels)}
    lengths |= {key: len(part) for key, part in (("id", names), ("source", sources)) if part is not None}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise DataError(f"{where}: arrays of different lengths ({said}); every row needs each of them")
    if not len(rows):
        raise DataError(f"{where} has no rows; point data.test to rows to attack")
    return Samples(rows, labels, names, sources)


def read_npz(path: Path, *, x: str, y: str, ids: str | None = None, source: str | None = None) -> Samples:
    """Samples from an .npz file, read without pickle. Raises DataError where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (x, y, ids, source) if key is not None and key in file}
            have = list(file)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; check data.test in the threat model") from error
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npz ({error}); write it with numpy.savez_compressed") from error
    except ValueError as error:
        raise DataError(
            f"{path} holds pickled objects, which redan never loads; save plain number arrays with numpy.savez"
        ) from error
    return from_arrays({**dict.fromkeys(have, ()), **arrays}, str(path), x=x, y=y, ids=ids, source=source)


def read_file(path: Path, *, x: str, y: str, ids: str | None = None, source: str | None = None) -> Samples:
    """Samples from a file, by its suffix."""
    if path.suffix.lower() == ".npz":
        return read_npz(path, x=x, y=y, ids=ids, source=source)
    raise NotBuiltError(f"reading {path.suffix or 'such'} files is not built yet ({path.name}); save the rows as .npz")
