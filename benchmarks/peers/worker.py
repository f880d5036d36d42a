"""Serve the peers' PGD to a benchmark in another process, one request a line.

A benchmark that interleaves redan with its peers starts this file with the peers' interpreter, writes requests
to its standard input as JSON lines and reads one JSON line back for each:

    {"peer": "foolbox", "model": "robust", "norm": "linf", "eps": 0.1, "rows": 256, "seed": 0, "out": "a.st"}
    {"cpu_seconds": 1.44, "wall": 1.45, "forwards": null, "backwards": null}

* ``peer`` is a key of ``attacks.PEERS``, ``model`` one of BUILDERS. The rows are the first
  ``rows`` test images. ``out`` is optional; the adversarial images are saved there, in the safetensors format,
  as ``x_adv``.
* ``"count": true`` counts passes instead of seconds, because counting costs time: ``forwards`` and
  ``backwards`` are examples passed through the model divided by rows, and the two times are null.
* ``"steps": n`` overrides the 40 steps, not the step's size.
* ``{"versions": true}`` answers the versions of the peers, torch, numpy and Python.
* A request that cannot be served answers ``{"error": ..., "unsupported": ..., "traceback": ...}``, and the
  worker goes on; ``unsupported`` says that the peer has no such attack, not that something went wrong.

Everything runs on one thread. A model is loaded once; before the first timing of a peer on a model, norm and
number of rows, one unrecorded run imports the peer and fills the caches. The times are those of the attack
call alone. What the peers print never reaches the answers. redan is not imported: its sample models are plain
torch modules, loaded by path.

`keep_memory` takes the allocator's luck out of the times. Without it, a process may hand the freed activations
back to the system in every step and fault them in again in the next: 40 % more CPU time or none, by the accident
of the heap's layout. A benchmark must call it in the process that times redan too.

``worker.py --check`` runs each peer for two steps on an untrained model and exits; the installer uses it.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # these are read once, when numpy and torch are loaded
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import contextlib
import ctypes
import gc
import importlib.util
import json
import math
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TextIO

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def load_module(name: str, path: Path) -> ModuleType:
    """Load one file under a name of its own, whatever the import path holds."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the worker from a full checkout")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# By path, so that a benchmark that imports this file finds it too.
attacks = load_module("peers_pgd", Path(__file__).with_name("pgd_attacks.py"))

SAMPLES = Path(__file__).resolve().parents[2] / "src" / "redan" / "samples"
BUILDERS = {
    "natural": "cnn",
    "robust": "cnn",
    "residual": "residual",
    "distilled": "cnn",
    "fast": "cnn",
    "trades": "cnn",
    "winners": "winners",
}
PACKAGES = (
    "adversarial-robustness-toolbox",
    "foolbox",
    "cleverhans",
    "torchattacks",
    "adv-lib",
    "pyautoattack",
    "torch",
    "numpy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One run of one peer; an unknown or missing key is an error."""

    peer: str
    model: str
    norm: Literal["linf", "l2"]
    eps: float
    rows: int
    seed: int
    steps: int = attacks.STEPS
    out: str | None = None
    count: bool = False

    def __post_init__(self) -> None:
        for name, known in (("peer", attacks.PEERS), ("model", BUILDERS), ("norm", ("linf", "l2"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(known)}")


class TooManyPasses(RuntimeError):
    """An attack went on beyond what it may spend."""


class Counted(nn.Module):
    """A model that counts the examples that pass through it, forward and backward.

    A wrapper and not a hook on the model: ART calls the layers of a ``Sequential`` one by one, which no hook
    on the ``Sequential`` would see. It ends an attack that passes more than ``most`` examples, by `TooManyPasses`.
    """

    def __init__(self, model: nn.Module, most: float = math.inf) -> None:
        super().__init__()
        self.model = model
        self.forwards = 0
        self.backwards = 0
        self._most = most

    def forward(self, x: Tensor) -> Tensor:
        """Count (N, ...), and its gradient if one is asked for later; return the logits."""
        if self.forwards + self.backwards > self._most:
            raise TooManyPasses("far more passes than the budget")
        logits: Tensor = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            register: Callable[..., object] = logits.register_hook
            register(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def keep_memory() -> bool:
    """Tell the C library to keep freed memory; return whether it did (glibc only, elsewhere nothing changes).

    Blocks up to 32 MiB come from the heap and not from mappings of their own (``M_MMAP_THRESHOLD``, the largest
    value allowed), and the heap's free end is not given back (``M_TRIM_THRESHOLD``).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # the numbers of malloc.h
    return bool(mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 2**31 - 1))


@cache
def architectures() -> ModuleType:
    """Load the sample models' file without importing the package around it."""
    return load_module("sample_models", SAMPLES / "models.py")


def untrained(builder: str) -> nn.Module:
    """Return a frozen model in evaluation mode, without its weights."""
    model: nn.Module = getattr(architectures(), builder)()
    return model.eval().requires_grad_(False)


@cache
def load_model(name: str) -> nn.Module:
    """Return the frozen sample model of this name."""
    model = untrained(BUILDERS[name])
    model.load_state_dict(load_file(SAMPLES / f"fashion_{name}.safetensors"))
    return model


@cache
def load_rows(rows: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return test images (N, 1, 28, 28) in [0, 1] from the one at ``first`` on, and their labels (N,)."""
    with np.load(SAMPLES / "fashion_mnist.npz", allow_pickle=False) as data:
        images, labels = data["test_images"], data["test_labels"]
    if not (rows > 0 and first >= 0 and first + rows <= len(images)):
        raise ValueError(f"rows is {rows} from {first} on: ask for some among {len(images)}")
    x = torch.from_numpy(images[first : first + rows]).unsqueeze(1).float() / 255
    return x, torch.from_numpy(labels[first : first + rows].astype(np.int64))


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Swallow what the peers print, progress bars included."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def attack(request: Request, model: nn.Module) -> tuple[Tensor, float, float]:
    """Run one request; return the adversarial images, the CPU seconds and the wall seconds."""
    x, y = load_rows(request.rows)
    x, y = x.clone(), y.clone()  # a peer that writes to its inputs must not change the next request's
    run = attacks.PEERS[request.peer]
    step_size = attacks.default_step_size(request.eps)
    gc.collect()
    with silence():
        wall, cpu = time.perf_counter(), time.process_time()
        x_adv = run(
            model,
            x,
            y,
            norm=request.norm,
            eps=request.eps,
            steps=request.steps,
            step_size=step_size,
            seed=request.seed,
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return x_adv, cpu, wall


def serve(request: Request, warm: set[tuple[str, str, str, int]]) -> dict[str, float | None]:
    """Answer one request; ``warm`` remembers what has had its warm-up."""
    model = load_model(request.model)
    if request.count:
        counted = Counted(model).eval()
        x_adv, _, _ = attack(request, counted)
        forwards, backwards = counted.forwards / request.rows, counted.backwards / request.rows
        answer = {"cpu_seconds": None, "wall": None, "forwards": forwards, "backwards": backwards}
    else:
        key = (request.peer, request.model, request.norm, request.rows)
        if key not in warm:
            attack(request, model)
            warm.add(key)
        x_adv, cpu, wall = attack(request, model)
        answer = {"cpu_seconds": cpu, "wall": wall, "forwards": None, "backwards": None}
    if request.out is not None:
        save_file({"x_adv": x_adv.detach().float().contiguous()}, request.out)
    return answer


def versions() -> dict[str, str]:
    """Return the versions that a benchmark records."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def reply(line: str, warm: set[tuple[str, str, str, int]]) -> dict[str, Any]:
    """Answer one line; whatever goes wrong becomes part of the answer."""
    try:
        fields = json.loads(line)
        if fields == {"versions": True}:
            return versions()
        return serve(Request(**fields), warm)
    except attacks.UnsupportedNorm as error:
        return {"error": str(error), "unsupported": True, "traceback": None}
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"error": reason, "unsupported": False, "traceback": traceback.format_exc()}


def check() -> None:
    """Run each peer for two steps on an untrained model, and import what is only used for accuracy."""
    import pyautoattack  # noqa: F401

    model, x = untrained("cnn"), torch.rand(8, 1, 28, 28)
    y = model(x).argmax(1)
    for name, run in attacks.PEERS.items():
        for norm in ("linf", "l2"):
            with contextlib.suppress(attacks.UnsupportedNorm), silence():
                x_adv = run(model, x, y, norm=norm, eps=0.1, steps=2, step_size=0.05, seed=0)
                if x_adv.shape != x.shape or not x_adv.isfinite().all():
                    raise RuntimeError(f"{name} returned something else than images for {norm}")
    print(json.dumps(versions()))


def main() -> None:
    """Serve until standard input ends."""
    keep_memory()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    if sys.argv[1:] == ["--check"]:
        check()
        return
    # The answers get a descriptor of their own, and descriptor 1 becomes standard error: not even a print
    # from compiled code can get between them.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm: set[tuple[str, str, str, int]] = set()
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(reply(line, warm)), file=answers, flush=True)


if __name__ == "__main__":
    main()
