"""What an extractor trains: modules of float64, fitted to what an API shows by their log-loss, from inputs in a box.

The log-loss of shown answers is minimized over all rows at once by L-BFGS, as Tramèr et al. 2016, arXiv:1609.02943, do
where equations cannot be solved directly. Inputs are moved to [-1, 1] for the fit, and the module is moved back after.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from redan.errors import SettingError
from redan.targets import Target
from redan.targets.base import checked_bounds
from redan.targets.torch import TorchTarget, from_torch

__all__ = [
    "ByLogLoss",
    "Copy",
    "Linear",
    "Network",
    "OneVersusRest",
    "Perceptron",
    "Trainer",
    "corners",
    "fitted",
    "in_box",
    "new_layer",
    "uniform",
]

_EXACT = 1e-15
"""A log-loss so little above the least possible one is rounding: the shown answers are met."""

Shape = tuple[int, ...]
Bounds = tuple[float, float]


class Copy(NamedTuple):
    """A stolen model."""

    target: Target[Tensor]
    """It answers logits (N, K), and its gradients are known if it is a torch module."""
    parameters: Mapping[str, Tensor]
    """Its numbers by name; empty where a surrogate keeps its own."""


class Trainer(Protocol):
    """How a surrogate is made of labels."""

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int) -> Target[Tensor]:
        """A model of rows x (N, …), float64, with classes y (N,), int64: two classes or more of them, not all."""
        ...


class Network(Protocol):
    """The form of a surrogate."""

    def __call__(self, features: int, classes: int) -> nn.Sequential:
        """A module of float64 from (N, …) to logits (N, K): a flattening, then a linear layer, then anything. What its
        parameters are does not matter."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Multinomial logistic regression: one linear layer. For two classes it is binary logistic regression."""

    def __call__(self, features: int, classes: int) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), new_layer(features, classes))


@dataclass(frozen=True, slots=True, kw_only=True)
class OneVersusRest:
    """A binary logistic regression a class, whose probabilities are divided by their sum."""

    def __call__(self, features: int, classes: int) -> nn.Sequential:
        # The softmax of log σ(z) is σ(z) divided by its sum.
        return nn.Sequential(nn.Flatten(), new_layer(features, classes), nn.LogSigmoid())


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceptron:
    """A multilayer perceptron. hidden: units of each hidden layer; activation: what follows each (tanh in the paper's
    networks)."""

    hidden: tuple[int, ...] = (20,)
    activation: Callable[[], nn.Module] = nn.Tanh

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise SettingError(f"a perceptron needs hidden layers of one unit or more, got {self.hidden}")

    def __call__(self, features: int, classes: int) -> nn.Sequential:
        widths = (features, *self.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [new_layer(before, after), self.activation()]
        return nn.Sequential(*layers, new_layer(widths[-1], classes))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLogLoss:
    """Trains a torch surrogate on labels: its log-loss by L-BFGS, the best of some starts.

    bounds: the box of the inputs. penalty: times ½ of the sum of the squared weights beside the mean loss. It is small,
    because labels asked near a boundary are told apart by large weights alone.
    """

    network: Network = field(default_factory=Linear)
    bounds: Bounds = (0.0, 1.0)
    penalty: float = 1e-6
    starts: int = 1
    steps: int = 500

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)
        if not self.penalty >= 0 or self.starts < 1 or self.steps < 1:
            raise SettingError(
                f"a fit needs penalty ≥ 0, starts ≥ 1 and steps ≥ 1, got {self.penalty}, {self.starts}, {self.steps}"
            )

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int) -> TorchTarget:
        shown = nn.functional.one_hot(y, classes).double()
        return self.shown(x, shown, seed)

    def shown(self, x: Tensor, shown: Tensor, seed: int) -> TorchTarget:
        """The surrogate of what was shown (N, K) of probabilities, or of labels as rows of one 1."""
        module = fitted(
            self.network,
            x,
            shown,
            bounds=self.bounds,
            penalty=self.penalty,
            starts=self.starts,
            steps=self.steps,
            seed=seed,
        )
        return from_torch(module, bounds=self.bounds, classes=shown.shape[1])


def fitted(
    network: Network,
    x: Tensor,
    shown: Tensor,
    *,
    bounds: Bounds,
    penalty: float,
    starts: int,
    steps: int,
    seed: int,
) -> nn.Sequential:
    """A module in evaluation mode whose probabilities are nearest to those shown: (N, K) for rows x (N, …).

    Shown numbers are held in [0, 1]. Where classes of a row show 0 and the others leave something over, it is the sum
    of those classes that is fitted: this is what the top few probabilities, or rounded ones, tell. Of several starts
    the one with the least loss is kept. Without rows the module answers 0 to everything.
    """
    middle, half = sum(bounds) / 2, (bounds[1] - bounds[0]) / 2
    rows = (x.double().flatten(1) - middle) / half
    told = _told(shown)
    draw = torch.Generator().manual_seed(seed)
    best, least = _started(network(math.prod(x.shape[1:]), shown.shape[1]), None), math.inf
    for _ in range(starts if len(x) else 0):
        module = _started(copy.deepcopy(best), draw)
        loss = _minimize(module, rows, told, penalty=penalty, steps=steps)
        if loss < least:
            best, least = module, loss
        if least < 10 * _EXACT:
            break
    first = next(part for part in best if isinstance(part, nn.Linear))
    with torch.no_grad():
        first.weight.div_(half)
        first.bias.sub_(middle * first.weight.sum(1))
    return best.eval().requires_grad_(False)


def uniform(count: int, shape: Shape, bounds: Bounds, draw: torch.Generator) -> Tensor:
    """Rows drawn from the box: (count, …), float64, in numbers that float32 holds too."""
    low, high = bounds
    return in_box(low + (high - low) * torch.rand(count, *shape, generator=draw, dtype=torch.float64), bounds)


def corners(count: int, shape: Shape, bounds: Bounds, draw: torch.Generator) -> Tensor:
    """Corners drawn from those of the box: (count, …), as `uniform` gives rows."""
    low, high = bounds
    return in_box(torch.where(torch.rand(count, *shape, generator=draw) < 0.5, low, high).double(), bounds)


def in_box(x: Tensor, bounds: Bounds) -> Tensor:
    """The nearest rows in the box, as float64, in numbers that float32 holds too.

    What a model of float32 is asked is then what the equations say it was asked.
    """
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in bounds)
    single = x.clamp(low, high).float()
    single = torch.where(single.double() < low, torch.nextafter(single, single.new_tensor(math.inf)), single)
    single = torch.where(single.double() > high, torch.nextafter(single, single.new_tensor(-math.inf)), single)
    return single.double()


class _Told(NamedTuple):
    """Shown probabilities as the log-loss reads them."""

    shares: Tensor  # (N, K): of the classes that are shown
    hidden: Tensor  # (M, K) bool: classes of which the sum alone is known, in the rows that have such
    rest: Tensor  # (M,): their sum
    rows: Tensor  # (M,): which rows these are
    entropy: float  # the least that the mean loss can be


def _told(shown: Tensor) -> _Told:
    shares = shown.double().clamp(0.0, 1.0)
    total = shares.sum(1, keepdim=True)
    hidden = shares == 0
    open_end = hidden.any(1, keepdim=True) & (total < 1) & (total > 0)
    shares = torch.where(open_end, shares, shares / total.clamp_min(torch.finfo(torch.float64).tiny))
    shares = torch.where(total > 0, shares, 1 / shown.shape[1])  # nothing is told
    rest = (1 - shares.sum(1)).clamp_min(0.0)
    rows = (open_end[:, 0] & (rest > 1e-12)).nonzero().flatten()
    entropy = -(torch.xlogy(shares, shares).sum() + torch.xlogy(rest[rows], rest[rows]).sum()) / max(1, len(shown))
    return _Told(shares, hidden[rows], rest[rows], rows, float(entropy))


def _minimize(module: nn.Sequential, rows: Tensor, told: _Told, *, penalty: float, steps: int) -> float:
    """Leaves the module at the least loss found, and says how much it is above the entropy of what was told."""
    parameters = list(module.parameters())
    weights = [part for part in parameters if part.dim() > 1]

    def loss_at(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        with torch.no_grad():
            nn.utils.vector_to_parameters(torch.from_numpy(numbers), parameters)
        logs = module(rows).log_softmax(1)
        loss = -(told.shares * logs).sum() / len(rows) - told.entropy
        if len(told.rows):
            sums = logs[told.rows].masked_fill(~told.hidden, -torch.inf).logsumexp(1)
            loss = loss - (told.rest * sums).sum() / len(rows)
        loss += penalty / 2 * torch.stack([part.square().sum() for part in weights]).sum()
        slopes = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), torch.cat([slope.flatten() for slope in slopes]).numpy()

    def stop(intermediate_result: optimize.OptimizeResult) -> None:
        if intermediate_result.fun < _EXACT:
            raise StopIteration

    start = nn.utils.parameters_to_vector(parameters).detach().numpy().copy()
    found = optimize.minimize(
        loss_at,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxiter": steps, "maxfun": 2 * steps, "maxcor": 20, "ftol": 1e-17, "gtol": 1e-10},
    )
    with torch.no_grad():
        nn.utils.vector_to_parameters(torch.from_numpy(np.asarray(found.x, dtype=np.float64)), parameters)
    return float(found.fun)


def new_layer(features: int, units: int) -> nn.Linear:
    """A linear layer of float64 whose numbers are not drawn, so that no global seed is used."""
    skip_init: Callable[..., nn.Linear] = nn.utils.skip_init
    return skip_init(nn.Linear, features, units, dtype=torch.float64)


def _started(module: nn.Sequential, draw: torch.Generator | None) -> nn.Sequential:
    """The module with drawn weights, or with zeros; a lone linear layer starts at 0, where its loss has one optimum."""
    alone = sum(isinstance(part, nn.Linear) for part in module) == 1
    with torch.no_grad():
        for part in module.parameters():
            if draw is None or alone or part.dim() == 1:
                part.zero_()
            else:
                part.copy_(torch.randn(part.shape, generator=draw, dtype=part.dtype) / math.sqrt(part.shape[1]))
    return module
