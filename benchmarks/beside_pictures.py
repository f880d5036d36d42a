"""One contestant on EfficientNet-Lite0 and twenty pictures, for `beside.py`, in the environment of `tools/extras.sh`.

    python benchmarks/beside_pictures.py '{"contestant": "default", "norm": "linf", "eps": 0.0156863, "seed": 0}'

prints ``{"robust": [3], "outside": 0, "cpu_seconds": 12.7, "repeats": [12.7], "forwards": 71, "backwards": 74}``: what
`judge.py` finds robust. ``contestant`` is a mode of ours, or pyautoattack: AutoAttack's standard version. That one is
Python on torch alone, and is read from the peers' environment, which this one has everything else of.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "imagenet"
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]

import torch
import worker
import yaml
from torch import Tensor, nn

import judge
from redan import L2, Linf, Mode, robust_accuracy

REFERENCE = "pyautoattack"
Contestant: TypeAlias = Callable[[nn.Module, Tensor, Tensor, dict[str, Any]], tuple[Tensor, int, int]]


class Normalized(nn.Module):
    """A model of normalized pictures, asked about pictures in [0, 1]."""

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model = model
        self.mean = nn.Buffer(torch.tensor(mean).reshape(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) to logits (N, 1000)."""
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits


def victim() -> tuple[nn.Module, Tensor, Tensor]:
    """The frozen network in evaluation mode, the pictures in [0, 1] and their classes."""
    imagenet = worker.load_module("imagenet", EXAMPLE / "imagenet.py")
    given = yaml.safe_load((EXAMPLE / "threat-model.yaml").read_text())["system"]["inputs"]["normalization"]
    model = Normalized(imagenet.model(), given["mean"], given["std"]).eval().requires_grad_(False)
    rows = imagenet.pictures()
    return model, torch.from_numpy(rows["x"]).float() / 255, torch.from_numpy(rows["y"])


def ours(model: nn.Module, x: Tensor, y: Tensor, request: dict[str, Any]) -> tuple[Tensor, int, int]:
    """Adversarial pictures, forward and backward passes of a mode of ours."""
    within = Linf(request["eps"]) if request["norm"] == "linf" else L2(request["eps"])
    score = robust_accuracy(
        model, x, y, within=within, mode=Mode(request["contestant"]), seed=request["seed"], workers=1
    )
    return score.outcomes.x, score.forwards, score.backwards


def reference(model: nn.Module, x: Tensor, y: Tensor, request: dict[str, Any]) -> tuple[Tensor, int, int]:
    """Adversarial pictures, forward and backward passes of AutoAttack's standard version."""
    from pyautoattack import AutoAttack

    counted, norm = worker.Counted(model).eval(), {"linf": "Linf", "l2": "L2"}[request["norm"]]
    attack = AutoAttack(counted, norm=norm, eps=request["eps"], seed=request["seed"])
    with worker.silence():
        found = attack.run_standard_evaluation(x.clone(), y.clone(), batch_size=len(x))
    return (found[0] if isinstance(found, tuple) else found), counted.forwards, counted.backwards


def contestant(name: str) -> Contestant:
    """The function of this name, with all that it imports."""
    if name != REFERENCE:
        return ours
    (packages,) = (ROOT / ".envs" / "peers" / "lib").glob("python*/site-packages")
    sys.path.append(str(packages))  # last: what is installed here wins
    importlib.import_module(REFERENCE)
    return reference


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    attack, (model, x, y) = contestant(request["contestant"]), victim()
    model(x[:1])  # what the first pass of a process costs is nobody's
    start = time.process_time()
    x_adv, forwards, backwards = attack(model, x, y, request)
    spent = time.process_time() - start
    found = judge.judge(model, x, y, x_adv, norm=request["norm"], eps=request["eps"])
    robust = (found.right_before & ~found.broken).nonzero().flatten().tolist()
    return {"robust": robust, "outside": int((~found.inside).sum()), "cpu_seconds": spent, "repeats": [spent],
            "forwards": forwards, "backwards": backwards}  # fmt: skip


def main() -> None:
    """Answer the request of the command line."""
    worker.keep_memory()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(run(json.loads(sys.argv[1]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
