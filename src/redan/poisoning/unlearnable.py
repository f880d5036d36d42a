"""Unlearnable examples: small perturbations, row by row, after which training on the rows teaches nothing of use.

ErrorMinimizing leaves nothing to learn (Huang et al. 2021, arXiv:2101.04898); ErrorMaximizing teaches what adversarial
examples show, the features of another class (Fowl et al. 2021, arXiv:2106.10807).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.perturbations.norms import Linf
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import drawn
from redan.poisoning.crafting import (
    Surrogate,
    box,
    floats,
    fresh,
    home,
    labels,
    positive,
    put,
    seeded,
    trained,
)

Score = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K), y (N,)) -> (N,), what a step is to lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """Signed steps down a score, each projected: so many steps of `rate` radii, in batches."""

    within: Linf
    steps: int
    rate: float
    batch: int

    def __call__(self, model: nn.Module, x: Tensor, x0: Tensor, y: Tensor, score: Score) -> Tensor:
        """x (N, …) moved within the set around x0 (N, …), labels y (N,)."""
        parts = []
        for i in range(0, len(x), self.batch):
            moved, clean, truth = (part[i : i + self.batch] for part in (x, x0, y))
            for _ in range(self.steps):
                leaf = moved.detach().requires_grad_()
                with torch.enable_grad():
                    slope = torch.autograd.grad(score(model(leaf), truth).sum(), leaf)[0]
                moved = self.within.project(moved - self.rate * float(self.within.radius) * slope.sign(), clean)
            parts.append(moved)
        return torch.cat(parts)


def _loss(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output, y, reduction="none")


def _right(model: nn.Module, x: Tensor, y: Tensor, batch: int) -> float:
    """Share of rows answered right."""
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in torch.split(x, batch)])
    return float((answers == y).double().mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMinimizing:
    """Sample-wise error-minimizing noise: the loss of a network in training is brought to zero by changing its rows.

    surrogate: the network to begin with, not trained; a copy is trained along (a minimum over weights and noise). Each
    round trains it on `batches` batches of the rows as they are by now (10 in the paper), then takes `steps` steps on
    every poison (20, of a tenth of the radius each). It ends when the share of poisons answered wrong is below `stop`
    (0.01), or after `rounds`. radius: ℓ∞, in units of `bounds`. learning_rate, momentum, batch: of the training (SGD).

    Deviations: one reshuffled pass follows another; weight decay and a learning-rate schedule are left out.
    The rows are drawn among all that the attacker controls; the paper's effect needs nearly all of them.

    Raises SettingError for settings out of range.

    >>> ErrorMinimizing(surrogate=nn.Linear(4, 2)).rounds
    50
    """

    surrogate: nn.Module
    radius: float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    rounds: int = 50
    batches: int = 10
    steps: int = 20
    rate: float = 0.1
    stop: float = 0.01
    learning_rate: float = 0.1
    momentum: float = 0.9
    batch: int = 128

    def __post_init__(self) -> None:
        box(self.radius, self.bounds)
        positive({"rounds": self.rounds, "batches": self.batches, "steps": self.steps, "rate": self.rate})
        positive({"learning_rate": self.learning_rate, "batch": self.batch})

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        within, rng = box(self.radius, self.bounds), np.random.default_rng(seed)
        at = drawn(np.ones(len(samples), dtype=bool), samples, budget, rng)
        model = fresh(self.surrogate)
        x, y = floats(samples.x, within, home(model)), labels(samples.y, home(model))
        where = torch.from_numpy(at).to(x.device)
        clean, truth = x[where], y[where]
        descent = torch.optim.SGD(model.parameters(), lr=self.learning_rate, momentum=self.momentum)
        order = np.empty(0, dtype=np.int64)
        lower = Descent(within=within, steps=self.steps, rate=self.rate, batch=self.batch)
        with seeded(int(rng.integers(2**63 - 1))):
            for _ in range(self.rounds):
                model.train()
                for _ in range(self.batches):
                    if not len(order):
                        order = rng.permutation(len(x))
                    now, order = torch.from_numpy(order[: self.batch]).to(x.device), order[self.batch :]
                    _trained_once(model, descent, x[now], y[now])
                model.eval()
                moved = lower(model, x[where], clean, truth, _loss)
                x[where] = moved
                if 1 - _right(model, moved, truth, self.batch) < self.stop:
                    break
        return put(samples, at, x[where], within=within)


def _trained_once(model: nn.Module, descent: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    with torch.enable_grad():
        descent.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(x), y))
        descent.step()


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMaximizing:
    """Adversarial examples of a trained surrogate, with the labels they had, as training rows.

    surrogate: a trained module, or a fit that trains one on the clean rows. shift: how far the class that a row is
    driven toward lies after its own, modulo the classes (the class-targeted form, the stronger one in the paper); None
    drives it away from its own class. radius: ℓ∞, in units of `bounds`. steps: 250 in the paper. rate: a
    step in radii. batch: rows a pass.

    Deviations: no differentiable augmentation and no restarts.

    Raises SettingError for settings out of range, or a shift that leads back to the row's own class.

    >>> ErrorMaximizing(surrogate=nn.Linear(4, 2).eval(), shift=None).steps
    250
    """

    surrogate: Surrogate
    shift: int | None = 1
    radius: float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    steps: int = 250
    rate: float = 0.05
    batch: int = 256

    def __post_init__(self) -> None:
        box(self.radius, self.bounds)
        positive({"steps": self.steps, "rate": self.rate, "batch": self.batch})

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        within, rng = box(self.radius, self.bounds), np.random.default_rng(seed)
        at = drawn(np.ones(len(samples), dtype=bool), samples, budget, rng)
        model = trained(self.surrogate, samples, int(rng.integers(2**31)))
        x, y = floats(samples.x[at], within, home(model)), labels(samples.y[at], home(model))
        draw = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        begun = within.project(x + self.radius * (2 * torch.rand(x.shape, generator=draw) - 1).to(x.device), x)
        lower = Descent(within=within, steps=self.steps, rate=self.rate, batch=self.batch)
        moved = lower(model, begun, x, y, self._score)
        return put(samples, at, moved, within=within)

    def _score(self, output: Tensor, y: Tensor) -> Tensor:
        if self.shift is None:
            return -_loss(output, y)
        if self.shift % output.shape[1] == 0:
            raise SettingError(f"a shift of {self.shift} among {output.shape[1]} classes leads back; give another")
        return _loss(output, (y + self.shift) % output.shape[1])
