"""Copies of models through their answers, from exact numbers to learning by example (`make bench-extraction`).

    equations   logistic regressions by equation solving: exact answers, rounded ones, labels alone
    trees       decision trees by their paths, through confidences, unique leaves and plain probabilities
    relu        networks with one hidden layer from raw outputs
    knockoff    Fashion-MNIST by Knockoff Nets, Copycat and Jacobian augmentation, beside ART; attacks that carry over
    http        an assessment that copies a model through HTTP and is killed

Each part can be run by itself (`python benchmarks/extraction_trees.py --help`). Cells are kept under
`benchmarks/results/cells/extraction`, and only those are measured whose code has changed.

    python benchmarks/extraction.py --seconds 3000   begin no cell after so many seconds; what is measured stays
    python benchmarks/extraction.py --report         measure nothing; write the result if all is there
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import extraction_equations
import extraction_http
import extraction_knockoff
import extraction_lab as lab  # first: it sets the number of threads
import extraction_relu
import extraction_trees
import harness

PARTS: dict[str, tuple[lab.Part, str]] = {
    "equations": (extraction_equations, "Logistic regressions, by equations"),
    "trees": (extraction_trees, "Decision trees, by paths"),
    "relu": (extraction_relu, "Networks with one hidden layer, by their kinks"),
    "knockoff": (extraction_knockoff, "Networks, by example"),
    "http": (extraction_http, "Through HTTP, and killed"),
}
"""Each part and the title of its tables, in the order of their claims' letters: extraction.a, extraction.b, …"""


def by_part(rows: Sequence[lab.Row]) -> dict[str, dict[str, lab.Row]]:
    """The rows of a result by part and cell."""
    return {name: {row["cell"]: row for row in rows if row["part"] == name} for name in PARTS}


def claims(rows: Sequence[lab.Row]) -> list[harness.Claim]:
    """Every part's claims."""
    found = by_part(rows)
    return [claim for name, (part, _) in PARTS.items() for claim in part.claims(found[name])]


def table(rows: Sequence[lab.Row]) -> str:
    """Every part's tables."""
    found = by_part(rows)
    return "\n\n".join(f"### {title}\n\n{_page(part.table(found[name]))}" for name, (part, title) in PARTS.items())


def _page(table: str) -> str:
    """A table as a page shows it: one that is drawn with spaces stays as it is."""
    return table if "|" in table else f"```\n{table}\n```"


def kept(part: lab.Part, folder: str) -> dict[str, lab.Row]:
    """The rows of a part that are measured already, under the code as it is."""
    digest = harness.sources(part.MEASURES)
    found = {cell.name: harness.cached(lab.KEPT / folder / f"{cell.name}.json", digest) for cell in part.cells()}
    return {name: row for name, row in found.items() if row is not None}


def main() -> int:
    """0 if the result was written, 1 if cells are missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so many seconds")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    told = parser.parse_args()
    if not told.report:
        subprocess.run(["bash", str(Path(__file__).with_name("extraction_data.sh")), sys.executable], check=True)
    end = time.monotonic() + told.seconds
    rows = {
        name: kept(part, name)
        if told.report
        else lab.measured(part, folder=name, workers=told.workers, seconds=end - time.monotonic())
        for name, (part, _) in PARTS.items()
    }
    missing = [
        f"{name}/{cell.name}"
        for name, (part, _) in PARTS.items()
        for cell in part.cells()
        if cell.name not in rows[name]
    ]
    if missing:
        print(f"{len(missing)} cells are missing, such as {missing[0]}", file=sys.stderr)
        return 1
    flat: list[dict[str, Any]] = [{"part": name, **row} for name, found in rows.items() for row in found.values()]
    harness.write(
        "extraction",
        rows=flat,
        claims=claims(flat),
        environment=harness.environment(),
        measures=sorted({path for part, _ in PARTS.values() for path in part.MEASURES} | {"benchmarks/extraction.py"}),
        tables=lambda: table(flat),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
