"""The forecast of `redan plan --pilot` beside what the assessment then took (`make bench-forecast`).

The demo's models at 256 and 2,000 rows, the residual network, and EfficientNet-Lite0 with two attackers. Each case
runs in a process of its own, as the command would; the last in the environment that `tools/extras.sh` makes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import harness

ROOT = Path(__file__).resolve().parents[1]
MEASURES = (
    "src/redan/assessment",
    "src/redan/engine",
    "src/redan/evasion",
    "src/redan/robustness.py",
    "src/redan/runners",
    "benchmarks/forecast.py",
)
FACTOR = 2.0
FASHION, IMAGENET = "examples/fashion/natural.yaml", "examples/imagenet/threat-model.yaml"
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "natural, 256 rows": (FASHION, {}),
    "robust, 256 rows": ("examples/fashion/robust.yaml", {}),
    "natural, 2,000 rows": (FASHION, {"rows: 256": "rows: 2000"}),
    "residual, 256 rows": (FASHION, {"name: natural}": "name: residual}"}),
    "EfficientNet-Lite0, 20 rows": (IMAGENET, {}),
}


def measured(case: str) -> list[dict[str, Any]]:
    """One case in this process: a row for each attacker, and one for the whole assessment."""
    import redan
    from redan.assessment.forecast import forecast

    path, changes = CASES[case]
    text = (ROOT / path).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "threat-model.yaml"
        copy.write_text(text, encoding="utf-8")
        for helper in (ROOT / path).parent.glob("*.py"):
            (Path(folder) / helper.name).write_bytes(helper.read_bytes())
        start = time.monotonic()
        outlook = forecast(copy)
        pilot_seconds = time.monotonic() - start
        report = redan.assess(copy, out=str(Path(folder) / "runs"))
    rows = []
    for told, part in zip(outlook.attackers, report.attackers, strict=True):
        passes = sum(a.forwards + a.backwards for a in part.attacks)
        rows.append(
            {
                "case": case,
                "what": f"passes of {told.attacker}",
                "pilot": told.pilot,
                "rows": told.rows,
                "forecast": told.passes,
                "actual": passes,
            }
        )
    whole = {"case": case, "what": "seconds", "pilot": None, "rows": report.run.rows, "pilot_seconds": pilot_seconds}
    return [*rows, {**whole, "forecast": outlook.seconds, "actual": report.run.seconds}]


def claims(rows: list[dict[str, Any]]) -> list[harness.Claim]:
    """threat.d: the worst forecast of passes, and of seconds."""
    found = []
    for kind in ("passes", "seconds"):
        off = {row["case"]: factor(row) for row in rows if row["what"].startswith(kind)}
        worst = max(off, key=lambda case: off[case])
        what = f"forecast of {kind} after the pilot, worst of {len(off)} cases ({worst})"
        tried = "" if off[worst] <= FACTOR else "ranking rows by clean margin, geometric ranks, calls apart from rows"
        found.append(
            harness.Claim("threat.d", what, f"factor {FACTOR:g}", f"{off[worst]:.2f}", off[worst] <= FACTOR, tried)
        )
    return found


def factor(row: dict[str, Any]) -> float:
    """How far off a forecast is, in either direction."""
    one, other = max(row["forecast"], 1e-9), max(row["actual"], 1e-9)
    return float(max(one / other, other / one))


def table(rows: list[dict[str, Any]]) -> str:
    """Forecast beside actual, as Markdown."""
    lines = ["| model | what | pilot | forecast | actual | off by |", "|---|---|---:|---:|---:|---:|"]
    for row in rows:
        pilot = row["pilot"] if row["pilot"] is not None else f"{row['pilot_seconds']:.1f} s"
        told, was = (
            f"{row[key]:,.1f}" if row["what"] == "seconds" else f"{row[key]:,}" for key in ("forecast", "actual")
        )
        lines.append(f"| {row['case']} | {row['what']} | {pilot} | {told} | {was} | {factor(row):.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Every case in its own process; the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, help="measure one case here, and print its rows as JSON")
    case = parser.parse_args().case
    if case:
        print(json.dumps(measured(case)))
        return
    rows = []
    for name, (path, _) in CASES.items():
        python = ROOT / ".envs" / "extras" / "bin" / "python" if path == IMAGENET else Path(sys.executable)
        done = subprocess.run([python, __file__, "--case", name], check=True, capture_output=True, text=True)
        rows += json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: " + ", ".join(f"{row['what']} off by {factor(row):.2f}" for row in rows if row["case"] == name))
    harness.write(
        "forecast",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
