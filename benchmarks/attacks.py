"""Every attack of redan beside every public implementation of it (`make bench-attacks`).

Each contestant runs in its best of up to five settings (`attacks_cells.py`, `attacks_ours.py`), chosen on 64 other test
images; all of them attack the same images, those of 256 that the model has right, under one budget of forward plus
backward passes, counted by a wrapper around the model. `judge.py` decides success and measures distances for all;
`judge_spatial.py` does so where images are turned and shifted.

    python benchmarks/attacks.py --only ddn,fmn --model natural    measure these cells, print what is there
    python benchmarks/attacks.py --jobs 2                          measure all cells, in two processes
    python benchmarks/attacks.py --report                          measure nothing; write the result if all is there

Cells that are measured stay in benchmarks/cache/attacks, so that a killed run goes on where it was.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import torch
import worker

import attacks_claims
import attacks_ours
import harness
import redan
from attacks_cells import CONTESTS, Contest
from attacks_run import CACHE, CODE, OURS, Cell, Lab, Row, cached, measured
from attacks_time import Duel, against, timed

MODELS = ("natural", "robust", "residual")
MEASURES = (
    *CODE,
    "benchmarks/attacks_cells.py",
    "benchmarks/attacks_ours.py",
    "benchmarks/attacks_run.py",
    "benchmarks/attacks_time.py",
    "benchmarks/optimality.py",
    "benchmarks/judge.py",
    "benchmarks/judge_spatial.py",
)


def contestants(contest: Contest) -> Iterator[str]:
    """redan, where it has the attack, and the peers."""
    if attacks_ours.candidates(contest):
        yield OURS
    yield from contest.peers


def cells(contests: Sequence[Contest], models: Sequence[str]) -> list[Cell]:
    """All that is to be measured, cheap models first."""
    return [
        Cell(contest=contest, contestant=name, model=model)
        for model in models
        for contest in contests
        for name in contestants(contest)
    ]


def duels(contests: Sequence[Contest], models: Sequence[str]) -> list[Duel]:
    """Ours against the best peer, and against those that an issue names; only where all cells are measured."""
    found = []
    for model in models:
        for contest in contests:
            rows = {name: cached(Cell(contest=contest, contestant=name, model=model)) for name in contestants(contest)}
            whole = {name: row for name, row in rows.items() if row is not None}
            if len(whole) == len(rows):
                found += [Duel(contest=contest, model=model, peer=peer) for peer in against(contest, whole)]
    return found


def measure(contests: Sequence[Contest], models: Sequence[str], share: tuple[int, int], until: float) -> None:
    """Every cell of this share that is not there yet, then every duel; ends after `until`, between two cells."""
    torch.set_num_threads(1)
    worker.keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            todo = [cell for cell in cells(contests, models) if cached(cell) is None][share[0] :: share[1]]
            for at, cell in enumerate(todo):
                if time.monotonic() > until:
                    return
                row = measured(lab, cell)
                _tell(f"[{at + 1}/{len(todo)}] {cell.model} {cell.contest.name} {cell.contestant}", row)
            fights = [duel for duel in duels(contests, models) if duel.cached() is None][share[0] :: share[1]]
            for at, duel in enumerate(fights):
                if time.monotonic() > until:
                    return
                timed(lab, duel)
                _tell(f"[{at + 1}/{len(fights)}] {duel.model} {duel.contest.name} against {duel.peer}", {})
        finally:
            lab.close()


def _tell(what: str, row: Row) -> None:
    found = row.get("stopped") or (f"{sum(row['broken'])} broken in {row['passes']:.0f} passes" if row else "timed")
    print(f"{what}: {found}", file=sys.stderr, flush=True)


def gathered(contests: Sequence[Contest], models: Sequence[str]) -> tuple[list[Row], int]:
    """The rows of the cells and duels that are there, and how many are missing."""
    rows = [cached(cell) for cell in cells(contests, models)]
    times = [duel.cached() for duel in duels(contests, models)]
    there = [row for row in (*rows, *times) if row is not None]
    return [attacks_claims.compact(row) for row in there], len(rows) + len(times) - len(there)


def main() -> None:
    """Measure what is asked for, then print what is there; write the result when nothing is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="attacks or contests, by commas: ddn,fmn-l2")
    parser.add_argument("--model", default=",".join(MODELS), help="by commas, of natural, robust and residual")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the cells")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no cell after so many")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--share", default="0/1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names, models = options.only.split(",") if options.only else [], options.model.split(",")
    contests = [c for c in CONTESTS if not names or c.attack in names or c.name in names]
    until = time.monotonic() + options.seconds
    if options.jobs > 1 and not options.report:
        command = [sys.executable, __file__, "--only", options.only, "--model", options.model]
        command += ["--seconds", str(options.seconds)]
        parts = [subprocess.Popen([*command, "--share", f"{at}/{options.jobs}"]) for at in range(options.jobs)]
        for part in parts:
            part.wait()
    if not options.report:  # after two processes, what depends on cells that the other one was still measuring
        at, of = (int(part) for part in options.share.split("/"))
        measure(contests, models, (at, of), until)
        if of > 1:
            return
    rows, missing = gathered(contests, models)
    if missing or len(contests) < len(CONTESTS) or len(models) < len(MODELS):
        print(attacks_claims.table(rows))
        for claim in attacks_claims.claims(rows):
            print(f"{'met   ' if claim.met else 'MISSED'} {claim.id}: {claim.claim}: {claim.measured}")
        print(f"{missing} of these cells are not measured yet; no result is written from a part (cells: {CACHE})")
        return
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        versions = lab.versions()
        lab.close()
    harness.write(
        "attacks",
        rows=rows,
        claims=attacks_claims.claims(rows),
        environment=harness.environment(redan=redan.__version__, **versions),
        measures=MEASURES,
        tables=lambda: attacks_claims.table(rows),
    )


if __name__ == "__main__":
    main()
