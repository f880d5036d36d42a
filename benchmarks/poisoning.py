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

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import harness
import parts
import poisoning_backdoors
import poisoning_biggio
import poisoning_certified
import poisoning_clean_label
import poisoning_detection
import poisoning_peers
import poisoning_sleeper

BENCH = parts.Bench(
    "poisoning",
    {
        "backdoors": (poisoning_backdoors, "Backdoors in 60,000 images"),
        "clean_label": (poisoning_clean_label, "Poison whose labels are true"),
        "sleeper": (poisoning_sleeper, "Sleeper Agent, a second round"),
        "detection": (poisoning_detection, "What finds it, and what mends it"),
        "peers": (poisoning_peers, "Beside ART and BackdoorBench"),
        "biggio": (poisoning_biggio, "One poisoned digit"),
        "certified": (poisoning_certified, "What no poison can change"),
    },
    setup="poisoning_data.sh",
)
HOURS = 4.0
"""That all cells may take on two cores."""
table = BENCH.table


def claims(rows: Sequence[parts.Row]) -> list[harness.Claim]:
    """Every part's claims, and the time that all of it took."""
    spent = sum(row["cpu_seconds"] for row in rows) / 3600
    return [
        *BENCH.claims(rows),
        harness.Claim(
            "poisoning.a",
            "all cells of the benchmark on two cores",
            f"≤ {HOURS:g} hours",
            f"{spent / 2:.1f} hours ({spent:.1f} CPU hours)",
            spent / 2 <= HOURS,
            "" if spent / 2 <= HOURS else "cells are kept, so that a part can be measured by itself",
        ),
    ]


if __name__ == "__main__":
    sys.exit(BENCH.main(claims))
