"""The Open Inference Protocol, version 2, as JSON: POST v2/models/{model}/infer.

KServe, "Open Inference Protocol API Specification": a tensor has a name, a shape, a datatype and its data, flat or
nested, in row-major order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import TargetError
from redan.wire.connection import clean
from redan.wire.reading import Misfit, parsed, rows_read
from redan.wire.service import Reading

_FLOATS = ("FP32", "FP64")
DEFAULT_TENSOR = "input-0"
"""The input's name where a model does not tell it: the one that MLServer's and KServe's examples use."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """A model's input tensor, and the output that is read: None for its only one."""

    tensor: str
    datatype: str
    output: str | None
    reading: Reading

    def encode(self, x: NDArray[Any]) -> bytes:
        """A request for inputs (N, …)."""
        asked: dict[str, Any] = {
            "inputs": [
                {"name": self.tensor, "shape": x.shape, "datatype": self.datatype, "data": x.reshape(-1).tolist()}
            ]
        }
        if self.output is not None:
            asked["outputs"] = [{"name": self.output}]
        return json.dumps(asked, allow_nan=False).encode()

    def decode(self, body: bytes, rows: int) -> NDArray[np.float64]:
        """Answers (N,) or (N, K). Raises Garbled or Misfit."""
        match parsed(body):
            case {"outputs": list() as outputs}:
                return rows_read(self._rows(outputs, rows), rows, self.reading)
            case _:
                raise Misfit("no outputs")

    def _rows(self, outputs: list[object], rows: int) -> list[object]:
        named = [one for one in outputs if isinstance(one, dict) and self.output in (None, one.get("name"))]
        if len(named) != 1:
            which = "a single output" if self.output is None else f"the output {self.output}"
            raise Misfit(f"{len(outputs)} outputs where {which} is needed; name it by response: {{output: …}}")
        match named[0]:
            case {"shape": [int() as first, *rest], "data": list() as data} if first == rows and len(rest) <= 1:
                width = rest[0] if rest else 1
                flat = _flat(data)
                if not (isinstance(width, int) and width > 0 and len(flat) == rows * width):
                    raise Misfit(f"{len(flat)} numbers for the shape {[first, *rest]}")
                return [flat[at * width : (at + 1) * width] for at in range(rows)] if rest else flat
            case {"shape": list() as shape, "data": list()}:
                raise Misfit(f"an output of shape {shape} where [{rows}] or [{rows}, K] is needed")
            case _:
                raise Misfit("an output without its shape or data")


def _flat(data: list[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise Misfit("data that is nested unevenly")
        data = [one for part in data for one in part]
    return data


def tensor_told(body: bytes) -> dict[str, str]:
    """The input's name and datatype from a model's own description, if it tells them. Raises Garbled or Misfit."""
    match parsed(body):
        case {"inputs": [{"name": str() as name, "datatype": str() as datatype}]}:
            return {"tensor": name, "datatype": datatype}
        case {"inputs": [_, _, *_] as inputs}:
            raise Misfit(f"{len(inputs)} inputs, where the one that is changed is needed")
        case _:
            return {}


def checked_datatype(datatype: object, wanted: str) -> str:
    """The datatype that inputs are sent in. Raises TargetError where they would have to be whole numbers.

    >>> checked_datatype("FP16", "FP32")
    'FP16'
    """
    if datatype is None:
        return wanted
    if datatype not in (*_FLOATS, "FP16"):
        raise TargetError(
            f"the endpoint's model takes {clean(str(datatype))}, but inputs are changed by fractions; serve a model "
            "that takes FP32"
        )
    return str(datatype)
