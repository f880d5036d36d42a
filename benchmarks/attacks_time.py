"""CPU time of our attack beside a peer's, in turn in every repeat, each in the setting that was chosen for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import harness
from attacks_cells import Contest
from attacks_run import CACHE, OURS, OVER, Cell, Lab, Row, Shot, cached
from optimality import median

REPEATS, FEWEST = 7, 3
LONG = 60.0  # CPU seconds of one run, above which it is not repeated; of a third of it the fewest repeats are enough
NAMED = {"cw-l2": "adv_lib", "deepfool-l2": "adv_lib", "deepfool-linf": "adv_lib"}  # by the issue


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Ours and one peer, on one model."""

    contest: Contest
    model: str
    peer: str

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """Ours and theirs."""
        return tuple(  # type: ignore[return-value]  # mypy does not count a generator's items
            Cell(contest=self.contest, contestant=name, model=self.model) for name in (OURS, self.peer)
        )

    @property
    def path(self) -> Path:
        return CACHE / f"{self.contest.name}.{OURS}-{self.peer}.{self.model}.time.json"

    def cached(self) -> Row | None:
        """What was measured before, of these settings and this code, both sides in every repeat."""
        found = harness.cached(self.path, [cell.digest for cell in self.cells])
        whole = found is not None and len(found["ours_cpu_seconds"]) == len(found["peer_cpu_seconds"])
        return found if whole else None


def against(contest: Contest, rows: Mapping[str, Row]) -> list[str]:
    """The strongest peer in the budget, the named one, or nobody where there is no attack of ours."""
    if OURS not in rows:
        return []
    fair = {name: row for name, row in rows.items() if name != OURS and within_budget(row)}
    if not fair:
        return []

    def weakness(name: str) -> tuple[float, float, float]:
        row = fair[name]
        far = median(row["distance"]) if contest.nearest else 0.0
        return far, -sum(row["broken"]), row["cpu_seconds"] / row["passes"]

    best = min(fair, key=weakness)
    named = NAMED.get(contest.name, best)
    return [best] if named == best or named not in fair else [best, named]


def within_budget(row: Row) -> bool:
    """Whether a cell's run ended, in the budget."""
    return "stopped" not in row and row["passes"] <= OVER * row["budget"]


def timed(lab: Lab, duel: Duel) -> Row:
    """CPU seconds and passes a row of both sides, one entry a repeat."""
    spent: dict[str, list[float]] = {OURS: [], duel.peer: []}
    passes: dict[str, float] = {}
    rows = {cell.contestant: cached(cell) for cell in duel.cells}
    for repeat in range(REPEATS):
        shots: dict[str, Shot] = {}
        for cell in duel.cells[:: 1 if repeat % 2 == 0 else -1]:
            row = rows[cell.contestant]
            assert row is not None
            shot = lab.shoot(cell, row["setting"], "reported")
            if not isinstance(shot, str):
                shots[cell.contestant] = shot
        if len(shots) == len(duel.cells):  # a repeat in which one of them ended early says nothing
            for name, shot in shots.items():
                spent[name].append(shot.cpu_seconds)
                passes[name] = shot.passes
        longest = max(max(times, default=math.inf) for times in spent.values())
        if longest > (LONG if repeat + 1 < FEWEST else LONG / FEWEST):
            break
    row = {"digest": [cell.digest for cell in duel.cells], "kind": "time", "attack": duel.contest.attack,
           "norm": duel.contest.norm, "model": duel.model, "peer": duel.peer, "ours_cpu_seconds": spent[OURS],
           "peer_cpu_seconds": spent[duel.peer], "ours_passes": passes.get(OURS, math.nan),
           "peer_passes": passes.get(duel.peer, math.nan)}  # fmt: skip
    harness.keep(duel.path, row)
    return row
