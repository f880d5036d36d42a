"""One operator of an ONNX graph as it was set, and what each of our counterparts is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from redan.errors import NotBuiltError

Operator = Callable[..., Tensor | tuple[Tensor | None, ...]]
"""(node, *inputs) -> the outputs."""

TYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
)
"""TensorProto.DataType of the ONNX standard."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: its name, the version of its standard, its attributes, and how many outputs it has."""

    operator: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def refuse(self, what: str) -> NotBuiltError:
        """The error for a setting that has no counterpart yet."""
        return NotBuiltError(
            f"{self.operator} with {what} has no conversion to torch yet; attack it with knowledge: scores"
        )


def whole(values: Tensor) -> list[int]:
    """An integer tensor that says a shape, axes or repetitions, as numbers."""
    return [int(n) for n in values.flatten().tolist()]


def axes_of(node: Node, given: Tensor | None, name: str = "axes") -> list[int] | None:
    """Axes as an input where the operator set has them so, or as an attribute before."""
    if given is not None:
        return whole(given)
    found = node.get(name)
    return None if found is None else [int(n) for n in found]
