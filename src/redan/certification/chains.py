"""Two affine steps as one: batch normalization behind a convolution costs a backward pass one product more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from redan.certification.rounding import Rounding
from redan.certification.steps import Affine, Back, Interval, Reached, Relaxed, Step
from redan.certification.windows import Convolution, Place, Pointwise


@dataclass(frozen=True, slots=True)
class Chain:
    """second(first(x)), the second number by number. What both may round is what each may, carried to the end.

    both: the two as one, for the way back, where a product of weights is worth it.
    """

    first: Affine
    second: Affine
    both: Affine | None = None
    straight = True
    exact = False

    @property
    def parents(self) -> tuple[int, ...]:
        return self.first.parents

    @property
    def reach(self) -> int:
        return self.first.reach + self.second.reach

    @property
    def terms(self) -> int:
        return self.first.terms + self.second.terms

    def box(self, given: Sequence[Interval]) -> Interval:
        return self.second.box([self.first.box(given)])

    def forward(self, given: Sequence[Interval], rounding: Rounding) -> Reached:
        inner = self.first.forward(given, rounding)
        outer = self.second.forward([inner.interval], rounding)
        slack = self.second.absolute(inner.slack) + outer.slack
        return Reached(outer.interval, slack, self.second.absolute(inner.summed) + outer.summed)

    def open(self, _given: Sequence[Interval]) -> None:
        return None

    def looks(self, window: Place) -> Place | None:
        return self.first.looks(window)

    def relaxed(self, _given: Sequence[Interval]) -> Relaxed:
        inner, outer = self.first.bias, self.second.bias
        carried = None if inner is None else self.second.absolute(inner.abs())
        sizes = [size for size in (carried, None if outer is None else outer.abs()) if size is not None]
        return Relaxed((), sum(sizes[1:], start=sizes[0]) if sizes else None)

    def backward(self, a: Tensor, parts: Sequence[Tensor], window: Place | None = None) -> Back:
        if self.both is not None:
            return self.both.backward(a, parts, window)
        carried = self.second.backward(a, parts, window)
        back = self.first.backward(carried.parents[0], parts, window)
        return Back(back.parents, back.added + carried.added)


def chained(steps: Sequence[Step]) -> list[Step]:
    """The same network, each affine step whose result only goes into a pointwise one taken together with it."""
    takers: dict[int, list[int]] = {}
    for at, step in enumerate(steps):
        for parent in step.parents:
            takers.setdefault(parent, []).append(at)
    made: list[Step] = []
    number, waiting = {-1: -1}, dict[int, Affine]()
    for at, step in enumerate(steps):
        after = takers.get(at, [])
        first = waiting.pop(step.parents[0], None)
        if first is None and isinstance(step, Affine) and len(after) == 1 and _pointwise(steps[after[0]]):
            waiting[at] = _placed(step, number)
            continue
        if first is not None and isinstance(step, Affine):
            made.append(Chain(first, step, _both(first, step)))
        else:
            made.append(_placed(step, number))
        number[at] = len(made) - 1
    return made


def _both(first: Affine, second: Affine) -> Affine | None:
    """A convolution whose channels are scaled, as one convolution."""
    local, scaling = first.local, second.local
    if not isinstance(local, Convolution) or not isinstance(scaling, Pointwise) or scaling.scale.shape[-2:] != (1, 1):
        return None
    merged = local.scaled(scaling.scale)
    biases = [None if first.bias is None else first.bias * scaling.scale, second.bias]
    known = [bias for bias in biases if bias is not None]
    return replace(
        first, adjoint=merged.transposed, bias=sum(known[1:], start=known[0]) if known else None, local=merged
    )


def _pointwise(step: Step) -> bool:
    return isinstance(step, Affine) and isinstance(step.local, Pointwise)


def _placed(step: Any, number: Mapping[int, int]) -> Any:
    """The step with its parents' new numbers."""
    return replace(step, parents=tuple(number[parent] for parent in step.parents))
