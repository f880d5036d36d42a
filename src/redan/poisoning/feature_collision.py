"""Feature collision (Shafahi et al. 2018, arXiv:1804.00792): a row that looks like its class and is felt as another.

A victim that trains a new last layer on features which the attacker knows puts the target, which lies where the poisons
do in those features, on their side of the boundary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.perturbations.norms import Linf
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import drawn
from redan.poisoning.crafting import box, floats, positive, put
from redan.protocols import wide


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureCollision:
    """Poison the training of a last layer so that `target` is answered with `label`.

    target: one row (…). label: the base class; poisons are rows of it. features: the frozen part, (N, …) to (N, D).
    beta: weight of looking like the base row (eq. 1); the paper has 0.25 · (D / inputs)². opacity: of the target's
    watermark in the base rows (section 4.2), 0 for none. radius: ℓ∞ from the base row (the watermarked one), in units
    of `bounds`; no limit but the box by default, as in the paper. steps, rate: of forward-backward splitting
    (algorithm 1).

    Deviations: training rows are changed where the paper adds test rows; the backward step is the exact proximal one of
    eq. 1 (2·β for the paper's β); a step that raises a row's objective is taken back and halved, others grow by a
    fifth, so no row ends worse than it began.

    Raises SettingError for settings out of range, or a class of which the attacker controls no row.

    >>> FeatureCollision(target=np.zeros(4), label=1, features=torch.nn.Identity(), beta=0.1).opacity
    0.0
    """

    target: NDArray[Any]
    label: int
    features: Callable[[Tensor], Tensor]
    beta: float = 0.1
    opacity: float = 0.0
    radius: float = math.inf
    bounds: tuple[float, float] = (0.0, 1.0)
    steps: int = 200
    rate: float = 0.01

    def __post_init__(self) -> None:
        box(self.radius, self.bounds)
        positive({"steps": self.steps, "rate": self.rate})
        if not 0 <= self.opacity < 1 or self.beta < 0:
            raise SettingError("the opacity must be in [0, 1) and beta at least 0; 0.3 and 0.1 are usual")

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        within, rng = box(self.radius, self.bounds), np.random.default_rng(seed)
        near = drawn(samples.y == self.label, samples, budget, rng)
        target = floats(np.asarray(self.target)[np.newaxis], within)
        if target.shape[1:] != samples.x.shape[1:]:
            raise DataError(
                f"the target has shape {tuple(target.shape[1:])}, and rows have {samples.x.shape[1:]}; give one row"
            )
        base = floats(samples.x[near], within)
        if self.opacity:
            base = self.opacity * target + (1 - self.opacity) * base
        return put(samples, near, self.collide(base, target, within), within=within, around=base)

    def collide(self, base: Tensor, target: Tensor, within: Linf) -> Tensor:
        """Poisons (N, …) near base (N, …) whose features are near those of target (1, …): eq. 1 by algorithm 1."""
        with torch.no_grad():
            goal = self.features(target).flatten(1)
        x = base
        rate = torch.full((len(x),), self.rate, device=x.device)
        value, slope = self._value(x, base, goal)
        for _ in range(self.steps):
            step = wide(rate, x)
            pull = 2 * self.beta * step
            forward = x - step * slope
            moved = within.project((forward + pull * base) / (1 + pull), base)
            new, ahead = self._value(moved, base, goal)
            better = new <= value
            x, slope = torch.where(wide(better, x), moved, x), torch.where(wide(better, x), ahead, slope)
            value, rate = torch.where(better, new, value), torch.where(better, rate * 1.2, rate / 2)
        return x

    def _value(self, x: Tensor, base: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's objective (N,), and the gradient of its feature part (N, …)."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            apart = (self.features(x).flatten(1) - goal).square().sum(1)
            slope = torch.autograd.grad(apart.sum(), x)[0]
        return apart.detach() + self.beta * (x.detach() - base).square().flatten(1).sum(1), slope
