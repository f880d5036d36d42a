"""Gradient matching, "Witches' Brew" (Geiping et al. 2021, arXiv:2009.02276): chosen rows are taken for another class.

Rows of the wanted class get a small perturbation under which training on them pulls the weights as training on the
chosen rows with the wanted label would. Victims that train from scratch then answer the wanted class to those rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning import matching
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.crafting import Surrogate, box, floats, home, labels, open_rows, positive, put, trained
from redan.poisoning.matching import Aim, Augment, Pick, SignedAdam, at_random, loss_gradient, objective


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientMatching:
    """Poison training so that rows the attacker chose are answered with `label`, without a wrong label in the data.

    targets: the chosen rows (T, …), not in the training set. label: the class they are to be taken for; poisons are
    rows of it. surrogates: one module or fit or several, over which the objective is averaged (the paper's
    ensembles). radius: ℓ∞, in units of `bounds`. steps, restarts: 250 and 8 in the paper; the restart with the lowest
    objective wins. rate: signed Adam's first step in radii. augment: a differentiable change at each step
    (`matching.Shifts`). pick: which rows of the class, at random in the paper. batch: poisons a pass.

    Deviations: the objective is that of all poisons at once and not of mini-batches; the step is in radii. Fewer rows
    than the budget has are changed where the class has fewer.

    Raises SettingError for settings out of range, or a class of which the attacker controls no row.

    >>> GradientMatching(targets=np.zeros((1, 4)), label=2, surrogates=(torch.nn.Linear(4, 3).eval(),)).restarts
    8
    """

    targets: NDArray[Any]
    label: int
    surrogates: tuple[Surrogate, ...]
    radius: float = 16 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    steps: int = 250
    restarts: int = 8
    rate: float = 0.1
    augment: Augment | None = None
    pick: Pick = at_random
    batch: int = 512

    def __post_init__(self) -> None:
        box(self.radius, self.bounds)
        positive({"steps": self.steps, "restarts": self.restarts, "rate": self.rate, "batch": self.batch})
        if not self.surrogates or not len(self.targets):
            raise SettingError("gradient matching needs a surrogate and a target row; give at least one of each")

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        within, rng = box(self.radius, self.bounds), np.random.default_rng(seed)
        near = open_rows(samples, budget, self.label)
        models = [trained(s, samples, int(rng.integers(2**31))) for s in self.surrogates]
        device = home(models[0])
        wanted = floats(self.targets, within, device), torch.full((len(self.targets),), self.label, device=device)
        aims = [Aim(model, loss_gradient(model, *wanted)) for model in models]
        candidates = floats(samples.x[near], within, device), labels(samples.y[near], device)
        chosen = self.pick(models[0], *candidates, budget.rows(samples), rng)
        x0, y = (part[torch.from_numpy(chosen).to(device)] for part in candidates)
        adam = SignedAdam(steps=self.steps, rate=self.rate, batch=self.batch, augment=self.augment)
        draw = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        best, lowest = x0, float("inf")
        for _ in range(self.restarts):
            noise = (2 * torch.rand(x0.shape, generator=draw) - 1).to(device)
            begun = matching.start(within.project(x0 + self.radius * noise, x0))
            x = adam.descend(begun, aims, x0, y, within, self.steps, draw).x
            value = objective(aims, x, y, batch=self.batch)[0]
            if value < lowest:
                best, lowest = x, value
        return put(samples, near[chosen], best, within=within)
