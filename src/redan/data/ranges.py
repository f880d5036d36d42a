"""Each column's own range: what turns columns of different units into one box, in which ε is a share of the range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redan.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """The smallest and largest value of each entry of a row: low, high (…), in the data's own units."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> Ranges:
        """The ranges of rows (N, …). Raises DataError where a value is not finite.

        >>> Ranges.of(np.array([[1.0, 5.0], [3.0, 5.0]])).unit(np.array([[2.0, 5.0]])).tolist()
        [[0.5, 0.0]]
        """
        if not np.isfinite(rows).all():
            raise DataError("inputs hold NaN or infinity; clean them, or leave those rows out and say so")
        return cls(rows.min(0).astype(np.float64), rows.max(0).astype(np.float64))

    @property
    def width(self) -> NDArray[np.float64]:
        """high - low: (…). A column that never changes has 0, and no attacker can change it."""
        return self.high - self.low

    @property
    def outermost(self) -> tuple[float, float]:
        """The smallest and the largest value of any column; a little more where they are one."""
        low, high = float(self.low.min()), float(self.high.max())
        return (low, high) if low < high else (low, low + 1)

    def unit(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Rows (N, …) with each column on [0, 1]."""
        width = np.where(self.width > 0, self.width, 1)
        return ((rows - self.low) / width).clip(0, 1)
