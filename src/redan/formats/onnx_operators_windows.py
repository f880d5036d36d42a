"""ONNX operators whose windows move over space, in torch: convolutions, pooling, and resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redan.formats.onnx_operators_node import Node, whole

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
_MAXIMA = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_MEANS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def _spatial(node: Node, x: Tensor) -> int:
    if not 1 <= x.dim() - 2 <= 3:
        raise node.refuse(f"{x.dim() - 2} spatial axes")
    return x.dim() - 2


def _around(node: Node, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """How much is padded before and after each spatial axis."""
    count = len(kernel)
    strides, dilations = node.get("strides", [1] * count), node.get("dilations", [1] * count)
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = list(node.get("pads", [0] * 2 * count)) if mode == "NOTSET" else [0] * 2 * count
        return pads[:count], pads[count:]
    missing = [
        max(0, (math.ceil(n / stride) - 1) * stride + dilation * (k - 1) + 1 - n)
        for n, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    less, more = [n // 2 for n in missing], [n - n // 2 for n in missing]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    if not any(before) and not any(after):
        return x
    lengths = [n for low, high in zip(reversed(before), reversed(after), strict=True) for n in (low, high)]
    return functional.pad(x, lengths, value=value)


def convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = _spatial(node, x)
    before, after = _around(node, x, weight.shape[2:])
    if before != after:
        x, before = _padded(x, before, after, 0.0), [0] * spatial
    function: Callable[..., Tensor] = _CONVOLUTIONS[spatial - 1]
    ones = [1] * spatial
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    return function(x, weight, bias, strides, before, dilations, node.get("group", 1))


def transposed_convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = _spatial(node, x)
    if node.get("output_shape") is not None or node.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refuse("output_shape or auto_pad")
    pads, ones = list(node.get("pads", [0] * 2 * spatial)), [1] * spatial
    function: Callable[..., Tensor] = _TRANSPOSED[spatial - 1]
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    more = node.get("output_padding", [0] * spatial)
    if pads[:spatial] == pads[spatial:]:
        return function(x, weight, bias, strides, pads[:spatial], more, node.get("group", 1), dilations)
    found = function(x, weight, bias, strides, 0, more, node.get("group", 1), dilations)
    return _padded(found, [-n for n in pads[:spatial]], [-n for n in pads[spatial:]], 0.0)


def max_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    before, after = _around(node, x, kernel)
    fits = before == after and all(2 * n <= k for n, k in zip(before, kernel, strict=True))
    if not fits:
        if node.get("ceil_mode", 0):
            raise node.refuse("ceil_mode and padding on one side")
        x, before = _padded(x, before, after, -math.inf), [0] * len(kernel)
    function: Callable[..., Tensor] = _MAXIMA[_spatial(node, x) - 1]
    ones = [1] * len(kernel)
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    return function(x, kernel, strides, before, dilations, ceil_mode=bool(node.get("ceil_mode", 0)))


def average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    if any(n != 1 for n in node.get("dilations", ())):
        raise node.refuse("dilations")
    before, after = _around(node, x, kernel)
    counted, ceil = bool(node.get("count_include_pad", 0)), bool(node.get("ceil_mode", 0))
    function: Callable[..., Tensor] = _MEANS[_spatial(node, x) - 1]
    strides = node.get("strides", [1] * len(kernel))
    if before == after and all(2 * n <= k for n, k in zip(before, kernel, strict=True)):
        return function(x, kernel, strides, before, ceil, counted)
    if ceil:
        raise node.refuse("ceil_mode and padding on one side")
    found = function(_padded(x, before, after, 0.0), kernel, strides)
    if counted:
        return found
    return found / function(_padded(torch.ones_like(x[:1, :1]), before, after, 0.0), kernel, strides)


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def upsample(node: Node, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Resize before operator set 10."""
    factors = node.get("scales") if scales is None else scales.tolist()
    lengths = [math.floor(n * factor) for n, factor in zip(x.shape, factors, strict=True)]
    return _resized(node, x, lengths, factors, "asymmetric", "floor")


def resize(
    node: Node, x: Tensor, region: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    if node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refuse("antialias or keep_aspect_ratio_policy")
    if node.opset < 11:
        return upsample(node, x, region)  # there the scales are the second input
    axes = node.get("axes", range(x.dim()))
    lengths, factors = list(x.shape), [1.0] * x.dim()
    if sizes is not None and sizes.numel():
        for axis, n in zip(axes, whole(sizes), strict=True):
            lengths[axis], factors[axis] = n, n / x.shape[axis]
    else:
        for axis, factor in zip(axes, scales.tolist() if scales is not None else (), strict=True):
            lengths[axis], factors[axis] = math.floor(x.shape[axis] * factor), factor
    coordinates = node.get("coordinate_transformation_mode", "half_pixel")
    return _resized(node, x, lengths, factors, coordinates, node.get("nearest_mode", "round_prefer_floor"))


def _resized(
    node: Node, x: Tensor, lengths: Sequence[int], factors: Sequence[float], coordinates: str, nearest: str
) -> Tensor:
    """One axis after another: what it reads is a product over the axes."""
    mode = node.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise node.refuse(f"mode {mode}")
    for axis, (length, factor) in enumerate(zip(lengths, factors, strict=True)):
        if factor == 1 and length == x.shape[axis]:
            continue
        where = _coordinates(node, coordinates, x.shape[axis], length, factor)
        last = x.shape[axis] - 1
        if mode == "nearest":
            x = x.index_select(axis, _nearest(node, where, nearest).clamp(0, last).to(x.device))
            continue
        low = where.floor()
        share = (where - low).to(x.device, x.dtype).reshape(-1, *[1] * (x.dim() - 1 - axis))
        below, above = (n.to(torch.int64).clamp(0, last).to(x.device) for n in (low, low + 1))
        x = x.index_select(axis, below) * (1 - share) + x.index_select(axis, above) * share
    return x


def _coordinates(node: Node, mode: str, before: int, after: int, factor: float) -> Tensor:
    """Where on the old axis each place of the new one lies."""
    place = torch.arange(after, dtype=torch.float64)
    match mode:
        case "asymmetric":
            return place / factor
        case "align_corners":
            return place * ((before - 1) / (after - 1)) if after > 1 else torch.zeros(after, dtype=torch.float64)
        case "pytorch_half_pixel" if after == 1:
            return torch.zeros(1, dtype=torch.float64)
        case "half_pixel" | "pytorch_half_pixel":
            return (place + 0.5) / factor - 0.5
    raise node.refuse(f"coordinate_transformation_mode {mode}")


def _nearest(node: Node, where: Tensor, mode: str) -> Tensor:
    match mode:
        case "floor":
            found = where.floor()
        case "ceil":
            found = where.ceil()
        case "round_prefer_floor":
            found = (where - 0.5).ceil()
        case "round_prefer_ceil":
            found = (where + 0.5).floor()
        case _:
            raise node.refuse(f"nearest_mode {mode}")
    return found.to(torch.int64)
