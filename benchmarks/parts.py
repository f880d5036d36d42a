"""A benchmark in parts: cells that are kept, their queue, and the result that all parts together make.

A cell is one measured row, kept as JSON under `benchmarks/results/cells/BENCHMARK/PART` by its name, and made anew when
the code that its part measures changed. Each cell computes with one thread in a process of its own, so its figures do
not depend on how many run at a time.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch

import harness

Row = dict[str, Any]


class Cell(NamedTuple):
    """One measurement. name: unique in its part. work: a function of a module with its arguments, for a process."""

    name: str
    work: Callable[..., Row]
    arguments: Mapping[str, Any]


class Part(Protocol):
    """One module of a benchmark: `defenses_training`, for example."""

    @property
    def MEASURES(self) -> Sequence[str]:  # a module's constant
        """Files and folders of code whose change makes its cells stale, relative to the repository."""
        ...

    def cells(self) -> Sequence[Any]: ...  # of `Cell`, or of a tuple like it
    def claims(self, rows: Mapping[str, Row]) -> list[harness.Claim]: ...
    def table(self, rows: Mapping[str, Row]) -> str: ...


def kept(part: Part, folder: str) -> dict[str, Row]:
    """The rows of a part's cells that are measured already, under the code as it is. folder: `defenses/training`."""
    digest = harness.sources(part.MEASURES)
    found = {cell.name: harness.cached(_path(folder, cell.name), digest) for cell in part.cells()}
    return {name: row for name, row in found.items() if row is not None}


def measured(
    part: Part, *, folder: str, workers: int = 1, seconds: float = float("inf"), only: str = ""
) -> dict[str, Row]:
    """The rows of a part's cells by name, kept ones as they are; no cell is begun after so many seconds.

    Each row gets `cpu_seconds`. A cell that raises ends the run, what is measured stays.
    """
    digest = harness.sources(part.MEASURES)
    found = kept(part, folder)
    left = [cell for cell in part.cells() if cell.name not in found and cell.name.startswith(only)]
    end = time.monotonic() + seconds
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(_timed, cell.work, dict(cell.arguments), end): cell for cell in left}
        for done in as_completed(running):
            cell, told = running[done], done.result()
            if told is None:
                continue
            row = {"digest": digest, "cell": cell.name, **told}
            harness.keep(_path(folder, cell.name), row)
            found[cell.name] = row
            print(f"{folder}/{cell.name}: {row['cpu_seconds']:.1f} CPU s", flush=True)
    return found


def _path(folder: str, cell: str) -> Path:
    return harness.RESULTS / "cells" / folder / f"{cell}.json"


def _timed(work: Callable[..., Row], arguments: dict[str, Any], end: float) -> Row | None:
    if time.monotonic() > end:  # one clock for all processes of a machine
        return None
    torch.set_num_threads(1)
    begun = time.process_time()
    return {**work(**arguments), "cpu_seconds": round(time.process_time() - begun, 2)}


def _missing(part: Part, rows: Mapping[str, Row]) -> list[str]:
    return [cell.name for cell in part.cells() if cell.name not in rows]


def main(part: Part, folder: str, arguments: Iterable[str] | None = None) -> None:
    """The command line of a part: measure what is missing, then print its table and claims if all is there."""
    parser = _options()
    parser.add_argument("--only", default="", help="cells whose name begins so")
    told = parser.parse_args(None if arguments is None else list(arguments))
    rows = measured(part, folder=folder, workers=told.workers, seconds=told.seconds, only=told.only)
    if missing := _missing(part, rows):
        print(f"{len(missing)} cells are missing, such as {missing[0]}")
        return
    harness.show(part.table(rows), part.claims(rows))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so many seconds")
    return parser


class Bench(NamedTuple):
    """All parts of a benchmark. parts: each by its folder's name, with the title of its tables, in the order of claims.

    setup: a script beside this file that brings the data, run before anything is measured.
    """

    name: str
    parts: Mapping[str, tuple[Part, str]]
    setup: str = ""

    def by_part(self, rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
        """The rows of a result by part and cell."""
        return {name: {row["cell"]: row for row in rows if row["part"] == name} for name in self.parts}

    def claims(self, rows: Sequence[Row]) -> list[harness.Claim]:
        """Every part's claims."""
        found = self.by_part(rows)
        return [claim for name, (part, _) in self.parts.items() for claim in part.claims(found[name])]

    def table(self, rows: Sequence[Row]) -> str:
        """Every part's tables."""
        found = self.by_part(rows)
        return "\n\n".join(
            f"### {title}\n\n{_page(part.table(found[name]))}" for name, (part, title) in self.parts.items()
        )

    def main(self, claims: Callable[[Sequence[Row]], list[harness.Claim]] | None = None) -> int:
        """The command line of the whole: 0 if the result was written, 1 if cells are missing.

        claims: of all rows, where there are more than those of the parts.
        """
        parser = _options()
        parser.add_argument("--report", action="store_true", help="measure nothing")
        told = parser.parse_args()
        if self.setup and not told.report:
            subprocess.run(["bash", str(Path(__file__).with_name(self.setup)), sys.executable], check=True)
        end = time.monotonic() + told.seconds
        rows = {}
        for name, (part, _) in self.parts.items():
            folder = f"{self.name}/{name}"
            rows[name] = (
                kept(part, folder)
                if told.report
                else measured(part, folder=folder, workers=told.workers, seconds=end - time.monotonic())
            )
        missing = [f"{name}/{cell}" for name, (part, _) in self.parts.items() for cell in _missing(part, rows[name])]
        if missing:
            print(f"{len(missing)} cells are missing, such as {missing[0]}", file=sys.stderr)
            return 1
        flat: list[Row] = [{"part": name, **row} for name, found in rows.items() for row in found.values()]
        code = {path for part, _ in self.parts.values() for path in part.MEASURES}
        harness.write(
            self.name,
            rows=flat,
            claims=(claims or self.claims)(flat),
            environment=_measured_on(self.name) if told.report else harness.environment(),
            measures=sorted({*code, f"benchmarks/{self.name}.py"}),
            tables=lambda: self.table(flat),
        )
        return 0


def _measured_on(name: str) -> dict[str, str]:
    """What the figures of a result depend on that is written again from kept cells: where those were measured."""
    before = harness.RESULTS / f"{name}.json"
    found: dict[str, str] = json.loads(before.read_text())["environment"] if before.exists() else harness.environment()
    return found


def _page(table: str) -> str:
    """A table as a page shows it: one that is drawn with spaces stays as it is."""
    return table if "|" in table else f"```\n{table}\n```"
