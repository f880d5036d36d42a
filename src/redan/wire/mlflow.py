"""MLflow scoring: POST /invocations with {"inputs": …}, answered by {"predictions": …}.

MLflow's documentation, "Deploy MLflow Model as a Local Inference Server".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.wire.reading import Misfit, parsed, rows_read
from redan.wire.service import Reading


@dataclass(frozen=True, slots=True)
class Invocations:
    """Predictions are a list with one entry a row, or one such list under a name."""

    reading: Reading

    def encode(self, x: NDArray[Any]) -> bytes:
        """A request for inputs (N, …)."""
        return json.dumps({"inputs": x.tolist()}, allow_nan=False).encode()

    def decode(self, body: bytes, rows: int) -> NDArray[np.float64]:
        """Answers (N,) or (N, K). Raises Garbled or Misfit."""
        match parsed(body):
            case {"predictions": list() as predictions}:
                return rows_read(predictions, rows, self.reading)
            case {"predictions": dict() as outputs} if len(outputs) == 1:
                return rows_read(next(iter(outputs.values())), rows, self.reading)
            case {"predictions": dict() as outputs}:
                raise Misfit(f"{len(outputs)} outputs where one is needed")
            case _:
                raise Misfit("no predictions")
