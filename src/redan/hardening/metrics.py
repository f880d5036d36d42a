"""What is recorded of a training: a line an epoch, and one for each alarm."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from torch import Tensor

from redan.hardening.objectives import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch, from 1. steps: since the training began. loss, clean, robust: means over its batches as they were
    trained on; accuracies are None where the objective asked for no such rows. held_out_clean, held_out_robust: of the
    validation, None without one. rate: the learning rate of its last step. best: whether its weights are the best so
    far. seconds: of training and validation together, by the clock."""

    number: int
    steps: int
    loss: float
    clean: float | None
    robust: float | None
    held_out_clean: float | None
    held_out_robust: float | None
    rate: float
    best: bool
    rows_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A collapse that was noticed after `step` steps. weak, strong: accuracies on the watched rows under the
    watch's two attacks. restored: the step whose state the training went back to, None where there was
    none. remedy: the inner attack that it goes on with, None where it goes on as it was."""

    epoch: int
    step: int
    weak: float
    strong: float
    restored: int | None
    remedy: str | None


Line: TypeAlias = Epoch | Alarm


def written(lines: Iterable[Line]) -> bytes:
    """JSON objects, one a line, each with the `event` it tells of."""
    return "".join(json.dumps({"event": type(line).__name__.lower(), **asdict(line)}) + "\n" for line in lines).encode()


def read(content: bytes) -> list[Line]:
    """Lines as they were `written`."""
    kinds: dict[str, type[Line]] = {"epoch": Epoch, "alarm": Alarm}
    objects: list[dict[str, Any]] = [json.loads(line) for line in content.splitlines()]
    return [kinds[each.pop("event")](**each) for each in objects]


@dataclass(slots=True)
class Tally:
    """The sums of an epoch that is under way."""

    rows: int = 0
    loss: float = 0.0
    clean: int = 0
    clean_rows: int = 0
    robust: int = 0
    robust_rows: int = 0
    seconds: float = 0.0

    def add(self, loss: Loss, value: float, rows: int) -> None:
        """One batch more."""
        self.rows += rows
        self.loss += value * rows
        self.clean, self.clean_rows = _counted(self.clean, self.clean_rows, loss.clean)
        self.robust, self.robust_rows = _counted(self.robust, self.robust_rows, loss.robust)

    @property
    def mean_loss(self) -> float:
        return self.loss / max(1, self.rows)

    @property
    def clean_share(self) -> float | None:
        return self.clean / self.clean_rows if self.clean_rows else None

    @property
    def robust_share(self) -> float | None:
        return self.robust / self.robust_rows if self.robust_rows else None


def _counted(hits: int, rows: int, found: Tensor | None) -> tuple[int, int]:
    return (hits, rows) if found is None else (hits + int(found.sum()), rows + len(found))
