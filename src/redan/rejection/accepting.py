"""A model that never refuses, among those that may: a surrogate, whose holder has no detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redan.targets.base import Target, its

_FAR = 1e4  # logits that the refusal lies below every class


@dataclass(frozen=True, slots=True)
class Accepting:
    """`target` with one score more, that of a refusal, which is never the highest: goals of `Undetected` read it.

    >>> from redan.targets.torch import from_torch
    >>> model = Accepting(from_torch(torch.nn.Linear(4, 3).eval(), classes=3))
    >>> model.classes, bool(model(torch.rand(5, 4)).argmax(1).lt(3).all())
    (4, True)
    """

    target: Target[Tensor]

    access = its("access")
    output = its("output")
    bounds = its("bounds")
    stochastic = its("stochastic")
    differentiable = its("differentiable")
    surrogate = its("surrogate")
    dtype = its("dtype")
    device = its("device")

    @property
    def classes(self) -> int | None:
        """K + 1, or None until the first answer."""
        return None if self.target.classes is None else self.target.classes + 1

    def __call__(self, x: Tensor) -> Tensor:
        scores = self.target(x)
        return torch.cat([scores, scores.amin(1, keepdim=True).detach() - _FAR], 1)
