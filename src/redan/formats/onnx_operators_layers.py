"""ONNX operators that sum over axes, in torch: products, reductions, normalizations, softmax, linear models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redan.formats.onnx_operators_node import Node, axes_of


def einsum(node: Node, *parts: Tensor) -> Tensor:
    return torch.einsum(node.get("equation"), *parts)


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = a @ b if alpha == 1 else alpha * (a @ b)
    if c is None or beta == 0:
        return product
    return product + (c if beta == 1 else beta * c)


def dropout(node: Node, x: Tensor, _ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
    """In inference, the identity."""
    if training is not None and bool(training):
        raise node.refuse("training_mode")
    return x


def softmax(node: Node, x: Tensor) -> Tensor:
    return _shares(node, x, log=False)


def log_softmax(node: Node, x: Tensor) -> Tensor:
    return _shares(node, x, log=True)


def _shares(node: Node, x: Tensor, *, log: bool) -> Tensor:
    """Before operator set 13 the axis is the first of those that are taken together."""
    function = torch.log_softmax if log else torch.softmax
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % max(1, x.dim())
    return function(x.flatten(axis), axis).reshape(x.shape)


def batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.get("training_mode", 0) or not node.get("spatial", 1):
        raise node.refuse("training_mode or without spatial")
    return functional.batch_norm(x, mean, variance, scale, bias, eps=node.get("epsilon", 1e-5))


def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """One scale a group before operator set 21, one a channel from there on."""
    groups, epsilon = node.get("num_groups"), node.get("epsilon", 1e-5)
    if len(scale) != x.shape[1]:
        scale, bias = (part.repeat_interleave(x.shape[1] // groups) for part in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, eps=epsilon)


def layer_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = x.shape[node.get("axis", -1) :]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, eps=node.get("epsilon", 1e-5))
    normal = functional.layer_norm(x, shape, eps=node.get("epsilon", 1e-5)) * scale
    return normal if bias is None else normal + bias


def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(node.get("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + node.get("epsilon", 1e-5)) * scale


def lp_normalization(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", -1)
    size = (
        x.abs().sum(axis, keepdim=True)
        if node.get("p", 2) == 1
        else torch.linalg.vector_norm(x, dim=axis, keepdim=True)
    )
    return torch.where(size == 0, torch.zeros_like(x), x / size)


def local_response_normalization(node: Node, x: Tensor) -> Tensor:
    size = node.get("size")
    if size % 2 == 0:
        raise node.refuse("an even size")
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    return functional.local_response_norm(x, size, alpha, beta, bias)


def _reduced_axes(node: Node, x: Tensor, axes: Tensor | None) -> tuple[int, ...] | None:
    """None: nothing is reduced."""
    found = axes_of(node, axes)
    if not found:
        return None if node.get("noop_with_empty_axes", 0) else tuple(range(x.dim()))
    return tuple(n % x.dim() for n in found)


def _keeps(node: Node) -> bool:
    return bool(node.get("keepdims", 1))


def reduce_sum(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _reduced_axes(node, x, axes)
    return x if not along else x.sum(along, keepdim=_keeps(node), dtype=x.dtype)


def reduce_mean(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _reduced_axes(node, x, axes)
    return x if not along else x.mean(along, keepdim=_keeps(node))


def reduce_max(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _reduced_axes(node, x, axes)
    return x if not along else x.amax(along, keepdim=_keeps(node))


def reduce_min(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _reduced_axes(node, x, axes)
    return x if not along else x.amin(along, keepdim=_keeps(node))


def reduce_product(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    for axis in sorted(_reduced_axes(node, x, axes) or (), reverse=True):
        x = x.prod(axis, keepdim=_keeps(node), dtype=x.dtype)
    return x


def reduce_l1(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return reduce_sum(node, x.abs(), axes)


def reduce_l2(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _reduced_axes(node, x, axes)
    return x.abs() if not along else torch.linalg.vector_norm(x, dim=along, keepdim=_keeps(node))


def reduce_sum_square(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return reduce_sum(node, x * x, axes)


def reduce_log_sum(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return reduce_sum(node, x, axes).log()


def reduce_log_sum_exp(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _reduced_axes(node, x, axes)
    return x if not along else x.logsumexp(along, keepdim=_keeps(node))


def scaler(node: Node, x: Tensor) -> Tensor:
    """ai.onnx.ml: (x - offset) * scale."""
    return (x - _numbers(node, "offset", x)) * _numbers(node, "scale", x)


def normalizer(node: Node, x: Tensor) -> Tensor:
    """ai.onnx.ml: each row by its largest absolute number, its sum of them, or its length."""
    match node.get("norm", "MAX"):
        case "MAX":
            size = x.amax(-1, keepdim=True)
        case "L1":
            size = x.abs().sum(-1, keepdim=True)
        case _:
            size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(size == 0, x, x / torch.where(size == 0, torch.ones_like(size), size))


def linear_regressor(node: Node, x: Tensor) -> Tensor:
    return _transformed(node, _linear(node, x, node.get("targets", 1)))


def linear_classifier(node: Node, x: Tensor) -> tuple[None, Tensor]:
    """ai.onnx.ml: the scores alone; the label has no gradient. One row of weights for two classes is the second's."""
    classes = len(node.get("classlabels_ints") or node.get("classlabels_strings") or ())
    rows = len(node.get("coefficients")) // x.shape[1]
    scores = _linear(node, x, rows)
    if rows == 1 and classes == 2:
        if node.get("post_transform", "NONE") != "LOGISTIC":
            return None, _transformed(node, torch.cat([-scores, scores], 1))
        return None, torch.cat([(-scores).sigmoid(), scores.sigmoid()], 1)
    return None, _transformed(node, scores)


def _linear(node: Node, x: Tensor, rows: int) -> Tensor:
    weight = _numbers(node, "coefficients", x).reshape(rows, -1)
    bias = node.get("intercepts")
    product = x.to(weight.dtype) @ weight.T
    return product if not bias else product + _numbers(node, "intercepts", x)


def _transformed(node: Node, scores: Tensor) -> Tensor:
    match node.get("post_transform", "NONE"):
        case "NONE":
            return scores
        case "SOFTMAX":
            return scores.softmax(1)
        case "LOGISTIC":
            return scores.sigmoid()
        case other:
            raise node.refuse(f"post_transform {other}")


def _numbers(node: Node, name: str, like: Tensor) -> Tensor:
    """ai.onnx.ml computes in single precision, whatever comes in."""
    values: Sequence[float] = node.get(name, ())
    return torch.tensor(values, dtype=torch.float32, device=like.device)
