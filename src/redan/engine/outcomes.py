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
    """What one attack did and cost, over the rows it was shown."""

    name: str
    attempted: int
    broken: int
    errors: int
    queries: int
    forwards: int
    backwards: int
    seconds: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of some rows, row-aligned; `index` says which of the run's rows they are."""

    index: Tensor
    x: Tensor  # the saved inputs: x0 where nothing won
    answered: Tensor  # the model answered the clean input at all
    right: Tensor  # answered right on the clean input
    status: Tensor  # Status
    by: Tensor  # which attack broke it; -1 none, or the clean input already did
    share: Tensor  # how often the saved input reached the goal when measured again
    distance: Tensor  # inf where nothing won
    queries: Tensor
    forwards: Tensor
    backwards: Tensor
    blind: Tensor  # gradients that were 0 or not finite
    reasons: dict[int, str]  # by position in the run
    accounts: tuple[Account, ...]


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Blocks' outcomes as one."""
    columns = [f.name for f in fields(Outcomes) if f.name not in ("reasons", "accounts")]
    merged = {name: torch.cat([getattr(part, name) for part in parts]) for name in columns}
    accounts = tuple(summed(part) for part in zip(*(p.accounts for p in parts), strict=True))
    reasons = {at: reason for part in parts for at, reason in part.reasons.items()}
    return Outcomes(**merged, reasons=reasons, accounts=accounts)


def summed(accounts: Sequence[Account]) -> Account:
    """One attack's account over several blocks."""
    return Account(
        name=accounts[0].name,
        attempted=sum(a.attempted for a in accounts),
        broken=sum(a.broken for a in accounts),
        errors=sum(a.errors for a in accounts),
        queries=sum(a.queries for a in accounts),
        forwards=sum(a.forwards for a in accounts),
        backwards=sum(a.backwards for a in accounts),
        seconds=sum(a.seconds for a in accounts),
        reason=next((a.reason for a in accounts if a.reason), None),
    )
