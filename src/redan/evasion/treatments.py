"""Treatments of the gradient that make an attack carry over from the model it climbs on to one it never saw.

A treatment is a value that asks for gradients at changed copies of x and maps them back to x, by the chain rule
through the change alone; treatments nest, the first outermost. A copy is a query like any other: billed, and judged as
a candidate, for it is an input that the attacker showed. All copies lie in the box, so the model is never asked
about what it would not be given.

    Translated   TI: Dong, Pang, Su, Zhu 2019, arXiv:1904.02884
    Diverse      DI: Xie et al. 2019, arXiv:1803.06978
    Scaled       SI: Lin et al. 2020, arXiv:1908.06281
    Variance     VT: Wang and He 2021, arXiv:2103.15571; it has a memory, which `redan.evasion.momentum` carries

Black is the low face of the box: what authors' code calls 0 for images in [0, 1]. Inputs of other shapes than
(C, H, W) are seen as images: the last two axes are H and W, a vector is a line of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from redan.perturbations.spatial import images
from redan.protocols import Ball, wide
from redan.rows import Rows, Streams

Ask = Callable[[Tensor, Rows[Tensor, Ball]], Tensor]
"""(x (N, …), rows) -> the gradient in x (N, …)."""


class Treatment(Protocol):
    """How to get a better gradient from an `Ask`."""

    @property
    def queries(self) -> int:
        """How many gradients it asks for to give one."""
        ...

    def __call__(self, ask: Ask, x: Tensor, rows: Rows[Tensor, Ball], /) -> Tensor:
        """The treated gradient in x: (N, …)."""
        ...


def treated(ask: Ask, treatments: Sequence[Treatment]) -> Ask:
    """The `Ask` that goes through all treatments, the first outermost."""
    for treatment in reversed(treatments):
        ask = partial(treatment, ask)
    return ask


def copied(rows: Rows[Tensor, Ball], count: int) -> tuple[Tensor, Rows[Tensor, Ball]]:
    """Each row `count` times in a row, to be asked about in one call: which one each is, and the rows."""
    index = torch.arange(len(rows), device=rows.ids.device).repeat_interleave(count)
    return index, rows.take(index)


def merged(gradient: Tensor, count: int) -> Tensor:
    """The mean over each row's copies, added in turn: (N · count, …) -> (N, …)."""
    total = torch.zeros_like(gradient[::count])
    for copy in range(count):
        total += gradient[copy::count]
    return total / count


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """Translation-invariant: the gradient smoothed by a Gaussian, as if the input had been shifted about (eq. 9).

    size: of the kernel in pixels, an odd number; it spans three standard deviations to each side, as in the authors'
    code. They use 15 pixels of 299; the default suits images of 28.

    >>> Translated(size=5).queries
    1
    """

    size: int = 5

    queries = 1

    def __call__(self, ask: Ask, x: Tensor, rows: Rows[Tensor, Ball], /) -> Tensor:
        gradient = images(ask(x, rows))
        offsets = torch.linspace(-3, 3, self.size, dtype=x.dtype, device=x.device)
        weights = torch.softmax(-offsets.square() / 2, 0)
        # Row by row and as sums of shifted images: a convolution's rounding may depend on its batch.
        for axis in (2, 3):
            gradient = _smoothed(gradient, weights, axis)
        return gradient.reshape(x.shape)


def _smoothed(image: Tensor, weights: Tensor, axis: int) -> Tensor:
    """The image correlated with the weights along one axis, 0 beyond its edges."""
    half, side = len(weights) // 2, image.shape[axis]
    smooth = torch.zeros_like(image)
    for weight, shift in zip(weights, range(-half, half + 1), strict=True):
        count = side - abs(shift)
        if count > 0:
            into = smooth.narrow(axis, max(0, -shift), count)
            into.addcmul_(image.narrow(axis, max(0, shift), count), weight)
    return smooth


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverse:
    """Input diversity: the gradient at a copy that is shrunk at random and padded with black (eq. 3).

    share: the smallest size of the copy, as a share of the side. chance: p, of a copy being changed at all. Each row
    draws its own size and place. The authors enlarge 299 pixels to at most 330; a model that takes one size of inputs
    only needs copies of that size, so they are shrunk instead.

    >>> Diverse(chance=0.7).queries
    1
    """

    share: float = 0.9
    chance: float = 0.5

    queries = 1

    def __call__(self, ask: Ask, x: Tensor, rows: Rows[Tensor, Ball], /) -> Tensor:
        low, high = rows.within.bounds
        kept, grid = self._grid(images(x), rows.draw)

        def shrunk(x: Tensor) -> Tensor:
            seen = functional.grid_sample(images(x), grid, padding_mode="border", align_corners=False)
            return torch.where(kept, seen, low).reshape(x.shape)

        x = x.detach().requires_grad_()
        with torch.enable_grad():
            copy = shrunk(x)
        gradient = ask(copy.detach().clamp(low, high), rows)
        back: Tensor = torch.autograd.grad(copy, x, gradient)[0]
        return back

    def _grid(self, image: Tensor, draw: Streams) -> tuple[Tensor, Tensor]:
        """Which pixels of each copy show the image (N, 1, H, W), and where they look in it (N, H, W, 2), in [-1, 1]."""
        changed, size, down, across = draw.uniform((4,), image.dtype)[..., None].unbind(1)
        axes = []
        for place, side in ((down, image.shape[2]), (across, image.shape[3])):
            least = max(1, math.floor(self.share * side))
            pixels = torch.where(changed < self.chance, least + (size * (side - least)).floor(), side)
            first = (place * (side - pixels + 1)).floor()
            middle = torch.arange(side, dtype=image.dtype, device=image.device) + 0.5 - first
            axes.append((2 * middle / pixels - 1, (middle > 0) & (middle < pixels)))
        (y, rows_kept), (x, columns_kept) = axes
        kept = (rows_kept[:, :, None] & columns_kept[:, None])[:, None]
        shape = (len(image), *image.shape[2:])
        return kept, torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """Scale-invariant: the mean gradient over copies at 1, 1/2, 1/4, … of their distance from black (eq. 8).

    copies: m. Torchattacks scales pixels in [0, 1], so toward black; the authors' code scales them in [-1, 1], so
    toward gray.

    >>> Scaled(copies=3).queries
    3
    """

    copies: int = 5

    @property
    def queries(self) -> int:
        return self.copies

    def __call__(self, ask: Ask, x: Tensor, rows: Rows[Tensor, Ball], /) -> Tensor:
        low, high = rows.within.bounds
        index, many = copied(rows, self.copies)
        factors = 0.5 ** torch.arange(self.copies, dtype=x.dtype, device=x.device)
        factor = wide(factors.repeat(len(rows)), x)
        copy = torch.where(factor == 1, x[index], low + factor * (x[index] - low)).clamp(low, high)
        return merged(factor * ask(copy, many), self.copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """Variance tuning: how far the gradient at x is off the mean gradient around it (eq. 7).

    copies: N, neighbors drawn uniformly from a ball `reach` (β) times as large as the attacker's, and cut off at the
    box, which the authors' may leave.

    >>> Variance(copies=20).copies
    20
    """

    copies: int = 5
    reach: float = 1.5

    def off(self, ask: Ask, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        """Mean gradient of the neighbors of x, less the one given: (N, …)."""
        index, many = copied(rows, self.copies)
        low, high = many.within.bounds
        wide_box = (2 * low - high, 2 * high - low)
        around = many.within.sized(many.within.radius * self.reach).inside(wide_box)
        near = around.sample(x[index], many.draw).clamp(low, high)
        return merged(ask(near, many), self.copies) - gradient
