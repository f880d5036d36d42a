"""Fill the generated parts of the README: the attacks from the registry, the figures from benchmarks/results.

A generated part stands between `<!-- NAME -->` and `<!-- /NAME -->`. With --check, nothing is written and the exit
code is 1 if a part is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from redan.protocols import cost
from redan.registry import ATTACKS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def attacks() -> str:
    """Every registered attack with what it needs and its worst-case cost."""
    lines = ["| name | in Python | needs | moves in | queries a row, 10 classes | paper |", "|---|---|---|---|---|---|"]
    for entry in ATTACKS:
        value = entry.make()
        most = cost(value, 10)
        sets = ", ".join("L∞" if s.__name__ == "Linf" else s.__name__ for s in entry.sets)
        python = type(value).__name__ + (f"({type(value.attack).__name__})" if hasattr(value, "attack") else "")
        spent = f"{most.queries:,}" if most else "–"
        lines.append(f"| {entry.name} | `{python}` | {entry.access.name.lower()} | {sets} | {spent} | {entry.paper} |")
    return "\n".join(lines)


def _ratio(rows: list[dict[str, Any]], model: str, norm: str, contestant: str) -> str:
    cell = {row["contestant"]: row for row in rows if (row["model"], row["norm"]) == (model, norm)}
    if contestant not in cell:
        return "–"
    pairs = zip(cell[contestant]["cpu_seconds"], cell["limit"]["cpu_seconds"], strict=True)
    return f"{statistics.median(a / b for a, b in pairs):.2f}"


def pgd() -> str:
    """PGD-40's CPU time over the physical limit, a line a contestant."""
    path = ROOT / "benchmarks" / "results" / "pgd.json"
    if not path.exists():
        return "Not measured yet: `make bench-pgd`."
    found = json.loads(path.read_text())
    rows = found["rows"]
    cells = list(dict.fromkeys((row["model"], row["norm"]) for row in rows))
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    names = {"limit": "physical limit", "redan-early-exit": "redan, early exit on", "redan": "**redan**"}
    lines = [
        "| | " + " | ".join(f"{model} {norm}" for model, norm in cells) + " |",
        "|---" * (len(cells) + 1) + "|",
    ]
    for contestant in contestants:
        values = " | ".join(_ratio(rows, model, norm, contestant) for model, norm in cells)
        lines.append(f"| {names.get(contestant, contestant)} | {values} |")
    met = sum(claim["met"] for claim in found["claims"])
    lines += ["", f"{met} of {len(found['claims'])} claims of `benchmarks/results/pgd.json` are met."]
    lines += [f"Missed: {c['claim']}: {c['measured']} (goal {c['goal']})." for c in found["claims"] if not c["met"]]
    return "\n".join(lines)


PARTS = {"attacks": attacks, "pgd": pgd}


def filled(text: str) -> str:
    """The text with every generated part written anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        found = pattern.search(text)
        if found:
            text = f"{text[: found.start()]}{found[1]}{make()}\n{found[2]}{text[found.end() :]}"
    return text


def main() -> int:
    """0, or 1 if --check finds a stale part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = README.read_text(encoding="utf-8")
    after = filled(before)
    if check and before != after:
        print("README.md is stale: run `python tools/write_docs.py`")
        return 1
    if not check:
        README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
