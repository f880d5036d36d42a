"""Extraction from labels alone: lines searched for a hyperplane, and surrogates retrained where they are unsure.

HyperplaneSearch     Lowd and Meek 2005 (Adversarial Learning), as Tramèr et al. 2016, Section 6, use it
UniformRetraining    Tramèr et al. 2016, arXiv:1609.02943, Section 6, retraining with uniform queries
AdaptiveRetraining   the same, adaptive retraining, after Cohn, Atlas and Ladner 1994
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.customer import Answer, Customer
from redan.extraction.purse import Purse
from redan.extraction.surrogates import Bounds, ByLogLoss, Copy, Shape, Trainer, corners, in_box, new_layer, uniform
from redan.targets import Target
from redan.targets.base import checked_bounds
from redan.targets.torch import TorchTarget, from_torch

__all__ = ["AdaptiveRetraining", "HyperplaneSearch", "UniformRetraining", "linear_copy", "near_boundary", "retrained"]

T = TypeVar("T", bound=Target[Tensor])


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperplaneSearch:
    """The hyperplane of a linear classifier of two classes, by its labels, to a chosen precision.

    A point of the boundary is found by bisection between two rows of different classes. Then the line between them is
    moved along each feature, and the place where it crosses the boundary now is found by bisection again: the ratio of
    both moves is a ratio of weights. It costs about (d + 1)·log2(1 / precision) answers. All lines are bisected
    together, so what a small budget buys is less precision, and no feature is left out. Below about 15·(d + 1) answers
    AdaptiveRetraining comes nearer.

    shape: of one input. bounds: their box. queries: answers to buy at the most; None: all that can be paid. precision:
    of the crossing, as a share of the line. tries: answers spent at the most on finding a row of either class.

    Deviation from Lowd and Meek, whose lines are unbounded and go along one feature: lines stay in the box here, and
    all run along the direction between the first two rows, which is not nearly parallel to the boundary. Only the
    boundary is found, not the scale of the scores: the copy's weights have length 1.
    """

    shape: Shape
    bounds: Bounds = (0.0, 1.0)
    queries: int | None = None
    precision: float = 1e-6
    tries: int = 1000

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)
        if not 0 < self.precision < 1 or self.tries < 2:
            raise SettingError(f"precision must be in (0, 1) and tries 2 or more, got {self.precision}, {self.tries}")

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        """Raises SettingError for a model with more than two classes."""
        if customer.classes != 2:
            raise SettingError(
                f"a hyperplane parts two classes, and the model has {customer.classes}; use AdaptiveRetraining"
            )
        purse = Purse(customer, self.queries)
        found = self._both(purse, torch.Generator().manual_seed(seed))
        if isinstance(found, int):  # one class was seen alone
            return _constant(found, 2, self.shape, self.bounds)
        zero, one = found
        line = one - zero
        # Of little money the first line gets its share of bits, or none would be left for the others.
        bits = (purse.left - 2 * len(line)) / (len(line) + 1)
        precision = max(self.precision, 2.0 ** -max(1, min(1000, bits)))
        start = _bisected(purse, zero[None], one[None], precision, self.shape, self.bounds)[0]
        moves = _room(zero, one, self.bounds)
        crossings = self._crossings(purse, zero, one, moves)
        # The boundary holds zero + start·line and zero + move·e + crossing·line: from their difference comes w·e, in
        # units in which w·line = 1.
        weights = (start - crossings) / moves
        open_end = weights.isnan()
        if bool(open_end.any()):  # the least weights that make w·line 1
            left = 1 - weights[~open_end] @ line[~open_end]
            weights[open_end] = left * line[open_end] / line[open_end].square().sum()
        weights /= weights.norm()
        bias = -(weights @ (zero + start * line))
        return linear_copy(
            torch.stack([torch.zeros_like(weights), weights]),
            torch.stack([torch.zeros_like(bias), bias]),
            self.shape,
            self.bounds,
        )

    def _both(self, purse: Purse, draw: torch.Generator) -> tuple[Tensor, Tensor] | int:
        """A row (d,) of class 0 and one of class 1, or the only class that was seen; 0 if none was."""
        seen: dict[int, Tensor] = {}
        for at in range(self.tries):
            # Corners reach further than the rows between them.
            row = (corners if at % 2 else uniform)(1, self.shape, self.bounds, draw)
            answer = purse.ask(row)
            if bool(answer.answered):
                seen.setdefault(int(answer.labels), row.flatten())
            if len(seen) == 2:
                return seen[0], seen[1]
            if not purse.left:
                break
        return next(iter(seen), 0)

    def _crossings(self, purse: Purse, zero: Tensor, one: Tensor, moves: Tensor) -> Tensor:
        """Where the line crosses the boundary (d,), as a share of it, once moved along each feature.

        moves (d,) are shortened in place until both ends keep their classes; NaN where money ended before that.
        """
        pending = torch.arange(len(moves))
        for _ in range(20):
            steps = torch.diag(moves)[pending]
            ends = in_box(torch.cat([zero + steps, one + steps]), self.bounds)
            labels = purse.ask(ends.view(-1, *self.shape)).labels.view(2, -1)
            kept = (labels[0] == 0) & (labels[1] == 1)
            pending = pending[~kept]
            if not len(pending) or not purse.left:
                break
            moves[pending] /= 2
        ready = torch.ones(len(moves), dtype=torch.bool)
        ready[pending] = False
        lines = ready.nonzero().flatten()
        steps = torch.diag(moves)[lines]
        crossings = torch.full_like(moves, torch.nan)
        if len(lines):
            crossings[lines] = _bisected(purse, zero + steps, one + steps, self.precision, self.shape, self.bounds)
        return crossings


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformRetraining:
    """A surrogate trained on the labels of rows drawn from the whole box.

    trainer: makes a surrogate of labels. shape: of one input. queries: answers to buy at the most.
    """

    shape: Shape
    bounds: Bounds = (0.0, 1.0)
    queries: int = 1000
    trainer: Trainer = field(default_factory=ByLogLoss)

    def __post_init__(self) -> None:
        _checked(self.queries, 1, 0.0, self.bounds)

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        x = uniform(int(min(self.queries, customer.left)), self.shape, self.bounds, torch.Generator().manual_seed(seed))
        answer = customer.ask(x)
        kept = answer.answered
        learn = _learning(self.trainer, customer.classes, self.shape, self.bounds)
        target = learn(x[kept], Answer(answer.shown[kept], answer.labels[kept], kept[kept]), seed)
        return Copy(target, _parameters(target))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRetraining:
    """A surrogate trained on labels in rounds, each of which asks where the last surrogate is unsure.

    The first round asks rows drawn from the whole box. Later ones ask mostly points of the surrogate's own boundary,
    found by bisection on the surrogate, which costs nothing, and a `random_share` of rows from the whole box.

    trainer: makes a surrogate of labels. shape: of one input. queries: answers to buy at the most. random_share: a
    quarter, as in the authors' code.
    """

    shape: Shape
    bounds: Bounds = (0.0, 1.0)
    queries: int = 1000
    rounds: int = 10
    random_share: float = 0.25
    trainer: Trainer = field(default_factory=ByLogLoss)

    def __post_init__(self) -> None:
        _checked(self.queries, self.rounds, self.random_share, self.bounds)

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        target = retrained(
            Purse(customer, self.queries),
            _learning(self.trainer, customer.classes, self.shape, self.bounds),
            torch.empty(0, *self.shape, dtype=torch.float64),
            bounds=self.bounds,
            rounds=self.rounds,
            random_share=self.random_share,
            seed=seed,
        )
        return Copy(target, _parameters(target))


def retrained(
    purse: Purse,
    learn: Callable[[Tensor, Answer, int], T],
    first: Tensor,
    *,
    bounds: Bounds,
    rounds: int,
    random_share: float,
    seed: int,
) -> T:
    """The surrogate of the last round. learn: makes one of answered rows (N, …) and their answers. first (M, …): rows
    to ask before any drawn ones, in the first round. Raises SettingError where nothing limits the purse."""
    if purse.left == math.inf:
        raise SettingError("nothing limits what retraining buys; give it queries, or the customer a budget")
    draw = torch.Generator().manual_seed(seed)
    shape = tuple(first.shape[1:])
    size = math.ceil(purse.left / rounds)
    x = torch.cat([first, uniform(max(0, size - len(first)), shape, bounds, draw)])
    answer = purse.ask(x)
    for _ in range(2 * rounds):  # money left by rows that were known already buys more rounds, but not forever
        kept = answer.answered
        surrogate = learn(x[kept], Answer(answer.shown[kept], answer.labels[kept], kept[kept]), seed)
        more = int(min(size, purse.left))
        if not more:
            break
        anywhere = round(random_share * more)
        near = near_boundary(surrogate, more - anywhere, shape=shape, bounds=bounds, draw=draw)
        rows = torch.cat([near, uniform(anywhere, shape, bounds, draw)])
        new = purse.ask(rows)
        x = torch.cat([x, rows])
        answer = Answer(*(torch.cat([before, now]) for before, now in zip(answer, new, strict=True)))
    return surrogate


def near_boundary(target: Target[Tensor], count: int, *, shape: Shape, bounds: Bounds, draw: torch.Generator) -> Tensor:
    """Rows of the box (count, …) where two classes of the target meet, by bisection between rows drawn from the box.

    If nearly all drawn rows are of one class, the rows of the smallest margins are taken instead.
    """
    if not count:
        return torch.empty(0, *shape, dtype=torch.float64)
    x = uniform(max(256, 4 * count), shape, bounds, draw)
    scores = _asked(target, x)
    labels = scores.argmax(1)
    left, right = [], []
    for _ in range(8):  # each time the rows are paired anew
        one, other = torch.randperm(len(x), generator=draw).view(2, -1)
        apart = labels[one] != labels[other]
        left.append(one[apart])
        right.append(other[apart])
        if sum(map(len, left)) >= count:
            break
    a, b = torch.cat(left)[:count], torch.cat(right)[:count]
    margins = scores.topk(min(2, scores.shape[1]), 1).values
    unsure = (margins[:, 0] - margins[:, -1]).argsort()[: count - len(a)]
    ends, others, own = x[a], x[b], labels[a]
    for _ in range(24):
        if not len(a):
            break
        middle = (ends + others) / 2
        same = (_asked(target, middle).argmax(1) == own).view(-1, *[1] * len(shape))
        ends, others = torch.where(same, middle, ends), torch.where(same, others, middle)
    return torch.cat([in_box(ends, bounds), x[unsure]])


def linear_copy(weights: Tensor, biases: Tensor, shape: Shape, bounds: Bounds) -> Copy:
    """The model with weights (K, D) and biases (K,), float64, for inputs (N, …) of D numbers each."""
    weights, biases = weights.double(), biases.double()
    layer = new_layer(math.prod(shape), len(weights))
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(biases)
    module = nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)
    return Copy(
        from_torch(module, bounds=bounds, classes=len(weights)), {"weights": weights.clone(), "biases": biases.clone()}
    )


def _bisected(purse: Purse, zeros: Tensor, ones: Tensor, precision: float, shape: Shape, bounds: Bounds) -> Tensor:
    """Where class 0 ends on each line from zeros (N, d) to ones (N, d): shares (N,), the middle of what is left."""
    low, high = torch.zeros(len(zeros), dtype=torch.float64), torch.ones(len(zeros), dtype=torch.float64)
    cut = torch.full_like(low, 0.5)
    for _ in range(math.ceil(-math.log2(precision))):
        middle = low + cut * (high - low)
        rows = (zeros + middle[:, None] * (ones - zeros)).clamp(*bounds)
        labels = purse.ask(rows.view(-1, *shape)).labels
        low, high = torch.where(labels == 0, middle, low), torch.where(labels == 1, middle, high)
        cut = torch.where(labels < 0, 0.8 * cut, 0.5)  # a row that has no answer would have none again
        if not purse.left:
            break
    return (low + high) / 2


def _room(zero: Tensor, one: Tensor, bounds: Bounds) -> Tensor:
    """How far both rows (d,) can be moved along each feature, on the side with more room."""
    up = bounds[1] - torch.maximum(zero, one)
    down = torch.minimum(zero, one) - bounds[0]
    return torch.where(up >= down, up, -down)


def _asked(target: Target[Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return target(x.to(target.device, target.dtype)).cpu().double()


def _learning(
    trainer: Trainer, classes: int, shape: Shape, bounds: Bounds
) -> Callable[[Tensor, Answer, int], Target[Tensor]]:
    """A trainer on answers; what saw one class alone, or nothing, answers that class."""

    def learn(x: Tensor, answer: Answer, seed: int) -> Target[Tensor]:
        seen = sorted(set(answer.labels.tolist()))
        if len(seen) < 2:
            return _constant(next(iter(seen), 0), classes, shape, bounds).target
        return trainer(x, answer.labels, classes, seed)

    return learn


def _constant(label: int, classes: int, shape: Shape, bounds: Bounds) -> Copy:
    return linear_copy(torch.zeros(classes, math.prod(shape)), torch.eye(classes)[label], shape, bounds)


def _parameters(target: Target[Tensor]) -> dict[str, Tensor]:
    return dict(target.module.state_dict()) if isinstance(target, TorchTarget) else {}


def _checked(queries: int, rounds: int, random_share: float, bounds: Bounds) -> None:
    checked_bounds(bounds)
    if queries < 1 or rounds < 1 or not 0 <= random_share <= 1:
        raise SettingError(
            f"retraining needs queries ≥ 1, rounds ≥ 1 and a random share in [0, 1], got {queries}, {rounds}, "
            f"{random_share}"
        )
