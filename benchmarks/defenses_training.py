"""Adversarial training of Fashion-MNIST's small networks: what each method reaches, and its speed beside ART's.

    method    the sample network `cnn`, trained by each method on ROWS images for EPOCHS epochs in L∞ at EPSILON
    equal     the same network from the same first weights, on the same rows, in batches of the same size, by the same
              optimizer and schedule: ART's `AdversarialTrainerMadryPGD` and redan, PGD-7 both, and redan's FGSM-RS
    speed     an epoch of both and of ART's `AdversarialTrainerFBFPyTorch`, `cnn` and `residual`, one after another in
              one run, in alternating order, with what each asks of the network

Robust accuracy is that of `redan.robust_accuracy`, mode default, on TESTED test images that no training saw. Half: the
inner attack computes in bfloat16 (`Training(half=True)`); ART computes in float32 throughout. Time is CPU seconds on
one thread, since the machine has other work. `defenses_training_claims.py` says what follows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from worker import Counted, keep_memory

import harness
import parts
import poisoning_lab as lab
from redan.hardening import (
    AWP,
    FGSM,
    FGSM_RS,
    PGD_7,
    PGD_10,
    TRADES,
    Adversarial,
    Inner,
    Objective,
    Plain,
    Shuffled,
    Training,
    adversarial_step,
    harden,
)
from redan.perturbations.norms import Linf
from redan.robustness import robust_accuracy
from redan.samples import models

MEASURES = (
    "benchmarks/defenses_training.py",
    "benchmarks/peers/trainers.py",
    "src/redan/hardening",
)
PEER = Path(__file__).resolve().parent / "peers" / "trainers.py"
EPSILON = 0.1
WITHIN = Linf(EPSILON)
ROWS, EPOCHS, BATCH, RATE = 12_800, 3, 128, 2e-3
TESTED = 1000
SEEDS = (0, 1, 2)
METHODS: dict[str, Objective] = {
    "plain": Plain(),
    "fgsm-at": Adversarial(within=WITHIN, inner=FGSM, alpha=0.5),
    "fgsm-rs": Adversarial(within=WITHIN, inner=FGSM_RS),
    "pgd-at": Adversarial(within=WITHIN, inner=PGD_10),
    "trades": TRADES(within=WITHIN),
    "awp": AWP(objective=Adversarial(within=WITHIN, inner=PGD_10)),
}
TIMED = {"cnn": 3_840, "residual": 1_920}
"""Rows of an epoch that is timed."""
REPEATS = 3
OURS: dict[str, tuple[Inner, bool]] = {
    "pgd-7": (PGD_7, False),
    "pgd-7, half": (PGD_7, True),
    "fgsm-rs": (FGSM_RS, False),
    "fgsm-rs, half": (FGSM_RS, True),
}
"""redan's sides of a race: the inner attack, and whether it computes in half the bits."""
THEIRS = ("madry", "fbf")
STEPS = 7


def cells() -> list[parts.Cell]:
    import defenses_training as here  # not `__main__`, which a child process would not find

    return [
        *(parts.Cell(f"speed-{form}", here.speed, {"form": form}) for form in TIMED),
        *(parts.Cell(f"equal-{seed}", here.equal, {"seed": seed}) for seed in SEEDS),
        *(
            parts.Cell(f"{method}-{seed}", here.method, {"name": method, "seed": seed})
            for seed in SEEDS
            for method in METHODS
        ),
    ]


def training_rows(count: int) -> tuple[Tensor, Tensor]:
    train = lab.fashion().train
    return torch.from_numpy(train.x[:count]), torch.from_numpy(train.y[:count])


def network(form: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = getattr(models, form)()
    return model


def judged(model: nn.Module) -> parts.Row:
    """Clean and robust accuracy on test images: counts, and the exact interval of the latter."""
    test = lab.fashion().test
    x, y = torch.from_numpy(test.x[:TESTED]), torch.from_numpy(test.y[:TESTED])
    score = robust_accuracy(model.eval(), x, y, within=WITHIN, seed=0, workers=1)
    names = ("n", "clean", "k", "low", "high", "errors", "undecided", "queries")
    return {name: getattr(score, name) for name in names}


def timed(model: nn.Module, rows: tuple[Tensor, Tensor], training: Training) -> parts.Row:
    """A training's CPU seconds and alarms."""
    begun = time.process_time()
    found = harden(model, Shuffled(*rows, batch=BATCH), training)
    seconds = time.process_time() - begun
    return {"seconds": seconds, "alarms": [alarm.step for alarm in found.alarms]}


def method(name: str, seed: int) -> parts.Row:
    """One method's network."""
    keep_memory()
    model = network("cnn", seed)
    told = timed(model, training_rows(ROWS), Training(objective=METHODS[name], epochs=EPOCHS, seed=seed))
    return {"method": name, "seed": seed, "rows": ROWS, "epochs": EPOCHS, **told, **judged(model)}


def equal(seed: int) -> parts.Row:
    """The same training by ART and by redan, and what each reaches."""
    keep_memory()
    rows, first = training_rows(ROWS), network("cnn", seed).state_dict()
    sides: dict[str, parts.Row] = {}
    for side in ("pgd-7, half", "fgsm-rs, half"):
        inner, half = OURS[side]
        model = network("cnn", seed)
        objective = Adversarial(within=WITHIN, inner=inner)
        told = timed(model, rows, Training(objective=objective, epochs=EPOCHS, half=half, seed=seed))
        sides[side] = {**told, **judged(model)}
    with tempfile.TemporaryDirectory() as folder:
        weights, data, out = (str(Path(folder) / name) for name in ("w.st", "r.st", "o.st"))
        save_file(first, weights)
        save_file({"x": rows[0], "y": rows[1]}, data)
        peer = harness.Peer(PEER)
        try:
            answer = peer.ask(trainer="madry", form="cnn", weights=weights, rows=data, eps=EPSILON, epochs=EPOCHS,
                              batch=BATCH, rate=RATE, seed=seed, steps=STEPS, out=out)  # fmt: skip
            versions = peer.ask(versions=True)
        finally:
            peer.close()
        model = network("cnn", seed)
        model.load_state_dict(load_file(out))
    sides["madry"] = {"seconds": answer["cpu_seconds"], "alarms": [], **judged(model)}
    return {"seed": seed, "rows": ROWS, "epochs": EPOCHS, "sides": sides, "versions": versions}


def speed(form: str) -> parts.Row:
    """An epoch of each side, again and again, and the passes of one."""
    keep_memory()
    x, y = training_rows(TIMED[form])
    seconds: dict[str, list[float]] = {side: [] for side in (*THEIRS, *OURS)}
    with tempfile.TemporaryDirectory() as folder:
        weights, data, few = (str(Path(folder) / name) for name in ("w.st", "r.st", "f.st"))
        save_file(network(form, 0).state_dict(), weights)
        save_file({"x": x, "y": y}, data)
        save_file({"x": x[: 2 * BATCH], "y": y[: 2 * BATCH]}, few)
        peer = harness.Peer(PEER)

        def theirs(side: str, path: str, *, count: bool = False) -> parts.Row:
            return peer.ask(trainer=side, form=form, weights=weights, rows=path, eps=EPSILON, epochs=1, batch=BATCH,
                            rate=RATE, seed=0, steps=STEPS, count=count)  # fmt: skip

        try:
            passes = {side: theirs(side, few, count=True) for side in THEIRS}
            for side in THEIRS:
                theirs(side, few)
            for side in OURS:
                epoch(form, side, (x[: 2 * BATCH], y[: 2 * BATCH]))
            for repeat in range(REPEATS):
                for side in list(seconds)[:: 1 if repeat % 2 == 0 else -1]:
                    spent = theirs(side, data)["cpu_seconds"] if side in THEIRS else epoch(form, side, (x, y))
                    seconds[side].append(spent)
            versions = peer.ask(versions=True)
        finally:
            peer.close()
    passes |= {side: asked(form, side, x[:BATCH], y[:BATCH]) for side in OURS}
    return {"form": form, "rows": len(x), "seconds": seconds, "passes": passes, "versions": versions}


def epoch(form: str, side: str, rows: tuple[Tensor, Tensor]) -> float:
    """CPU seconds of one epoch of redan's. It is shorter than the watch for collapses looks."""
    inner, half = OURS[side]
    objective = Adversarial(within=WITHIN, inner=inner)
    training = Training(objective=objective, epochs=1, watch=None, half=half)
    seconds: float = timed(network(form, 0), rows, training)["seconds"]
    return seconds


def asked(form: str, side: str, x: Tensor, y: Tensor) -> parts.Row:
    """Examples that one of redan's steps passes through the network, a row."""
    counted = Counted(network(form, 0)).train()
    adversarial_step(counted, x, y, Adversarial(within=WITHIN, inner=OURS[side][0]), step=0).backward()  # type: ignore[no-untyped-call]
    return {"forwards": counted.forwards / len(x), "backwards": counted.backwards / len(x)}


def claims(rows: Mapping[str, parts.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("defenses_training_claims").claims(rows)
    return found


def table(rows: Mapping[str, parts.Row]) -> str:
    """Accuracies by method, and the races."""
    found: str = import_module("defenses_training_claims").table(rows)
    return found


if __name__ == "__main__":
    import defenses_training

    parts.main(defenses_training, "defenses/training")
