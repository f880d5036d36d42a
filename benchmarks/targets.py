"""What a target adds to the model it wraps, beside ART's wrappers (`make bench-targets`).

`predict_proba` of scikit-learn models at batch 256, in CPU seconds, and inputs a second of an endpoint that takes 5 to
20 ms, with 1, 4 and 16 requests at once: bare, through redan, and through ART's wrapper, in turn and in one process
(`targets_run.py`, in the environment of `tools/interop.sh`; the server runs in that of `tools/extras.sh`). ART's
BlackBoxClassifier is given the bare client as its function.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import harness

PYTHON = harness.ROOT / ".envs" / "interop" / "bin" / "python"
MEASURES = (
    "src/redan/targets/function.py",
    "src/redan/targets/outputs.py",
    "src/redan/targets/sklearn.py",
    "src/redan/targets/http.py",
    "src/redan/wire",
    "benchmarks/targets.py",
    "benchmarks/targets_run.py",
)
MOST, EXTRA, LEAST = 1.2, 1e-4, 0.9  # times predict_proba, and seconds; times a bare client's rate
TRIED: dict[str, str] = {}  # by the claim's words: what was tried where it is missed

Row = dict[str, Any]


def _over(row: Row, side: str) -> float:
    """Median over turns of the side's seconds minus what the goal allows, in milliseconds."""
    seconds: dict[str, list[float]] = row["cpu_seconds"]
    return 1e3 * statistics.median(
        ours - (MOST * bare + EXTRA) for ours, bare in zip(seconds[side], seconds["bare"], strict=True)
    )


def _milliseconds(row: Row, side: str) -> float:
    return 1e3 * float(statistics.median(row["cpu_seconds"][side]))


def _rate(row: Row, side: str) -> float:
    return float(row["inputs"] / statistics.median(row["seconds"][side]))


def _share(row: Row, side: str) -> float:
    """Median over turns of the side's rate over the bare client's of the same turn."""
    return harness.ratio(row["seconds"]["bare"], row["seconds"][side])


def claims(rows: Sequence[Row]) -> list[harness.Claim]:
    """The goals of targets.e."""
    found = []
    for row in rows:
        if row["kind"] == "estimator":
            over, art = _over(row, "redan"), _milliseconds(row, "art")
            words = f"{row['name']}: a call of 256 rows costs at most 1.2 × predict_proba + 0.1 ms"
            ours, bare = _milliseconds(row, "redan"), _milliseconds(row, "bare")
            measured = f"{ours:.3f} ms, bare {bare:.3f} ms, ART's wrapper {art:.3f} ms; {-over:.3f} ms below"
            goal, met = f"{MOST} × bare + {1e3 * EXTRA:.1f} ms", over <= 0
        else:
            share, art_share = _share(row, "redan"), _share(row, "art")
            words = f"{row['concurrency']} requests at once: inputs a second, of a bare client's"
            measured = (
                f"{share:.2f} × ({_rate(row, 'redan'):,.0f} of {_rate(row, 'bare'):,.0f} a second; "
                f"ART's wrapper around the bare client {art_share:.2f} ×)"
            )
            goal, met = f"≥ {LEAST} ×", share >= LEAST
        found.append(harness.Claim("targets.e", words, goal, measured, met, "" if met else TRIED.get(words, "")))
    return found


def table(rows: Sequence[Row]) -> str:
    """Both measurements, in Markdown."""
    lines = ["| `predict_proba`, 256 rows | bare, CPU ms | redan | ART |", "|---|---|---|---|"]
    for row in rows:
        if row["kind"] == "estimator":
            cells = " | ".join(f"{_milliseconds(row, side):.3f}" for side in ("bare", "redan", "art"))
            lines.append(f"| {row['name']} | {cells} |")
    lines += ["", "| endpoint, requests at once | bare, inputs a second | redan | ART |", "|---|---|---|---|"]
    for row in rows:
        if row["kind"] == "endpoint":
            cells = " | ".join(f"{_rate(row, side):,.0f}" for side in ("bare", "redan", "art"))
            lines.append(f"| {row['concurrency']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    for script in ("interop.sh", "extras.sh"):
        subprocess.run(["bash", str(harness.ROOT / "tools" / script)], check=True)
    run = Path(__file__).with_name("targets_run.py")
    told = subprocess.run([str(PYTHON), str(run)], check=True, stdout=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    harness.write(
        "targets",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
