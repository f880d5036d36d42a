"""How copies are trained: small torch networks by Adam, and any estimator that speaks scikit-learn's protocol.

`redan.extraction.surrogates.ByLogLoss` is for small models that answers determine; these are for copies by examples.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from redan.errors import SettingError, TargetError
from redan.extraction.surrogates import Bounds, Shape
from redan.targets import Target, from_sklearn
from redan.targets.base import Output, checked_bounds, its
from redan.targets.torch import TorchTarget, from_torch

__all__ = ["Architecture", "ByAdam", "ByEstimator", "SmallNetwork", "spread"]


class Architecture(Protocol):
    """The form of a network."""

    def __call__(self, shape: Shape, classes: int) -> nn.Module:
        """A new module from rows (N, *shape), moved to [-1, 1], to logits (N, K), as torch's global seed draws it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallNetwork:
    """Two strided convolutions and a hidden layer for images (C, H, W) of 8 by 8 or more, two hidden layers for all
    else. channels: of the first convolution; the second has twice as many. hidden: units of a hidden layer."""

    channels: int = 16
    hidden: int = 64

    def __call__(self, shape: Shape, classes: int) -> nn.Module:
        if len(shape) == 3 and min(shape[1:]) >= 8:
            height, width = (math.ceil(math.ceil(side / 2) / 2) for side in shape[1:])
            return nn.Sequential(
                nn.Conv2d(shape[0], self.channels, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(self.channels, 2 * self.channels, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(2 * self.channels * height * width, self.hidden),
                nn.ReLU(),
                nn.Linear(self.hidden, classes),
            )
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )


class _Centered(nn.Module):
    """Moves rows from the box to [-1, 1]."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.center, self.reach = sum(bounds) / 2, (bounds[1] - bounds[0]) / 2

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.reach


@dataclass(frozen=True, slots=True, kw_only=True)
class ByAdam:
    """Trains a torch network by cross-entropy with labels or with probabilities (Adam: Kingma and Ba 2015,
    arXiv:1412.6980), its rate falling to 0 along a cosine. The same seed gives the same network.

    network: makes a new one. bounds: the box of the inputs. epochs, batch: over the rows; few rows are gone over more
    often, until `least_steps` steps. rate: Adam's first one. Copies of few answers to rows unlike the model's own need
    steps and a high rate most: of 1,000 answers to pictures of signs, a copy of a model of garments agreed with it on
    13 % of images after 300 steps at 2e-3, and on 53 % after 1,000 at 4e-3; of 1,000 answers to garments on 87 % and
    92 %.

    The copy is float32 and differentiable, and moves rows to [-1, 1] by itself.
    """

    network: Architecture = field(default_factory=SmallNetwork)
    bounds: Bounds = (0.0, 1.0)
    epochs: int = 20
    batch: int = 64
    rate: float = 4e-3
    least_steps: int = 1000

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)
        if self.epochs < 1 or self.batch < 2 or not self.rate > 0 or self.least_steps < 0:
            raise SettingError(
                f"training needs epochs ≥ 1, batch ≥ 2, rate > 0 and least_steps ≥ 0, got {self.epochs}, {self.batch}, "
                f"{self.rate}, {self.least_steps}"
            )

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int) -> TorchTarget:
        return self.shown(x, nn.functional.one_hot(y, classes).double(), seed)

    def shown(self, x: Tensor, shown: Tensor, seed: int) -> TorchTarget:
        """The network of what was shown (N, K) of probabilities; what is hidden is spread over what shows 0."""
        classes = shown.shape[1]
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            module = nn.Sequential(_Centered(self.bounds), self.network(tuple(x.shape[1:]), classes))
            parameters = list(module.parameters())
            rows, wanted = x.to(parameters[0].dtype), spread(shown).to(parameters[0].dtype)
            optimizer = torch.optim.Adam(parameters, lr=self.rate, fused=True)  # a third of the time for small layers
            steps = max(self.least_steps, self.epochs * math.ceil(len(x) / self.batch)) if len(x) else 0
            done = 0
            while done < steps:
                for at in torch.split(torch.randperm(len(rows)), self.batch)[: steps - done]:
                    done += 1
                    if len(at) == 1 < len(rows):  # a batch normalization cannot learn from one row
                        continue
                    optimizer.param_groups[0]["lr"] = self.rate * (1 + math.cos(math.pi * done / steps)) / 2
                    loss = nn.functional.cross_entropy(module(rows[at]), wanted[at])
                    for part, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                        part.grad = slope
                    optimizer.step()
        for part in parameters:
            part.grad = None
        return from_torch(module.eval().requires_grad_(False), bounds=self.bounds, classes=classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByEstimator:
    """Trains an estimator of scikit-learn's protocol: `fit`, and `predict_proba`, `decision_function` or `predict`;
    forests, boosted trees (those of XGBoost and LightGBM too) and kernel machines.

    estimator: makes a new one of a seed, e.g. `lambda seed: RandomForestClassifier(random_state=seed)`. Probabilities
    are learned as weighted rows: each row stands once a class, with the class's probability as its weight; an
    estimator whose `fit` has no `sample_weight` cannot. Rows are flattened to (N, d).

    A linear model, an MLP or a kernel machine is climbed along its exact copy; all others answer scores alone.
    """

    estimator: Callable[[int], Any]
    bounds: Bounds = (0.0, 1.0)

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int) -> Target[Tensor]:
        return self._fitted(x, y, None, classes, seed)

    def shown(self, x: Tensor, shown: Tensor, seed: int) -> Target[Tensor]:
        """The estimator of what was shown (N, K) of probabilities. Raises TargetError where it knows no weights."""
        weights = spread(shown)
        rows, labels = (weights >= _LEAST_WEIGHT).nonzero().unbind(1)
        return self._fitted(x[rows], labels, weights[rows, labels], shown.shape[1], seed)

    def _fitted(self, x: Tensor, y: Tensor, weights: Tensor | None, classes: int, seed: int) -> Target[Tensor]:
        estimator = self.estimator(seed)
        seen, places = torch.unique(y, return_inverse=True)  # some of them know no classes but 0, 1, …
        rows = x.flatten(1).double()
        if weights is None:
            estimator.fit(rows.numpy(), places.numpy())
        elif "sample_weight" in inspect.signature(estimator.fit).parameters:
            estimator.fit(rows.numpy(), places.numpy(), sample_weight=weights.numpy())
        else:
            raise TargetError(
                f"the fit of {type(estimator).__name__} takes no sample_weight, so it cannot learn probabilities; "
                "extract by labels (soft=False)"
            )
        target = from_sklearn(estimator, bounds=self.bounds, output=_best(estimator), rows=rows[:64])
        return _Widened(target, tuple(seen.tolist()), classes)


def spread(shown: Tensor) -> Tensor:
    """What is shown of probabilities (N, K) as probabilities that add up to 1.

    What they lack to 1 goes to the classes that show 0, in equal parts: those beyond the top few, or rounded away.
    Where nothing is told, all classes are alike.

    >>> [round(share, 2) for share in spread(torch.tensor([[0.7, 0.0, 0.0]]))[0].tolist()]
    [0.7, 0.15, 0.15]
    """
    shown = shown.clamp(0.0, 1.0)
    hidden = shown == 0
    rest = (1 - shown.sum(1, keepdim=True)).clamp_min(0.0)
    shown = torch.where(hidden, rest / hidden.sum(1, keepdim=True).clamp_min(1), shown)
    return shown / shown.sum(1, keepdim=True)


def _best(estimator: Any) -> Output:
    """The most that an estimator answers."""
    if hasattr(estimator, "predict_proba"):
        return Output.PROBABILITIES
    return Output.LOGITS if hasattr(estimator, "decision_function") else Output.LABELS


_UNSEEN = 30.0
_LEAST_WEIGHT = 1e-3  # less of a row is not worth a row


@dataclass(frozen=True, slots=True)
class _Widened:
    """A target of flat rows and some classes, for rows of any shape and all classes; those never seen come last."""

    target: Target[Tensor]
    seen: tuple[int, ...]
    classes: int

    access = its("access")
    output = its("output")
    bounds = its("bounds")
    stochastic = its("stochastic")
    differentiable = its("differentiable")
    surrogate = its("surrogate")
    dtype = its("dtype")
    device = its("device")

    def __call__(self, x: Tensor) -> Tensor:
        scores = self.target(x.flatten(1))
        if len(self.seen) == self.classes:
            return scores
        least = (scores.detach().amin(1, keepdim=True) - _UNSEEN).expand(-1, self.classes)
        return least.index_copy(1, torch.tensor(self.seen, device=scores.device), scores)
