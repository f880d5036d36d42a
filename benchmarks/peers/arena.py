"""Serve every attack of every peer to a benchmark in another process, one request a line, as `worker.py` does.

    {"attack": "ddn_foolbox", "setting": {"steps": 100, "start": 1.0, "gamma": 0.05}, "model": "robust", "norm": "l2",
     "eps": Infinity, "index": [0, 1, 3], "seed": 0, "passes": 900, "seconds": 60, "out": "a.safetensors"}
    {"cpu_seconds": 3.1, "forwards": 303, "backwards": 300}

* ``attack`` is a function of `ATTACKS`, called with ``setting``; ``index`` are test images; the adversarial ones are
  saved as ``x_adv``.
* Passes are counted by a wrapper around the model, in examples. An attack that makes more than ``passes``, or takes
  more CPU ``seconds``, is ended; it answers {"stopped": why}, as does one that raises.
* ``model`` is the one that the attack looks into: the surrogate where another model is the victim. ``"fitted": [256,
  500]`` hands over 500 more test images, from number 256 on, to fit something on.
* ``{"versions": true}`` answers the versions of the peers.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import json
import random
import signal
import sys
import time
from types import FrameType, ModuleType
from typing import Any, NoReturn, TextIO

import descents
import gradient_steps
import gray
import linearizations
import numpy as np
import penalties
import searches
import torch
import transformations
import universals
import worker
from adapters import Task
from safetensors.torch import save_file

_HOMES: tuple[ModuleType, ...] = (
    gradient_steps,
    searches,
    penalties,
    descents,
    linearizations,
    transformations,
    universals,
    gray,
)
ATTACKS = {
    name: getattr(home, name)
    for home in _HOMES
    for name in vars(home)
    if getattr(getattr(home, name), "__module__", None) == home.__name__ and not name.startswith("_")
}


class TooLong(RuntimeError):
    """An attack took more CPU time than it was given."""


def _ring(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise TooLong("far more CPU time than it was given")


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request."""
    everything = worker.load_rows(1000)
    index = torch.tensor(request["index"])
    counted = worker.Counted(worker.load_model(request["model"]), most=request["passes"]).eval()
    x, y = (part[index].clone() for part in everything)
    random.seed(request["seed"])
    np.random.seed(request["seed"])
    torch.manual_seed(request["seed"])
    fitted = None
    if "fitted" in request:
        first, rows = request["fitted"]
        fitted = (everything[0][first : first + rows].clone(), everything[1][first : first + rows].clone())
    task = Task(counted, x, y, request["norm"], request["eps"], request["seed"], fitted)
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    start = time.process_time()
    try:
        with worker.silence():
            x_adv = ATTACKS[request["attack"]](task, **request["setting"])
        spent = time.process_time() - start
    except Exception as error:
        return {"stopped": f"{type(error).__name__}: {error}"[:200]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    save_file({"x_adv": x_adv.detach().float().contiguous()}, request["out"])
    return {"cpu_seconds": spent, "forwards": counted.forwards, "backwards": counted.backwards}


def main() -> None:
    """Serve until standard input ends."""
    worker.keep_memory()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    signal.signal(signal.SIGPROF, _ring)
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            request = json.loads(line)
            answer = worker.versions() if request == {"versions": True} else serve(request)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
