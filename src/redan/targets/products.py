"""Input gradients of convolutions as matrix products: cheaper than oneDNN's own kernel for some shapes.

The gradient of a convolution in its input is weights times output gradient, folded back into an image. Where there are
at most three input channels, or the kernel is one strided point, that takes a seventh to two thirds of what oneDNN's
kernel takes (`benchmarks/passes.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

FEW_CHANNELS = 3
_MOST_MEMORY = 4  # columns of a product, in multiples of the larger of the convolution's input and output
_POINTS = 49  # output positions from which on a product beats oneDNN for strided points


class _Product(torch.autograd.Function):
    """A convolution whose input gradient is a matrix product; its weights get none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        ctx.made_of = weight, x.shape, stride, padding
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, size, stride, padding = ctx.made_of
        (gradient,) = gradients
        columns = weight.flatten(1).t() @ gradient.flatten(2)
        if weight.shape[2:] != (1, 1) or padding != (0, 0):
            return functional.fold(columns, size[2:], weight.shape[2:], 1, padding, stride), None, None, None, None
        found = gradient.new_zeros(size)
        found[:, :, :: stride[0], :: stride[1]] = columns.view(-1, size[1], *gradient.shape[2:])
        return found, None, None, None, None


def _pair(value: Any) -> tuple[int, int] | None:
    """An argument of a convolution as two numbers; None for padding by name."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[1]) if isinstance(value, tuple) and len(value) == 2 else None


@lru_cache(maxsize=4096)
def _gains(
    shape: torch.Size, weights: torch.Size, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Stride and padding of a convolution whose input gradient is cheaper as a product; by shapes alone."""
    steps, pads = _pair(stride), _pair(padding)
    if groups != 1 or _pair(dilation) != (1, 1) or len(shape) != 4 or steps is None or pads is None:
        return None
    channels, height, width = shape[1:]
    outputs, _, *kernel = weights
    points = 1
    for size, pad, taps, step in zip((height, width), pads, kernel, steps, strict=True):
        points *= (size + 2 * pad - taps) // step + 1
    if kernel == [1, 1]:
        gains = (steps != (1, 1) or channels <= FEW_CHANNELS) and points >= _POINTS
    else:
        columns = channels * kernel[0] * kernel[1] * points
        most = _MOST_MEMORY * max(channels * height * width, outputs * points)
        gains = channels <= FEW_CHANNELS and columns <= most
    return (steps, pads) if gains else None


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """conv2d, by a product where that is cheaper."""
    known = x.requires_grad and list not in (type(stride), type(padding), type(dilation))
    gains = _gains(x.shape, weight.shape, stride, padding, dilation, groups) if known else None
    if gains is None:
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    apply: Callable[..., Tensor] = _Product.apply
    return apply(x, weight.detach(), None if bias is None else bias.detach(), *gains)
