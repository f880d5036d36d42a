"""One attacker's rows on a model without its defenses, and what the served one does with inputs found there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from redan.evidence.defended import DefendedPart, shown
from redan.evidence.gain import Held, bounds, gained
from redan.evidence.log import AttackerHead, BlockLine, RightAnswer, RowLine
from redan.evidence.tally import Flags, Tally

__all__ = ["DefendedTally"]


class DefendedTally:
    """What is known of each row of the model named `beside`, and of what was found there."""

    def __init__(self, beside: str, head: AttackerHead, labels: Sequence[RightAnswer], classes: Sequence[str]) -> None:
        self.beside = beside
        self._bare = Tally(head, labels, classes)
        self._asked, self._fooled, self._failed = (np.zeros(len(labels), dtype=bool) for _ in range(3))

    def see(self, line: BlockLine | RowLine) -> None:
        """Count a line that is about this comparison."""
        match line:
            case BlockLine(beside=str()):
                self._bare.block(line)
            case RowLine(beside=str()):
                self._bare.row(line)
            case RowLine(retry=str(name)) if name == shown(self.beside):
                self._asked[line.row] = line.status != "undecided"
                self._fooled[line.row], self._failed[line.row] = line.status == "broken", line.status == "error"

    def is_about(self, line: BlockLine | RowLine) -> bool:
        """Whether a line is about this comparison."""
        return line.beside == self.beside or (isinstance(line, RowLine) and line.retry == shown(self.beside))

    def pending(self, rows: int) -> list[int]:
        """Those of the first rows that are not attacked yet, or whose input was not shown to the served model."""
        broken = np.zeros(rows, dtype=bool)
        broken[list(self._bare.broken(rows))] = True
        return [int(row) for row in np.flatnonzero(~self._bare.finished[:rows] | (broken & ~self._asked[:rows]))]

    def digest(self, rows: int) -> bytes:
        """sha256 of what was found of the first rows."""
        return self._bare.digest(rows)

    @property
    def passes(self) -> int:
        """Forward and backward passes so far."""
        return self._bare.passes

    @property
    def finished(self) -> int:
        """Rows that are attacked."""
        return int(self._bare.finished.sum())

    def part(self, served: Tally, rows: int, confidence: float) -> DefendedPart | None:
        """The comparison of the first rows; None where nothing was attacked."""
        if not self._bare.seen[:rows].any():
            return None
        level = 1 - confidence
        bare, defended = _fates(self._bare, rows), _fates(served, rows)
        right, held = _right(served, rows), Held(bare.held.tolist(), bare.open.tolist())
        now = Held(defended.held.tolist(), defended.open.tolist())
        low, high = bounds(held.held, now.held, level)
        return DefendedPart(
            beside=self.beside,
            rows=rows,
            clean_beside=int(_right(self._bare, rows).sum()),
            clean=int(right.sum()),
            held_beside=int(bare.held.sum()),
            naive=int((right & ~self._fooled[:rows] & ~self._failed[:rows]).sum()),
            held=int(defended.held.sum()),
            open=int((bare.open | defended.open).sum()),
            low=low,
            high=high,
            verdict=gained(held, now, level=level),
        )


class _Fates(NamedTuple):
    """Rows that hold, and rows that were not judged: failed, cut off, or never reached: (rows,) bool each."""

    held: Flags
    open: Flags


def _fates(tally: Tally, rows: int) -> _Fates:
    held, opened = np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool)
    for row, holds in tally.held(rows):
        held[row], opened[row] = holds, False
    return _Fates(held, opened)


def _right(tally: Tally, rows: int) -> Flags:
    found = np.zeros(rows, dtype=bool)
    found[[row for row, is_right in tally.right(rows) if is_right]] = True
    return found
