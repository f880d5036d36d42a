"""What became of the rows, and what each attack did and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor


class Status(IntEnum):
    """What became of a row."""

    ROBUST = 0
    BROKEN = 1
    ERROR = 2
    UNDECIDED = 3


class Account(NamedTuple):
    """What one attack did and cost, over the rows it was shown. reason: what it raised, if it did."""

    name: str
    attempted: int
    broken: int
    errors: int
    queries: int
    forwards: int
    backwards: int
    seconds: float
    reason: str | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of some rows, row-aligned; `index` says which of the run's rows they are."""

    index: Tensor
    x: Tensor  # the saved inputs: x0 where nothing won
    answered: Tensor  # the model answered the clean input at all
    right: Tensor  # answered right on the clean input
    status: Tensor  # Status
    by: Tensor  # which attack broke it; -1 none, or the clean input already did
    failed: Tensor  # during which attack the model failed on it, or that attack raised; -1 none
    share: Tensor  # how often the saved input reached the goal when measured again
    distance: Tensor  # inf where nothing won
    shown: Tensor  # (N, A) bool: the row was left when the attack's turn came
    queries_by: Tensor  # (N, A), each one forward pass of the target
    forwards_by: Tensor  # (N, A), the target's and the surrogates'
    backwards_by: Tensor  # (N, A)
    blind: Tensor  # gradients that were 0 or not finite
    reasons: dict[int, str]  # by position in the run
    names: tuple[str, ...]  # of the attacks
    seconds: tuple[float, ...]  # CPU time of each attack
    crashed: dict[str, str]  # attacks that raised, and what

    @property
    def queries(self) -> Tensor:
        """Inputs shown to the target for each row: (N,)."""
        return self.queries_by.sum(1)

    @property
    def forwards(self) -> Tensor:
        """Forward passes for each row: one a query, and the surrogates': (N,)."""
        return self.forwards_by.sum(1)

    @property
    def backwards(self) -> Tensor:
        """Backward passes for each row: (N,)."""
        return self.backwards_by.sum(1)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Each attack's account."""
        return tuple(
            Account(
                name=name,
                attempted=int(self.shown[:, a].sum()),
                broken=int((self.by == a).sum()),
                errors=int((self.failed == a).sum()),
                queries=int(self.queries_by[:, a].sum()),
                forwards=int(self.forwards_by[:, a].sum()),
                backwards=int(self.backwards_by[:, a].sum()),
                seconds=self.seconds[a],
                reason=self.crashed.get(name),
            )
            for a, name in enumerate(self.names)
        )


_OF_THE_RUN = ("reasons", "names", "seconds", "crashed")


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Blocks' outcomes as one."""
    columns = [f.name for f in fields(Outcomes) if f.name not in _OF_THE_RUN]
    return Outcomes(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in columns},
        reasons={at: reason for part in parts for at, reason in part.reasons.items()},
        names=parts[0].names,
        seconds=tuple(map(sum, zip(*(part.seconds for part in parts), strict=True))),
        crashed={name: reason for part in reversed(parts) for name, reason in part.crashed.items()},
    )
