"""An ONNX file read without trusting it, and a session of onnxruntime that answers arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import NotBuiltError, SettingError, TargetError

FAMILIES = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of operators that onnxruntime itself brings; any other comes from a library, or is defined in the file."""

MISSING = "ONNX models need the packages onnx and onnxruntime; install them with pip install 'redan[onnx]'"

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Session:
    """A model in onnxruntime: one input, and the output that is asked for. Build it with `open_session`.

    shape: of the input, None where any length goes; the first is the number of rows, which `ask` sees to. Calls from
    several threads are safe.
    """

    name: str  # of the file, for errors
    runtime: Any = field(repr=False)
    input: str
    output: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None
    columns: int | None  # scores a row, where the file says it

    @property
    def batch(self) -> int | None:
        """How many rows the model takes at a time; None: any number."""
        return self.shape[0] if self.shape else None


def open_session(path: Path | str, *, scores: str | None = None, threads: int = 1) -> Session:
    """The model of an ONNX file, answering on the CPU in so many threads.

    scores: the name of the output to ask for, where there are several that it could be. Weights beside the file are
    read from its own folder alone, and libraries of custom operators are never loaded. Raises TargetError for a file
    that cannot be used, SettingError for a name that it does not have.
    """
    path = Path(path)
    return start(path, read_graph(path)[0], scores=scores, threads=threads)


def start(path: Path, payload: bytes, *, scores: str | None, threads: int, labels: bool = False) -> Session:
    """A session of what `read_graph` read and found harmless. labels: ask for class numbers, where scores come too."""
    try:
        import onnxruntime
    except ImportError as error:
        raise TargetError(MISSING) from error
    if threads < 1:
        raise SettingError(f"threads must be at least 1, got {threads}; 1 leaves the other cores to redan's workers")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        runtime = onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TargetError(
            f"onnxruntime {onnxruntime.__version__} cannot load {path.name} ({_first_line(error)}); export it again, "
            "in float32 if it is not, or install a newer onnxruntime"
        ) from error
    inputs, outputs = runtime.get_inputs(), runtime.get_outputs()
    if len(inputs) != 1:
        raise TargetError(
            f"{path.name} has {len(inputs)} inputs ({', '.join(part.name for part in inputs)}), but one is attacked; "
            "export the model with the others as constants"
        )
    chosen = _chosen(path.name, outputs, scores, labels)
    dtype = _TYPES.get(inputs[0].type)
    if dtype is None:
        raise TargetError(
            f"the input of {path.name} is {inputs[0].type}, but an array of numbers is needed; export it so"
        )
    return Session(
        name=path.name,
        runtime=runtime,
        input=inputs[0].name,
        output=chosen.name,
        dtype=np.dtype(dtype),
        shape=None if inputs[0].shape is None else tuple(n if isinstance(n, int) else None for n in inputs[0].shape),
        columns=chosen.shape[1] if len(chosen.shape) > 1 and isinstance(chosen.shape[1], int) else None,
    )


def ask(session: Session, rows: NDArray[Any]) -> NDArray[Any]:
    """What the model answers to rows (N, …), cast to its input's type: (N, K) or (N,), as the file has it.

    A model of a fixed number of rows is asked in pieces, the last one filled up with zeros. Raises
    TargetError where the rows do not have the input's shape, or the model does not answer one by one.
    """
    shape = session.shape
    if shape is not None and (
        rows.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape[1:], rows.shape[1:], strict=True))
    ):
        raise TargetError(
            f"{session.name} takes inputs {_told(shape)}, but the rows are {_told((None, *rows.shape[1:]))}; "
            "give them the model's shape"
        )
    size = session.batch or max(1, len(rows))
    answers = [_piece(session, rows[i : i + size], size) for i in range(0, max(1, len(rows)), size)]
    answer = answers[0] if len(answers) == 1 else np.concatenate(answers)
    while answer.ndim > 2 and answer.shape[-1] == 1:
        answer = answer[..., 0]  # (N, K, 1, 1): a network that ends with a pooling
    return answer


def _piece(session: Session, rows: NDArray[Any], size: int) -> NDArray[Any]:
    asked = rows.astype(session.dtype, copy=False)
    if len(rows) < size:
        asked = np.concatenate([asked, np.zeros((size - len(rows), *rows.shape[1:]), session.dtype)])
    answer: NDArray[Any] = session.runtime.run([session.output], {session.input: asked})[0]
    if not answer.ndim or len(answer) != size:
        raise TargetError(
            f"{session.name} answered {answer.shape} to {size} rows, but scores a row are needed, (N, K); export it "
            "with the rows on the first axis of its input and its output"
        )
    return answer[: len(rows)]


def _told(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('N' if i == 0 else 'any' if n is None else str(n) for i, n in enumerate(shape))})"


def _chosen(name: str, outputs: Any, scores: str | None, labels: bool) -> Any:
    """The output that holds the scores, or the class numbers: the one of that name, or the only one that could."""
    told = ", ".join(part.name for part in outputs)
    if scores is not None and scores not in {part.name for part in outputs}:
        raise SettingError(f"{name} has no output {scores!r}; its outputs are {told}")
    named = [part for part in outputs if scores in (None, part.name)]
    if labels and any(part.type == "tensor(string)" for part in named):
        raise TargetError(
            f"{name} answers its labels as text; export it with class numbers, or attack it by its scores"
        )
    fit = [part for part in named if part.type in _TYPES]
    first = [part for part in fit if np.issubdtype(_TYPES[part.type], np.floating) is not labels]
    if not first and any(part.type.startswith(("seq", "map")) for part in named):
        raise TargetError(
            f"{name} answers its scores as a list of mappings (ZipMap), but an array (N, K) is needed; export it "
            "with options={'zipmap': False}"
        )
    for found in (first, fit):
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingError(f"{name} has the outputs {told}; say which holds the class scores with scores=NAME")
    raise TargetError(f"{name} has no output of numbers ({told}); export it with an output of class scores (N, K)")


def read_graph(path: Path) -> tuple[bytes, Any]:
    """The bytes of an ONNX file, and the ModelProto in them; both are from one reading, weights beside it included.

    Raises TargetError for a file that is not ONNX, for weights outside of its folder (by which a model reads the files
    of whoever loads it: CVE-2022-25882, CVE-2024-27318), and for custom operators.
    """
    try:
        import onnx
    except ImportError as error:
        raise TargetError(MISSING) from error
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise TargetError(f"the model {path} cannot be read ({error.strerror}); check the path") from error
    try:
        graph = onnx.load_model_from_string(payload)
        told = bool(graph.graph.node)
    except Exception as error:  # protobuf's own, of which it has several
        raise TargetError(f"{path.name} is not an ONNX model ({_first_line(error)}); export it again") from error
    if not told:
        raise TargetError(f"{path.name} holds no graph of operators; export it again")
    _brings_no_library(path, graph)
    if not _stays_home(path, graph):
        return payload, graph
    try:
        onnx.load_external_data_for_model(graph, str(path.resolve().parent))
        payload = graph.SerializeToString()
        left = any(tensor.external_data for tensor in _parts(graph, "TensorProto"))
    except Exception as error:  # onnx's own, protobuf's own, and the operating system's
        raise TargetError(
            f"the weights beside {path.name} cannot be read ({_first_line(error)}); export it again, under 2 GB"
        ) from error
    if left:
        raise TargetError(f"{path.name} has weights beside it in a place that is not read; export it without functions")
    return payload, graph


def _stays_home(path: Path, graph: Any) -> bool:
    """Whether there are weights beside the file; TargetError for weights anywhere else."""
    folder = path.resolve().parent
    places = [e.value for t in _parts(graph, "TensorProto") for e in t.external_data if e.key == "location"]
    for place in places:
        where = folder / place
        if not where.resolve().is_relative_to(folder) or Path(place).is_absolute() or not where.is_file():
            raise TargetError(
                f"{path.name} reads weights from {place!r}, which is no file in the model's own folder; put the "
                "weights beside the model, as the exporter wrote them"
            )
    return bool(places)


def _brings_no_library(path: Path, graph: Any) -> None:
    defined = {(part.domain, part.name) for part in graph.functions}
    nodes = [node for node in _parts(graph, "NodeProto") if (node.domain, node.op_type) not in defined]
    own = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in FAMILIES})
    if own:
        raise TargetError(
            f"{path.name} needs a library of custom operators ({', '.join(own)}), which is code that redan does not "
            "load; export the model with standard operators, or wrap the loaded model with redan.targets.from_function"
        )


def _parts(message: Any, kind: str) -> Iterator[Any]:
    """Every message of a kind inside of a protobuf message, wherever it is: subgraphs, attributes, functions."""
    for _, value in message.ListFields():
        for part in [value] if hasattr(value, "ListFields") else value if _of_messages(value) else ():
            if part.DESCRIPTOR.name == kind:
                yield part
            yield from _parts(part, kind)


def _of_messages(value: Any) -> bool:
    return not isinstance(value, str | bytes | int | float) and len(value) > 0 and hasattr(value[0], "ListFields")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def refuse_discrete(session: Session) -> None:
    """Raise NotBuiltError for an input of whole numbers, such as bytes or tokens."""
    if np.issubdtype(session.dtype, np.floating):
        return
    raise NotBuiltError(
        f"the input of {session.name} is {session.dtype} {_told(session.shape or ())}, whole numbers such as bytes or "
        "tokens, which only changes of kind bytes or text could attack, and redan does not attack those yet; attack a "
        "model whose input is float"
    )
