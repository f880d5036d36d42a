"""Inputs a second through the HTTP target and through a bare client of the same concurrency, on one server."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.targets.http import from_http
from redan.wire import Ledger, Protocol, Service

SERVER = Path(__file__).parents[1] / "tests" / "targets" / "served.py"


class Rates(NamedTuple):
    """Inputs a second, one entry a repeat; both sides in turn."""

    ours: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=True))


def bare(url: str, x: Tensor, concurrency: int) -> Tensor:
    """Scores of x (N, …) by urllib3 and a pool of threads, with nothing around them."""
    import urllib3

    pool = urllib3.PoolManager(maxsize=concurrency, retries=False)
    rows = x.numpy()

    def ask(row: NDArray[np.float32]) -> list[float]:
        body = json.dumps({"row": row.tolist()}).encode()
        answer = pool.request("POST", f"{url}/score", body=body, headers={"Content-Type": "application/json"})
        scores: list[float] = json.loads(answer.data)["result"]["scores"]
        return scores

    with ThreadPoolExecutor(concurrency) as threads:
        found = torch.tensor(list(threads.map(ask, rows)))
    pool.clear()
    return found


def rates(url: str, x: Tensor, ledger: Path, *, concurrency: int, repeats: int) -> Rates:
    """Both sides on the same rows, in turn, with the ledger on disk."""
    found = Rates([], [])
    request, response = {"row": "$row"}, {"scores": "result.scores"}
    service = Service(
        url=f"{url}/score", protocol=Protocol.MAPPING, request=request, response=response, concurrency=concurrency
    )
    with from_http(service, classes=3, ledger=Ledger(ledger)) as target:
        for _ in range(repeats + 1):  # the first is warm-up
            start = time.perf_counter()
            theirs = bare(url, x, concurrency)
            middle = time.perf_counter()
            ours = target(x)
            end = time.perf_counter()
            if not torch.allclose(ours, theirs.log(), atol=1e-5):
                raise RuntimeError("the two clients do not read the same scores")
            found.ours.append(len(x) / (end - middle))
            found.bare.append(len(x) / (middle - start))
    return Rates(found.ours[1:], found.bare[1:])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        told = json.dumps({"log": str(log), "latency": (0.005, 0.02)})
        server = subprocess.Popen([sys.executable, str(SERVER), told])
        try:
            port = log.with_name("log.port")
            while not port.exists() and server.poll() is None:
                time.sleep(0.05)
            url, x = f"http://127.0.0.1:{port.read_text()}", torch.rand(256, 6) * 0.9
            for concurrency in (4, 16):
                found = rates(url, x, Path(folder) / f"ledger-{concurrency}", concurrency=concurrency, repeats=7)
                ours, theirs = statistics.median(found.ours), statistics.median(found.bare)
                print(f"{concurrency} at once: {ours:.0f} a second, bare {theirs:.0f}: {found.ratio:.2f} times")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
