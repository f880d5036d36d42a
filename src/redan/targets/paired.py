"""A model that answers by its own runtime, and is climbed along a torch module that answers the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from redan.errors import TargetError
from redan.protocols import Access
from redan.targets.base import Target, its

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Of the largest score: how far the module's scores may be from the model's own, by the type they compute in."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Answers as `target` does; a pass that needs a gradient goes through `module`. Build it with `paired`.

    module: (N, …) -> scores (N, K) on the target's scale. What breaks the module alone breaks nothing: a win is seen
    by the target's own answers too.
    """

    target: Target[Tensor]
    module: nn.Module

    access = Access.GRADIENTS
    differentiable = True
    surrogate = False
    output = its("output")
    bounds = its("bounds")
    classes = its("classes")
    stochastic = its("stochastic")
    dtype = its("dtype")
    device = its("device")

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            scores: Tensor = self.module(x)
            return scores
        return self.target(x)


def paired(target: Target[Tensor], module: nn.Module, rows: Tensor, *, called: str) -> Paired:
    """The two as one target, if they answer real rows (N, …) alike.

    called: what the module was made from, for the error. Raises TargetError, in one sentence, where they differ: then
    the model has no trustworthy gradients, and is attacked by its answers.
    """
    x = rows.to(target.device, target.dtype)
    with torch.no_grad():
        theirs, ours = target(x), module(x)
    if theirs.shape != ours.shape:
        raise TargetError(
            f"no gradients for {called}: its conversion to torch answers {tuple(ours.shape)} where the model answers "
            f"{tuple(theirs.shape)}; attack it with knowledge: scores"
        )
    largest = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
    apart = float((theirs - ours).abs().max()) / largest if theirs.numel() else 0.0
    if not apart <= TOLERANCE[target.dtype]:
        raise TargetError(
            f"no gradients for {called}: its conversion to torch differs from the model by {apart:.2g} of the largest "
            f"score on {len(x)} real rows, where {TOLERANCE[target.dtype]:.0e} is allowed; attack it with knowledge: "
            "scores"
        )
    return Paired(target, module)
