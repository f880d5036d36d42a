"""The customer of a model's API: what an answer shows, what it costs, and how much may be spent.

An extractor never sees the model. It asks rows and gets what the API shows of the answers: probabilities, rounded,
cut to the top few or noisy, raw numbers, or labels alone. What is known already is never paid for twice.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch
from redan.errors import SettingError
from redan.targets import Target

__all__ = ["Answer", "Customer", "Extractor", "Shows", "Spending", "View", "named"]

C_co = TypeVar("C_co", covariant=True)


class Shows(Enum):
    """What an API tells of a model's scores."""

    RAW = auto()
    """The scores themselves, on the scale of logits, or the value."""
    PROBABILITIES = auto()
    """Their softmax."""
    LABELS = auto()
    """The class alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How an API words its answers. decimals: numbers are rounded to so many. top: only so many largest probabilities
    are told, the others are 0. noise: standard deviation of normal noise added to each probability, drawn by `seed` and
    the row, so that the same row always gets the same answer.

    >>> View(decimals=1)(torch.tensor([[0.0, 2.0]]), ["row"]).tolist()
    [[0.1, 0.9]]
    """

    shows: Shows = Shows.PROBABILITIES
    decimals: int | None = None
    top: int | None = None
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.decimals is not None and self.decimals < 0) or (self.top is not None and self.top < 1):
            raise SettingError(f"a view needs decimals ≥ 0 and top ≥ 1, got {self.decimals} and {self.top}")
        if self.noise < 0:
            raise SettingError(f"noise must be 0 or more, got {self.noise}")

    def __call__(self, scores: Tensor, names: list[str]) -> Tensor:
        """What is shown of scores (N, K): (N, K), float64. For labels: 1 for the class and 0 for the others."""
        scores = scores.double()
        match self.shows:
            case Shows.LABELS:
                return torch.nn.functional.one_hot(scores.argmax(1), scores.shape[1]).double()
            case Shows.RAW:
                shown = scores
            case Shows.PROBABILITIES:
                shown = scores.softmax(1)
        if self.noise:
            shown = shown + self.noise * torch.stack([_normal(name, self.seed, shown.shape[1]) for name in names])
        if self.top is not None and self.top < shown.shape[1]:
            floor = shown.topk(self.top, 1).values[:, -1:]
            shown = torch.where(shown >= floor, shown, 0.0)
        return shown if self.decimals is None else torch.round(shown, decimals=self.decimals)


def _normal(name: str, seed: int, count: int) -> Tensor:
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest(), "little")
    return torch.randn(count, generator=torch.Generator().manual_seed(key), dtype=torch.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a customer may spend. queries: answers in all. usd: money, at `usd_per_1000_queries`. None: unlimited."""

    queries: int | None = None
    usd: float | None = None
    usd_per_1000_queries: float = 0.0

    def __post_init__(self) -> None:
        if self.usd is not None and not self.usd_per_1000_queries > 0:
            raise SettingError("money limits nothing without a price; give usd_per_1000_queries")

    @property
    def most(self) -> float:
        """The most answers that can be paid; inf where nothing limits them."""
        by_money = math.inf if self.usd is None else math.floor(1000 * self.usd / self.usd_per_1000_queries + 1e-9)
        return min(math.inf if self.queries is None else self.queries, by_money)


class Answer(NamedTuple):
    """What the API said to N rows."""

    shown: Tensor
    """(N, K) float64, as the view words it; NaN where there is no answer."""
    labels: Tensor
    """(N,) the largest of what is shown; -1 where there is no answer."""
    answered: Tensor
    """(N,) bool: False where the money was spent, or the model failed."""


@dataclass(slots=True, eq=False)
class Customer:
    """Asks a target within a budget, and remembers every answer. This is all that an extractor sees of a model.

    >>> from redan.targets import from_torch
    >>> customer = Customer(from_torch(torch.nn.Linear(2, 3).eval()), Spending(queries=3), classes=3)
    >>> customer.ask(torch.rand(5, 2)).answered.tolist(), customer.left
    ([True, True, True, False, False], 0)
    """

    target: Target[Tensor] = field(repr=False)
    spending: Spending
    classes: int
    view: View = field(default_factory=View)
    paid: int = 0
    """Answers paid for so far."""
    _known: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def left(self) -> float:
        """Answers that can still be paid: a whole number, or inf."""
        return max(0, self.spending.most - self.paid)

    @property
    def usd(self) -> float:
        """Money spent so far."""
        return self.paid * self.spending.usd_per_1000_queries / 1000

    def knows(self, x: Tensor) -> Tensor:
        """Which rows x (N, …) would cost nothing, as they were asked before: (N,) bool."""
        return torch.tensor([name in self._known for name in named(x)], dtype=torch.bool)

    def ask(self, x: Tensor) -> Answer:
        """What the API says to rows x (N, …): new ones are paid for in order, as long as the money lasts.

        A row that failed is paid for and has no answer. The same row, bit by bit, costs once.
        """
        names = named(x)
        new: dict[str, int] = {}
        for at, name in enumerate(names):
            if name not in self._known and name not in new and len(new) < self.left:
                new[name] = at
        if new:
            self._pay(x, new)
        nothing = torch.full((self.classes,), torch.nan, dtype=torch.float64)
        shown = torch.stack([self._known.get(name, nothing) for name in names]) if names else nothing[None][:0]
        answered = ~shown.isnan().any(1)
        labels = torch.where(answered, shown.nan_to_num().argmax(1), -1)
        return Answer(shown, labels, answered)

    def _pay(self, x: Tensor, new: dict[str, int]) -> None:
        rows = x[list(new.values())].to(self.target.device, self.target.dtype)
        answers = evaluate(self.target, rows, micro=micro_batch(rows), classes=self.classes)
        self.paid += len(new)
        shown = self.view(answers.output.cpu(), list(new))
        shown[~answers.answered.cpu()] = torch.nan
        self._known.update(zip(new, shown, strict=True))


def named(x: Tensor) -> list[str]:
    """A name for each row of x (N, …), of all its bits: equal rows of one type have equal names."""
    rows = x.detach().cpu().contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows]


class Extractor(Protocol[C_co]):
    """An attack that copies a model."""

    def __call__(self, customer: Customer, *, seed: int) -> C_co:
        """What was made of the customer's answers, a model as a rule; the same for the same seed.

        It ends when it is done, or when the customer can pay no more.
        """
        ...
