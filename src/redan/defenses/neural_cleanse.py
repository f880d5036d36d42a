"""The backdoor of a trained model as the label that a small patch brings every row to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from redan.defenses.suspicion import Numbers
from redan.errors import DataError, NoGradientError, SettingError
from redan.targets.base import Target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Triggers:
    """The smallest trigger that was found for each of K labels.

    masks: (K, H, W), from 0 to 1. patterns: (K, C, H, W), in the target's bounds. sizes: (K,), the masks' ℓ1 norms, inf
    where no trigger reached the success that was asked for. success: (K,), the share of the rows that the trigger
    brings to the label.
    """

    masks: NDArray[np.float32] = field(repr=False)
    patterns: NDArray[np.float32] = field(repr=False)
    sizes: Numbers
    success: Numbers

    @property
    def anomaly(self) -> Numbers:
        """How many deviations each size is below the median, (median - size) / (1.4826 · MAD): (K,), section IV-C.

        Of the labels that a trigger was found for; another one has -inf. Where the sizes have no spread all are usual.
        """
        found = self.sizes[np.isfinite(self.sizes)]
        values = np.full(len(self.sizes), -np.inf)
        if len(found):
            median = float(np.median(found))
            spread = 1.4826 * float(np.median(np.abs(found - median)))
            finite = np.isfinite(self.sizes)
            values[finite] = (median - found) / spread if spread > 0 else 0.0
        return values

    def backdoored(self, threshold: float = 2.0) -> NDArray[np.int64]:
        """The labels whose anomaly is above the threshold, the paper's 2: one in 40 of them would be by chance."""
        return np.flatnonzero(self.anomaly > threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralCleanse:
    """Neural Cleanse, Wang et al. 2019 (IEEE S&P, section IV, equations 2 and 3): triggers taken back out of a model.

    For each label, Adam looks for a mask m and a pattern p with which (1 - m) · x + m · p is given the label, and for
    the least ℓ1 norm of m: cross-entropy + λ · |m|. As in the paper λ rises by `factor` while the success is kept
    and falls by factor^1.5 while it is not, here after `patience` steps, from `weight`. The mask kept is the smallest
    that had the success over the rows of a step.

    steps: Adam's, for each label. batch: rows a step. success: the share of a step's rows that must be reached, 0.99.

    Blind to triggers that are not a patch (blends, warps, of each row its own), to large ones, and where many labels
    are targets (all-to-all): none stands out.
    """

    steps: int = 300
    batch: int = 64
    rate: float = 0.1
    success: float = 0.99
    weight: float = 1e-3
    factor: float = 1.5
    patience: int = 5

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.patience) < 1 or not 0 < self.success <= 1:
            raise SettingError(
                f"triggers need steps, batch and patience ≥ 1 and 0 < success ≤ 1, got {self.steps}, {self.batch}, "
                f"{self.patience} and {self.success}; the defaults are 300, 64, 5 and 0.99"
            )
        if self.rate <= 0 or self.weight <= 0 or self.factor <= 1:
            raise SettingError(
                f"triggers need rate > 0, weight > 0 and factor > 1, got {self.rate}, {self.weight} and {self.factor}; "
                "the defaults are 0.1, 0.001 and 1.5"
            )

    def __call__(self, target: Target[Tensor], x: NDArray[Any], classes: int, *, seed: int) -> Triggers:
        """The triggers of a target over clean rows x (N, C, H, W). The same for the same seed.

        Raises NoGradientError for a target without gradients, DataError for rows that are no images.
        """
        if not target.differentiable:
            raise NoGradientError(
                "the target has no gradient in its input, and Neural Cleanse climbs it; use STRIP, or give the model"
            )
        if x.ndim != 4 or not len(x):
            raise DataError(f"a trigger is looked for in images (N, C, H, W), got {x.shape}; give clean images")
        rows = torch.as_tensor(x, dtype=target.dtype, device=target.device)
        found = [self._label(target, rows, label, seed) for label in range(classes)]
        return Triggers(
            masks=np.stack([mask.cpu().numpy() for mask, _, _, _ in found]),
            patterns=np.stack([pattern.cpu().numpy() for _, pattern, _, _ in found]),
            sizes=np.array([size for _, _, size, _ in found]),
            success=np.array([reached for _, _, _, reached in found]),
        )

    def _label(self, target: Target[Tensor], x: Tensor, label: int, seed: int) -> tuple[Tensor, Tensor, float, float]:
        draw = torch.Generator().manual_seed(seed)
        low, high = target.bounds
        free = [torch.zeros(x.shape[2:]), torch.zeros(x.shape[1:])]
        free = [torch.randn(part.shape, generator=draw).to(x) for part in free]
        optimizer = torch.optim.Adam([part.requires_grad_() for part in free], lr=self.rate, betas=(0.5, 0.9))
        weight, kept, missed = self.weight, 0, 0
        best: tuple[Tensor, Tensor, float] = (torch.zeros_like(free[0]), torch.zeros_like(free[1]), math.inf)
        wanted = torch.full((min(self.batch, len(x)),), label, device=x.device)
        for _ in range(self.steps):
            index = torch.randperm(len(x), generator=draw)[: len(wanted)].to(x.device)
            mask, pattern = free[0].sigmoid(), low + (high - low) * free[1].sigmoid()
            scores = target((1 - mask) * x[index] + mask * pattern)
            size = mask.sum()
            loss = cross_entropy(scores, wanted) + weight * size
            gradients = torch.autograd.grad(loss, free)
            now = float(size.detach())
            reached = float((scores.argmax(1) == label).double().mean())
            if reached >= self.success:
                kept, missed = kept + 1, 0
                if now < best[2]:
                    best = (mask.detach(), pattern.detach(), now)
            else:
                kept, missed = 0, missed + 1
            if kept >= self.patience:
                weight, kept = weight * self.factor, 0
            elif missed >= self.patience:
                weight, missed = weight / self.factor**1.5, 0
            for part, gradient in zip(free, gradients, strict=True):
                part.grad = gradient
            optimizer.step()
        with torch.no_grad():
            stamped = torch.split((1 - best[0]) * x + best[0] * best[1], 256)
            hits = sum(int((target(part).argmax(1) == label).sum()) for part in stamped)
        return (*best, hits / len(x))
