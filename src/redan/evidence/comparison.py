"""A run beside an earlier one, on the same rows: is the model worse than the last release, beyond noise?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from redan.errors import EvidenceError
from redan.evidence.paired import Change, Comparison, compare
from redan.evidence.statistics import holm
from redan.evidence.summary import Summary
from redan.evidence.tally import Tally


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of two runs.

    unjudged: rows that both took and one could not judge; only_before, only_now: rows that one took. They are not
    compared. change: at the level that Holm's procedure leaves it among all metrics that were compared.
    """

    metric: str
    against: str | None
    rows: Comparison
    unjudged: int
    only_before: int
    only_now: int
    p_value: float
    level: float
    change: Change

    @property
    def worse(self) -> bool:
        """Whether fewer rows hold than before, beyond noise."""
        return self.change is Change.WORSE


def compared(before: Summary, now: Summary) -> tuple[Compared, ...]:
    """Clean accuracy and robust accuracy against each attacker that both runs assessed, McNemar's test each.

    Raises EvidenceError if the runs have no attacker in common, no row in common, or an attacker who may do
    something else in one of them.
    """
    shared = [name for name in now.tallies if name in before.tallies]
    if not shared:
        raise EvidenceError("the two runs have no attacker in common, so there is nothing to compare")
    for name in shared:
        then, today = before.tallies[name].head, now.tallies[name].head
        if (then.change, then.knowledge) != (today.change, today.knowledge):
            raise EvidenceError(
                f"'{name}' had {then.change} and {then.knowledge} before and has {today.change} and "
                f"{today.knowledge} now, so the two runs cannot be compared; run the baseline again"
            )
    metrics: list[tuple[str, str | None, Callable[[Tally, int], Iterator[tuple[int, bool]]]]] = [
        ("clean_accuracy", None, Tally.right),
        *(("robust_accuracy", name, Tally.held) for name in shared),
    ]
    found = [
        compare(*(_named(run, judged, attacker or shared[0]) for run in (before, now)))
        for _, attacker, judged in metrics
    ]
    if not all(rows.rows for rows in found):
        raise EvidenceError("the two runs have no judged row in common; give both the same data, rows and seed")
    earlier, later = (set(run.head.ids[: run.taken()]) for run in (before, now))
    levels = holm([rows.p_worse for rows in found], 1 - now.head.confidence).levels
    return tuple(
        Compared(
            metric=metric,
            against=attacker,
            rows=rows,
            unjudged=len(earlier & later) - rows.rows,
            only_before=len(earlier - later),
            only_now=len(later - earlier),
            p_value=rows.p_worse,
            level=level,
            change=rows.change(level),
        )
        for (metric, attacker, _), rows, level in zip(metrics, found, levels, strict=True)
    )


def _named(
    run: Summary, judged: Callable[[Tally, int], Iterator[tuple[int, bool]]], attacker: str
) -> Iterator[tuple[str, bool]]:
    for row, held in judged(run.tallies[attacker], run.taken()):
        yield run.head.ids[row], held
