"""Extraction by solving equations: each answer of a logistic regression is a linear equation in its parameters.

Tramèr, Zhang, Juels, Reiter and Ristenpart 2016, Stealing Machine Learning Models via Prediction APIs,
arXiv:1609.02943, Section 4: the logit of a shown probability is linear in weights and bias, so d + 1 answers give a
binary logistic regression. Deviation for several classes: the paper minimizes the log-loss of softmax answers; their
log-ratios to one class are linear too, and are solved here from the same d + 1 answers. The log-loss is minimized only
where answers are not exact, and for one-versus-rest models and multilayer perceptrons, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.customer import Answer, Customer, Shows, View
from redan.extraction.label_only import HyperplaneSearch, linear_copy, retrained
from redan.extraction.purse import Purse
from redan.extraction.surrogates import (
    Bounds,
    ByLogLoss,
    Copy,
    Network,
    OneVersusRest,
    Perceptron,
    Shape,
    corners,
    in_box,
    uniform,
)
from redan.targets.base import checked_bounds
from redan.targets.torch import TorchTarget

__all__ = ["MLP", "LogisticRegression", "OneVersusRestRegression"]

_UNSATURATED_PAIR = 1e-6
"""The smaller of two probabilities may be told as 1 minus the larger: its logit then errs by about 1e-16 / smaller."""
_LEAST, _LEAST_SINGLE, _LEAST_TOLD = 2e-38, 1e-45, 1e-300
"""Several are divided by their sum, and precise until they are cut off: below the first number where they are float32.
What is told between the second and the third cannot be float32, and is precise again."""
_LINES = 15
"""From so many labels on, as a multiple of d + 1, a search for the hyperplane of two classes is nearer to it than
retraining (measured on drawn models of 8 to 40 features)."""
_TRIES = 1000
"""Rows asked at the most to find one that is not saturated."""
_MOST = 100
"""Answers bought at the most where nothing limits them, as a multiple of d + 1: the paper's largest budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticRegression:
    """Binary or multinomial logistic regression, or any model with linear logits or raw scores.

    Exact answers: the middle of the box and one step from it along each feature, d + 1 answers in all, give the
    parameters by division alone. A step whose answer is saturated (a probability of 0 or 1 as far as floats tell, or no
    answer) is turned around and shortened until it is not, and if the middle itself is saturated, a row that is not is
    looked for between rows of different classes; all of these are paid for. Rounded, cut or noisy probabilities: the
    log-loss of more answers is minimized, in rounds that ask where the copy is unsure, until `queries` are spent.
    Rounded or noisy raw scores: least squares over as many. Labels alone: adaptive retraining,
    or the search for a hyperplane where there are two classes and 15·(D + 1) answers or more can be bought.

    shape: of one input, D numbers. queries: answers to buy at the most; None: all that can be paid, and 100·(D + 1)
    where nothing limits them. rounds: of answers that are not exact.

    The copy's `weights` (K, D) and `biases` (K,) are those of the model for raw scores. From probabilities they are
    known up to what all classes have in common: class 0 has zeros, and row 1 of two is the binary model itself.
    """

    shape: Shape
    bounds: Bounds = (0.0, 1.0)
    queries: int | None = None
    rounds: int = 5

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)
        if (self.queries is not None and self.queries < 1) or self.rounds < 1:
            raise SettingError(f"queries and rounds must be 1 or more, got {self.queries} and {self.rounds}")

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        purse = _purse(customer, self.queries, self.shape)
        if customer.view.shows is Shows.LABELS:
            return self._from_labels(purse, seed)
        if _is_exact(customer):
            solved = self._solved(purse, seed)
            if solved is not None:
                return solved
        if customer.view.shows is Shows.RAW:
            return self._least_squares(purse, seed)
        middle = _middle(self.shape, self.bounds)
        target = retrained(
            purse,
            _learning(ByLogLoss(bounds=self.bounds, penalty=1e-9), customer.view),
            torch.cat([middle[None], self._star(middle, 1.0)]).view(-1, *self.shape),
            bounds=self.bounds,
            rounds=self.rounds,
            random_share=0.25,
            seed=seed,
        )
        return _named(target, self.shape, self.bounds)

    def _from_labels(self, purse: Purse, seed: int) -> Copy:
        if purse.classes == 2 and purse.left >= _LINES * (math.prod(self.shape) + 1):
            search = HyperplaneSearch(shape=self.shape, bounds=self.bounds, queries=int(purse.left))
            return search(purse.customer, seed=seed)
        target = retrained(
            purse,
            _learning(ByLogLoss(bounds=self.bounds), purse.view),
            torch.empty(0, *self.shape, dtype=torch.float64),
            bounds=self.bounds,
            rounds=2 * self.rounds,
            random_share=0.25,
            seed=seed,
        )
        return _named(target, self.shape, self.bounds)

    def _solved(self, purse: Purse, seed: int) -> Copy | None:
        """The model from equations; None where no row was found whose answer is not saturated."""
        base = self._base(purse, seed)
        if base is None:
            return None
        row, level = base
        slopes = torch.zeros(len(row), len(level), dtype=torch.float64)
        pending = torch.arange(len(row))
        for shorter in range(20):
            for side in (1.0, -1.0):
                rows = self._star(row, side / 4**shorter)[pending]
                found = _levels(purse, rows.view(-1, *self.shape))
                ready = found.known
                steps = (rows - row).gather(1, pending[:, None])
                slopes[pending[ready]] = (found.levels - level)[ready] / steps[ready]
                pending = pending[~ready]
                if not len(pending) or not purse.left:
                    return linear_copy(slopes.T, level - row @ slopes, self.shape, self.bounds)
        return linear_copy(slopes.T, level - row @ slopes, self.shape, self.bounds)

    def _base(self, purse: Purse, seed: int) -> tuple[Tensor, Tensor] | None:
        """A row (D,) that is not saturated, and its levels (K,): the middle of the box if it will do."""
        draw = torch.Generator().manual_seed(seed)
        ends: dict[int, Tensor] = {}
        row = _middle(self.shape, self.bounds)
        for at in range(_TRIES):
            found = _levels(purse, row.view(1, *self.shape))
            if bool(found.known):
                return row, found.levels[0]
            label = int(found.labels)
            if label >= 0:
                ends.setdefault(label, row)
            if len(ends) > 1:
                return self._between(purse, ends)
            if not purse.left:
                return None
            row = (corners if at % 2 else uniform)(1, self.shape, self.bounds, draw).flatten()
        return None

    def _between(self, purse: Purse, ends: dict[int, Tensor]) -> tuple[Tensor, Tensor] | None:
        """The same, on the line between rows of two classes."""
        (first, low), (_, high) = ends.items()
        for _ in range(60):
            row = in_box((low + high) / 2, self.bounds)
            found = _levels(purse, row.view(1, *self.shape))
            if bool(found.known):
                return row, found.levels[0]
            if not purse.left:
                return None
            low, high = (row, high) if int(found.labels) == first else (low, row)
        return None

    def _star(self, row: Tensor, length: float) -> Tensor:
        """One step from row (D,) along each feature: (D, D). length: 1 is all the room on the side that has more; below
        0, all the room on the other side."""
        up, down = self.bounds[1] - row, row - self.bounds[0]
        wide, narrow = torch.where(up >= down, up, -down), torch.where(up >= down, -down, up)
        # Where the row lies on the box's edge there is no other side, and a shorter step must do.
        steps = length * wide if length > 0 else torch.where(narrow != 0, -length * narrow, -length * wide / 2)
        return in_box(row + torch.diag(steps), self.bounds)

    def _least_squares(self, purse: Purse, seed: int) -> Copy:
        middle = _middle(self.shape, self.bounds)
        more = uniform(
            max(0, int(purse.left) - len(middle) - 1), self.shape, self.bounds, torch.Generator().manual_seed(seed)
        )
        x = torch.cat([middle[None], self._star(middle, 1.0), more.flatten(1)])
        found = _levels(purse, x.view(-1, *self.shape))
        half = (self.bounds[1] - self.bounds[0]) / 2
        kept = found.known
        system = torch.cat([(x[kept] - middle) / half, torch.ones(int(kept.sum()), 1, dtype=torch.float64)], 1)
        numbers = torch.linalg.pinv(system) @ found.levels[kept]
        slopes = numbers[:-1] / half
        return linear_copy(slopes.T, numbers[-1] - middle @ slopes, self.shape, self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneVersusRestRegression:
    """A binary logistic regression a class, whose probabilities are divided by their sum: by log-loss.

    shape: of one input. queries: answers to buy at the most; None: all that can be paid, and 100·(D + 1) where nothing
    limits them. All are asked at rows drawn from the box.
    """

    shape: Shape
    bounds: Bounds = (0.0, 1.0)
    queries: int | None = None
    steps: int = 5000

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        return _by_log_loss(
            customer, OneVersusRest(), self.shape, self.bounds, self.queries, starts=1, steps=self.steps, seed=seed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MLP:
    """A multilayer perceptron of known form, by the log-loss of its answers at rows drawn from the box.

    hidden: units of each hidden layer. activation: what follows each; tanh in the paper. shape: of one input. queries:
    answers to buy at the most; the paper's networks took about 2 to 5 answers a parameter for 99.9 % agreement. starts:
    fits from other first weights, of which the best is kept. steps: of L-BFGS in each.
    """

    shape: Shape
    queries: int
    hidden: tuple[int, ...] = (20,)
    activation: Callable[[], nn.Module] = nn.Tanh
    bounds: Bounds = (0.0, 1.0)
    starts: int = 3
    steps: int = 5000

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        network = Perceptron(hidden=self.hidden, activation=self.activation)
        return _by_log_loss(
            customer, network, self.shape, self.bounds, self.queries, starts=self.starts, steps=self.steps, seed=seed
        )


class _Levels(NamedTuple):
    """What answers say of linear functions."""

    levels: Tensor  # (N, K): raw scores, or log-ratios to class 0
    known: Tensor  # (N,) bool: answered, and not saturated
    labels: Tensor  # (N,); -1 where not answered


def _levels(purse: Purse, x: Tensor) -> _Levels:
    """What rows x (N, …) tell; nothing where they cannot be paid."""
    shown, labels, answered = purse.ask(x)
    if purse.view.shows is Shows.RAW:
        return _Levels(shown, answered, labels)
    if shown.shape[1] == 2 and purse.view.top == 1:
        shown = torch.where(shown == 0, 1 - shown.sum(1, keepdim=True), shown)
    if shown.shape[1] == 2:
        unsaturated = shown > _UNSATURATED_PAIR
    else:
        unsaturated = (shown > _LEAST) | ((shown > _LEAST_TOLD) & (shown < _LEAST_SINGLE))
    logs = shown.clamp_min(_LEAST_TOLD).log()
    return _Levels(logs - logs[:, :1], unsaturated.all(1), labels)


def _by_log_loss(
    customer: Customer,
    network: Network,
    shape: Shape,
    bounds: Bounds,
    queries: int | None,
    *,
    starts: int,
    steps: int,
    seed: int,
) -> Copy:
    trainer = ByLogLoss(network=network, bounds=bounds, penalty=0.0, starts=starts, steps=steps)
    if customer.view.shows is Shows.LABELS:  # labels are told apart by endless weights, which a penalty ends
        trainer = replace(trainer, penalty=1e-6)
    purse = _purse(customer, queries, shape)
    x = uniform(int(purse.left), shape, bounds, torch.Generator().manual_seed(seed))
    answer = purse.ask(x)
    kept = answer.answered
    target = _learning(trainer, customer.view)(x[kept], Answer(*(part[kept] for part in answer)), seed)
    return Copy(target, dict(target.module.state_dict()))


def _learning(trainer: ByLogLoss, view: View) -> Callable[[Tensor, Answer, int], TorchTarget]:
    """A fit to what a view shows."""

    def learn(x: Tensor, answer: Answer, seed: int) -> TorchTarget:
        shown = answer.shown.softmax(1) if view.shows is Shows.RAW else answer.shown
        return trainer.shown(x, shown, seed)

    return learn


def _named(target: TorchTarget, shape: Shape, bounds: Bounds) -> Copy:
    """A fitted linear model with class 0 at zero."""
    layer = next(part for part in target.module.modules() if isinstance(part, nn.Linear))
    return linear_copy(layer.weight - layer.weight[0], layer.bias - layer.bias[0], shape, bounds)


def _is_exact(customer: Customer) -> bool:
    view, classes = customer.view, customer.classes
    whole = view.top is None or view.top >= classes or (classes == 2 and view.shows is Shows.PROBABILITIES)
    return view.decimals is None and not view.noise and whole


def _middle(shape: Shape, bounds: Bounds) -> Tensor:
    return in_box(torch.full((math.prod(shape),), sum(bounds) / 2, dtype=torch.float64), bounds)


def _purse(customer: Customer, queries: int | None, shape: Shape) -> Purse:
    unlimited = queries is None and customer.left == math.inf
    return Purse(customer, _MOST * (math.prod(shape) + 1) if unlimited else queries)
