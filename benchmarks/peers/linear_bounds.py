"""auto_LiRPA's bounds of a network that a benchmark built, one request a line.

Its parent writes JSON lines to standard input and reads one line back for each:

    {"form": "plain", "weights": "w.st", "rows": "r.st", "eps": 0.02, "method": "CROWN", "double": true, "batch": 1}
    {"cpu_seconds": 0.41, "lower": [[1.4, 2.2, ...], ...]}

* ``form``: a key of ``FORMS`` in ``defenses_nets.py``. ``weights``: its own, safetensors. ``rows``: a safetensors file
  with `x` (N, 1, 28, 28) in [0, 1] and `y` (N,). The region is the L∞ ball cut at [0, 1].
* ``method``: of ``BoundedModule.compute_bounds``: "IBP", "CROWN-IBP" or "CROWN". ``double``: compute in float64.
  ``batch``: rows bounded at a time. ``patches``: convolutions by patches, its own default, or as matrices.
* ``lower``: for each row, of the label's score minus each other class's, in the classes' order.
* ``{"versions": true}`` answers versions. A network that it refuses answers ``{"error": ..., "unsupported": true}``.

Its releases after 0.3 are not on PyPI. The variable AUTO_LIRPA names a folder that holds the package of a newer one, as
its authors publish it, and what it imports besides torch (appdirs, PyYAML, graphviz).

Time is that of ``compute_bounds`` on one thread, in CPU seconds, after one unrecorded run; what the network's graph is
read for is not in it. redan is not imported, and no code of auto_LiRPA is copied.
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
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

sys.path[:0] = [str(Path(__file__).resolve().parent), *filter(None, os.environ.get("AUTO_LIRPA", "").split(os.pathsep))]

import torch
import worker
from safetensors.torch import load_file
from torch import Tensor, nn


class Refused(RuntimeError):
    """auto_LiRPA raised."""


def peer() -> Any:
    """auto_LiRPA."""
    return import_module("auto_LiRPA")


def network(form: str, weights: str) -> nn.Module:
    """The network in evaluation mode."""
    nets = worker.load_module("defenses_nets", Path(__file__).resolve().parents[1] / "defenses_nets.py")
    model: nn.Module = nets.FORMS[form]()
    model.load_state_dict(load_file(weights))
    return model.eval()


@cache
def bounded(form: str, weights: str, double: bool, batch: int, patches: bool) -> Any:
    """The network with bounds, for batches of this size."""
    dtype = torch.float64 if double else torch.float32
    model = network(form, weights).to(dtype)
    options = {"conv_mode": "patches" if patches else "matrix"}
    return peer().BoundedModule(model, torch.zeros(batch, 1, 28, 28, dtype=dtype), bound_opts=options, device="cpu")


def margins(made: Any, x: Tensor, y: Tensor, eps: float, method: str) -> Tensor:
    """Lower bounds (N, K - 1)."""
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    ball = peer().PerturbationLpNorm(norm=float("inf"), eps=eps, x_L=low, x_U=high)
    unit = torch.eye(10, dtype=x.dtype)
    gaps = (unit[y][:, None] - unit[None])[~unit[y].bool()].reshape(len(x), 9, 10)
    with torch.no_grad():
        lower, _ = made.compute_bounds(x=(peer().BoundedTensor(x, ball),), C=gaps, method=method, bound_upper=False)
    found: Tensor = lower
    return found


def serve(
    form: str, weights: str, rows: str, eps: float, method: str, double: bool, batch: int = 1, patches: bool = True
) -> dict[str, Any]:
    """Answer one request."""
    data = load_file(rows)
    x, y = data["x"].to(torch.float64 if double else torch.float32), data["y"]
    try:
        with worker.silence():
            made = bounded(form, weights, double, batch, patches)
            margins(made, x[:batch], y[:batch], eps, method)
            gc.collect()
            begun = time.process_time()
            found = [
                margins(made, part, labels, eps, method)
                for part, labels in zip(torch.split(x, batch), torch.split(y, batch), strict=True)
            ]
            seconds = time.process_time() - begun
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    return {"cpu_seconds": seconds, "lower": torch.cat(found).double().tolist()}


def reply(line: str) -> dict[str, Any]:
    """Answer one line; whatever goes wrong becomes part of the answer."""
    try:
        fields = json.loads(line)
        if fields == {"versions": True}:
            return {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "auto_LiRPA": peer().__version__,
            }
        return serve(**fields)
    except Refused as error:
        return {"error": str(error), "unsupported": True, "traceback": None}
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
    warnings.simplefilter("ignore")
    # The answers get a descriptor of their own, and descriptor 1 becomes standard error.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(reply(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
