"""torchattacks' and ART's own 'AutoAttack' on a sample model, one request a line, as in `worker.py`.

    {"peer": "art", "model": "robust", "norm": "linf", "eps": 0.1, "rows": 64, "seed": 0, "out": "a.safetensors"}
    {"cpu_seconds": 233.8, "repeats": [233.8], "forwards": 3169619, "backwards": 83507}

* ``peer`` is a key of `PEERS`. The first ``rows`` test images are attacked, the results saved as ``x_adv``.
* Passes are counted by a wrapper around the model, in examples.
* What takes under two seconds is repeated (`repeats.py`); ``cpu_seconds`` is the median.
* A peer that raises answers {"stopped": why}.
* ``{"versions": true}`` answers the versions of the peers.

Neither is AutoAttack's standard version, whatever its name says. torchattacks' passes no number of steps on, so that
APGD, its targeted form and FAB make 10 steps, the default of each, and not 100. ART's is APGD on the cross-entropy and
on the difference of logits ratio, five restarts each, DeepFool, and Square with five restarts of 5,000 queries.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import json
import random
import sys
from typing import Any

import numpy as np
import repeats
import torch
import torchattacks
import worker
from adapters import CLASSES, STUBS, Task, art_classifier, by_art
from art.attacks import evasion
from safetensors.torch import save_file
from torch import Tensor


def by_torchattacks(task: Task) -> Tensor:
    """Torchattacks' AutoAttack, version standard."""
    norm = {"linf": "Linf", "l2": "L2"}[task.norm]
    attack = torchattacks.AutoAttack(
        task.model, norm=norm, eps=task.eps, version="standard", n_classes=CLASSES, seed=task.seed
    )
    made: Tensor = attack(task.x, task.y)
    return made


def by_art_itself(task: Task) -> Tensor:
    """ART's AutoAttack with the attacks it chooses itself.

    The first step is twice the radius, as APGD's authors have it (Croce and Hein 2020, section 3). generate() imports
    multiprocess, which ART does not ask for and uses for its pool of processes only: a stand-in comes last on the path.
    """
    if str(STUBS) not in sys.path:
        sys.path.append(str(STUBS))
    attack = evasion.AutoAttack(
        art_classifier(task), norm=task.order, eps=task.eps, eps_step=2 * task.eps, batch_size=len(task.x)
    )
    return by_art(attack, task)


PEERS = {"torchattacks": by_torchattacks, "art": by_art_itself}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    x, y = worker.load_rows(request["rows"])

    def once() -> tuple[Tensor, worker.Counted]:
        counted = worker.Counted(worker.load_model(request["model"])).eval()
        random.seed(request["seed"])
        np.random.seed(request["seed"])
        torch.manual_seed(request["seed"])
        task = Task(counted, x.clone(), y.clone(), request["norm"], request["eps"], request["seed"])
        return PEERS[request["peer"]](task), counted

    try:
        with worker.silence():
            (x_adv, counted), spent = repeats.repeated(once)
    except Exception as error:
        return {"stopped": f"{type(error).__name__}: {error}"[:200]}
    save_file({"x_adv": x_adv.detach().float().contiguous()}, request["out"])
    return repeats.told(spent) | {"forwards": counted.forwards, "backwards": counted.backwards}


def main() -> None:
    """Serve until standard input ends."""
    worker.keep_memory()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            request = json.loads(line)
            answer = worker.versions() if "versions" in request else run(request)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
