"""Proximal operators of the norms: argmin over z of ½ ‖z - x‖² + w · ‖z‖, one weight w a row."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from redan.errors import SetError
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Ball, wide


@singledispatch
def proximal(within: Ball, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG001
    """The proximal point of x (N, …) for the norm that the set measures in, with a weight a row (N,), in no box.

    >>> import torch
    >>> proximal(L1(1.0), torch.tensor([[3.0, 0.5]]), torch.tensor([1.0])).tolist()
    [[2.0, 0.0]]
    """
    raise SetError(f"no proximal operator is known in {type(within).__name__}; use L0, L1, L2 or Linf")


@proximal.register
def _(within: L1, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG001
    """Soft thresholding."""
    return (x.abs() - wide(weight, x)).clamp_min_(0).copysign_(x)


@proximal.register
def _(within: L2, x: Tensor, weight: Tensor) -> Tensor:
    """Shortened by w, at most to 0."""
    length = within.distance(x, torch.zeros_like(x))
    return x * wide((1 - weight / length.clamp_min(torch.finfo(x.dtype).tiny)).clamp_min(0), x)


@proximal.register
def _(within: Linf, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG001
    """x minus its projection onto the L1 ball of radius w (Moreau 1965)."""
    size = x.flatten(1).abs()
    ordered = size.sort(1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=x.device)
    level = (ordered.cumsum(1) - weight[:, None]) / count
    # The largest of these is the height at which the part above it sums up to w: below 0 all of x is cut off.
    height = level.amax(1).clamp_min(0)
    return torch.minimum(x.abs(), wide(height, x)).copysign(x)


@proximal.register
def _(within: L0, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG001
    """Of ‖z‖ to the power 2/3 in the quasi-norm L 2/3, which leads to sparse changes more surely than L0's own.

    Closed form: Cao, Sun and Xu 2013 (Fast image deconvolution, section 2). Coordinates below a threshold become 0.
    In double precision, since roots round a number differently at other places of a batch.
    """
    size, w = x.abs().double(), wide(weight, x).double()
    square = size.square() / 16
    root = (square.square() - w**3 * (8 / 729)).clamp_min(0).sqrt()
    a = ((square + root).pow(1 / 3) + (square - root).clamp_min(0).pow(1 / 3)).mul(2).clamp_min(1e-30)
    left = (2 * size / a.sqrt() - a).clamp_min(0).sqrt()
    kept = size > 2 * (2 / 3 * w) ** 0.75
    return torch.where(kept, (a.sqrt() + left) ** 3 / 8, 0).to(x.dtype).copysign(x)
