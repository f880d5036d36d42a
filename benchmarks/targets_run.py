"""One run of `benchmarks/targets.py`, in an environment that has ART: what a target adds to what it wraps.

Prints a JSON line a row. Bare, redan and ART take turns on the same rows, the first turn is warm-up.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import json
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import urllib3
from art.estimators.classification import BlackBoxClassifier, SklearnClassifier
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from redan.targets.http import HttpTarget, from_http
from redan.targets.sklearn import from_sklearn
from redan.wire import Ledger, Protocol, Service

ROOT = Path(__file__).resolve().parents[1]
SERVER, SERVER_PYTHON = ROOT / "tests" / "targets" / "served.py", ROOT / ".envs" / "extras" / "bin" / "python"
BATCH, TURNS, CALLS = 256, 25, 20
INPUTS, RATE_TURNS, LATENCY = 512, 9, (0.005, 0.02)
CONCURRENCY = (1, 4, 16)
Answer = Callable[[], Any]


def turns(sides: Mapping[str, Answer], count: int, calls: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of a call of each side, one entry a turn; the order goes round, so that no side is always first."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(count + 1):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            start = clock()
            for _ in range(calls):
                sides[name]()
            found[name].append((clock() - start) / calls)
    return {name: seconds[1:] for name, seconds in found.items()}


def estimators() -> Iterator[dict[str, Any]]:
    """`predict_proba` of 256 rows: bare, through redan's target, and through ART's wrapper where it has one."""
    x, y = load_breast_cancer(return_X_y=True)
    made = {
        "LogisticRegression": LogisticRegression(max_iter=10_000),
        "scaler and LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression()),
        "scaler and MLPClassifier": make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=200, random_state=0)),
        "RandomForestClassifier": RandomForestClassifier(100, random_state=0, n_jobs=1),
    }
    for name, estimator in made.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(x, y)
        sides = wrapped(estimator, x[:BATCH], (float(x.min()), float(x.max())))
        calls = 2 if "Forest" in name else CALLS
        yield {"kind": "estimator", "name": name, "cpu_seconds": turns(sides, TURNS, calls, time.process_time)}


def wrapped(estimator: Any, rows: NDArray[np.float64], bounds: tuple[float, float]) -> dict[str, Answer]:
    """The three sides' answers to the rows."""
    inputs, target = torch.from_numpy(rows), from_sklearn(estimator, bounds=bounds)
    art = SklearnClassifier(estimator, clip_values=bounds)
    if not np.allclose(target(inputs).exp().numpy(), estimator.predict_proba(rows)):
        raise RuntimeError(f"{estimator}: the target does not answer what the estimator does")
    return {
        "bare": lambda: estimator.predict_proba(rows),
        "redan": lambda: target(inputs),
        "art": lambda: art.predict(rows, batch_size=BATCH),
    }


def bare_client(url: str, concurrency: int) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Scores of rows by urllib3 and a pool of threads, with nothing around them."""
    pool = urllib3.PoolManager(maxsize=concurrency, retries=False)
    threads = ThreadPoolExecutor(concurrency)

    def one(row: NDArray[np.float32]) -> list[float]:
        body = json.dumps({"row": row.tolist()}).encode()
        answer = pool.request("POST", f"{url}/score", body=body, headers={"Content-Type": "application/json"})
        scores: list[float] = json.loads(answer.data)["result"]["scores"]
        return scores

    return lambda rows: np.array(list(threads.map(one, rows)))


def endpoint(url: str, folder: Path) -> Iterator[dict[str, Any]]:
    """512 inputs of an endpoint that takes 5 to 20 ms: by a bare client, by redan, by ART around the bare client."""
    x = torch.rand(INPUTS, 6, generator=torch.Generator().manual_seed(0)) * 0.9
    for concurrency in CONCURRENCY:
        service = Service(
            url=f"{url}/score",
            protocol=Protocol.MAPPING,
            request={"row": "$row"},
            response={"scores": "result.scores"},
            concurrency=concurrency,
        )
        with from_http(service, classes=3, ledger=Ledger(folder / f"ledger-{concurrency}.jsonl")) as target:
            sides = called(target, bare_client(url, concurrency), x)
            seconds = turns(sides, RATE_TURNS, 1, time.perf_counter)
        yield {"kind": "endpoint", "concurrency": concurrency, "inputs": INPUTS, "seconds": seconds}


def called(
    target: HttpTarget, client: Callable[[NDArray[np.float32]], NDArray[np.float64]], x: Tensor
) -> dict[str, Answer]:
    """The three sides' answers to inputs x."""
    rows = x.numpy()
    art = BlackBoxClassifier(client, input_shape=(6,), nb_classes=3, clip_values=(0, 1))
    if not np.allclose(target(x).exp().numpy(), client(rows), atol=1e-5):
        raise RuntimeError("the two clients do not read the same scores")
    return {"bare": lambda: client(rows), "redan": lambda: target(x), "art": lambda: art.predict(rows)}


def main() -> None:
    for row in estimators():
        print(json.dumps(row), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        told = json.dumps({"log": str(log), "latency": LATENCY, "life": 1800.0})
        server = subprocess.Popen([str(SERVER_PYTHON), str(SERVER), told])
        try:
            port = log.with_name("log.port")
            while not port.exists() and server.poll() is None:
                time.sleep(0.05)
            for row in endpoint(f"http://127.0.0.1:{port.read_text()}", Path(folder)):
                print(json.dumps(row), flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
