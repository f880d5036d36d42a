"""The steps of a network, each with its intervals forward and its linear relaxation backward.

Intervals: Gowal et al. 2018, arXiv:1810.12715. Relaxations: CROWN, Zhang et al. 2018, arXiv:1811.00866, with the
adaptive lower line of a ReLU. Tensors forward are (1, …), one row; backward (S, …), one coefficient of every number
for each of S quantities that are bounded from below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from redan.certification.rounding import OWN, Rounding


class Interval(NamedTuple):
    """Where a step's numbers lie, whatever the input: (1, …) each."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def within(self, other: Interval) -> Interval:
        """Number by number the narrower of both."""
        return Interval(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))


class Reached(NamedTuple):
    """A step's interval; how far its numbers may be from what the step says (rounding); the sizes of what they sum."""

    interval: Interval
    slack: Tensor
    summed: Tensor


class Back(NamedTuple):
    """A linear bound carried over one step: the parents' coefficients (S, …), what is added, the sizes of its parts."""

    parents: tuple[Tensor, ...]
    added: Tensor | float = 0.0  # (S,)
    size: Tensor | float = 0.0  # (S,)


def _exact(interval: Interval) -> Reached:
    return Reached(interval, torch.zeros_like(interval.low), interval.size)


class Step(Protocol):
    """One operation. `parents` are the numbers of the steps whose results it takes."""

    @property
    def parents(self) -> tuple[int, ...]: ...

    @property
    def reach(self) -> int:
        """How many of its numbers one number of a parent goes into: what a coefficient is summed over, going back."""
        ...

    def forward(self, given: Sequence[Interval], rounding: Rounding, /) -> Reached:
        """The interval of the result: (1, …) in double precision."""
        ...

    def backward(self, a: Tensor, given: Sequence[Interval], /) -> Back:
        """Coefficients (S, …) of the result, as a lower bound in the parents' numbers."""
        ...


@dataclass(frozen=True, slots=True)
class Affine:
    """z = linear(x) + bias. `absolute` is linear with each weight's size, `adjoint` its transpose."""

    parents: tuple[int, ...]
    linear: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    terms: int
    reach: int
    bias: Tensor | None = None  # broadcasts against z
    bias_size: Tensor | None = None  # the size of all that the bias is made of, where that is more than its own

    def forward(self, given: Sequence[Interval], rounding: Rounding) -> Reached:
        (x,) = given
        middle = self.linear((x.low + x.high) / 2)
        radius, size = self.absolute(torch.cat([(x.high - x.low) / 2, x.size])).unbind()
        radius, size = radius[None], size[None]
        if self.bias is not None:
            middle = middle + self.bias
            size = size + (self.bias.abs() if self.bias_size is None else self.bias_size)
        slack = rounding.affine(self.terms) * size + rounding.floor(self.terms)
        slack = slack.masked_fill(~(size < rounding.ceiling), torch.inf)
        return Reached(Interval(middle - radius - slack, middle + radius + slack), slack, size)

    def backward(self, a: Tensor, _given: Sequence[Interval]) -> Back:
        if self.bias is None:
            return Back((self.adjoint(a),))
        bias = self.bias.expand(1, *a.shape[1:]).flatten()
        return Back((self.adjoint(a),), a.flatten(1) @ bias, a.abs().flatten(1) @ bias.abs())


@dataclass(frozen=True, slots=True)
class Sum:
    """z = x + y, or x - y."""

    parents: tuple[int, ...]
    sign: int = 1
    reach = 1

    def forward(self, given: Sequence[Interval], rounding: Rounding) -> Reached:
        x, y = given
        size = x.size + y.size
        slack = rounding.affine(2) * size
        slack = slack.masked_fill(~(size < rounding.ceiling), torch.inf)
        low, high = (y.low, y.high) if self.sign > 0 else (-y.high, -y.low)
        return Reached(Interval(x.low + low - slack, x.high + high + slack), slack, size)

    def backward(self, a: Tensor, _given: Sequence[Interval]) -> Back:
        return Back((a, a if self.sign > 0 else -a))


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same numbers in another shape."""

    parents: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    reach = 1

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        low, high = (part.reshape(1, *self.after) for part in given[0])
        return _exact(Interval(low, high))

    def backward(self, a: Tensor, _given: Sequence[Interval]) -> Back:
        return Back((a.reshape(len(a), *self.before),))


class Lines(NamedTuple):
    """lower·x ≤ relu(x) ≤ upper·x + offset, for all x of an interval."""

    lower: Tensor
    upper: Tensor
    offset: Tensor


def relu_lines(x: Interval) -> Lines:
    """The chord above; below 0 or x, whichever leaves the smaller triangle (CROWN's adaptive choice).

    A line that is above a convex function at both ends of an interval is above it between them, so the offset is
    chosen by the ends, and rounding of the slope costs tightness alone.
    """
    low, high = x.low.clamp_max(0), x.high.clamp_min(0)
    on, off = x.low >= 0, x.high <= 0
    eps, tiny = torch.finfo(OWN).eps, torch.finfo(OWN).tiny
    slope = (high / (high - low).clamp_min(tiny)).clamp(0, 1)
    offset = torch.maximum(-slope * low, (1 - slope) * high) * (1 + 8 * eps) + tiny
    slope, offset = slope.masked_fill(on, 1).masked_fill(off, 0), offset.masked_fill(on | off, 0)
    return Lines((x.high >= -x.low).to(OWN), slope, offset)


@dataclass(frozen=True, slots=True)
class Relu:
    """z = max(x, 0)."""

    parents: tuple[int, ...]
    reach = 1

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        low, high = (part.clamp_min(0) for part in given[0])
        return _exact(Interval(low, high))

    def backward(self, a: Tensor, given: Sequence[Interval]) -> Back:
        lines = relu_lines(given[0])
        added = a.clamp_max(0).flatten(1) @ lines.offset.flatten()
        return Back((torch.where(a > 0, lines.lower, lines.upper) * a,), added, -added)


@dataclass(frozen=True, slots=True)
class MaxPool:
    """z = the largest number of each window. Below it lies the one whose lower bound is largest; above, a constant."""

    parents: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil: bool

    @property
    def reach(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = functional.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, self.ceil, return_indices=True
        )
        return found

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        low, high = (self.pool(part)[0] for part in given[0])
        return _exact(Interval(low, high))

    def backward(self, a: Tensor, given: Sequence[Interval]) -> Back:
        x = given[0]
        chosen = self.pool(x.low)[1].flatten(2).expand(len(a), -1, -1)
        into = a.new_zeros(len(a), *x.low.shape[1:])
        into.flatten(2).scatter_add_(2, chosen, a.clamp_min(0).flatten(2))
        top = self.pool(x.high)[0].flatten()
        negative = a.clamp_max(0).flatten(1)
        return Back((into,), negative @ top, -negative @ top.abs())
