"""Weights averaged over the training (exponential moving average)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from redan.errors import SettingError

_Average = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EMA:
    """The average of the weights after each step, older ones counting less by `decay` each step.

    It lessens robust overfitting (Gowal et al. 2020, arXiv:2010.03593; Rebuffi et al. 2021, arXiv:2103.01946).

    decay: in the first steps it is (1 + n) / (10 + n) where that is less, so that the beginning is forgotten.
    Statistics of normalizations are the last ones and not averaged.

    >>> EMA(decay=0.9).at(1)
    0.18181818181818182
    """

    decay: float = 0.995

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingError(f"a decay must be from 0 to below 1, got {self.decay}; 0.995 is usual")

    def at(self, step: int) -> float:
        """The decay of one step."""
        return min(self.decay, (1 + step) / (10 + step))

    def of(self, model: nn.Module) -> AveragedModel:
        """A copy of the model whose `update_parameters(model)` takes one step of the average."""

        @torch.no_grad()
        def average(old: Sequence[Tensor], new: Sequence[Tensor], steps: Tensor | int) -> None:
            torch._foreach_lerp_(list(old), list(new), 1 - self.at(int(steps)))

        return AveragedModel(model, multi_avg_fn=average)
