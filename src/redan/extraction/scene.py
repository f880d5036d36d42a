"""What an extractor is made of: what its attacker may buy and has, so that each registered one can be built for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from redan.extraction.customer import Shows, View
from redan.extraction.pools import Pool, RowPool
from redan.extraction.surrogates import Trainer
from redan.extraction.transfer import SoftTrainer

__all__ = ["Scene"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One attacker with all that decides a copy but the customer and the seed.

    pool: where the rows come from that are asked. queries: answers to buy at the most. classes: K. view: how answers
    are worded. trainer: makes copies of examples.
    """

    pool: Pool
    queries: int
    classes: int
    trainer: Trainer
    view: View = field(default_factory=View)

    @property
    def soft(self) -> bool:
        """Whether copies can learn more than labels."""
        return self.view.shows is not Shows.LABELS and isinstance(self.trainer, SoftTrainer)

    @property
    def rows(self) -> RowPool | None:
        """The pool, where it has rows that are given and end."""
        return self.pool if isinstance(self.pool, RowPool) else None
