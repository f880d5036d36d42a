"""ART's adversarial trainers on rows and first weights that a benchmark chose, one request a line.

Its parent writes JSON lines to standard input and reads one line back for each:

    {"trainer": "madry", "form": "cnn", "weights": "w.st", "rows": "r.st", "eps": 0.1, "steps": 7, "epochs": 1,
     "batch": 128, "rate": 0.002, "seed": 0, "out": "trained.st"}
    {"cpu_seconds": 11.2}

* ``trainer``: "madry" (`AdversarialTrainerMadryPGD`, steps of 2.5 radii in all from a random start) or "fbf"
  (`AdversarialTrainerFBFPyTorch`, which has a step and a schedule of its own and needs no ``steps``).
* ``form``: a builder of redan's sample models. ``weights``: its first ones, safetensors. ``rows``: a safetensors file
  with `x` (N, 1, 28, 28) and `y` (N,).
* ``rate``: of Adam, which rises in a tenth of all batches and falls to 0 in the rest; ART steps a scheduler that it is
  given after each batch. ``seed``: of the global numbers of numpy and torch, which orders and starts are drawn from.
* ``out``: where the trained weights go. ``"count": true`` counts instead: ``forwards`` and ``backwards`` are examples
  passed through the network divided by rows and epochs. ``{"versions": true}`` answers versions.

Time is that of ``fit`` on one thread, in CPU seconds. redan is not imported, and no code of ART is copied.
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
RISE = 0.1


class Whole(nn.Module):
    """A network that ART does not take apart: its fast trainer fails on a `Sequential`, whose layers it is told of."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def network(form: str, weights: str) -> nn.Module:
    """The network, ready to be trained."""
    model: nn.Module = getattr(worker.architectures(), form)()
    model.load_state_dict(load_file(weights))
    return model.train()


def serve(
    trainer: str,
    form: str,
    weights: str,
    rows: str,
    eps: float,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    *,
    steps: int = 7,
    out: str | None = None,
    count: bool = False,
) -> dict[str, Any]:
    """Answer one request."""
    from art.defences.trainer import AdversarialTrainerFBFPyTorch, AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    stored = load_file(rows)
    x, y = stored["x"].numpy(), np.eye(CLASSES, dtype=np.float32)[stored["y"].numpy()]
    model = network(form, weights)
    counted = worker.Counted(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    classifier = PyTorchClassifier(
        counted if count else Whole(model),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        input_shape=SHAPE,
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    total = epochs * -(-len(x) // batch)
    settings: dict[str, Any] = {"batch_size": batch, "nb_epochs": epochs}
    match trainer:
        case "madry":
            training: Any = AdversarialTrainerMadryPGD(
                classifier, eps=eps, eps_step=2.5 * eps / steps, max_iter=steps, num_random_init=1
            )
            settings["scheduler"] = torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step: max(0.0, min((step + 0.5) / (RISE * total), (1 - (step + 0.5) / total) / (1 - RISE))),
            )
        case "fbf":
            training = AdversarialTrainerFBFPyTorch(classifier, eps=eps)
        case unknown:
            raise ValueError(f"no trainer {unknown!r}")
    np.random.seed(seed)
    torch.manual_seed(seed)
    gc.collect()
    with worker.silence():
        begun = time.process_time()
        training.fit(x, y, **settings)
        seconds = time.process_time() - begun
    if out is not None:
        save_file({name: part.detach().contiguous() for name, part in model.state_dict().items()}, out)
    if count:
        each = len(x) * epochs
        return {"forwards": counted.forwards / each, "backwards": counted.backwards / each}
    return {"cpu_seconds": seconds}


def reply(line: str) -> dict[str, Any]:
    """Answer one line; whatever goes wrong becomes part of the answer."""
    try:
        fields = json.loads(line)
        if fields == {"versions": True}:
            return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
        return serve(**fields)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return {"error": reason, "unsupported": False, "traceback": traceback.format_exc()}


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
