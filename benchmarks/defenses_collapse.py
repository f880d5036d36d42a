"""Catastrophic overfitting in a committed configuration: FGSM training as it is, with the remedy, and PGD training.

The network NETWORK, ROWS images of Fashion-MNIST, EPOCHS epochs in L∞ at EPSILON, Adam at RATE. A cell a seed and way:

    fgsm      FGSM from the clean image; the watch looks every EVERY steps, and only records its alarms
    remedy    the same with a remedy: at an alarm back to the last good state, if there is one, and on with PGD-10. The
              watch's own remedies begin with two steps, which at this radius end far behind or not, by the seed
    pgd       PGD-10 throughout, watched too

Of 5 epochs a collapse in the first one costs a fifth, and the remedy ended 7.8 points behind PGD training: what is
repaired must train as long as what is not. The attacks of all trainings compute in bfloat16. After each epoch FOLLOWED
held-out images are attacked by FGSM and by PGD-10, which dates a collapse without the watch. The last epoch's weights
are judged on TESTED test images by PGD with 40 steps, whose successes the referee decides.

`defenses_collapse_claims.py` says what follows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import torch
from torch import nn
from worker import keep_memory

import defenses_nets
import harness
import parts
import poisoning_lab as lab
from redan.engine.run import attack
from redan.evasion.pgd import PGD
from redan.hardening import FGSM, PGD_10, Adversarial, Inner, Score, Shuffled, Training, Validation, Watch, harden
from redan.perturbations.norms import Linf

MEASURES = ("benchmarks/defenses_collapse.py", "benchmarks/defenses_nets.py", "src/redan/hardening")
NETWORK = "normalized"
EPSILON = 0.3
WITHIN = Linf(EPSILON)
ROWS, EPOCHS, BATCH, RATE = 12_000, 12, 128, 4e-3
EVERY = 20
SEEDS = (0, 1, 2, 3, 4)
FOLLOWED, TESTED, STEPS = 256, 1000, 40
WAYS: dict[str, tuple[Inner, Watch]] = {
    "fgsm": (FGSM, Watch(every=EVERY, remedies=())),
    "remedy": (FGSM, Watch(every=EVERY, remedies=(PGD_10,))),
    "pgd": (PGD_10, Watch(every=EVERY, remedies=())),
}


def cells() -> list[parts.Cell]:
    import defenses_collapse as here  # not `__main__`, which a child process would not find

    return [parts.Cell(f"{way}-{seed}", here.trained, {"way": way, "seed": seed}) for seed in SEEDS for way in WAYS]


@dataclass(slots=True)
class Followed:
    """Validations by FGSM and by PGD that keep what they found, and take every epoch for the best: the last one's
    weights stay."""

    weak: Validation
    strong: Validation
    found: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, model: nn.Module, seed: int) -> Score:
        weak, strong = self.weak(model, seed), self.strong(model, seed)
        self.found.append((weak.robust, strong.robust))
        return Score(strong.clean, float(len(self.found)))


def trained(way: str, seed: int) -> parts.Row:
    """One training, its epochs and alarms, and what its last weights stand."""
    keep_memory()
    data = lab.fashion()
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)
    torch.manual_seed(seed)
    model = defenses_nets.FORMS[NETWORK]()
    inner, watch = WAYS[way]
    rows = Shuffled(x[:ROWS], y[:ROWS], batch=BATCH)
    weak, strong = (Validation(x=x[-FOLLOWED:], y=y[-FOLLOWED:], within=WITHIN, inner=each) for each in (FGSM, PGD_10))
    followed = Followed(weak, strong)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    begun = time.process_time()
    found = harden(
        model,
        rows,
        Training(objective=Adversarial(within=WITHIN, inner=inner), epochs=EPOCHS, watch=watch, half=True, seed=seed),
        optimizer=optimizer,
        validation=followed,
    )
    seconds = time.process_time() - begun
    model.eval()
    x, y = torch.from_numpy(data.test.x[:TESTED]), torch.from_numpy(data.test.y[:TESTED])
    with torch.no_grad():
        clean = int((model(x).argmax(1) == y).sum())
    broken = attack(model, x, y, PGD(steps=STEPS), within=WITHIN, seed=0)
    return {
        "way": way,
        "seed": seed,
        "batches": len(rows),
        "seconds": seconds,
        "epochs": followed.found,
        "alarms": [{"step": alarm.step, "weak": alarm.weak, "strong": alarm.strong, "restored": alarm.restored,
                    "remedy": alarm.remedy} for alarm in found.alarms],
        "n": len(x),
        "clean": clean,
        "robust": int((~broken.success).sum()),
        "errors": len(broken.errors),
    }  # fmt: skip


def claims(rows: Mapping[str, parts.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("defenses_collapse_claims").claims(rows)
    return found


def table(rows: Mapping[str, parts.Row]) -> str:
    """A line a training."""
    found: str = import_module("defenses_collapse_claims").table(rows)
    return found


if __name__ == "__main__":
    import defenses_collapse

    parts.main(defenses_collapse, "defenses/collapse")
