"""Poisoning from attack to proof, on whole Fashion-MNIST, on subsets, and beside peers (`make bench-poisoning`).

    backdoors      BadNets on 60,000 images: success, clean accuracy, the smallest share
    clean_label    gradient matching, label-consistent and Sleeper Agent against unperturbed rows
    sleeper        Sleeper Agent again, with enough trials to tell
    detection      seven attacks, eight detectors, repairs, false discoveries
    peers          ART's detectors on the same features; BackdoorBench's published figures
    biggio         one poisoned digit against a support vector machine
    certified      DPA and Finite Aggregation, by brute force and under our own attacks

Each part can be run by itself (`python benchmarks/poisoning_backdoors.py --help`). Cells are kept under
`benchmarks/results/cells/poisoning`, and only those are measured whose code has changed.

    python benchmarks/poisoning.py --seconds 3000   begin no cell after so many seconds; what is measured stays
    python benchmarks/poisoning.py --report         measure nothing; write the result if all is there
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

import harness
import poisoning_backdoors
import poisoning_biggio
import poisoning_certified
import poisoning_clean_label
import poisoning_detection
import poisoning_lab as lab  # first: it sets the number of threads
import poisoning_peers
import poisoning_sleeper

PARTS: dict[str, lab.Part] = {
    "backdoors": poisoning_backdoors,
    "clean_label": poisoning_clean_label,
    "sleeper": poisoning_sleeper,
    "detection": poisoning_detection,
    "peers": poisoning_peers,
    "biggio": poisoning_biggio,
    "certified": poisoning_certified,
}
TITLES = {
    "backdoors": "Backdoors in 60,000 images",
    "clean_label": "Poison whose labels are true",
    "sleeper": "Sleeper Agent, a second round",
    "detection": "What finds it, and what mends it",
    "peers": "Beside ART and BackdoorBench",
    "biggio": "One poisoned digit",
    "certified": "What no poison can change",
}
HOURS = 4.0
"""That all cells may take on two cores."""


def by_part(rows: Sequence[lab.Row]) -> dict[str, dict[str, lab.Row]]:
    """The rows of a result by part and cell."""
    return {name: {row["cell"]: row for row in rows if row["part"] == name} for name in PARTS}


def claims(rows: Sequence[lab.Row]) -> list[harness.Claim]:
    """Every part's claims, and the time that all of it took."""
    parts = by_part(rows)
    found = [claim for name, part in PARTS.items() for claim in part.claims(parts[name])]
    spent = sum(row["cpu_seconds"] for row in rows) / 3600
    return [
        *found,
        harness.Claim(
            "poisoning.a",
            "all cells of the benchmark on two cores",
            f"≤ {HOURS:g} hours",
            f"{spent / 2:.1f} hours ({spent:.1f} CPU hours)",
            spent / 2 <= HOURS,
            "" if spent / 2 <= HOURS else "cells are kept, so that a part can be measured by itself",
        ),
    ]


def table(rows: Sequence[lab.Row]) -> str:
    """Every part's tables."""
    found = by_part(rows)
    return "\n\n".join(f"### {TITLES[name]}\n\n{part.table(found[name])}" for name, part in PARTS.items())


def main() -> int:
    """0 if the result was written, 1 if cells are missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so many seconds")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    told = parser.parse_args()
    if not told.report:
        subprocess.run(["bash", str(Path(__file__).with_name("poisoning_data.sh")), sys.executable], check=True)
    end = time.monotonic() + (0 if told.report else told.seconds)
    rows = {
        name: lab.measured(part, folder=name, workers=told.workers, seconds=end - time.monotonic())
        for name, part in PARTS.items()
    }
    missing = [
        f"{name}/{cell.name}" for name, part in PARTS.items() for cell in part.cells() if cell.name not in rows[name]
    ]
    if missing:
        print(f"{len(missing)} cells are missing, such as {missing[0]}", file=sys.stderr)
        return 1
    flat: list[dict[str, Any]] = [{"part": name, **row} for name, part in rows.items() for row in part.values()]
    harness.write(
        "poisoning",
        rows=flat,
        claims=claims(flat),
        environment=harness.environment(),
        measures=sorted({path for part in PARTS.values() for path in part.MEASURES} | {"benchmarks/poisoning.py"}),
        tables=lambda: table(flat),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
