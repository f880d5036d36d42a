"""The grid search of shifts and turns (Engstrom et al. 2019, arXiv:1712.02779, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.perturbations.spatial import Spatial
from redan.protocols import Cost, Labels
from redan.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialGrid:
    """Shows each row the set's transformations in a random order of its own, until one breaks it.

    queries: at most so many, without repeats. 774 are the paper's whole grid of 31 × 5 × 5 but the picture itself; 10
    is its worst-of-10 (drawn from the grid, not between its points). Decisions are all it needs.

    >>> SpatialGrid(queries=10).cost(10)
    Cost(queries=10, backwards=0)
    """

    queries: int = 774

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.queries, 0)

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Spatial]) -> None:
        grid = rows.within.grid(rows.x0)
        order = rows.draw.uniform((len(grid),)).argsort(dim=1, stable=True)
        for at in range(min(self.queries, len(grid))):
            rows, order = referee.survivors(rows, order)
            referee.reached(rows.within.transformed(rows.x0, grid[order[:, at]]), rows)
