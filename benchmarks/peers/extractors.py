"""ART's KnockoffNets and CopycatCNN on rows that a benchmark chose, one request a line.

Its parent writes JSON lines to standard input and reads one line back for each:

    {"attack": "knockoff", "victim": "v.st", "rows": "r.st", "soft": true, "rate": 0.002, "batch": 64, "epochs": 20,
     "seed": 0, "out": "copy.st"}
    {"cpu_seconds": 14.2}

* ``victim``: weights of the sample network `cnn`, safetensors. ``rows``: a safetensors file with `x` (N, 1, 28, 28) and
  for adaptive extraction `groups` (N,); every row is asked, in an order that ART draws.
* ``attack``: "knockoff" (random strategy), "adaptive" (`KnockoffNets` by its bandit, ``queries`` of them, all rewards)
  or "copycat". ``soft``: learn probabilities. ART says that its victims answer logits, but learns whatever they answer,
  so a victim that is learned from softly ends in a softmax here; labels are the same.
* ``rate``, ``batch``, ``epochs``: of Adam, which trains a network of the benchmark's form from the seed.
* ``out``: where the copy's weights go. ``{"versions": true}`` answers versions.

Time is that of `extract` on one thread, in CPU seconds. redan is not imported, and no code of ART is copied.
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PACKAGES = ("adversarial-robustness-toolbox", "torch", "numpy")
CLASSES, SHAPE = 10, (1, 28, 28)
QUERY_BATCH = 1000


class Centered(nn.Module):
    """Moves rows from [0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.5


def surrogate(seed: int) -> nn.Module:
    """The benchmark's surrogate, with the same names and the same first numbers as redan's."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )
    return nn.Sequential(Centered(), network)


def classifier(model: nn.Module, rate: float | None = None) -> Any:
    """ART's view of a network; with an Adam if it shall learn."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=None if rate is None else torch.optim.Adam(model.parameters(), lr=rate),
        input_shape=SHAPE,
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def victim(path: str, *, soft: bool) -> nn.Module:
    """The model that is copied."""
    model = worker.untrained("cnn")
    model.load_state_dict(load_file(path))
    return nn.Sequential(model, nn.Softmax(1)).eval() if soft else model


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    from art.attacks.extraction import CopycatCNN, KnockoffNets

    stored = load_file(request["rows"])
    x = stored["x"].numpy()
    model = classifier(victim(request["victim"], soft=request["soft"]))
    copy = surrogate(request["seed"])
    thief = classifier(copy, request["rate"])
    training = {"batch_size_fit": request["batch"], "batch_size_query": QUERY_BATCH, "nb_epochs": request["epochs"]}
    groups = None
    match request["attack"]:
        case "copycat":
            attack: Any = CopycatCNN(model, nb_stolen=len(x), use_probability=request["soft"], **training)
        case "knockoff":
            attack = KnockoffNets(model, nb_stolen=len(x), use_probability=request["soft"], verbose=False, **training)
        case "adaptive":
            attack = KnockoffNets(
                model, nb_stolen=request["queries"], sampling_strategy="adaptive", verbose=False, **training
            )
            groups = stored["groups"].numpy()
        case unknown:
            raise ValueError(f"no attack {unknown!r}")
    np.random.seed(request["seed"])
    gc.collect()
    with worker.silence():
        begun = time.process_time()
        attack.extract(x, groups, thieved_classifier=thief)
        seconds = time.process_time() - begun
    if request.get("out"):
        save_file({name: part.detach().contiguous() for name, part in copy.state_dict().items()}, request["out"])
    return {"cpu_seconds": round(seconds, 4)}


def reply(line: str) -> dict[str, Any]:
    """Answer one line; whatever goes wrong becomes part of the answer."""
    try:
        request = json.loads(line)
        if request == {"versions": True}:
            return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
        return serve(request)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"error": reason, "unsupported": False, "traceback": traceback.format_exc()}


def main() -> None:
    """Serve until standard input ends."""
    worker.keep_memory()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    # The answers get a descriptor of their own, and descriptor 1 becomes standard error.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(reply(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
