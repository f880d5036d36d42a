"""Parts of an image that a number depends on: where coefficients beyond are zero, they need not be computed.

A number of a convolution's result depends on a few of the numbers before, so a bound of it has as few coefficients; a
backward pass over that window alone gives the same sums as one over whole images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input

_DENSE = 3  # times as many multiplications as the sums of a convolution need
_LARGEST = 2**21  # numbers of a matrix


class Window(NamedTuple):
    """Rows top to bottom - 1 and columns left to right - 1 of an image (…, H, W)."""

    top: int
    bottom: int
    left: int
    right: int

    def around(self, other: Window) -> Window:
        """The smallest window that holds both."""
        tops, bottoms, lefts, rights = zip(self, other, strict=True)
        return Window(min(tops), max(bottoms), min(lefts), max(rights))

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


def cut(x: Tensor, window: Window | None) -> Tensor:
    """The window of x (…, H, W), an axis of one number aside, which stands for all."""
    if window is None or x.dim() < 2:
        return x
    rows = slice(window.top, window.bottom) if x.shape[-2] > 1 else slice(None)
    columns = slice(window.left, window.right) if x.shape[-1] > 1 else slice(None)
    return x[..., rows, columns]


def widened(a: Tensor, window: Window, around: Window) -> Tensor:
    """Coefficients (S, C, h, w) of a window, with zeros, as those of one that holds it."""
    if window == around:
        return a
    sides = (window.left - around.left, around.right - window.right)
    return functional.pad(a, (*sides, window.top - around.top, around.bottom - window.bottom))


class Local(Protocol):
    """An affine map from images to images, each number of which depends on a window."""

    def looks(self, window: Window, /) -> Window:
        """What a window of the result depends on."""
        ...

    def adjoint(self, a: Tensor, window: Window, /) -> Tensor:
        """The transpose, of coefficients of a window of the result to those of what it looks at."""
        ...


@dataclass(frozen=True, slots=True)
class Pointwise:
    """scale · x, number by number; scale broadcasts against (C, H, W)."""

    scale: Tensor

    def looks(self, window: Window) -> Window:
        return window

    def adjoint(self, a: Tensor, window: Window) -> Tensor:
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

    def _ends(self, first: int, last: int, axis: int) -> tuple[int, int]:
        """The rows (axis 0) or columns that these of the result are made of, those in the padding included."""
        start = first * self.stride[axis] - self.padding[axis]
        return start, start + (last - first - 1) * self.stride[axis] + self._wide(axis)

    def _wide(self, axis: int) -> int:
        return self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1

    def looks(self, window: Window) -> Window:
        top, bottom = self._ends(window.top, window.bottom, 0)
        left, right = self._ends(window.left, window.right, 1)
        height, width = self.shape[1:]
        ends = [min(max(at, 0), most) for at, most in ((top, height), (bottom, height), (left, width), (right, width))]
        return Window(*ends)

    def adjoint(self, a: Tensor, window: Window) -> Tensor:
        top, bottom = self._ends(window.top, window.bottom, 0)
        left, right = self._ends(window.left, window.right, 1)
        whole = self._transposed(a, bottom - top, right - left)
        inside = self.looks(window)
        return whole[..., inside.top - top : inside.bottom - top, inside.left - left : inside.right - left]

    def _transposed(self, a: Tensor, height: int, width: int) -> Tensor:
        """Without padding. Where it is small, as a product with a matrix: more multiplications, but faster ones."""
        numbers, found = math.prod(a.shape[1:]), self.shape[0] * height * width
        if height * width > _DENSE * math.prod(self.weight.shape[2:]) or numbers * found > _LARGEST:
            return self._plain(a, height, width)
        key = (a.shape[2], a.shape[3])
        if key not in self.matrices:
            unit = torch.eye(numbers, dtype=a.dtype).reshape(numbers, *a.shape[1:])
            self.matrices[key] = self._plain(unit, height, width).flatten(1)
        return (a.flatten(1) @ self.matrices[key]).reshape(len(a), self.shape[0], height, width)

    def _plain(self, a: Tensor, height: int, width: int) -> Tensor:
        sizes = [len(a), self.shape[0], height, width]
        found: Tensor = conv2d_input(sizes, self.weight, a, self.stride, (0, 0), self.dilation, self.groups)  # type: ignore[no-untyped-call]
        return found
