"""A target whose inputs are scaled and shifted on their way in: normalization, and columns of different units."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.targets.base import Asked, Remote, Target, is_remote, its


@dataclass(frozen=True, slots=True)
class Affine:
    """`target` is given x · scale + shift, computed in this target's type. Build it with `affine`.

    scale, shift: tensors that broadcast against one input. bounds: the box of x.
    """

    target: Target[Tensor]
    scale: Tensor = field(repr=False)
    shift: Tensor = field(repr=False)
    bounds: tuple[float, float]

    access = its("access")
    output = its("output")
    classes = its("classes")
    stochastic = its("stochastic")
    differentiable = its("differentiable")
    surrogate = its("surrogate")
    device = its("device")

    @property
    def dtype(self) -> torch.dtype:
        return self.scale.dtype

    def __call__(self, x: Tensor) -> Tensor:
        return self.target(_moved(self, x)).to(x.dtype)


@dataclass(frozen=True, slots=True)
class RemoteAffine(Affine):
    """The same of a remote target."""

    target: Remote

    ledger = its("ledger")
    notes = its("notes")

    def asked(self, x: Tensor) -> Asked:
        found = self.target.asked(_moved(self, x))
        return found._replace(scores=found.scores.to(x.dtype))

    def close(self) -> None:
        self.target.close()


def _moved(through: Affine, x: Tensor) -> Tensor:
    return (x * through.scale + through.shift).to(through.target.dtype)


def affine(target: Target[Tensor], scale: Tensor, shift: Tensor, bounds: tuple[float, float]) -> Affine:
    """A target for inputs in `bounds`, whose own inputs are x · scale + shift.

    scale, shift: tensors of one floating type, which is the new target's, that broadcast against one input.

    >>> from redan.protocols import Output
    >>> from redan.targets.function import from_function
    >>> inner = from_function(lambda x: x, classes=2, output=Output.LOGITS)
    >>> affine(inner, torch.tensor([10.0, 1.0]), torch.tensor([0.0, 5.0]), (0, 1))(torch.ones(1, 2)).tolist()
    [[10.0, 6.0]]
    """
    scale, shift, box = scale.to(target.device), shift.to(target.device), (float(bounds[0]), float(bounds[1]))
    return RemoteAffine(target, scale, shift, box) if is_remote(target) else Affine(target, scale, shift, box)
