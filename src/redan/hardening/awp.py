"""Adversarial weight perturbation (Wu, Xia, Wang 2020, arXiv:2004.05884), around any objective with an inner attack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from redan.errors import SettingError
from redan.hardening.inner import Inner
from redan.hardening.objectives import Answer, Armed, Batch, Loss
from redan.protocols import Ball

_TINY = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class AWP:
    """The objective at weights that are moved toward a higher loss on the attacked rows (eq. 10, one step).

    Each weight w moves by gamma · ‖w‖ / ‖g‖ · g, with g its gradient; biases and the scales of normalizations, which
    have one dimension, stay, as in the authors' code. The weights themselves are never written to: the loss is computed
    with others in their place, and its gradient in the weights is the one at the moved weights, so any optimizer can
    take the step. (The authors step from the moved weights and move back; weight decay aside that is the same.)

    gamma: 0.005 to 0.01 in the paper. after: the share of the training that goes by without it (a warm-up).
    """

    objective: Armed
    gamma: float = 0.01
    after: float = 0.0

    def __post_init__(self) -> None:
        if self.gamma < 0 or not 0 <= self.after <= 1:
            raise SettingError(
                f"gamma must be 0 or more and after a share from 0 to 1, got {self.gamma} and {self.after}; the "
                "paper's gamma is 0.005 to 0.01"
            )

    @property
    def within(self) -> Ball:
        return self.objective.within

    @property
    def inner(self) -> Inner:
        return self.objective.inner

    def armed(self, inner: Inner) -> Self:
        return replace(self, objective=self.objective.armed(inner))

    def attacked(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.objective.attacked(model, batch)

    def loss(self, answer: Answer, batch: Batch, attacked: Tensor) -> Loss:
        return self.objective.loss(answer, batch, attacked)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        attacked = self.attacked(model, batch)
        if self.gamma == 0 or batch.done < self.after:
            return self.loss(model, batch, attacked)
        moved = self.moved(model, batch, attacked)
        return self.loss(lambda x: functional_call(model, moved, (x,)), batch, attacked)

    def moved(self, model: nn.Module, batch: Batch, attacked: Tensor) -> dict[str, Tensor]:
        """The moved weights by name, each a function of the weight itself. Statistics of the model stay as they are."""
        weights = {name: w for name, w in model.named_parameters() if w.requires_grad and w.dim() > 1}
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch.enable_grad():
            value = self.loss(lambda x: functional_call(model, statistics, (x,)), batch, attacked).value
        slopes = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
        return {
            name: w + (self.gamma * w.detach().norm() / (slope.norm() + _TINY)) * slope
            for (name, w), slope in zip(weights.items(), slopes, strict=True)
        }
