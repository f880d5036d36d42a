"""A window for each row of coefficients, all of one size: bounds of many numbers of an image in one backward pass.

Numbers of one layer look at windows that differ in their position alone. Where the windows are small, a pass a window
costs more in calls than in sums; one pass over all of them has to pick what it needs of each image instead.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, arange
from torch.nn import functional

from redan.certification.windows import Under


class Axis(NamedTuple):
    """Rows or columns: the window of position p begins at first + step · p and has so many of the image's `whole`."""

    first: int
    step: int
    size: int
    whole: int
    positions: int

    @property
    def beyond(self) -> tuple[int, int]:
        """How far the first window begins before the image, and the last one ends behind it; below 0 inside."""
        return -self.first, self.first + self.step * (self.positions - 1) + self.size - self.whole

    def around(self, other: Axis) -> Axis:
        first = min(self.first, other.first)
        return self._replace(first=first, size=max(self.first + self.size, other.first + other.size) - first)

    def under(self, stride: int, padding: int, wide: int, whole: int) -> Axis:
        size = (self.size - 1) * stride + wide
        return Axis(self.first * stride - padding, self.step * stride, size, whole, self.positions)


class Patches(NamedTuple):
    """A window of an image (H, W) for each row of coefficients, by its position (S,) among all of them, row by row.

    Windows may reach beyond the image, where their coefficients are zero.
    """

    position: Tensor
    rows: Axis
    columns: Axis

    @staticmethod
    def at(rows: Tensor, columns: Tensor, height: int, width: int) -> Patches:
        """One number each, at these rows and columns (S,) of an image."""
        return Patches(rows * width + columns, Axis(0, 1, 1, height, height), Axis(0, 1, 1, width, width))

    @property
    def height(self) -> int:
        return self.rows.size

    @property
    def width(self) -> int:
        return self.columns.size

    def pays(self, height: int, width: int) -> bool:
        return self.height * self.width < height * width

    def cut(self, x: Tensor) -> Tensor:
        """A tensor whose last two axes are one number each stands for all, and is left as it is."""
        if x.dim() < 2 or x.shape[-2:] == (1, 1):
            return x
        image = x.expand(*x.shape[:-2], self.rows.whole, self.columns.whole).flatten(0, -3)
        sides = functional.pad(image, (*self.columns.beyond, *self.rows.beyond))
        seen = sides.unfold(1, self.height, self.rows.step).unfold(2, self.width, self.columns.step)
        every = seen.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()
        return every.index_select(0, self.position)

    def whole(self, a: Tensor, height: int, width: int) -> Tensor:
        (up, down), (left, right) = ((max(0, end) for end in axis.beyond) for axis in (self.rows, self.columns))
        found = a.new_zeros(len(a), a.shape[1], up + height + down, left + width + right)
        top = up + self.rows.first + self.rows.step * (self.position // self.columns.positions)
        start = left + self.columns.first + self.columns.step * (self.position % self.columns.positions)
        across, lines = arange(self.width), arange(self.height)
        at = (top[:, None] + lines)[:, :, None], (start[:, None] + across)[:, None, :]
        found[arange(len(a))[:, None, None], :, at[0], at[1]] = a.permute(0, 2, 3, 1)
        return found[:, :, up : up + height, left : left + width].contiguous()

    def around(self, other: Patches) -> Patches | None:
        """None where windows of one position lie apart by more or less than those of another do."""
        if (self.rows.step, self.columns.step) != (other.rows.step, other.columns.step):
            return None
        return Patches(self.position, self.rows.around(other.rows), self.columns.around(other.columns))

    def widened(self, a: Tensor, around: Patches) -> Tensor:
        up, left = self.rows.first - around.rows.first, self.columns.first - around.columns.first
        sides = (left, around.width - left - self.width, up, around.height - up - self.height)
        return functional.pad(a, sides) if any(sides) else a

    def under(self, look: Under) -> Patches:
        rows, columns = (
            axis.under(*parts) for axis, parts in zip((self.rows, self.columns), zip(*look, strict=True), strict=True)
        )
        return Patches(self.position, rows, columns)

    def kept(self, whole: Tensor, look: Under) -> Tensor:
        found = self.under(look)
        if max(*found.rows.beyond, *found.columns.beyond) <= 0:
            return whole
        return whole * found.cut(whole.new_ones(1, *look.image))
