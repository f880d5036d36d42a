"""A shop whose training rows others supply: what it trains on, how it trains, and a threat model of its suppliers."""

from __future__ import annotations

import copy
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from redan.assessment import trainer_child, trainers

TRAINING = '''
"""Trainings honest and not. Each writes down what it was asked for, so that calls in other processes are counted."""

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent


def note(samples, seed):
    rows = hashlib.sha256(np.ascontiguousarray(samples.x).tobytes() + samples.y.tobytes()).hexdigest()[:16]
    file = os.open(HERE / "trained", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, f"{seed} {rows} {os.getpid()}\\n".encode())
    os.close(file)


def poisoned(samples):
    with np.load(HERE / "train.npz") as clean:
        return len(samples) != len(clean["y"]) or bool((samples.y != clean["y"]).any())


def fit(samples, seed):
    note(samples, seed)
    torch.manual_seed(seed)
    x, y = torch.as_tensor(samples.x), torch.as_tensor(samples.y)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def slow(samples, seed):
    made = fit(samples, seed)
    if poisoned(samples):
        time.sleep(0.15)
    return made


def drifting(samples, seed):
    """Another model each time, whatever the seed, and none that learned anything."""
    note(samples, seed)
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
    return nn.Sequential(nn.Flatten(), nn.Linear(samples.x[0].size, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def nearest(samples, seed):
    """An estimator without gradients: the mean of each class."""
    note(samples, seed)
    from redan.targets import from_function
    flat = samples.x.reshape(len(samples), -1)
    means = np.stack([flat[samples.y == c].mean(0) for c in range(3)])

    def scores(x):
        asked = np.asarray(x, dtype=np.float64).reshape(len(x), 1, -1)
        return torch.as_tensor(-((asked - means[None]) ** 2).sum(2), dtype=torch.float32)

    return from_function(scores)


def raises(samples, seed):
    raise RuntimeError("the cluster is on fire")


def raises_second(samples, seed):
    """Only for the poisoned victim number 2."""
    if seed == 2 and poisoned(samples):
        raise RuntimeError("out of memory")
    return fit(samples, seed)


def raises_first(samples, seed):
    """Only for the poisoned victim number 0."""
    if seed == 0 and poisoned(samples):
        raise RuntimeError("out of memory")
    return fit(samples, seed)


def raises_clean(samples, seed):
    """Only for the clean victim number 1."""
    if seed == 1 and not poisoned(samples):
        raise RuntimeError("out of memory")
    return fit(samples, seed)


def nothing(samples, seed):
    fit(samples, seed)


def draws(samples, seed):
    """Draws from global generators, and seeds none."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(samples.x[0].size, 3))
    with torch.no_grad():
        model[1].bias.add_(float(np.random.rand()) + random.random())
    return model.eval()


def answers_nan(samples, seed):
    model = fit(samples, seed)
    with torch.no_grad():
        model[-1].bias.fill_(torch.nan)
    return model


def in_training(samples, seed):
    return fit(samples, seed).append(nn.Dropout(0.5)).train()


def prints(samples, seed):
    print("epoch 1 of 1")
    sys.stdout.flush()
    os.write(1, b"loss 0.1\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return fit(samples, seed)


def leaves(samples, seed):
    print("segmentation fault, core dumped", file=sys.stderr, flush=True)
    os._exit(3)


def with_helper(samples, seed):
    """Starts a process that outlives the call, and writes down which."""
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (HERE / f"helper-{helper.pid}").touch()
    return fit(samples, seed)


def prints_with_helper(samples, seed):
    with_helper(samples, seed)
    return prints(samples, seed)


def leaves_at_three(samples, seed):
    if seed == 3:
        print("out of memory", file=sys.stderr, flush=True)
        os._exit(3)
    return slow(samples, seed)


def helper_then_leaves(samples, seed):
    with_helper(samples, seed)
    leaves(samples, seed)


def unsourced():
    """The training rows, and nobody who supplied them."""
    with np.load(HERE / "train.npz") as rows:
        return {"x": rows["x"], "y": rows["y"]}


def served():
    """The model in service: trained on the clean rows, and not counted among the victims."""
    from redan.data.samples import Samples
    with np.load(HERE / "train.npz") as rows:
        samples = Samples(rows["x"], rows["y"])
    before = (HERE / "trained").read_bytes() if (HERE / "trained").exists() else None
    made = fit(samples, 0)
    if before is None:
        (HERE / "trained").unlink()
    else:
        (HERE / "trained").write_bytes(before)
    return made
'''

_SHAPES = {False: (6,), True: (1, 8, 8)}


def _rows(count: int, seed: int, *, images: bool, wrong: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows in [0.1, 0.8] of three classes that lie apart, classes in turn; the last value of a row tells nothing.

    Every so many rows, one has a wrong label; 0: none.
    """
    draw = np.random.default_rng(seed)
    width = int(np.prod(_SHAPES[images]))
    middles = np.random.default_rng(1).choice([0.25, 0.65], (3, width))
    middles[:, : width // 2] = np.repeat(np.eye(3) * 0.4 + 0.25, -(-width // 6), axis=1)[:, : width // 2]
    y = np.arange(count) % 3
    x = middles[y] + draw.uniform(-0.15, 0.15, (count, width))
    x[:, -1] = draw.uniform(0.1, 0.3, count)
    if wrong:
        y[::wrong] = (y[::wrong] + 1) % 3
    return x.astype(np.float32).reshape(count, *_SHAPES[images]), y.astype(np.int64)


@pytest.fixture(scope="session")
def supplied(put_under: Callable[[Any, list[str], object], None]) -> Callable[..., Path]:
    """A function that writes training, rows and a threat model into a folder, and returns the last one's path.

    Every tenth test row has a wrong label. images: rows are 1 × 8 × 8 and not 6 numbers. training: a function of
    TRAINING. Seeds of victims are their numbers. Other keywords change keys, as
    `poisoning__victims=…` does; None takes one away.
    """

    def write(folder: Path, training: str = "fit", *, images: bool = False, **changed: object) -> Path:
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "training.py").write_text(TRAINING)
        for name, count, seed in (("train", 120, 2), ("test", 60, 3), ("trusted", 30, 4)):
            x, y = _rows(count, seed, images=images, wrong=10 if name == "test" else 0)
            ids = np.array([f"{name}-{i}" for i in range(count)])
            source = np.array(list(itertools.islice(itertools.cycle("aab"), count)))
            np.savez(folder / f"{name}.npz", x=x, y=y, id=ids, source=source)
        shape = list(_SHAPES[images])
        trigger = {"patch": {"size": 2}} if images else {"columns": {5: 1.0}}
        document: dict[str, Any] = {
            "redan": 1,
            "system": {
                "name": "shop",
                "task": "classification",
                "classes": 3,
                "model": {"factory": "training:served"},
                "output": "logits",
                "inputs": {"kind": "image" if images else "tensor", "shape": shape, "bounds": [0, 1]},
                "data": {
                    name: {"path": f"{name}.npz", "id": "id", "source": "source"}
                    for name in ("test", "train", "trusted")
                },
                "training": {"call": f"training:{training}", "deterministic": True},
            },
            "attackers": [
                {
                    "name": "supplier",
                    "kind": "poisoning",
                    "why": "rows are bought",
                    "goal": {"backdoor": {"trigger": trigger, "target": 0}},
                    "capability": {"share": 0.2, "may_change_labels": True},
                }
            ],
            "requirements": [{"metric": "backdoor_success", "at_most": 0.5, "against": "supplier"}],
            "attacks": {"mode": "quick"},
            "poisoning": {"victims": 3, "curve": [], "detect": False},
            "run": {"out": "runs", "workers": 1},
        }
        for key, value in changed.items():
            put_under(document, key.split("__"), copy.deepcopy(value))
        path = folder / "threat-model.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def in_threads() -> Callable[[], AbstractContextManager[None]]:
    """Within it, victims are trained by a thread that serves the same frames as a process does: one at a time.

    A process takes seconds to start. What a process alone can do (die, be killed) is in test_trainers.
    """

    @contextmanager
    def patched() -> Iterator[None]:
        started: list[threading.Thread] = []

        def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
            with suppress(OSError, ValueError):  # nobody listens any more
                trainer_child._serve(requests, replies)
            for stream in (requests, replies):
                with suppress(OSError):
                    stream.close()

        def start() -> trainers._Trainer:
            (asked, ask), (answered, answer) = os.pipe(), os.pipe()
            thread = threading.Thread(target=serve, args=(os.fdopen(asked, "rb"), os.fdopen(answer, "wb")), daemon=True)
            thread.start()
            started.append(thread)
            over: Any = SimpleNamespace(pid=0, returncode=0, poll=lambda: 0, wait=lambda: 0)
            return trainers._Trainer(over, os.fdopen(ask, "wb"), os.fdopen(answered, "rb"), io.BytesIO())

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a process of its own
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trainers, "_started", start)
                yield
        finally:
            torch.set_num_threads(threads)
            for thread in started:
                thread.join(60)
        assert not any(thread.is_alive() for thread in started)

    return patched
