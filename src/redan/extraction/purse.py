"""A part of a customer's money: what one extractor may spend of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.extraction.customer import Answer, Customer, View

__all__ = ["Purse"]


@dataclass(slots=True, eq=False)
class Purse:
    """A customer who buys so many answers at the most. queries: None for all that the customer can pay."""

    customer: Customer
    queries: int | None = None
    _before: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._before = self.customer.paid

    @property
    def classes(self) -> int:
        return self.customer.classes

    @property
    def view(self) -> View:
        return self.customer.view

    @property
    def left(self) -> float:
        """Answers that can still be bought: a whole number, or inf."""
        own = math.inf if self.queries is None else self.queries - (self.customer.paid - self._before)
        return max(0, min(own, self.customer.left))

    def ask(self, x: Tensor) -> Answer:
        """The answers to rows x (N, …); the last rows have none where money ends. An answer that is known already is
        given where it comes before that."""
        answers: list[Answer] = []
        at = 0
        # A piece costs its number of rows at the most, so pieces of what is left never cost too much.
        while at < len(x) and self.left:
            piece = x[at : at + int(min(len(x), self.left))]
            answers.append(self.customer.ask(piece))
            at += len(piece)
        rest = len(x) - at
        answers.append(
            Answer(
                torch.full((rest, self.classes), torch.nan, dtype=torch.float64),
                torch.full((rest,), -1),
                torch.zeros(rest, dtype=torch.bool),
            )
        )
        return Answer(*(torch.cat(parts) for parts in zip(*answers, strict=True)))
