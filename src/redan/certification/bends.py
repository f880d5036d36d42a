"""The steps of a network that bend: each between two lines, which touch it as nearly as its interval lets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from redan.certification.rounding import OWN, Rounding, unit
from redan.certification.steps import Back, Interval, Reached, Relaxed, dot, unrounded
from redan.certification.windows import Place, Under, Window


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
    eps, tiny = torch.finfo(low.dtype).eps, torch.finfo(low.dtype).tiny
    slope = (high / (high - low).clamp_min(tiny)).clamp(0, 1)
    offset = torch.maximum(-slope * low, (1 - slope) * high) * (1 + 8 * eps) + tiny
    slope, offset = slope.masked_fill(on, 1).masked_fill(off, 0), offset.masked_fill(on | off, 0)
    return Lines((x.high >= -x.low).to(low.dtype), slope, offset)


@dataclass(frozen=True, slots=True)
class Relu:
    """z = max(x, 0).

    Going back, a coefficient a becomes lower · a + (upper - lower) · min(a, 0): a few roundings of a where the lower
    line is x, and there a number's size is that of its result.
    """

    parents: tuple[int, ...]
    reach = 1
    terms = 1
    straight = False
    exact = True

    def box(self, given: Sequence[Interval]) -> Interval:
        return Interval(*(part.clamp_min(0) for part in given[0]))

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        return unrounded(self.box(given))

    def open(self, given: Sequence[Interval]) -> Tensor:
        return (given[0].low < 0) & (given[0].high > 0)

    def looks(self, window: Place) -> Place:
        return window

    def relaxed(self, given: Sequence[Interval]) -> Relaxed:
        lines = relu_lines(given[0])
        return Relaxed(lines, lines.offset)

    def backward(self, a: Tensor, parts: Sequence[Tensor], _window: Place | None = None) -> Back:
        lower, upper, offset = parts
        if len(offset) == 1:
            bent = offset.flatten().nonzero().flatten()
            if 3 * len(bent) < offset.numel():
                return _few(a, parts, bent)
        below = a.clamp_max(0)
        return Back(((a * lower).addcmul_(below, upper - lower),), dot(below, offset))


def _few(a: Tensor, parts: Sequence[Tensor], bent: Tensor) -> Back:
    """The same where few numbers bend, these positions: both lines of all others are one and the same."""
    lower, upper, offset = (part.flatten() for part in parts)
    flat = a.flatten(1)
    some = flat[:, bent]
    below, line = some.clamp_max(0), lower[bent]
    lines = torch.addcmul(some * line, below, upper[bent] - line)
    into = (flat * upper).index_copy_(1, bent, lines)
    return Back((into.reshape(a.shape),), below @ offset[bent])


@dataclass(frozen=True, slots=True)
class Tanh:
    """z = tanh(x), a curve that bends upward below 0 and downward above.

    Its lines have any slope s between 0 and 1 and the offset that the slope needs: tanh(x) - s·x is largest and least
    at an end or where tanh'(x) = s, and those points are tried, so no line depends on how well its slope was chosen. A
    model's own tanh is taken to be right within 16 units of its last place.
    """

    parents: tuple[int, ...]
    reach = 1
    terms = 1
    straight = False
    exact = False

    def box(self, given: Sequence[Interval]) -> Interval:
        return Interval(*(part.tanh() for part in given[0]))

    def forward(self, given: Sequence[Interval], rounding: Rounding) -> Reached:
        low, high = self.box(given)
        slack = torch.full_like(low, 16 * (unit(rounding.dtype) + unit(OWN)))
        return Reached(Interval((low - slack).clamp_min(-1), (high + slack).clamp_max(1)), slack, torch.ones_like(low))

    def open(self, given: Sequence[Interval]) -> Tensor:
        return given[0].high > given[0].low

    def looks(self, window: Place) -> Place:
        return window

    def relaxed(self, given: Sequence[Interval]) -> Relaxed:
        x = given[0]
        above, over = _tanh_line(x)
        below, under = _tanh_line(Interval(-x.high, -x.low))  # tanh is odd: a line above -x is one below x
        return Relaxed((above, over, below, under), torch.maximum(over.abs(), under.abs()))

    def backward(self, a: Tensor, parts: Sequence[Tensor], _window: Place | None = None) -> Back:
        above, over, below, under = parts
        added = dot(a.clamp_max(0), over) - dot(a.clamp_min(0), under)
        return Back((torch.where(a > 0, below, above) * a,), added)


def _tanh_line(x: Interval) -> tuple[Tensor, Tensor]:
    """Slope and offset of a line above tanh: a tangent right of 0 where one clears the left end, else the chord.

    No gradient flows into where the tangent touches.
    """
    low, high = x
    chord = ((high.tanh() - low.tanh()) / (high - low).clamp_min(1e-300)).clamp(0, 1)
    near, far = low.clamp_min(0), high.clamp_min(0)
    for _ in range(40):  # the least touching point whose tangent is above tanh at the left end
        touch = (near + far) / 2
        clears = touch.tanh() - (1 - touch.tanh().square()) * (touch - low) >= low.tanh()
        near, far = torch.where(clears, near, touch), torch.where(clears, touch, far)
    touch = torch.where(low >= 0, (low + high) / 2, far)
    tangent = (1 - touch.tanh().square()).clamp(0, 1)
    slope = torch.where((high <= 0) | ((low < 0) & (far >= high)), chord, tangent)
    turn = (1 - slope).clamp(0, 1).sqrt().atanh()
    tried = [low, high, turn.clamp(low, high), (-turn).clamp(low, high)]
    offset = torch.stack([at.tanh() - slope * at for at in tried]).amax(0)
    return slope, offset + 1e-12 * (1 + slope * torch.maximum(low.abs(), high.abs()))


@dataclass(frozen=True, slots=True)
class MaxPool:
    """z = the largest number of each window. Below it lies the one whose lower bound is largest.

    Above lies a constant, or the same number where it is certain to be the largest.
    """

    parents: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil: bool
    image: tuple[int, int]  # height and width of what it pools
    straight = False
    exact = True

    @property
    def reach(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def terms(self) -> int:
        return self.reach

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = functional.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, self.ceil, return_indices=True
        )
        return found

    def box(self, given: Sequence[Interval]) -> Interval:
        return Interval(*(self.pool(part)[0] for part in given[0]))

    def forward(self, given: Sequence[Interval], _rounding: Rounding) -> Reached:
        return unrounded(self.box(given))

    def open(self, given: Sequence[Interval]) -> Tensor:
        x = given[0]
        unsure = (~self._certain(x)).to(x.low.dtype)
        kernel = unsure.new_ones(unsure.shape[1], 1, *self.kernel)
        seen = functional.conv_transpose2d(
            unsure, kernel, None, self.stride, 0, 0, groups=unsure.shape[1], dilation=self.dilation
        )
        (up, left), (height, width) = self.padding, x.low.shape[2:]
        seen = functional.pad(seen, (0, max(0, left + width - seen.shape[3]), 0, max(0, up + height - seen.shape[2])))
        return (seen[:, :, up : up + height, left : left + width] > 0) & (x.high > x.low)

    @property
    def look(self) -> Under:
        wide = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(self.dilation, self.kernel, strict=True)]
        return Under(self.stride, self.padding, (wide[0], wide[1]), self.image)

    def looks(self, window: Place) -> Place:
        found: Place = window.under(self.look)
        return found

    def _certain(self, x: Interval) -> Tensor:
        """Places whose largest number is the same everywhere; found for windows apart, where that is simple."""
        least, chosen = self.pool(x.low)
        if self.dilation != (1, 1) or any(s < k for s, k in zip(self.stride, self.kernel, strict=True)):
            return torch.zeros_like(least, dtype=torch.bool)
        others = x.high.flatten(2).scatter(2, chosen.flatten(2), -torch.inf).reshape(x.high.shape)
        return least >= self.pool(others)[0]

    def relaxed(self, given: Sequence[Interval]) -> Relaxed:
        x = given[0]
        certain = self._certain(x)
        constant = self.pool(x.high)[0].masked_fill(certain, 0)
        return Relaxed((certain, constant, *self._chosen(self.pool(x.low)[1])), constant.abs())

    def _chosen(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of each window, how many rows and columns behind its first number the one at this index of the image is."""
        height, width = (torch.arange(size) for size in index.shape[2:])
        down = index // self.image[1] - (height * self.stride[0] - self.padding[0])[:, None]
        return down, index % self.image[1] - (width * self.stride[1] - self.padding[1])

    def backward(self, a: Tensor, parts: Sequence[Tensor], window: Place | None = None) -> Back:
        certain, constant, down, right = parts
        place = Window(0, a.shape[2], 0, a.shape[3]) if window is None else window
        spread = self._spread(torch.where(certain, a, a.clamp_min(0)), down, right)
        into = place.kept(spread, self.look)
        if window is None:
            into = place.under(self.look).whole(into, *self.image)
        return Back((into,), dot(a.clamp_max(0), constant))

    def _spread(self, a: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Coefficients of the chosen numbers, among all those that so many windows look at, padding included."""
        height, width = self.look.extent(a.shape[2], a.shape[3])
        rows, columns = (torch.arange(size) * step for size, step in zip(a.shape[2:], self.stride, strict=True))
        at = ((rows[:, None] + down) * width + columns + right).flatten(2).expand(len(a), -1, -1)
        found = a.new_zeros(len(a), a.shape[1], height * width).scatter_add_(2, at, a.flatten(2))
        return found.reshape(len(a), a.shape[1], height, width)
