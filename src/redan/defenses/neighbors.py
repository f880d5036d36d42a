"""The nearest other rows of each row, exactly, in blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redan.defenses.suspicion import Numbers

_BLOCK_NUMBERS = 2**22


def nearest(rows: Numbers, k: int, labels: NDArray[np.int64] | None = None) -> tuple[Numbers, NDArray[np.int64]]:
    """Euclidean distances (N, k), ascending, and positions (N, k) of the k nearest other rows of rows (N, D).

    labels: (N,); only rows of another label count. Fewer than k: distance inf, position -1. Candidates are found by
    |a|² + |b|² - 2ab, and their distances computed again by subtraction, so that copies are at 0.

    >>> nearest(np.array([[0.0], [1.0], [3.0]]), 1)[0].ravel().tolist()
    [1.0, 1.0, 2.0]
    """
    n = len(rows)
    distances = np.full((n, k), np.inf)
    positions = np.full((n, k), -1, dtype=np.int64)
    rows = rows - rows.mean(0) if n else rows  # less is canceled near the origin
    squares = np.einsum("nd,nd->n", rows, rows)
    wanted = min(k, n - 1)
    if wanted < 1:
        return distances, positions
    block = max(1, _BLOCK_NUMBERS // max(n, rows.shape[1] * wanted))
    for start in range(0, n, block):
        part = slice(start, min(n, start + block))
        size = part.stop - part.start
        gap = squares[part, None] + squares - 2 * rows[part] @ rows.T
        gap[np.arange(size), np.arange(part.start, part.stop)] = np.inf
        if labels is not None:
            gap[labels[part, None] == labels] = np.inf
        near = np.argpartition(gap, wanted - 1, axis=1)[:, :wanted]
        exact = np.linalg.norm(rows[part, None] - rows[near], axis=2)
        exact[np.isinf(np.take_along_axis(gap, near, 1))] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")
        distances[part, :wanted] = np.take_along_axis(exact, order, 1)
        positions[part, :wanted] = np.take_along_axis(near, order, 1)
    positions[np.isinf(distances)] = -1
    return distances, positions
