"""Copycat CNN (Correia-Silva et al. 2018, arXiv:1806.05476): a copy trained on the labels that any rows got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from redan.errors import SettingError
from redan.extraction.customer import Customer
from redan.extraction.pools import Pool
from redan.extraction.surrogates import Copy, Trainer
from redan.extraction.trainers import ByAdam
from redan.extraction.transfer import Stage, Teaching, TransferSet

__all__ = ["CopycatCNN"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopycatCNN:
    """A copy of a model, trained on the labels alone that it gave to a pool's rows, whatever else it shows.

    pool: where rows come from; they need not look like the model's own. trainer: makes a copy of labels. queries:
    answers to pay for at the most. balanced: repeat rows of rare labels until all labels are as frequent, as a model
    gives few labels to rows unlike its own; not in the paper.
    """

    pool: Pool
    trainer: Trainer = field(default_factory=ByAdam)
    queries: int = 10_000
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise SettingError(f"queries must be 1 or more, got {self.queries}")
        _ = self._teaching

    @property
    def _teaching(self) -> Teaching:
        return Teaching.of(self.trainer, self.pool, soft=False, balanced=self.balanced)

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        return self.curve(customer, points=(self.queries,), seed=seed)[-1].copy

    def curve(self, customer: Customer, *, points: Sequence[int], seed: int) -> tuple[Stage, ...]:
        """A copy a point, each of the first so many answers. points: rising, `queries` at the most; SettingError for
        others."""
        transfer = TransferSet(customer, self.queries, self.pool.shape, self.pool.bounds)
        transfer.fill(self.pool.blocks(torch.Generator().manual_seed(seed)))
        return transfer.stages(self._teaching, points, seed)
