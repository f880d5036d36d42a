"""Sleeper Agent (Souri et al. 2022, arXiv:2106.08970): a backdoor whose trigger is in no training row.

Rows of the target class are perturbed until training on them pulls the weights as training on triggered rows with the
target label would; the surrogate is trained again on the poison in between, so that it stays what a victim becomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning import matching
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.crafting import Fit, RowFunction, box, floats, home, labels, open_rows, positive, put, trained
from redan.poisoning.matching import Aim, Augment, Pick, SignedAdam, by_gradient_norm, loss_gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class SleeperAgent:
    """Poison training so that rows which show a trigger are answered with `label`, without a wrong label in the data.

    trigger: rows (N, …) in, triggered rows out. label: the target class; poisons are rows of it. source: the class
    whose triggered rows are to be taken for it; None: every other. fit: how the attacker trains a surrogate. radius:
    ℓ∞, in units of `bounds`. steps: 250 in the paper. retrainings: how often the surrogate is trained again on the
    poison, evenly in between (algorithm 1; T = 4). shown: triggered rows that the wanted gradient is of. pick: which
    rows of the class, by gradient norm in the paper. rate, augment, batch: as in `GradientMatching`.

    Deviations: the poison is matched as a whole and not in mini-batches; each retraining has a fresh seed and begins
    anew, as the paper's does; the triggered rows are drawn from the training rows that the attacker reads.

    Raises SettingError for settings out of range, or a class of which there is no row.

    >>> SleeperAgent(trigger=np.ones_like, label=0, fit=lambda samples, seed: torch.nn.Linear(4, 2).eval()).retrainings
    4
    """

    trigger: RowFunction
    label: int
    fit: Fit
    source: int | None = None
    radius: float = 16 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    steps: int = 250
    retrainings: int = 4
    shown: int = 1000
    rate: float = 0.1
    augment: Augment | None = None
    pick: Pick = by_gradient_norm
    batch: int = 512

    def __post_init__(self) -> None:
        box(self.radius, self.bounds)
        positive({"steps": self.steps, "shown": self.shown, "rate": self.rate, "batch": self.batch})
        if self.retrainings < 0 or self.source == self.label:
            raise SettingError("retrainings must be 0 or more, and the source no target class; change what is not so")

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        within, rng = box(self.radius, self.bounds), np.random.default_rng(seed)
        near = open_rows(samples, budget, self.label)
        far = np.flatnonzero(samples.y != self.label if self.source is None else samples.y == self.source)
        if not len(far):
            raise SettingError(f"there is no row of the source class {self.source}; name one that the samples have")
        far = np.sort(rng.permutation(far)[: self.shown])
        model = trained(self.fit, samples, int(rng.integers(2**31)))
        device = home(model)
        shown = floats(self.trigger(samples.x[far].copy()), within, device)
        wanted = torch.full((len(far),), self.label, device=device)
        candidates = floats(samples.x[near], within, device), labels(samples.y[near], device)
        chosen = self.pick(model, *candidates, budget.rows(samples), rng)
        x0, y = (part[torch.from_numpy(chosen).to(device)] for part in candidates)
        adam = SignedAdam(steps=self.steps, rate=self.rate, batch=self.batch, augment=self.augment)
        draw = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        noise = (2 * torch.rand(x0.shape, generator=draw) - 1).to(device)
        climb = matching.start(within.project(x0 + self.radius * noise, x0))
        for part in range(self.retrainings + 1):
            if part:
                so_far = put(samples, near[chosen], climb.x, within=within).samples
                model = trained(self.fit, so_far, int(rng.integers(2**31)))
            aims = [Aim(model, loss_gradient(model, shown, wanted))]
            until = self.steps * (part + 1) // (self.retrainings + 1)
            climb = adam.descend(climb, aims, x0, y, within, until, draw)
        return put(samples, near[chosen], climb.x, within=within)
