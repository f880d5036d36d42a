"""Proximal operators of the norms in a diagonal metric: argmin over z of ½ Σ h (z - x)² + w · ‖z‖.

The weight w is one a row (N,), the metric h > 0 a number a coordinate (N, …); no coordinate grows or changes sign.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from redan.errors import SetError
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Ball, wide

_NEWTON = 8  # steps: the last of them change nothing in double precision


@singledispatch
def proximal(within: Ball, x: Tensor, weight: Tensor, metric: Tensor) -> Tensor:  # noqa: ARG001
    """The proximal point of x (N, …) for the norm that the set measures in, in no box.

    >>> import torch
    >>> x = torch.tensor([[3.0, 0.5]])
    >>> proximal(L1(1.0), x, torch.tensor([1.0]), torch.ones_like(x)).tolist()
    [[2.0, 0.0]]
    """
    raise SetError(f"no proximal operator is known in {type(within).__name__}; use L0, L1, L2 or Linf")


@proximal.register
def _(within: L1, x: Tensor, weight: Tensor, metric: Tensor) -> Tensor:  # noqa: ARG001
    """Soft thresholding."""
    return (x.abs() - wide(weight, x) / metric).clamp_min_(0).copysign_(x)


@proximal.register
def _(within: L2, x: Tensor, weight: Tensor, metric: Tensor) -> Tensor:  # noqa: ARG001
    """z = x · ν ÷ (ν + w ÷ h) with ν = ‖z‖, found by Newton's steps on 1 ÷ ‖x ÷ (ν + w ÷ h)‖ = 1, in double precision.

    The left side is concave in ν, so that they rise toward the root from below (Conn, Gould and Toint 2000, section
    7.3); ν stays 0 where it has none.
    """
    long, pull = x.flatten(1).double(), weight[:, None].double() / metric.flatten(1).double()
    least = torch.finfo(long.dtype).tiny
    size = torch.zeros_like(long[:, :1])
    for _ in range(_NEWTON):
        part = (long / (size + pull).clamp_min(least)).square()
        square, cube = part.sum(1, keepdim=True), (part / (size + pull).clamp_min(least)).sum(1, keepdim=True)
        size = (size + square * (square.sqrt() - 1) / cube.clamp_min(least)).clamp_min(0)
    nearest: Tensor = long * size / (size + pull).clamp_min(least)
    return nearest.to(x.dtype).reshape(x.shape)


@proximal.register
def _(within: Linf, x: Tensor, weight: Tensor, metric: Tensor) -> Tensor:  # noqa: ARG001
    """Cut off at the height t with Σ h · (|x| - t)₊ = w, in double precision (Moreau 1965)."""
    ordered, order = x.flatten(1).abs().double().sort(1, descending=True)
    sums = metric.flatten(1).double().gather(1, order)
    # Of the levels that cut the k largest down to w, the highest; below 0 all of x is cut off.
    level = ((ordered * sums).cumsum(1) - weight[:, None]) / sums.cumsum(1)
    height = wide(level.amax(1).clamp_min(0).to(x.dtype), x)
    return x.clamp(-height, height)


@proximal.register
def _(within: L0, x: Tensor, weight: Tensor, metric: Tensor) -> Tensor:  # noqa: ARG001
    """Of ‖z‖ to the power 2/3 in the quasi-norm L 2/3, which leads to sparse changes more surely than L0's own.

    Closed form: Cao, Sun and Xu 2013 (Fast image deconvolution, section 2). Coordinates below a threshold become 0.
    In double precision, since roots round a number differently at other places of a batch.
    """
    size, w = x.abs().double(), (wide(weight, x) / metric).double()
    square = size.square() / 16
    root = (square.square() - w**3 * (8 / 729)).clamp_min(0).sqrt()
    a = ((square + root).pow(1 / 3) + (square - root).clamp_min(0).pow(1 / 3)).mul(2).clamp_min(1e-30)
    left = (2 * size / a.sqrt() - a).clamp_min(0).sqrt()
    kept = size > 2 * (2 / 3 * w) ** 0.75
    return torch.where(kept, (a.sqrt() + left) ** 3 / 8, 0).to(x.dtype).copysign(x)
