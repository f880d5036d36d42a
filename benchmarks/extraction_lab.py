"""What the parts of `make bench-extraction` share: cells that are kept, their queue, and judges of copies.

A cell is one measured row, kept as JSON under its name and made anew when the code that its part measures changed.
Each cell computes with one thread in a process of its own.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch

import harness

KEPT = harness.RESULTS / "cells" / "extraction"

Row = dict[str, Any]


class Cell(NamedTuple):
    """One measurement. name: unique in its part. work: a function of a module with its arguments, for a process."""

    name: str
    work: Callable[..., Row]
    arguments: Mapping[str, Any]


class Part(Protocol):
    """One module of the benchmark: `extraction_trees`, for example."""

    @property
    def MEASURES(self) -> Sequence[str]:  # a module's constant
        """Files and folders of code whose change makes its cells stale, relative to the repository."""
        ...

    def cells(self) -> Sequence[Cell]: ...
    def claims(self, rows: Mapping[str, Row]) -> list[harness.Claim]: ...
    def table(self, rows: Mapping[str, Row]) -> str: ...


def measured(
    part: Part, *, folder: str, workers: int = 1, seconds: float = float("inf"), only: str = ""
) -> dict[str, Row]:
    """The rows of a part's cells by name, kept ones as they are; no cell is begun after so many seconds.

    Each row gets `cpu_seconds`. A cell that raises ends the run, what is measured stays.
    """
    digest = harness.sources(part.MEASURES)
    kept = {cell.name: harness.cached(KEPT / folder / f"{cell.name}.json", digest) for cell in part.cells()}
    found = {name: row for name, row in kept.items() if row is not None}
    left = [cell for cell in part.cells() if cell.name not in found and cell.name.startswith(only)]
    end = time.monotonic() + seconds
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(_timed, cell.work, dict(cell.arguments), end): cell for cell in left}
        for done in as_completed(running):
            cell, told = running[done], done.result()
            if told is None:
                continue
            row = {"digest": digest, "cell": cell.name, **told}
            harness.keep(KEPT / folder / f"{cell.name}.json", row)
            found[cell.name] = row
            print(f"{folder}/{cell.name}: {row['cpu_seconds']:.1f} CPU s", flush=True)
    return found


def _timed(work: Callable[..., Row], arguments: dict[str, Any], end: float) -> Row | None:
    if time.monotonic() > end:  # one clock for all processes of a machine
        return None
    torch.set_num_threads(1)
    begun = time.process_time()
    return {**work(**arguments), "cpu_seconds": round(time.process_time() - begun, 2)}


def main(part: Part, folder: str, arguments: Iterable[str] | None = None) -> None:
    """The command line of a part: measure what is missing, then print its table and claims if all is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1, help="cells at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so many seconds")
    parser.add_argument("--only", default="", help="cells whose name begins so")
    told = parser.parse_args(None if arguments is None else list(arguments))
    rows = measured(part, folder=folder, workers=told.workers, seconds=told.seconds, only=told.only)
    missing = [cell.name for cell in part.cells() if cell.name not in rows]
    if missing:
        print(f"{len(missing)} cells are missing, such as {missing[0]}")
        return
    harness.show(part.table(rows), part.claims(rows))
