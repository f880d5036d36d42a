"""Bounds of a batch that gradients flow through, so that a network can be trained to have good ones.

They are computed in the module's own type and leave rounding out, so they prove nothing: `redan.certified` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum, auto
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from redan.certification.graph import read
from redan.certification.layers import Plan, Wire
from redan.certification.steps import Interval, Step
from redan.errors import NotCertifiableError


class Relaxation(Enum):
    """How the last bound is found; those of the layers inside are always intervals."""

    INTERVALS = auto()
    """IBP: Gowal et al. 2018, arXiv:1810.12715, all that is affine at the end taken as one (section 3, elision)."""
    LINES = auto()
    """CROWN-IBP: Zhang et al. 2020, arXiv:1906.06316, linear relaxations from the scores back to the input."""


class Worst(NamedTuple):
    """clean: the module's own answer (N, K). gaps: (N, K), the most by which another class's score may exceed the
    label's anywhere in the box, 0 for the label itself. bent: the intervals (N, …) that each activation takes.
    """

    clean: Tensor
    gaps: Tensor
    bent: tuple[Interval, ...]


def worst_logits(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    low: Tensor,
    high: Tensor,
    relaxations: Sequence[tuple[Relaxation, float]] = ((Relaxation.INTERVALS, 1.0),),
) -> Worst:
    """The worst scores of rows x (N, …) with labels y (N,) over the boxes from low to high (N, …), differentiable.

    The cross-entropy of `gaps` bounds that of the scores everywhere in the box. relaxations: which, and with what
    weights where there are several. The module may be in training mode: a batch normalization then uses the mean and
    variance of the clean rows for their bounds too, as Shi et al. 2021 (arXiv:2103.17009) do, and updates its running
    ones once. Raises NotCertifiableError for what has no bounds here, and for dropout in training mode.

    >>> module = nn.Linear(2, 2, bias=False)
    >>> _ = module.weight.data.copy_(torch.eye(2))
    >>> x = torch.tensor([[0.9, 0.1]])
    >>> gaps = worst_logits(module, x, torch.tensor([0]), x - 0.25, x + 0.25).gaps
    >>> [round(gap, 3) for gap in gaps[0].tolist()]
    [0.0, -0.3]
    """
    if any(isinstance(part, _DropoutNd) and part.training and part.p > 0 for part in module.modules()):
        raise NotCertifiableError(
            "dropout has no bounds while it drops numbers; train without, or set it to evaluation"
        )
    clean, statistics = _clean(module, x)
    steps = _steps(module, x, statistics)
    known = _boxes(steps, Interval(low, high))
    a = _differences(y, clean.shape[1], x.dtype)
    gaps = sum(
        (-share * _least(steps, known, a, one) for one, share in relaxations), start=torch.zeros((), dtype=x.dtype)
    )
    taken = {parent for step in steps if not step.straight for parent in step.parents}
    return Worst(clean, gaps.reshape(clean.shape), tuple(known[at] for at in sorted(taken)))


def _clean(module: nn.Module, x: Tensor) -> tuple[Tensor, dict[nn.Module, tuple[Tensor, Tensor]]]:
    """The answer to the rows as they stand, and the statistics that each batch normalization took of them."""
    statistics: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def note(part: nn.Module, given: tuple[Any, ...]) -> None:
        axes = [axis for axis in range(given[0].dim()) if axis != 1]
        statistics[part] = (given[0].mean(axes), given[0].var(axes, unbiased=False))

    with ExitStack() as hooks:
        for part in module.modules():
            if isinstance(part, _BatchNorm) and part.training:
                hooks.callback(part.register_forward_pre_hook(note).remove)
        return module(x), statistics


def _steps(module: nn.Module, x: Tensor, statistics: dict[nn.Module, tuple[Tensor, Tensor]]) -> list[Step]:
    """The module's steps with its own parameters, not copies."""

    def live(value: Any) -> Tensor:
        return value.to(x.dtype) if isinstance(value, Tensor) else torch.tensor(value, dtype=x.dtype)

    return read(module, Plan(number=live, statistics=statistics), Wire(-1, tuple(x.shape[1:])))


def _boxes(steps: Sequence[Step], around: Interval) -> dict[int, Interval]:
    known = {-1: around}
    for at, step in enumerate(steps):
        known[at] = step.box([known[parent] for parent in step.parents])
    return known


def _differences(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Coefficients (N · K, K) of the label's score minus each class's."""
    unit = torch.eye(classes, dtype=dtype)
    return (unit[y][:, None] - unit).flatten(0, 1)


def _least(steps: Sequence[Step], known: dict[int, Interval], a: Tensor, relaxation: Relaxation) -> Tensor:
    """Lower bounds (N · S,) of a · z, a (N · S, …) of the last step's numbers z, S for each row."""
    waiting, total = {len(steps) - 1: a}, a.new_zeros(len(a))
    for at in range(len(steps) - 1, -1, -1):
        if at not in waiting:
            continue
        a, step = waiting.pop(at), steps[at]
        if relaxation is Relaxation.INTERVALS and not step.straight:
            total = total + _over(known[at], a)
            continue
        parts = () if step.straight else step.relaxed([known[parent] for parent in step.parents]).parts
        each = [part.repeat_interleave(len(a) // len(part), 0) for part in parts]
        back = step.backward(a, each)
        total = total + back.added
        for parent, part in zip(step.parents, back.parents, strict=True):
            waiting[parent] = waiting[parent] + part if parent in waiting else part
    return total + _over(known[-1], waiting[-1]) if -1 in waiting else total


def _over(box: Interval, a: Tensor) -> Tensor:
    """The least of a · x over the box, for a (N · S, …) and a box (N, …): (N · S,)."""
    rows = a.reshape(len(box.low), -1, math.prod(box.low.shape[1:]))
    middle, radius = ((box.high + box.low) / 2).flatten(1), ((box.high - box.low) / 2).flatten(1)
    return (torch.bmm(rows, middle[:, :, None]) - torch.bmm(rows.abs(), radius[:, :, None])).flatten()
