"""Gradients from the operations that a model runs, played back with a stand-in for each that has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from redan.targets.base import Target
from redan.targets.stand_in import StandIn
from redan.targets.tape import Tape, taped

_ROWS = 4


class _Played(torch.autograd.Function):
    """The target's answers, with the tape's gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Callable[[Tensor], Tensor]) -> Tensor:
        answer, ctx.tape = taped(target, x)
        ctx.scores = answer
        return answer.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        tape: Tape = ctx.tape
        return tape.play(ctx.scores, gradients[0]), None


def _played(x: Tensor, target: Target[Tensor]) -> Tensor:
    answer: Tensor = _Played.apply(x, target)  # type: ignore[no-untyped-call]  # torch's
    return answer


def retraced(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """The target with the gradients of its own operations, whatever its backward pass says (BPDA, found by itself).

    Rounding counts as the identity, a comparison as a ramp, detaching as nothing; custom backward passes are not asked.
    A stochastic model is traced anew each time, so that a gradient belongs to the draw that was answered. x: (n, …),
    rows to try it on. None where an operation cannot be played back, or no gradient arrives at the input.

    >>> from redan.targets import from_torch
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> target = retraced(from_torch(module), torch.rand(2, 4))
    >>> target.surrogate
    True
    """
    some = x[:_ROWS].to(target.dtype)
    try:
        answer, tape = taped(target, some)
        found = tape.play(answer, torch.ones_like(answer).cumsum(1))
    except Exception:  # whatever a model raises while it is traced, there is no tape; a run must not end for that
        return None
    if not bool(found.isfinite().all()) or not bool((found != 0).any()):
        return None
    return StandIn(target, lambda rows: _played(rows, target), exact=True)
