"""Gradients averaged over points around: where a model's own change from one point to the next."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from redan.targets.base import Target
from redan.targets.stand_in import StandIn

_DRAWS = 16
_WIDTHS = (0.01, 0.02, 0.05, 0.1)  # of the box
_STEPS = (0.005, 0.01, 0.02)  # of the box, along the sign of the gradient: farther off, any slope would do
_BETTER = 1.1  # times the plain gradient's fall, or it is not worth sixteen passes


def smoothed(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """The target with the mean of its gradients at sixteen points around, as far away as serves best on rows x (n, …).

    For gradients that shatter (k-WTA: Tramèr et al. 2020, arXiv:2002.08347, section 5) it is the slope of the model
    convolved with a normal distribution (Salman et al. 2019, arXiv:1906.04584, eq. 5). The displacements are drawn
    once, in pairs of opposite ones, and are the same for every row, so that no row depends on another. The width is
    the one along whose gradients the model's own confidence falls most. None where the plain gradient is as good, or
    there is none to average.
    """
    x = x.to(target.dtype)
    low, high = target.bounds
    normal = torch.randn(_DRAWS // 2, *x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normal = torch.cat([normal, -normal]).to(x)
    best, most = None, _BETTER * _fall(target, x, target)
    for width in _WIDTHS:
        around = _around(target, normal * width * (high - low))
        fall = _fall(target, x, around)
        if fall > most:
            best, most = around, fall
    return None if best is None else StandIn(target, best)


def _around(target: Target[Tensor], displacements: Tensor) -> Callable[[Tensor], Tensor]:
    def mean(x: Tensor) -> Tensor:
        total = target(x + displacements[0])
        for displacement in displacements[1:]:
            total = total + target(x + displacement)
        return total / len(displacements)

    return mean


def _fall(target: Target[Tensor], x: Tensor, climbed: Callable[[Tensor], Tensor]) -> float:
    """How much of its lead the class on top loses, in the mean, when x steps along the gradients of `climbed`."""
    with torch.no_grad():
        clean = target(x)
    top = clean.argmax(1)
    moving = x.clone().requires_grad_()
    scores = climbed(moving)
    if not scores.requires_grad:
        return 0.0
    lead = _lead(scores, top).sum()
    slope = torch.autograd.grad(lead, moving, allow_unused=True, materialize_grads=True)[0]
    if not bool(slope.isfinite().all()):
        return 0.0
    (low, high), fall = target.bounds, 0.0
    with torch.no_grad():
        lost = _lead(clean, top).abs().clamp_min(1e-12)
        for step in _STEPS:
            moved = (x - step * (high - low) * slope.sign()).clamp(low, high)
            fall += float(((lost - _lead(target(moved), top)) / lost).clamp(-2, 2).mean())
    return max(fall, 0.0)


def _lead(scores: Tensor, top: Tensor) -> Tensor:
    """How far the class on top is above the next: (N,)."""
    return scores.gather(1, top[:, None])[:, 0] - scores.scatter(1, top[:, None], -torch.inf).amax(1)
