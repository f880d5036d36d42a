"""ONNX operators on one number at a time that torch has no function of the same meaning for."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from redan.formats.onnx_operators_node import TYPES, Node


def identity(x: Tensor) -> Tensor:
    return x


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Whole numbers are cut off toward 0."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def power(a: Tensor, b: Tensor) -> Tensor:
    """The answer has the type of the base."""
    fixed = b.numel() == 1 and b.dim() <= a.dim() and not b.requires_grad
    return torch.pow(a, b.item() if fixed else b).to(a.dtype)


def largest(*parts: Tensor) -> Tensor:
    return reduce(torch.maximum, parts)


def smallest(*parts: Tensor) -> Tensor:
    return reduce(torch.minimum, parts)


def total(*parts: Tensor) -> Tensor:
    return reduce(torch.add, parts)


def average(*parts: Tensor) -> Tensor:
    return reduce(torch.add, parts) / len(parts)


def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, node.get("alpha", 0.01))


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


def elu(node: Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.get("alpha", 1.0))


def celu(node: Node, x: Tensor) -> Tensor:
    return functional.celu(x, node.get("alpha", 1.0))


def selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return torch.mul(functional.elu(x, alpha), gamma)


def gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.mul(x, node.get("alpha", 1.0)).sigmoid()


def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.add(torch.mul(x, node.get("alpha", 0.2)), node.get("beta", 0.5)).clamp(0, 1)


def hard_swish(x: Tensor) -> Tensor:
    return x * (x / 6 + 0.5).clamp(0, 1)


def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """The limits are attributes before operator set 11, inputs from there on. At a limit the gradient is 1."""
    least = node.get("min") if low is None else low
    most = node.get("max") if high is None else high
    return x if least is None and most is None else torch.clamp(x, least, most)


def cast(node: Node, x: Tensor) -> Tensor:
    wanted = TYPES.get(node.get("to"))
    if wanted is None:
        raise node.refuse(f"a cast to data type {node.get('to')}")
    return x.to(wanted)


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)
