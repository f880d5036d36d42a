"""Parts of an image that a number depends on: where coefficients beyond are zero, they need not be computed.

A number of a convolution's result depends on a few of the numbers before, so a bound of it has as few coefficients; a
backward pass over that window alone gives the same sums as one over whole images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input

_DENSE = 3  # times as many multiplications as the sums of a convolution need
_LARGEST = 2**21  # numbers of a matrix
_MANY = 24  # rows at the least to multiply side by side
_FEW, _CHANNELS = 16, 2048  # positions at the most, and pairs of channels at the least, to multiply all at once


class Under(NamedTuple):
    """How numbers of a result look at an image (H, W): stride, padding, and how wide a look is, along each axis."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    wide: tuple[int, int]
    image: tuple[int, int]

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns, padding included, that so many of the result are made of."""
        return (height - 1) * self.stride[0] + self.wide[0], (width - 1) * self.stride[1] + self.wide[1]


class Place(Protocol):
    """Where in an image coefficients (S, C, h, w) are; those beyond are zero."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...

    def pays(self, height: int, width: int, /) -> bool:
        """Whether less is computed than on a whole image."""
        ...

    def cut(self, x: Tensor, /) -> Tensor:
        """What is there of x (…, H, W): (…, h, w), or (S, …, h, w) where each row of coefficients has its own place."""
        ...

    def whole(self, a: Tensor, height: int, width: int, /) -> Tensor:
        """The coefficients with zeros all around: (S, C, H, W)."""
        ...

    def around(self, other: Any, /) -> Any:
        """The smallest place of its kind that holds both, None if there is none."""
        ...

    def widened(self, a: Tensor, around: Any, /) -> Tensor:
        """The coefficients, with zeros, as those of a place that holds this one."""
        ...

    def under(self, look: Under, /) -> Any:
        """The place in the image that this one looks at."""
        ...

    def kept(self, whole: Tensor, look: Under, /) -> Tensor:
        """Of coefficients of all that it looks at those inside the image, as they are at `under`."""
        ...


class Window(NamedTuple):
    """Rows top to bottom - 1 and columns left to right - 1 of an image (…, H, W)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.height * self.width

    def pays(self, _height: int, _width: int) -> bool:
        return True

    def cut(self, x: Tensor) -> Tensor:
        """An axis of one number stands for all."""
        if x.dim() < 2:
            return x
        rows = slice(self.top, self.bottom) if x.shape[-2] > 1 else slice(None)
        columns = slice(self.left, self.right) if x.shape[-1] > 1 else slice(None)
        return x[..., rows, columns]

    def whole(self, a: Tensor, height: int, width: int) -> Tensor:
        return self.widened(a, Window(0, height, 0, width))

    def around(self, other: Window) -> Window:
        tops, bottoms, lefts, rights = zip(self, other, strict=True)
        return Window(min(tops), max(bottoms), min(lefts), max(rights))

    def widened(self, a: Tensor, around: Window) -> Tensor:
        if self == around:
            return a
        sides = (self.left - around.left, around.right - self.right)
        return functional.pad(a, (*sides, self.top - around.top, around.bottom - self.bottom))

    def _ends(self, look: Under) -> tuple[int, int, int, int]:
        height, width = look.extent(self.height, self.width)
        top, left = self.top * look.stride[0] - look.padding[0], self.left * look.stride[1] - look.padding[1]
        return top, top + height, left, left + width

    def under(self, look: Under) -> Window:
        height, width = look.image
        return Window(
            *(min(max(at, 0), most) for at, most in zip(self._ends(look), (height, height, width, width), strict=True))
        )

    def kept(self, whole: Tensor, look: Under) -> Tensor:
        (top, _, left, _), inside = self._ends(look), self.under(look)
        part = whole[..., inside.top - top : inside.bottom - top, inside.left - left : inside.right - left]
        return part.contiguous()


def cut(x: Tensor, place: Place | None) -> Tensor:
    """What is there of x (…, H, W); all of it for None."""
    return x if place is None else place.cut(x)


class Local(Protocol):
    """An affine map from images to images, each number of which depends on a window."""

    def looks(self, window: Place, /) -> Place:
        """What a window of the result depends on."""
        ...

    def adjoint(self, a: Tensor, window: Place, /) -> Tensor:
        """The transpose, of coefficients of a window of the result to those of what it looks at."""
        ...


@dataclass(frozen=True, slots=True)
class Pointwise:
    """scale · x, number by number; scale broadcasts against (C, H, W)."""

    scale: Tensor

    def looks(self, window: Place) -> Place:
        return window

    def adjoint(self, a: Tensor, window: Place) -> Tensor:
        return a * cut(self.scale, window)


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of images of this shape (C, H, W), padded with zeros."""

    weight: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    shape: Sequence[int]
    matrices: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def look(self) -> Under:
        kernel = self.weight.shape[2:]
        wide = (self.dilation[0] * (kernel[0] - 1) + 1, self.dilation[1] * (kernel[1] - 1) + 1)
        return Under(self.stride, self.padding, wide, (self.shape[1], self.shape[2]))

    def looks(self, window: Place) -> Place:
        found: Place = window.under(self.look)
        return found

    def adjoint(self, a: Tensor, window: Place) -> Tensor:
        look = self.look
        return window.kept(self._transposed(a, *look.extent(a.shape[2], a.shape[3])), look)

    def scaled(self, scale: Tensor) -> Convolution:
        """The same with its results multiplied, a channel each: scale (C, 1, 1)."""
        weight = self.weight * scale.reshape(-1, 1, 1, 1)
        return Convolution(weight, self.stride, self.padding, self.dilation, self.groups, self.shape)

    def transposed(self, a: Tensor) -> Tensor:
        """The transpose, of all coefficients."""
        if len(a) >= _MANY and self.groups == 1 and not torch.is_grad_enabled():  # a sum of slices is slow to derive
            return self._summed(a)
        rest = self.stride, self.padding, self.dilation, self.groups
        found: Tensor = conv2d_input([len(a), *self.shape], self.weight, a, *rest)  # type: ignore[no-untyped-call]
        return found

    def _summed(self, a: Tensor) -> Tensor:
        """One product for all rows, which lie side by side in memory, then a sum of what overlaps inside the image."""
        (out, into, high, wide), (rows, columns) = self.weight.shape, a.shape[2:]
        flat = a.permute(1, 2, 3, 0).reshape(out, -1)
        each = (self.weight.reshape(out, -1).t() @ flat).view(into, high, wide, rows, columns, len(a))
        found = a.new_zeros(*self.shape, len(a))
        (down, right), (above, before), (far, across) = self.stride, self.padding, self.dilation
        for i in range(high):
            here, there = _met(i * far - above, down, rows, self.shape[1])
            for j in range(wide):
                along, onto = _met(j * across - before, right, columns, self.shape[2])
                found[:, there, onto] += each[:, i, j, here, along]
        return found.permute(3, 0, 1, 2)

    def _transposed(self, a: Tensor, height: int, width: int) -> Tensor:
        """Without padding. Where it is small, as a product with a matrix: more multiplications, but faster ones."""
        numbers, found = math.prod(a.shape[1:]), self.shape[0] * height * width
        if numbers // a.shape[1] in range(2, _FEW + 1) and self._wide_channels:
            return self._gathered(a, height, width)
        if height * width > _DENSE * math.prod(self.weight.shape[2:]) or numbers * found > _LARGEST:
            return self._plain(a, height, width)
        key = (a.shape[2], a.shape[3])
        if key not in self.matrices:
            unit = torch.eye(numbers, dtype=a.dtype).reshape(numbers, *a.shape[1:])
            self.matrices[key] = self._plain(unit, height, width).flatten(1)
        return (a.flatten(1) @ self.matrices[key]).reshape(len(a), self.shape[0], height, width)

    @property
    def _wide_channels(self) -> bool:
        return math.prod(self.weight.shape[:2]) >= _CHANNELS and self.groups == 1 and self.dilation == (1, 1)

    def _gathered(self, a: Tensor, height: int, width: int) -> Tensor:
        """One product for all rows and positions, then a sum of what overlaps: faster where channels are many."""
        (rows, columns), (out, into, high, wide) = a.shape[2:], self.weight.shape
        flat = a.permute(0, 2, 3, 1).reshape(-1, out) @ self.weight.permute(0, 2, 3, 1).reshape(out, -1)
        each = flat.view(len(a), rows, columns, high, wide, into)
        found = a.new_zeros(len(a), height, width, into)
        (down, right) = self.stride
        for i in range(high):
            for j in range(wide):
                at = found[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
                at += each[:, :, :, i, j]
        return found.permute(0, 3, 1, 2)

    def _plain(self, a: Tensor, height: int, width: int) -> Tensor:
        sizes = [len(a), self.shape[0], height, width]
        found: Tensor = conv2d_input(sizes, self.weight, a, self.stride, (0, 0), self.dilation, self.groups)  # type: ignore[no-untyped-call]
        return found


def _met(first: int, step: int, count: int, size: int) -> tuple[slice, slice]:
    """Which of the places first, first + step, … (so many) lie in an axis of this size: among them, and on the axis."""
    begin = max(0, -(first // step))
    end = max(begin, min(count, (size - 1 - first) // step + 1))
    start = first + begin * step
    return slice(begin, end), slice(start, start + (end - begin) * step, step)
