"""One component of AutoAttack (pyautoattack) on a sample model: one request a line, as in `worker.py`.

    {"component": "apgd-ce", "model": "robust", "norm": "linf", "eps": 0.1, "rows": 128, "seed": 0, "out": "a.st"}
    {"cpu_seconds": 3.2, "robust_accuracy": 0.72}

``component`` is apgd-ce (one restart), apgd-t (nine targets), or square (``queries``, 1,000 by default); it runs
alone, from the clean inputs. ``norm`` is linf, l2 or l1; in L1 both APGDs run the authors' schedule of larger radii,
and apgd-t has five targets, as in their standard version.
"""

import json
import os
import sys
import time
from typing import Any

import torch
import worker
from pyautoattack import AutoAttack
from safetensors.torch import save_file


def run(request: dict[str, Any]) -> dict[str, float]:
    """Answer one request."""
    model = worker.load_model(request["model"])
    x, y = worker.load_rows(request["rows"])
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[request["norm"]]
    attack = AutoAttack(
        model, norm=norm, eps=request["eps"], seed=request["seed"], version="custom", attacks=[request["component"]]
    )
    attack.apgd.n_restarts = 1
    if norm == "L1":
        attack.apgd.use_largereps = attack.apgd_targeted.use_largereps = True
        attack.apgd_targeted.n_target_classes = 5
    attack.square.n_queries = request.get("queries", 1000)
    start = time.process_time()
    with worker.silence():
        x_adv = attack.run_standard_evaluation(x.clone(), y.clone(), batch_size=request["rows"])
    spent = time.process_time() - start
    x_adv = x_adv[0] if isinstance(x_adv, tuple) else x_adv
    if request.get("out"):
        save_file({"x_adv": x_adv.detach().float().contiguous()}, request["out"])
    return {"cpu_seconds": spent, "robust_accuracy": float((model(x_adv).argmax(1) == y).float().mean())}


def main() -> None:
    """Serve until standard input ends."""
    worker.keep_memory()
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
