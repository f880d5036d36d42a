"""Stages without a useful gradient: computed as they are, differentiated as something else (BPDA)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from redan.errors import TargetError


class StraightThrough(nn.Module):
    """A stage that answers as `stage` does and has the gradient of `instead`, by default of the identity.

    Rounding, thermometer codes or JPEG give gradients that are zero or misleading, and a model behind them looks
    robust to whoever climbs. Backward pass differentiable approximation (Athalye et al. 2018, arXiv:1802.00420,
    section 4.1) takes another function's gradient at the same input. The target then says that its gradients are a
    stand-in (`surrogate`), so that the preflight does not hold them to the slopes of the answers.

    stage: (N, …) -> (N, …), left as it is; without `instead` it must keep the shape. instead: a differentiable
    function with the stage's shape of answers. exact: it answers as the stage does too, so that it is asked alone where
    a gradient is wanted; what draws has one draw for both then. Raises TargetError where the shapes differ.

    >>> rounded = StraightThrough(lambda x: (x * 4).round() / 4)
    >>> x = torch.tensor([[0.3]], requires_grad=True)
    >>> rounded(x).item(), torch.autograd.grad(rounded(x).sum(), x)[0].item()
    (0.25, 1.0)
    """

    def __init__(
        self,
        stage: Callable[[Tensor], Tensor],
        instead: Callable[[Tensor], Tensor] | None = None,
        *,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.stage, self.instead, self.exact = stage, instead, exact
        self.training = any(part.training for part in self.children())

    def forward(self, x: Tensor) -> Tensor:
        if self.exact and self.instead is not None and x.requires_grad:
            return self.instead(x)
        with torch.no_grad():
            answer = self.stage(x)
        if not x.requires_grad:
            return answer
        soft = x if self.instead is None else self.instead(x)
        if soft.shape != answer.shape:
            raise TargetError(
                f"the stage answered {tuple(answer.shape)}, and what is differentiated instead {tuple(soft.shape)}; "
                "give StraightThrough an `instead` whose answers have the stage's shape"
            )
        return answer + (soft - soft.detach())
