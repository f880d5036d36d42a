"""What benchmarks share: a peer's process, paired timing, and the result file with its claims.

A claim is `{id, claim, goal, measured, met, tried}`, computed from the rows that stand in the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PEERS_PYTHON = ROOT / ".envs" / "peers" / "bin" / "python"


class Claim(NamedTuple):
    """One figure that an issue or the docs state, as measured."""

    id: str
    claim: str
    goal: str
    measured: str
    met: bool
    tried: str = ""  # for a missed claim: the ideas that were tried


class Peer:
    """A peer's own process that answers one request a line."""

    def __init__(self, script: Path) -> None:
        self._process = subprocess.Popen(
            [str(PEERS_PYTHON), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request's answer. Raises RuntimeError with the peer's reason."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                "the peer's process ended; run `bash benchmarks/peers/install.sh` and look at its output"
            )
        answer: dict[str, Any] = json.loads(line)
        if answer.get("error") and not answer.get("unsupported"):
            raise RuntimeError(f"{request}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over repeats of ours / theirs, each pair from the same repeat."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def cached(path: Path, digest: object) -> dict[str, Any] | None:
    """What was measured before, if it is there and was measured under this digest."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["digest"] == digest else None


def keep(path: Path, row: dict[str, Any]) -> None:
    """Write a measured row whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(row) + "\n")
    part.replace(path)


def sources(paths: Iterable[str]) -> str:
    """sha256 over the code that a benchmark measures: files and folders, relative to the repository.

    What is gone since counts as nothing, which no result that measured it has.
    """
    files = sorted(
        f
        for path in paths
        for f in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py"))
        if f.exists()
    )
    return hashlib.sha256(b"".join(hashlib.sha256(f.read_bytes()).digest() for f in files)).hexdigest()


def environment(**more: str) -> dict[str, str]:
    """What the figures depend on, without naming a machine."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")), platform.processor()
    )
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model,
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.2f}",
        **more,
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(
    name: str,
    *,
    rows: list[dict[str, Any]],
    claims: Sequence[Claim],
    environment: dict[str, str],
    measures: Sequence[str],
    tables: Callable[[], str],
) -> None:
    """Write benchmarks/results/NAME.json and print its tables and claims."""
    RESULTS.mkdir(exist_ok=True)
    body = {
        "benchmark": name,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "environment": environment,
        "measures": list(measures),
        "sources": sources(measures),
        "claims": [claim._asdict() for claim in claims],
        "rows": rows,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
    show(tables(), claims)


def show(table: str, claims: Sequence[Claim]) -> None:
    """Print a table and what is claimed of it, of a whole benchmark or of what is there so far."""
    print(table)
    for claim in claims:
        print(f"{'met   ' if claim.met else 'MISSED'} {claim.id}: {claim.claim}: {claim.measured} (goal {claim.goal})")
