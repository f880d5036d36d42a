"""A target behind transformations of its inputs, as served and as an attacker who knows them climbs it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from redan.errors import TargetError
from redan.preprocessing.transformation import Transformation
from redan.targets.base import Target, is_remote, its
from redan.targets.straight_through import StraightThrough


class Slope(Enum):
    """What is climbed: stand-ins where a transformation hides its gradient (BPDA), or only what is its own."""

    ADAPTIVE = "adaptive"
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """`target` is given inputs (N, C, H, W) as the transformations leave them, the first one first.

    It is the same kind of target as the one behind, and what is served is what is attacked: answers are those of the
    transformed inputs, gradients run through all of it. Backward pass differentiable approximation (Athalye et al.
    2018, arXiv:1802.00420, section 4.1) takes a transformation's `stand_in` where its own gradient says nothing; draws
    of a stochastic one are averaged by the engine (`eot`). slope: `OWN` shows what an attacker sees who does not know
    of the defense: zeros, as a rule.

    Without transformations it answers as the target does, to the byte. Raises TargetError around a model at an
    endpoint: what that does to its inputs it does itself.
    """

    target: Target[Tensor]
    transformations: tuple[Transformation, ...] = ()
    slope: Slope = Slope.ADAPTIVE

    access = its("access")
    output = its("output")
    bounds = its("bounds")
    classes = its("classes")
    differentiable = its("differentiable")
    dtype = its("dtype")
    device = its("device")

    def __post_init__(self) -> None:
        if is_remote(self.target):
            raise TargetError(
                "an endpoint transforms its own inputs before its model sees them; leave the defenses out"
            )

    @property
    def stochastic(self) -> bool:
        return self.target.stochastic or any(each.stochastic for each in self.transformations)

    @property
    def surrogate(self) -> bool:
        hidden = self.slope is Slope.ADAPTIVE and not all(each.differentiable for each in self.transformations)
        return self.target.surrogate or hidden

    def __call__(self, x: Tensor) -> Tensor:
        return self.target(self.transformed(x))

    def transformed(self, x: Tensor) -> Tensor:
        """What the target behind is given for x (N, C, H, W)."""
        for each in self.transformations:
            x = through(each, x, self.slope)
        return x


def through(transformation: Transformation, x: Tensor, slope: Slope = Slope.ADAPTIVE) -> Tensor:
    """Images (N, C, H, W) transformed, with the gradient that is climbed."""
    if slope is Slope.ADAPTIVE and not transformation.differentiable:
        answer: Tensor = StraightThrough(transformation, transformation.stand_in, exact=transformation.exact)(x)
        return answer
    answer = transformation(x)
    if x.requires_grad and not answer.requires_grad and torch.is_grad_enabled():
        return answer + 0 * x.sum()  # nothing leads back to the input: a slope of zero
    return answer
