"""ART's randomized smoothing on a network that a benchmark trained, one request a line.

Its parent writes JSON lines to standard input and reads one line back for each:

    {"form": "small", "weights": "w.st", "rows": "r.st", "sigma": 0.5, "selection": 100, "draws": 10000,
     "alpha": 0.001, "batch": 512, "seed": 0}
    {"cpu_seconds": 61.2, "prediction": [9, -1, ...], "radius": [0.81, 0.0, ...]}

* ``form``: a key of ``FORMS`` in ``defenses_nets.py``. ``weights``: its own, safetensors. ``rows``: a safetensors file
  with `x` (N, 1, 28, 28).
* ``selection``: ART's ``sample_size``, which chooses the class; ``draws``: ART's ``n``, which certifies it. ``batch``:
  draws that the network sees at a time. ``seed``: of numpy's global numbers, which ART's noise is drawn from.
* ``prediction``: -1 where ART abstains. ``{"versions": true}`` answers versions.

Time is that of ``certify`` on one thread, in CPU seconds. redan is not imported, and no code of ART is copied.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # these are read once, when numpy and torch are loaded
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import gc
import json
import platform
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
import torch
import worker
from safetensors.torch import load_file
from torch import nn

PACKAGES = ("adversarial-robustness-toolbox", "statsmodels", "torch", "numpy")
CLASSES, SHAPE = 10, (1, 28, 28)


def network(form: str, weights: str) -> nn.Module:
    """The network in evaluation mode."""
    nets = worker.load_module("defenses_nets", Path(__file__).resolve().parents[1] / "defenses_nets.py")
    model: nn.Module = nets.FORMS[form]()
    model.load_state_dict(load_file(weights))
    return model.eval()


def serve(
    form: str,
    weights: str,
    rows: str,
    sigma: float,
    selection: int,
    draws: int,
    alpha: float,
    batch: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Answer one request."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    x = load_file(rows)["x"].numpy()
    smoothed = PyTorchRandomizedSmoothing(
        network(form, weights),
        loss=nn.CrossEntropyLoss(),
        input_shape=SHAPE,
        nb_classes=CLASSES,
        device_type="cpu",
        sample_size=selection,
        scale=sigma,
        alpha=alpha,
    )
    np.random.seed(seed)  # ART's noise has no seed of its own
    gc.collect()
    with worker.silence():
        begun = time.process_time()
        prediction, radius = smoothed.certify(x, n=draws, batch_size=batch)
        seconds = time.process_time() - begun
    return {"cpu_seconds": seconds, "prediction": prediction.tolist(), "radius": radius.tolist()}


def reply(line: str) -> dict[str, Any]:
    """Answer one line; whatever goes wrong becomes part of the answer."""
    try:
        fields = json.loads(line)
        if fields == {"versions": True}:
            return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
        return serve(**fields)
    except Exception as error:
        return {
            "error": f"{type(error).__name__}: {error}",
            "unsupported": False,
            "traceback": traceback.format_exc(),
        }


def main() -> None:
    """Serve until standard input ends."""
    worker.keep_memory()
    torch.set_num_threads(1)
    # The answers get a descriptor of their own, and descriptor 1 becomes standard error.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(reply(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
