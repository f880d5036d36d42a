"""Gradients from the operations that a model runs, played back with a stand-in for each that has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from redan.targets.base import Target
from redan.targets.stand_in import StandIn
from redan.targets.tape import Tape, taped

_ROWS = 4


class _Way(NamedTuple):
    """How a model is traced and played back."""

    watched: bool = False  # by autograd: some modules take a short cut without
    teeth: bool = True  # whether what is left of a division has a slope


_WAYS = (_Way(), _Way(teeth=False), _Way(watched=True), _Way(watched=True, teeth=False))


class _Played(torch.autograd.Function):
    """The target's answers, with the tape's gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Callable[[Tensor], Tensor], way: _Way) -> Tensor:
        answer, ctx.tape = taped(target, x, watched=way.watched)
        ctx.scores, ctx.way = answer, way
        return answer.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        tape: Tape = ctx.tape
        return tape.play(ctx.scores, gradients[0], teeth=ctx.way.teeth), None, None


def _played(x: Tensor, target: Target[Tensor], way: _Way) -> Tensor:
    answer: Tensor = _Played.apply(x, target, way)  # type: ignore[no-untyped-call]  # torch's
    return answer


def retraced(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """The target with the gradients of its own operations, whatever its backward pass says (BPDA, found by itself).

    Rounding counts as the identity, a comparison as a ramp, detaching as nothing; custom backward passes are not asked.
    A stochastic model is traced anew each time, so that a gradient belongs to the draw that was answered. x: (n, …),
    rows to try it on. None where an operation cannot be played back, no gradient arrives at the input (numbers that
    leave torch are lost), or the model fails on the rows.

    >>> from redan.targets import from_torch
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> target = retraced(from_torch(module), torch.rand(2, 4))
    >>> target.surrogate
    True
    """
    some = x[:_ROWS].to(target.dtype)
    way = next((way for way in _WAYS if _leads(target, some, way)), None)
    if way is None:
        return None
    exact = not way.watched or target.stochastic  # a short cut may round otherwise than the long way
    return StandIn(target, lambda rows: _played(rows, target, way), exact=exact)


def _leads(target: Target[Tensor], x: Tensor, way: _Way) -> bool:
    """Whether a gradient arrives at rows x this way."""
    try:
        answer, tape = taped(target, x, watched=way.watched)
        found = tape.play(answer, torch.ones_like(answer).cumsum(1), teeth=way.teeth)
    except Exception:  # a model may fail in any way, here as elsewhere: then it is not followed
        return False
    return bool(found.isfinite().all()) and bool((found != 0).any())
