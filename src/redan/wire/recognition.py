"""What an endpoint does to its scores before it tells them: rounding, and leaving all but the best few out."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ENOUGH = 20  # numbers that say something: neither 0 nor 1
_DIGITS = 6  # rounded to more is not told from not rounded


@dataclass(frozen=True, slots=True)
class Recognised:
    """digits: decimals that scores are rounded to; top_k: classes that an answer tells. None: not seen to be so."""

    digits: int | None = None
    top_k: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The same in sentences."""
        rounded = f"the endpoint rounds its scores to {self.digits} decimals, so small changes are not seen"
        few = f"the endpoint tells the {self.top_k} best classes, so the scores of the others are floors"
        return (*([rounded] if self.digits is not None else []), *([few] if self.top_k is not None else []))


class Seen:
    """What is found from the answers so far. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digits = 0
        self._count = 0
        self._most_shown = 0
        self.columns: int | None = None
        """Of the first answer: 0 for one number a row."""

    def look(self, answers: NDArray[np.float64]) -> str | None:
        """Take in answers (N,) or (N, K); a reason where they have another form than the first ones."""
        columns = answers.shape[1] if answers.ndim == 2 else 0
        with self._lock:
            if self.columns is None:
                self.columns = columns
            if columns != self.columns:
                return f"{_form(columns)} where the first answer had {_form(self.columns)}"
            if self._digits > _DIGITS and self._most_shown == columns:
                return None  # nothing is left to be found
            missing = np.isnan(answers)
            self._most_shown = max(self._most_shown, int((~missing).sum(-1).max()) if columns else 0)
            telling = answers[~missing & (answers != 0) & (answers != 1)]
            self._count += len(telling)
            while self._digits <= _DIGITS and not _rounded(telling, self._digits):
                self._digits += 1
        return None

    @property
    def recognised(self) -> Recognised:
        """What can be said by now."""
        with self._lock:
            rounded = self._count >= _ENOUGH and 1 <= self._digits <= _DIGITS
            few = self.columns is not None and self._most_shown < self.columns
            return Recognised(self._digits if rounded else None, self._most_shown if few else None)


def _form(columns: int) -> str:
    return f"{columns} numbers a row" if columns else "a single number a row"


def _rounded(numbers: NDArray[np.float64], digits: int) -> bool:
    """Whether all are so, up to what 32-bit numbers can hold."""
    return bool((np.abs(np.round(numbers, digits) - numbers) <= 1e-12 + 1e-7 * np.abs(numbers)).all())
