"""A target's own answers with somebody else's gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.protocols import Access
from redan.targets.base import Target, its


@dataclass(frozen=True, slots=True)
class StandIn:
    """Answers as `target` does, and is climbed along `instead`, a differentiable function (N, …) -> (N, K).

    Backward pass differentiable approximation of a whole model (Athalye et al. 2018, arXiv:1802.00420, section 4.1).
    What breaks it breaks the target: a win is decided by the answers alone. exact: `instead` answers as the target
    does, and differs in its gradients only, so that one pass is enough.
    """

    target: Target[Tensor]
    instead: Callable[[Tensor], Tensor]
    exact: bool = False

    access = Access.GRADIENTS
    differentiable = True
    surrogate = True
    output = its("output")
    bounds = its("bounds")
    classes = its("classes")
    stochastic = its("stochastic")
    dtype = its("dtype")
    device = its("device")

    def __call__(self, x: Tensor) -> Tensor:
        if self.exact and x.requires_grad:
            return self.instead(x)
        with torch.no_grad():
            answer = self.target(x.detach())
        if not x.requires_grad:
            return answer
        soft = self.instead(x)
        return answer + (soft - soft.detach()).to(answer.dtype)
