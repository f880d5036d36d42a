"""The process that holds an estimator which nobody should load beside their own secrets; `isolated` starts this file.

It is run as a file, imports nothing of redan (whose torch takes seconds), and talks in frames: four bytes of length, a
JSON header of that length, then the raw bytes of the arrays that the header describes. Nothing is ever unpickled on
the other side. Whatever the estimator prints goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = ("predict_proba", "decision_function", "predict")
_LARGEST_HEADER, _LARGEST_ARRAYS = 2**20, 2**31
_KINDS = "fiubU"  # floats, integers, booleans and texts of a fixed length: no objects
_FILE_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Described:
    """What an estimator says of itself.

    classes: its labels in the order of its columns, or of class numbers; a tuple of them for each label where an
    estimator answers several; None where it has no classes. several: labels do not exclude each other. float32:
    all that it learned is in that type. votes: `decision_function` has a column for each pair of classes.
    """

    called: str
    methods: tuple[str, ...]
    classes: tuple[Any, ...] | None
    several: bool
    float32: bool
    votes: bool
    columns: int | None


def describe(estimator: Any) -> Described:
    """What an estimator, a pipeline or a search says of itself; nothing is asked of the model."""
    last = innermost(estimator)
    classes = getattr(estimator, "classes_", None)
    if classes is None and hasattr(last, "offset_") and hasattr(last, "decision_function"):
        classes = [-1, 1]  # a detector of outliers: what is unlike its rows, and what is like them
    binarizer = getattr(last, "_label_binarizer", None)
    several = (
        _is_list_of_classes(classes)
        or bool(getattr(last, "multilabel_", False))
        or str(getattr(binarizer, "y_type_", "")).startswith("multilabel")
    )
    columns = getattr(estimator, "n_features_in_", None)
    return Described(
        called=type(last).__name__,
        methods=tuple(name for name in METHODS if hasattr(estimator, name)),
        classes=None if classes is None else tuple(_plain(each) for each in classes),
        several=several,
        float32=_learned_in_float32(last),
        votes=getattr(last, "decision_function_shape", None) == "ovo",
        columns=None if columns is None else int(columns),
    )


def innermost(estimator: Any) -> Any:
    """The estimator that answers: a pipeline's last step, a search's best."""
    while True:
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def _is_list_of_classes(classes: Any) -> bool:
    return isinstance(classes, list) and any(hasattr(each, "__len__") and not isinstance(each, str) for each in classes)


def _plain(label: Any) -> Any:
    """A label, or the labels of one of several, as JSON has them; texts where it has no such thing."""
    found = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(found, list):
        return tuple(_plain(each) for each in found)
    return found if isinstance(found, bool | int | float | str) else str(found)


def _learned_in_float32(last: Any) -> bool:
    learned = [
        value for name, value in getattr(last, "__dict__", {}).items() if name.endswith("_") and name != "classes_"
    ]
    arrays = [each for value in learned for each in (value if isinstance(value, list) else [value])]
    types = {str(each.dtype) for each in arrays if getattr(getattr(each, "dtype", None), "kind", "") == "f"}
    return types == {"float32"}


def asking(estimator: Any, method: str) -> Callable[[NDArray[Any]], Any]:
    """The method, for plain arrays (N, d): an estimator fit on named columns is given them by their names.

    Raises ModuleNotFoundError where it needs pandas for that, and has none.
    """
    ask: Callable[[Any], Any] = getattr(estimator, method)
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return ask
    from pandas import DataFrame  # type: ignore[import-untyped]  # optional, and not one of ours

    return lambda x: ask(DataFrame(x, columns=names, copy=False))


def write_frame(stream: IO[bytes], header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """One frame. Raises ValueError for arrays that hold anything but numbers and texts."""
    import numpy as np

    plain = [np.ascontiguousarray(each) for each in arrays]
    for each in plain:
        if each.dtype.kind not in _KINDS:
            raise ValueError(f"an array of {each.dtype} cannot be sent; numbers and texts can")
    described = [{"dtype": each.dtype.str, "shape": each.shape} for each in plain]
    text = json.dumps({**header, "arrays": described}).encode()
    stream.write(len(text).to_bytes(4, "big") + text)
    for each in plain:
        stream.write(each.tobytes())
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """One frame. Raises EOFError where the stream ends, ValueError for what is no frame."""
    import numpy as np

    length = int.from_bytes(_exactly(stream, 4), "big")
    if length > _LARGEST_HEADER:
        raise ValueError(f"a header of {length} bytes is no header")
    header = json.loads(_exactly(stream, length))
    if not isinstance(header, dict) or not isinstance(header.get("arrays"), list):
        raise ValueError("a header without arrays is no header")
    found: list[NDArray[Any]] = []
    left = _LARGEST_ARRAYS
    for said in header["arrays"]:
        dtype, shape = np.dtype(str(said["dtype"])), tuple(int(side) for side in said["shape"])
        size = dtype.itemsize * math.prod(shape)
        if dtype.kind not in _KINDS or any(side < 0 for side in shape) or size > left:
            raise ValueError(f"an array of {dtype} {shape} is not accepted")
        left -= size
        found.append(np.frombuffer(bytearray(_exactly(stream, size)), dtype=dtype).reshape(shape))
    return header, found


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise EOFError("the stream ended inside a frame")
    return found


def _bounded(memory: int) -> None:
    """Limits that the system keeps, where it has them: memory, the size of a file, no dump of a crash."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, _FILE_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _load(first: Mapping[str, Any]) -> Any:
    if first["skops"] is None:
        import joblib

        return joblib.load(first["path"])
    import skops.io

    return skops.io.load(first["path"], trusted=first["skops"])


def _answered(estimator: Any, method: str, x: NDArray[Any]) -> list[NDArray[Any]]:
    import numpy as np

    answer = asking(estimator, method)(x)
    found = [np.asarray(each) for each in (answer if isinstance(answer, list) else [answer])]
    return [each.astype(str) if each.dtype.kind == "O" else each for each in found]


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    first, _ = read_frame(requests)
    _bounded(first["memory"])
    estimator = _load(first)
    write_frame(replies, {"described": asdict(describe(estimator))})
    while True:
        try:
            header, arrays = read_frame(requests)
        except EOFError:  # nobody asks any more
            return
        try:
            answers = _answered(estimator, METHODS[METHODS.index(header["ask"])], arrays[0])
        except Exception as error:  # the model's own, told to whoever asked
            write_frame(replies, {"error": f"{type(error).__name__}: {error}"[:1000]})
        else:
            write_frame(replies, {"many": len(answers) > 1}, answers)


def main() -> None:
    """Serve the frames that come on stdin; what is printed goes to stderr."""
    sys.path.extend(folder for folder in json.loads(sys.argv[1]) if folder not in sys.path)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    _serve(requests, replies)


if __name__ == "__main__":
    main()
