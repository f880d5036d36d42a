"""The same decisions on a scale where losses have slopes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redan.protocols import Access
from redan.targets.base import Target, its

_GAP = 5.0  # median gap of the two highest scores: an ordinary network's
_LEAST, _MOST = 0.05, 40.0  # float32 rounds below, and cross-entropy is flat above


@dataclass(frozen=True, slots=True)
class Rescaled:
    """The target's scores times a positive number: the same classes on top, the same rows broken."""

    target: Target[Tensor]
    factor: float

    access = Access.GRADIENTS
    differentiable = its("differentiable")
    surrogate = its("surrogate")
    output = its("output")
    bounds = its("bounds")
    classes = its("classes")
    stochastic = its("stochastic")
    dtype = its("dtype")
    device = its("device")

    def __call__(self, x: Tensor) -> Tensor:
        return self.target(x) * self.factor


def rescaled(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """The target with its scores brought to an ordinary scale, by the median gap of the two highest on rows x (n, …).

    Scores a thousand times too large leave cross-entropy without a slope in float32, as defensive distillation does
    (Carlini and Wagner 2017, arXiv:1608.04644, section V); no decision changes. None where the scale is ordinary.

    >>> from redan.targets import from_torch
    >>> rescaled(from_torch(torch.nn.Linear(4, 2).eval()), torch.rand(8, 4) * 100) is None
    True
    """
    with torch.no_grad():
        top = target(x.to(target.dtype)).topk(2, 1).values
    apart = (top[:, 0] - top[:, 1]).nan_to_num()
    gap = float(apart.median())
    if gap <= 0 or _LEAST <= gap <= _MOST:
        return None
    return Rescaled(target, _GAP / gap)
