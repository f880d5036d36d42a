"""The steps of a network that are affine, and what all steps have in common.

Intervals: Gowal et al. 2018, arXiv:1810.12715. Relaxations: CROWN, Zhang et al. 2018, arXiv:1811.00866. Each step knows
three passes: `box`, intervals (N, …) of any rows in any type, through which gradients flow; `forward`, the interval
(1, …) of one row with all that rounding may take; `backward`, coefficients (S, …) of every number for each of S
quantities that are bounded from below, given one interval (1, …) for all of them or one (S, …) for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from redan.certification.rounding import Rounding
from redan.certification.windows import Local, Place, cut


class Interval(NamedTuple):
    """Where a step's numbers lie, whatever the input: (1, …) each, or (N, …)."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def within(self, other: Interval) -> Interval:
        """Number by number the narrower of both."""
        return Interval(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))

    def least(self, a: Tensor, window: Place | None = None) -> tuple[Tensor, Tensor]:
        """The least of a · x for each a (S, …), x in this box (1, …), and the size of what it sums: (S,) each."""
        parts = (self.low + self.high) / 2, (self.high - self.low) / 2, self.size
        middle, radius, most = (cut(part, window) for part in parts)
        sizes = a.abs()
        return dot(a, middle) - dot(sizes, radius), dot(sizes, most)


class Reached(NamedTuple):
    """A step's interval; how far its numbers may be from what the step says (rounding); the sizes of what they sum."""

    interval: Interval
    slack: Tensor
    summed: Tensor


class Relaxed(NamedTuple):
    """What a step is between, for numbers that it knows the intervals of: tensors that `backward` is given again.

    size: of what a coefficient of the result may add, (1, …) or what broadcasts to it; None for nothing.
    """

    parts: tuple[Tensor, ...] = ()
    size: Tensor | None = None


class Back(NamedTuple):
    """A linear bound carried over one step: the parents' coefficients (S, …), and what is added (S,)."""

    parents: tuple[Tensor, ...]
    added: Tensor | float = 0.0


def unrounded(interval: Interval) -> Reached:
    return Reached(interval, torch.zeros_like(interval.low), interval.size)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum over a row's numbers of a (S, …) times b, one for all (1, …) or one each (S, …): (S,)."""
    return a.flatten(1) @ b.flatten() if len(b) == 1 else (a * b).flatten(1).sum(1)


class Step(Protocol):
    """One operation. `parents` are the numbers of the steps whose results it takes."""

    @property
    def parents(self) -> tuple[int, ...]: ...

    @property
    def reach(self) -> int:
        """How many of its numbers one number of a parent goes into: what a coefficient is summed over, going back."""
        ...

    @property
    def terms(self) -> int:
        """How many numbers one number of the result is made of: what a coefficient costs, going back."""
        ...

    @property
    def straight(self) -> bool:
        """Whether its result is an affine function of what it takes, so that going back loses nothing."""
        ...

    @property
    def exact(self) -> bool:
        """Whether a model computes it without rounding, so that only our own has to be counted."""
        ...

    def box(self, given: Sequence[Interval], /) -> Interval:
        """The interval of the result by interval arithmetic, rounding left out: (N, …), differentiable."""
        ...

    def forward(self, given: Sequence[Interval], rounding: Rounding, /) -> Reached:
        """The interval of the result: (1, …) in double precision, rounding included."""
        ...

    def open(self, given: Sequence[Interval], /) -> Tensor | None:
        """Which numbers of what it takes bend, and would bend less if they were known better: (1, …); None for none."""
        ...

    def looks(self, window: Place, /) -> Place | None:
        """What a window of its numbers depends on, the same of each parent; None for all or what is not known."""
        ...

    def relaxed(self, given: Sequence[Interval], /) -> Relaxed:
        """The linear relaxation of a step that bends."""
        ...

    def backward(self, a: Tensor, parts: Sequence[Tensor], window: Place | None = None, /) -> Back:
        """Coefficients (S, …) of the result, as a lower bound in the parents' numbers.

        parts: of `relaxed`; where `a` is that of a window, so are they.
        """
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
    local: Local | None = None
    straight = True
    exact = False

    def box(self, given: Sequence[Interval]) -> Interval:
        (x,) = given
        middle = self.linear((x.low + x.high) / 2)
        radius = self.absolute((x.high - x.low) / 2)
        if self.bias is not None:
            middle = middle + self.bias
        return Interval(middle - radius, middle + radius)

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

    def open(self, _given: Sequence[Interval]) -> None:
        return None

    def relaxed(self, _given: Sequence[Interval]) -> Relaxed:
        return Relaxed((), None if self.bias is None else self.bias.abs())

    def looks(self, window: Place) -> Place | None:
        return None if self.local is None else self.local.looks(window)

    def backward(self, a: Tensor, _parts: Sequence[Tensor], window: Place | None = None) -> Back:
        into = self.adjoint(a) if window is None or self.local is None else self.local.adjoint(a, window)
        if self.bias is None:
            return Back((into,))
        bias = cut(self.bias, window)
        return Back((into,), dot(a, bias if bias.dim() == a.dim() else bias.expand(1, *a.shape[1:])))


@dataclass(frozen=True, slots=True)
class Sum:
    """z = x + y, or x - y."""

    parents: tuple[int, ...]
    sign: int = 1
    reach = 1
    terms = 2
    straight = True
    exact = False

    def box(self, given: Sequence[Interval]) -> Interval:
        x, y = given
        low, high = (y.low, y.high) if self.sign > 0 else (-y.high, -y.low)
        return Interval(x.low + low, x.high + high)

    def forward(self, given: Sequence[Interval], rounding: Rounding) -> Reached:
        x, y = given
        size = x.size + y.size
        slack = rounding.affine(2) * size
        slack = slack.masked_fill(~(size < rounding.ceiling), torch.inf)
        low, high = self.box(given)
        return Reached(Interval(low - slack, high + slack), slack, size)

    def open(self, _given: Sequence[Interval]) -> None:
        return None

    def relaxed(self, _given: Sequence[Interval]) -> Relaxed:
        return Relaxed()

    def looks(self, window: Place) -> Place:
        return window

    def backward(self, a: Tensor, _parts: Sequence[Tensor], _window: Place | None = None) -> Back:
        return Back((a, a if self.sign > 0 else -a))


@dataclass(frozen=True, slots=True)
class Joined:
    """Several results side by side along one axis (of a batch, so 1 is a row's first); `sizes` of each there."""

    parents: tuple[int, ...]
    axis: int
    sizes: tuple[int, ...]
    reach = 1
    terms = 1
    straight = True
    exact = True

    def box(self, given: Sequence[Interval]) -> Interval:
        return Interval(*(torch.cat(parts, self.axis) for parts in zip(*given, strict=True)))

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        return unrounded(self.box(given))

    def open(self, _given: Sequence[Interval]) -> None:
        return None

    def relaxed(self, _given: Sequence[Interval]) -> Relaxed:
        return Relaxed()

    def looks(self, window: Place) -> Place | None:
        return window if self.axis == 1 else None

    def backward(self, a: Tensor, _parts: Sequence[Tensor], _window: Place | None = None) -> Back:
        return Back(torch.split(a, list(self.sizes), self.axis))


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same numbers in another shape."""

    parents: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    reach = 1
    terms = 1
    straight = True
    exact = True

    def box(self, given: Sequence[Interval]) -> Interval:
        return Interval(*(part.reshape(len(part), *self.after) for part in given[0]))

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        return unrounded(self.box(given))

    def open(self, _given: Sequence[Interval]) -> None:
        return None

    def relaxed(self, _given: Sequence[Interval]) -> Relaxed:
        return Relaxed()

    def looks(self, _window: Place) -> None:
        return None

    def backward(self, a: Tensor, _parts: Sequence[Tensor], _window: Place | None = None) -> Back:
        return Back((a.reshape(len(a), *self.before),))
