"""A model copied through HTTP while the process that copies it is killed (part e of `make bench-extraction`).

The server is the tests' own, in a process of its own: 10 % of its answers are slow, 1 % of its requests fail, and it
answers so many a second at the most. An assessment buys the answers of two copies from it, and is killed by SIGKILL at
five moments that a seed draws; each time it goes on with `--resume`. The server's log, which it writes before it
answers, is the truth.

    python benchmarks/extraction_http.py            measure what is missing, and print it
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
import yaml

import extraction_lab as lab
import harness

__all__ = ["MEASURES", "cells", "claims", "table"]

MEASURES: Sequence[str] = (
    "src/redan/assessment/bought.py",
    "src/redan/assessment/calls.py",
    "src/redan/assessment/extraction.py",
    "src/redan/wire",
    "src/redan/targets/http.py",
    "tests/targets/served.py",
    "benchmarks/extraction_http.py",
)
SERVER, PYTHON = harness.ROOT / "tests" / "targets" / "served.py", harness.ROOT / ".envs" / "extras" / "bin" / "python"
KILLS, CONCURRENCY, ANSWERS, COPIES, PER_SECOND = 5, 4, 600, 2, 150
ROWS, POOL, UNIFORM = 50, 2000, 100
SCENE = {
    "latency": (0.005, 0.02),
    "slow": 0.10,
    "slow_by": 0.1,
    "errors": 0.01,
    "per_second": PER_SECOND,
    "retry_after": "1",
    "life": 900.0,
}
SEEDS = (0, 1, 2)
WEIGHT = np.array([[3.0, 2, 0, 0, 0, 0], [0, 0, 3, 2, 0, 0], [0, 0, 0, 0, 3, 2]])  # the server's


def cells() -> Sequence[lab.Cell]:
    """One unbroken run, and three that are killed."""
    broken = [lab.Cell(f"killed.{seed}", killed, {"seed": seed}) for seed in SEEDS]
    return [lab.Cell("unbroken", unbroken, {}), *broken]


def unbroken() -> lab.Row:
    """What a run asks that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        server = _Served(Path(folder), seed=99)
        try:
            report = _finished(_threat_model(Path(folder), server.url), ())
            return {"answered": server.answered(), **_told(report, server)}
        finally:
            server.end()


def killed(seed: int) -> lab.Row:
    """What a run asks that is killed at five moments: after so many requests, drawn from all but the last."""
    whole = sum(unbroken_row()["answered"].values())
    draw = random.Random(seed)  # noqa: S311  (no secret)
    moments = sorted(draw.sample(range(20, whole - 20), KILLS))
    with tempfile.TemporaryDirectory() as folder:
        server = _Served(Path(folder), seed=seed)
        resume: tuple[str, ...] = ()
        done: list[int] = []
        try:
            path = _threat_model(Path(folder), server.url)
            for moment in moments:
                run = _begun(path, resume)
                while (len(server.lines()) < moment or not _folders(path)) and run.poll() is None:
                    time.sleep(0.005)
                if run.poll() is not None:
                    break
                os.kill(run.pid, signal.SIGKILL)
                run.wait()
                done.append(len(server.lines()))
                resume = ("--resume", str(_folder(path)))
            report = _finished(path, resume)
            return {"answered": server.answered(), "kills": done, **_told(report, server)}
        finally:
            server.end()


def unbroken_row() -> lab.Row:
    """The unbroken run's row as it is kept."""
    row = harness.cached(lab.KEPT / "http" / "unbroken.json", harness.sources(MEASURES))
    return unbroken() if row is None else row


class _Served:
    """The server and its log."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.log = folder / "server.jsonl"
        told = json.dumps({"log": str(self.log), "seed": seed, **SCENE})
        self._process = subprocess.Popen([str(PYTHON), str(SERVER), told])
        port, end = Path(f"{self.log}.port"), time.monotonic() + 60
        while not port.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the server did not start; run `bash tools/extras.sh`")
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{port.read_text()}"

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line] if self.log.exists() else []

    def answered(self) -> dict[str, int]:
        """How often each input was answered."""
        return dict(Counter(line["asked"] for line in self.lines() if line["rows"] and line["fate"] == "fine"))

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def _threat_model(folder: Path, url: str) -> Path:
    draw = np.random.default_rng(0)
    for name, count in (("test", ROWS), ("pool", POOL)):
        x = (draw.random((count, 6)) * 0.95).astype(np.float32)  # the server fails on larger ones, always
        np.savez(folder / f"{name}.npz", x=x, y=(x @ WEIGHT.T).argmax(1))
    told = {
        "redan": 1,
        "system": {
            "name": "owls",
            "task": "classification",
            "classes": ["cat", "dog", "owl"],
            "model": {"http": {"url": url, "protocol": "oip-v2", "model": "linear", "concurrency": CONCURRENCY}},
            "output": "probabilities",
            "inputs": {"kind": "tensor", "shape": [6], "bounds": [0, 1]},
            "data": {"test": {"path": "test.npz"}},
        },
        "attackers": [
            {
                "name": "customer",
                "kind": "extraction",
                "why": "answers are sold per call",
                "knowledge": "scores",
                "goal": {"fidelity": "test"},
                "capability": {"queries_total": ANSWERS, "usd_per_1000_queries": 2.0},
            }
        ],
        "attacks": {"mode": "quick"},
        "extraction": {"copies": COPIES, "pool": {"path": "pool.npz"}, "uniform_rows": UNIFORM},
        "run": {"out": "runs"},
    }
    path = folder / "threat-model.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def _folders(path: Path) -> list[Path]:
    """Runs that have begun: before that nothing but the preflight was asked, and there is nothing to go on with."""
    return [found.parent.parent for found in (path.parent / "runs").glob("*/log/*.jsonl")]


def _folder(path: Path) -> Path:
    return _folders(path)[0]


def _begun(path: Path, resume: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(PYTHON), "-m", "redan", "assess", str(path), "--quiet", *resume], stdout=subprocess.DEVNULL
    )


def _finished(path: Path, resume: Sequence[str]) -> dict[str, Any]:
    """The report of a run that ends by itself."""
    if _begun(path, resume).wait(600) not in (0, 1, 3):
        raise RuntimeError(f"the run in {path.parent} did not finish")
    report: dict[str, Any] = json.loads((_folder(path) / "report.json").read_text())
    return report


def _told(report: Mapping[str, Any], server: _Served) -> lab.Row:
    calls, lines = report["calls"], server.lines()
    (extractor,) = report["attackers"][0]["extraction"]["extractors"]
    fates = Counter(line["fate"] for line in lines)
    return {
        "requests": len(lines),
        "fates": dict(fates),
        "sent": calls["sent"],
        "unknown": len(calls["unknown"]),
        "billed": calls["rows"],
        "usd": calls["usd"],
        "replayed": calls["replayed"],
        "evidence": report["digests"]["evidence"],
        "copies": extractor["points"][0]["copies"],
        "paid": extractor["points"][0]["paid"],
    }


def _twice(row: lab.Row, whole: lab.Row) -> int:
    """Answers beyond those that the unbroken run got of the same inputs."""
    once: dict[str, int] = whole["answered"]
    return sum(max(0, count - once.get(asked, 0)) for asked, count in row["answered"].items())


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    """What the killed runs show."""
    whole, broken = rows["unbroken"], [rows[f"killed.{seed}"] for seed in SEEDS]
    apart = [abs(row["sent"] - row["requests"]) for row in broken]
    kills = [len(row["kills"]) for row in broken]
    twice = [_twice(row, whole) for row in broken]
    same = [row["evidence"] == whole["evidence"] for row in broken]
    listed = [row["unknown"] >= max(apart_, again) for row, apart_, again in zip(broken, apart, twice, strict=True)]
    billed = [row["usd"] is not None and abs(row["usd"] - row["billed"] * 2 / 1000) < 1e-9 for row in broken]
    fates = {fate: sum(row["fates"].get(fate, 0) for row in broken) for fate in ("errors", "busy")}
    return [
        harness.Claim(
            "extraction.e",
            f"extraction over HTTP, killed at {KILLS} random moments, finishes with the evidence of an unbroken run",
            f"{len(SEEDS)} of {len(SEEDS)} runs",
            f"{sum(same)} of {len(SEEDS)} runs, {sum(kills)} kills, {fates['errors']} errors and {fates['busy']} "
            "refusals on the way",
            all(same) and all(count == KILLS for count in kills),
        ),
        harness.Claim(
            "extraction.e",
            "requests in the ledger beside those in the server's log",
            f"≤ {CONCURRENCY} a kill apart",
            f"{', '.join(map(str, apart))} apart of {', '.join(str(row['requests']) for row in broken)}",
            all(a <= CONCURRENCY * k for a, k in zip(apart, kills, strict=True)),
        ),
        harness.Claim(
            "extraction.e",
            "what may have been asked in vain is listed as unknown, and billed",
            "all of it",
            f"{', '.join(str(row['unknown']) for row in broken)} requests listed",
            all(listed) and all(billed),
        ),
        harness.Claim(
            "extraction.e",
            "answers that are paid for twice",
            f"≤ {CONCURRENCY} a kill",
            f"{', '.join(map(str, twice))} of {sum(whole['answered'].values()):,}",
            all(again <= CONCURRENCY * k for again, k in zip(twice, kills, strict=True)),
        ),
    ]


def table(rows: Mapping[str, lab.Row]) -> str:
    """A line a run."""
    lines = ["run         kills  requests  in the ledger  unknown  answered twice  from the ledger  copies"]
    for name, row in rows.items():
        lines.append(
            f"{name:10}  {len(row.get('kills', ())):5}  {row['requests']:8,}  {row['sent']:13,}  {row['unknown']:7}  "
            f"{_twice(row, rows['unbroken']):14}  {row['replayed']:15,}  {row['copies']:6}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    import extraction_http

    lab.main(extraction_http, "http")
