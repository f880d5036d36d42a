"""Rows from files and arrays: what is there is read, what is not is one clear sentence, nothing is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redan.data.samples import Samples, from_arrays, read_file, read_npz
from redan.errors import DataError, NotBuiltError

X, Y = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 2, 0])


def written(folder: Path, name: str = "rows.npz", **arrays: Any) -> Path:
    np.savez(folder / name, **arrays)
    return folder / name


def test_an_npz_is_read_by_names(tmp_path: Path) -> None:
    path = written(tmp_path, images=X, labels=Y, order=np.array(["a", "b", "c", "d"]), supplier=np.arange(4), z=X)
    rows = read_npz(path, x="images", y="labels", ids="order", source="supplier")
    assert np.array_equal(rows.x, X)
    assert rows.x.dtype == np.float32
    assert np.array_equal(rows.y, Y)
    assert rows.ids == ("a", "b", "c", "d")
    assert rows.source == ("0", "1", "2", "3")
    assert len(rows) == 4


def test_ids_and_sources_may_be_absent(tmp_path: Path) -> None:
    rows = read_file(written(tmp_path, x=X, y=Y), x="x", y="y")
    assert (rows.ids, rows.source, rows.split) == (None, None, "test")


@pytest.mark.parametrize("name", ["rows.npz", "ROWS.NPZ"])
def test_the_suffix_decides_whatever_its_case(tmp_path: Path, name: str) -> None:
    written(tmp_path, x=X, y=Y).rename(tmp_path / name)
    assert len(read_file(tmp_path / name, x="x", y="y")) == 4


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl", "rows"])
def test_other_files_are_not_built_yet_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x,y\n")
    with pytest.raises(NotBuiltError, match=rf"is not built yet \({name}\); save the rows as .npz"):
        read_file(tmp_path / name, x="x", y="y")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*gone.npz; check data.test"):
        read_npz(tmp_path / "gone.npz", x="x", y="y")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.npz").mkdir()
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        read_npz(tmp_path / "rows.npz", x="x", y="y")


def test_a_missing_array_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = written(tmp_path, images=X, labels=Y)
    with pytest.raises(DataError, match="has no array 'x'; it has images, labels: name one of them"):
        read_npz(path, x="x", y="labels")
    with pytest.raises(DataError, match="has no array 'names'"):
        read_npz(path, x="images", y="labels", ids="names")


class Trap:
    """What unpickles this touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = written(tmp_path, x=np.array([Trap(touched)] * 4, dtype=object), y=Y)
    with pytest.raises(DataError, match="holds pickled objects, which redan never loads; save plain number arrays"):
        read_npz(path, x="x", y="y")
    assert not touched.exists()


def test_a_pickle_named_npz_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "rows.npz").write_bytes(pickle.dumps(Trap(touched)))
    with pytest.raises(DataError, match="pickled"):
        read_npz(tmp_path / "rows.npz", x="x", y="y")
    assert not touched.exists()


def test_a_pickled_array_beside_those_that_are_read_is_not_touched(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = written(tmp_path, x=X, y=Y, extra=np.array([Trap(touched)], dtype=object))
    assert len(read_npz(path, x="x", y="y")) == 4
    assert not touched.exists()


# numpy leaves a file open that it cannot read
unclosed = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@unclosed
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"x,y\n0,1\n", b"\x93NUMPY"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(DataError):
        read_npz(tmp_path / "rows.npz", x="x", y="y")


@unclosed
def test_a_cut_npz_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        read_npz(path, x="x", y="y")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"y": Y[:3]}, "x 4, y 3"),
        ({"id": np.arange(5)}, "x 4, y 4, id 5"),
        ({"source": np.arange(1)}, "x 4, y 4, source 1"),
    ],
)
def test_every_row_needs_each_array(changed: dict[str, Any], words: str) -> None:
    arrays = {"x": X, "y": Y, "id": np.arange(4), "source": np.arange(4), **changed}
    with pytest.raises(DataError, match="arrays of different lengths") as told:
        from_arrays(arrays, "shop:rows", x="x", y="y", ids="id", source="source")
    found = str(told.value)
    assert found.startswith("shop:rows: ")
    assert all(word in found for word in words.split(", "))


def test_no_row_at_all_is_refused() -> None:
    with pytest.raises(DataError, match=r"has no rows; point data\.test to rows to attack"):
        from_arrays({"x": X[:0], "y": Y[:0]}, "shop:rows", x="x", y="y")


def test_lists_become_arrays() -> None:
    rows = from_arrays({"x": X.tolist(), "y": Y.tolist()}, "shop:rows", x="x", y="y")
    assert rows.x.shape == (4, 3)
    assert rows.y.dtype == np.int64


def test_samples_are_frozen() -> None:
    rows = Samples(X, Y)
    with pytest.raises(AttributeError):
        rows.x = Y  # type: ignore[misc]  # that is what is tried
