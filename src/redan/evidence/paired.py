"""Two releases on the same rows: McNemar's exact test of the rows whose answer changed.

Rows that both releases hold, or that both lose, say nothing of a difference; of the rest, the discordant rows, either
release would lose half if they were equal (McNemar 1947, Psychometrika 12:153; the binomial, not its approximation).

>>> found = compare([("a", True), ("b", True), ("c", False)], [("a", True), ("b", False), ("d", True)])
>>> (found.rows, found.lost, found.won, found.only_before, found.only_now)
(2, 1, 0, 1, 1)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from redan.errors import EvidenceError
from redan.evidence.statistics import check_share, lower_bound, p_at_least, upper_bound

__all__ = ["Change", "Comparison", "compare"]


class Change(StrEnum):
    """What a comparison shows."""

    WORSE = "worse"
    """Fewer rows hold than before, beyond noise."""
    NOT_WORSE = "not worse"
    """The loss, if there is any, is no larger than the margin."""
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The rows of two runs, matched by id: how many held in both, in either, in none.

    >>> Comparison(rows=1000, both=600, lost=30, won=10).change(0.05)
    <Change.WORSE: 'worse'>
    """

    rows: int
    """Rows that both runs have."""
    both: int
    """Held before and now."""
    lost: int
    """Held before, broken now."""
    won: int
    """Broken before, held now."""
    only_before: int = 0
    """Rows that only the earlier run has: they are not compared."""
    only_now: int = 0

    @property
    def difference(self) -> float | None:
        """The rate that holds now less the rate that held before; None of no rows."""
        return (self.won - self.lost) / self.rows if self.rows else None

    @property
    def p_worse(self) -> float:
        """The p-value against "not worse": P[X ≥ lost] for X ~ Binomial(lost + won, ½); of several, for `holm`."""
        return p_at_least(self.lost, self.lost + self.won, 0.5)

    def share_lost(self, level: float) -> tuple[float, float]:
        """Bounds, each missed with chance `level`, of the share of discordant rows that were lost: ½ is no change.

        Exact given the number of discordant rows (Clopper–Pearson). A bound p is the odds p / (1 − p) of a loss.
        """
        discordant = self.lost + self.won
        return lower_bound(self.lost, discordant, level), upper_bound(self.lost, discordant, level)

    def most_lost(self, level: float) -> float:
        """The upper bound of the loss, rate before less rate now: the true one is larger with chance `level` at most.

        Of rows lost and rows won each has an exact bound at half the level, so it holds without a condition.
        """
        check_share("level", level)
        return upper_bound(self.lost, self.rows, level / 2) - lower_bound(self.won, self.rows, level / 2)

    def change(self, level: float, margin: float = 0.0) -> Change:
        """What is shown, each wrongly with chance `level` at most. margin: an accepted loss, as a share of the rows."""
        if self.most_lost(level) <= margin:
            return Change.NOT_WORSE
        return Change.WORSE if self.p_worse <= level else Change.INCONCLUSIVE


def compare(before: Iterable[tuple[Hashable, bool]], now: Iterable[tuple[Hashable, bool]]) -> Comparison:
    """Match two runs by row id; each entry is an id and whether the row held.

    A row that is in one of them only is counted and not compared. Raises EvidenceError for an id that comes twice.
    """
    earlier, later = _by_id(before), _by_id(now)
    pairs = [(held, later[row]) for row, held in earlier.items() if row in later]
    return Comparison(
        rows=len(pairs),
        both=pairs.count((True, True)),
        lost=pairs.count((True, False)),
        won=pairs.count((False, True)),
        only_before=len(earlier) - len(pairs),
        only_now=len(later) - len(pairs),
    )


def _by_id(rows: Iterable[tuple[Hashable, bool]]) -> dict[Hashable, bool]:
    found: dict[Hashable, bool] = {}
    for row, held in rows:
        if row in found:
            raise EvidenceError(f"row {row} comes twice in one run, so it cannot be matched; give each row its own id")
        found[row] = bool(held)
    return found
