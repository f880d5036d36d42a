"""Lies in how a model is kept and how it writes: its numbers' types, their devices, the shape of its answers.

Each: (honest case, draw, lie) -> case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from redan.testing.cases import Case, Draw, Mechanism, class_count, through

# -- types ---------------------------------------------------------------------------------------------------

_OTHER = (torch.float16, torch.bfloat16, torch.float64)


class _Scaled(nn.Module):
    """Numbers times a parameter of 1, and a buffer of 0 added, whatever types these have."""

    def __init__(self, weight: torch.dtype, shift: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=weight))
        self.register_buffer("shift", torch.zeros(1, dtype=shift))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_parameter("weight").to(x.dtype) + self.get_buffer("shift").to(x.dtype)


class _Widened(nn.Module):
    """Inputs in the type of the model behind."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def _of(draw: Draw, lie: bool) -> torch.dtype:
    other = _OTHER[draw.integers(len(_OTHER))]
    return other if lie else torch.float32


def head_of_another_type(case: Case, draw: Draw, lie: bool) -> Case:
    """A last layer in half, bfloat or double precision."""
    return replace(case, model=nn.Sequential(case.model, _Scaled(_of(draw, lie), torch.float32)).eval())


def stem_of_another_type(case: Case, draw: Draw, lie: bool) -> Case:
    """A first layer in half, bfloat or double precision, which decides what the inputs become."""
    front = _Scaled(_of(draw, lie), torch.float32)
    return replace(case, model=nn.Sequential(front, _Widened(), case.model).eval())


def buffer_of_another_type(case: Case, draw: Draw, lie: bool) -> Case:
    """A buffer that was made from numpy's doubles, or left in half precision."""
    return replace(case, model=nn.Sequential(case.model, _Scaled(torch.float32, _of(draw, lie))).eval())


def coarse_model(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """A model in bfloat16, and data in single precision."""
    return replace(case, model=case.model.bfloat16() if lie else case.model)


# -- devices -------------------------------------------------------------------------------------------------


def part_never_loaded(case: Case, draw: Draw, lie: bool) -> Case:
    """One part with parameters is still without numbers."""
    parts = [part for part in case.model.modules() if list(part.parameters(recurse=False))]
    part = parts[draw.integers(len(parts))]
    if lie:
        part.to("meta")
    return case


def never_loaded(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """All parts are still without numbers."""
    return replace(case, model=case.model.to("meta") if lie else case.model)


def buffer_never_loaded(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """A buffer that no checkpoint holds is still without numbers."""
    last = _Scaled(torch.float32, torch.float32)
    last.shift = last.get_buffer("shift").to("meta" if lie else "cpu")
    return replace(case, model=nn.Sequential(case.model, last).eval())


# -- shape of the answers ------------------------------------------------------------------------------------


def shaped(after: Callable[[Tensor], Tensor], doc: str) -> Mechanism:
    def mechanism(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
        declared = replace(case, classes=class_count(case))
        return through(declared, after=after) if lie else through(declared)

    mechanism.__doc__ = doc
    return mechanism


def other_count(case: Case, draw: Draw, lie: bool) -> Case:
    """One to 90 classes more than the model has are declared."""
    classes = class_count(case)
    return replace(case, classes=classes + int(draw.integers(1, 91)) * lie)
