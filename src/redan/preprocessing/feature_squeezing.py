"""Inputs that a model answers otherwise once their details are squeezed out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.median import Median
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.transformation import Transformation
from redan.preprocessing.wrapped import through
from redan.targets.base import Target

_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSqueezing:
    """The joint detector of Xu, Evans and Qi 2018 (arXiv:1704.01155, section V) around a target.

    An input's number is the largest L1 distance, over the squeezers, of the target's probabilities before and after:
    from 0 to 2. Inputs above `threshold` are held to be adversarial; `calibrated` finds one.

    rate: of false alarms, for which the threshold was taken. Costs one query a row, and one more a squeezer.
    """

    target: Target[Tensor]
    squeezers: tuple[Transformation, ...]
    threshold: float = math.inf
    rate: float | None = None

    def __post_init__(self) -> None:
        if not self.squeezers:
            raise SettingError("feature squeezing compares answers, and there is no squeezer; give it one or more")

    def scores(self, x: Tensor) -> Tensor:
        """How far the answers move, (N,), for x (N, C, H, W); differentiable in x, by stand-ins where needed (BPDA)."""
        before = self.target(x).softmax(1)
        apart = [(before - self.target(through(each, x)).softmax(1)).abs().sum(1) for each in self.squeezers]
        return torch.stack(apart).amax(0)

    def flagged(self, x: Tensor) -> Tensor:
        """Which inputs are held to be adversarial: (N,) bool."""
        return self._numbers(x) > self.threshold

    def calibrated(self, clean: Tensor, *, rate: float = 0.05) -> FeatureSqueezing:
        """The detector with a threshold that a clean input passes with probability `rate` at the most.

        clean: rows (N, C, H, W) that the model was not trained on. The threshold is the ⌈(1 - rate)(N + 1)⌉-th smallest
        of their numbers, which bounds the rate for a new row like them (split conformal prediction, Vovk et al. 2005);
        the paper takes the ⌈(1 - rate) N⌉-th, which bounds it on these rows. Raises SettingError for a rate outside
        (0, 1), DataError for fewer rows than such a rate needs.
        """
        if not 0 < rate < 1:
            raise SettingError(f"the rate of false alarms must be between 0 and 1, got {rate}; the paper takes 0.05")
        at, needed = math.ceil((1 - rate) * (len(clean) + 1) - 1e-9), math.ceil(1 / rate - 1 - 1e-9)
        if at > len(clean):
            raise DataError(
                f"{len(clean)} clean rows say nothing of false alarms at a rate of {rate:g}; give {needed} or more, or "
                "raise the rate"
            )
        return replace(self, threshold=float(self._numbers(clean).sort().values[at - 1]), rate=rate)

    def _numbers(self, x: Tensor) -> Tensor:
        """`scores` in batches, without gradients."""
        with torch.no_grad():
            return torch.cat([self.scores(x[at : at + _BATCH]) for at in range(0, len(x), _BATCH)] or [x.new_empty(0)])


def grey_squeezers(bounds: tuple[float, float] = (0.0, 1.0)) -> tuple[Transformation, ...]:
    """What Xu et al. join on MNIST: 1 bit, and a median over 2 x 2 pixels."""
    return BitDepth(bits=1, bounds=bounds), Median(size=2)


def color_squeezers(bounds: tuple[float, float] = (0.0, 1.0)) -> tuple[Transformation, ...]:
    """What Xu et al. join on ImageNet: 5 bits, a median over 2 x 2 pixels, and non-local means 11-3-4."""
    return BitDepth(bits=5, bounds=bounds), Median(size=2), NonLocalMeans(bounds=bounds)
