"""Eight detectors of poison against seven attacks, and what repair leaves of the backdoor.

Each cell is one attack and one seed: 5,000 rows of Fashion-MNIST from a supplier who poisons 250 of them, 4,500 trusted
rows beside, one network trained on all 9,500, and every detector on that network. A detector never learns which rows
are trusted. Figures of detection are of the supplier's rows. With 5 % of poison a class needs 399 trusted rows before
anything in it can be called poison at q = 0.05; here it has about 450.

Row words. `class` and `all`: rows are ranked by their conformal p-value among trusted rows of their own label, as
`suspicion` does by default, or by the detector's bare number. `payload`: the poisoned rows that a detector is to find;
the cover rows of the adaptive blend are the attacker's too, and count neither as poison nor as clean. `lost`: the share
of the supplier's clean rows above the threshold that catches 99 % of the payload.

Shares of false discoveries are of repeats that draw anew which clean rows are trusted. A detector's numbers do not
depend on that, so each draw is one more repeat of the whole procedure on the same network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import poisoning_lab as lab  # isort: skip  (it sets the number of threads before numpy and torch are loaded)

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import harness
from redan.data.samples import Samples
from redan.defenses.activation_clustering import ActivationClustering
from redan.defenses.confident_learning import ConfidentLearning, held_out_probabilities
from redan.defenses.deep_knn import DeepKNN
from redan.defenses.features import EarlyTraining, early_losses, penultimate
from redan.defenses.fine_pruning import FinePruning
from redan.defenses.loss_isolation import LossIsolation
from redan.defenses.measures import area_under_curve, false_discovery_proportion, recall_at
from redan.defenses.near_duplicates import NearDuplicates
from redan.defenses.neural_cleanse import NeuralCleanse
from redan.defenses.outliers import RobustMahalanobis
from redan.defenses.repair import only, without
from redan.defenses.spectral_signatures import SpectralSignatures
from redan.defenses.strip import STRIP
from redan.defenses.suspicion import Detector, Numbers, Suspects, calibrated, discoveries, suspicion
from redan.defenses.training import Tuning
from redan.defenses.unlearning import Unlearning
from redan.poisoning.backdoor import Backdoor
from redan.poisoning.budget import Budget, Poisoned, Poisoner, held_to
from redan.poisoning.label_consistent import CornerPatch, Corners, LabelConsistent
from redan.poisoning.label_flips import RandomFlips
from redan.poisoning.sleeper_agent import SleeperAgent
from redan.poisoning.triggers import Blend, Corner, Patch, Sinusoid, Trigger
from redan.targets.torch import TorchTarget, from_torch

MEASURES = (
    "benchmarks/poisoning_detection.py",
    "benchmarks/poisoning_lab.py",
    *(
        f"src/redan/defenses/{name}.py"
        for name in (
            "activation_clustering",
            "confident_learning",
            "deep_knn",
            "features",
            "fine_pruning",
            "loss_isolation",
            "measures",
            "near_duplicates",
            "neighbors",
            "neural_cleanse",
            "outliers",
            "repair",
            "spectral_signatures",
            "strip",
            "suspicion",
            "training",
            "unlearning",
        )
    ),
    *(
        f"src/redan/poisoning/{name}.py"
        for name in (
            "backdoor",
            "budget",
            "choice",
            "crafting",
            "label_consistent",
            "label_flips",
            "matching",
            "sleeper_agent",
            "triggers",
        )
    ),
    "src/redan/targets/torch.py",
)

SEEDS = (0, 1, 2)
SUPPLIED, TRUSTED = 5_000, 4_500
BUDGET = Budget(share=0.05, may_change_labels=True)
TARGET = 0
LEVELS = (0.05, 0.1, 0.2)
Q = 0.1  # at which the detector that calls most rows poison has them taken out, before training anew
SPLITS = 50
FIT = lab.Training(epochs=8)
FOLDS = 2
UNLEARNING = Unlearning(tuning=Tuning(epochs=3, rate=0.01))
FIVE = Patch(size=5, corner=Corner.TOP_LEFT)


class Attack(NamedTuple):
    """poison: the supplier's clean rows and a seed in, what he delivers out, with the positions of the payload.
    shown: what test rows get; None for label flips."""

    poison: Callable[[Samples, int], tuple[Poisoned, NDArray[np.int64]]]
    shown: Trigger | None
    clean_label: bool = False


def _of(poisoner: Poisoner) -> Callable[[Samples, int], tuple[Poisoned, NDArray[np.int64]]]:
    def poison(samples: Samples, seed: int) -> tuple[Poisoned, NDArray[np.int64]]:
        made = poisoner(samples, BUDGET, seed=seed)
        held_to(made, samples, BUDGET)
        return made, made.changed

    return poison


def _clean(make: Callable[[Samples, int], Poisoner]) -> Callable[[Samples, int], tuple[Poisoned, NDArray[np.int64]]]:
    """Half of the target class, no label changed."""

    def poison(samples: Samples, seed: int) -> tuple[Poisoned, NDArray[np.int64]]:
        budget = Budget(share=0.5 * float((samples.y == TARGET).mean()))
        made = make(samples, seed)(samples, budget, seed=seed)
        held_to(made, samples, budget)
        return made, made.changed

    return poison


def _adaptive(samples: Samples, seed: int) -> tuple[Poisoned, NDArray[np.int64]]:
    """Adap-Blend, Qi et al. 2023 (arXiv:2205.13613): half of the stamped rows are cover that keeps its true label, and
    the trigger is weaker than at test time.

    Deviations: the paper also leaves out random pieces of the trigger in each training row; its trigger is a picture,
    and here it is noise.
    """
    made = Backdoor(trigger=Blend(strength=0.12), target=TARGET)(samples, BUDGET, seed=seed)
    cover = np.random.default_rng(seed).permutation(made.changed)[: len(made.changed) // 2]
    labels = made.samples.y.copy()
    labels[cover] = samples.y[cover]
    made = replace(made, samples=replace(made.samples, y=labels))
    held_to(made, samples, BUDGET)
    return made, np.setdiff1d(made.changed, cover)


def _hard(model: nn.Module, radius: float, steps: int = 20) -> Callable[[Tensor, Tensor], Tensor]:
    """Rows that the model takes for another class than theirs, by projected gradient steps inside ℓ∞ and the box."""

    def perturb(x0: Tensor, y: Tensor) -> Tensor:
        x = x0
        for _ in range(steps):
            leaf = x.detach().requires_grad_()
            with torch.enable_grad():
                slope = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]
            x = (x + 2.5 * radius / steps * slope.sign()).clamp(x0 - radius, x0 + radius).clamp(0, 1)
        return x

    return perturb


def _label_consistent(samples: Samples, seed: int) -> Poisoner:
    return LabelConsistent(
        label=TARGET,
        perturb=_hard(FIT(samples, 1000 + seed), radius=0.3),
        trigger=CornerPatch(amplitude=0.5, corners=Corners.FOUR),
        radius=0.3 + 1e-6,
    )


def _sleeper(samples: Samples, seed: int) -> Poisoner:  # noqa: ARG001  (it draws by the seed that it is called with)
    return SleeperAgent(trigger=FIVE, label=TARGET, fit=FIT, radius=0.15, steps=60, retrainings=1, shown=500)


ATTACKS: Mapping[str, Attack] = {
    "badnets": Attack(_of(Backdoor(trigger=Patch(), target=TARGET)), Patch()),
    "blended": Attack(_of(Backdoor(trigger=Blend(), target=TARGET)), Blend()),
    "adaptive-blend": Attack(_adaptive, Blend()),
    "sig": Attack(
        _clean(lambda *_: Backdoor(trigger=Sinusoid(amplitude=0.3), target=TARGET, clean_label=True)),
        Sinusoid(amplitude=0.4),
        True,
    ),
    "label-consistent": Attack(_clean(_label_consistent), CornerPatch(amplitude=1.0, corners=Corners.FOUR), True),
    "sleeper-agent": Attack(_clean(_sleeper), FIVE, True),
    "random-flips": Attack(_of(RandomFlips()), None),
}


def supplied(seed: int) -> tuple[Samples, Samples]:
    """The supplier's rows while they are clean, and the trusted ones."""
    drawn = np.random.default_rng(seed).permutation(len(lab.fashion().train))[: SUPPLIED + TRUSTED]
    both = only(lab.fashion().train, drawn)
    return only(both, np.arange(SUPPLIED)), only(both, np.arange(SUPPLIED, SUPPLIED + TRUSTED))


def joined(first: Samples, second: Samples) -> Samples:
    return Samples(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]), split="train")


def effect(model: nn.Module, shown: Trigger | None) -> lab.Row:
    """Accuracy on the test rows, and the share of those with the trigger, of other classes, that get the target."""
    test = lab.fashion().test
    row: lab.Row = {"accuracy": round(float((lab.answers(model, test.x) == test.y).mean()), 5)}
    if shown is not None:
        victims = Backdoor(trigger=shown, target=TARGET).victims(test.x, test.y)
        row["asr"] = round(float((lab.answers(model, victims.x) == victims.wanted).mean()), 5)
    return row


def detectors(model: nn.Module, samples: Samples, seed: int) -> tuple[Suspects, dict[str, Detector]]:
    """What detectors look at, and the eight of them. Which rows are trusted is not in it."""
    target = _target(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _target(lab.Network().eval())
    losses = early_losses(fresh, samples, EarlyTraining(epochs=5), seed=seed)
    suspects = Suspects(samples=samples, features=penultimate(target, samples), losses=losses)
    held_out = held_out_probabilities(lambda some, s: _target(FIT(some, s)), samples, folds=FOLDS, seed=seed)
    unseen = np.random.default_rng(seed).permutation(len(lab.fashion().train))[SUPPLIED + TRUSTED :][:200]
    return suspects, {
        "activation clustering": ActivationClustering(),
        "spectral signatures": SpectralSignatures(),
        "deep k-NN": DeepKNN(),
        "confident learning": ConfidentLearning(probabilities=held_out),
        "loss isolation": LossIsolation(),
        "near duplicates": NearDuplicates(),
        "robust Mahalanobis": RobustMahalanobis(),
        "STRIP": STRIP(target=target, overlays=lab.fashion().train.x[unseen], copies=16),
    }


def _target(model: nn.Module) -> TorchTarget:
    return from_torch(model, classes=10)


def measure(attack: str, seed: int) -> lab.Row:
    """One attack and one seed: every detector on one network, and the repairs."""
    how = ATTACKS[attack]
    clean, trusted = supplied(seed)
    made, payload = how.poison(clean, seed)
    samples = joined(made.samples, trusted)
    model = FIT(samples, seed)
    suspects, eight = detectors(model, samples, seed)
    n = len(samples)
    poisoned, changed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    poisoned[payload], changed[made.changed] = True, True
    given = np.arange(n) >= SUPPLIED
    row: lab.Row = {
        "attack": attack,
        "seed": seed,
        "supplied": SUPPLIED,
        "trusted": TRUSTED,
        "payload": len(payload),
        "changed": len(made.changed),
        "of_target_class": round(len(made.changed) / int((clean.y == TARGET).sum()), 4) if how.clean_label else None,
        **effect(model, how.shown),
        "detectors": {},
        "repairs": {},
    }
    p_values, scores, found = {}, {}, {}
    for name, detector in eight.items():
        said = suspicion(replace(suspects, trusted=given), detector, seed=seed)
        assert said.p is not None
        pooled = np.full(n, np.nan)
        pooled[~given] = calibrated(said.scores[~given], said.scores[given])
        p_values[name], scores[name], found[name] = said.p, said.scores, said.poison(Q)
        row["detectors"][name] = {
            "class": detection(-said.p, poisoned, changed, ~given) | discovery(said.p, poisoned, changed, given),
            "all": detection(said.scores, poisoned, changed, ~given) | discovery(pooled, poisoned, changed, given),
            "splits": splits(said.scores, samples.y, poisoned, changed, seed),
        }
    if attack == "badnets":
        row["cleanse"] = cleansed(model, trusted, seed)
    most = max(found, key=lambda name: len(found[name]))
    row["repairs"]["removal"] = {"by": most} | removal(samples, found[most], poisoned, how.shown, seed)
    if how.shown is None:
        return row
    pruned = FinePruning()(_target(model), trusted, seed=seed)
    row["repairs"]["fine-pruning"] = effect(pruned.target.module, how.shown) | {"channels": len(pruned.channels)}
    order = np.lexsort((-scores["loss isolation"], p_values["loss isolation"]))  # trusted rows, of no p-value, are last
    isolated = order[: SUPPLIED // 100]
    unlearned = UNLEARNING(_target(model), samples, isolated, seed=seed)
    row["repairs"]["unlearning"] = effect(unlearned.target.module, how.shown) | {
        "removed": len(isolated),
        "right": int(poisoned[isolated].sum()),
        "remembered": round(unlearned.remembered[-1], 4),
    }
    return row


def removal(
    samples: Samples, found: NDArray[np.int64], poisoned: NDArray[np.bool_], shown: Trigger | None, seed: int
) -> lab.Row:
    """What training anew gives without the rows found; nothing is trained where there are none."""
    row: lab.Row = {"removed": len(found), "right": int(poisoned[found].sum())}
    if not len(found):
        return row
    return {**row, **effect(FIT(without(samples, found), seed), shown)}


def detection(
    scores: Numbers, poisoned: NDArray[np.bool_], changed: NDArray[np.bool_], of: NDArray[np.bool_]
) -> lab.Row:
    """How the payload stands among the clean rows, of the rows `of`."""
    mine = of & (poisoned | ~changed)
    s, p = scores[mine], poisoned[mine]
    wanted = np.sort(s[p])[::-1][int(np.ceil(0.99 * p.sum())) - 1]
    return {
        "auc": round(area_under_curve(s, p), 5),
        "tpr": round(recall_at(s, p, 0.01), 5),
        "lost": round(float((s[~p] >= wanted).mean()), 5),
    }


def discovery(p: Numbers, poisoned: NDArray[np.bool_], changed: NDArray[np.bool_], given: NDArray[np.bool_]) -> lab.Row:
    """What is found by p-values at each level, with the rows that were trusted before the poisoner came: the share of
    false discoveries, of the payload that is found, and of clean rows that are lost."""
    row: lab.Row = {}
    for q in LEVELS:
        found = discoveries(p, q)
        row[f"at {q}"] = [
            round(false_discovery_proportion(found, changed), 5),
            round(float(found[poisoned].mean()), 5),
            round(float(found[~changed & ~given].mean()), 5),
        ]
    return row


def splits(
    scores: Numbers, labels: NDArray[Any], poisoned: NDArray[np.bool_], changed: NDArray[np.bool_], seed: int
) -> lab.Row:
    """Mean and standard deviation of the share of false discoveries, and mean power, over draws of the trusted rows
    from all clean ones: by all of them, and by those of the row's own label."""
    rng = np.random.default_rng(seed)
    clean = np.flatnonzero(~changed)
    classes = np.unique(labels)
    found: dict[str, list[tuple[float, float]]] = {f"{way} {q}": [] for way in ("all", "class") for q in LEVELS}
    for _ in range(SPLITS):
        given = np.zeros(len(scores), dtype=bool)
        given[rng.choice(clean, TRUSTED, replace=False)] = True
        p = {way: np.full(len(scores), np.nan) for way in ("all", "class")}
        p["all"][~given] = calibrated(scores[~given], scores[given])
        for label in classes:
            tested = ~given & (labels == label)
            p["class"][tested] = calibrated(scores[tested], scores[given & (labels == label)])
        for way, values in p.items():
            for q in LEVELS:
                called = discoveries(values, q)
                found[f"{way} {q}"].append(
                    (false_discovery_proportion(called, changed), float(called[poisoned].mean()))
                )
    row: lab.Row = {"count": SPLITS}
    for name, pairs in found.items():
        false, power = np.array(pairs).T
        row[name] = [round(float(v), 6) for v in (false.mean(), false.std(ddof=1), power.mean())]
    return row


def cleansed(model: nn.Module, trusted: Samples, seed: int) -> lab.Row:
    """What Neural Cleanse says of a network, with the trusted rows."""
    triggers = NeuralCleanse(steps=200)(_target(model), trusted.x, 10, seed=seed)
    return {
        "flagged": triggers.backdoored().tolist(),
        "sizes": [round(float(v), 2) if np.isfinite(v) else None for v in triggers.sizes],
        "anomaly": [round(float(v), 3) if np.isfinite(v) else None for v in triggers.anomaly],
    }


def measure_clean(seed: int) -> lab.Row:
    """The network of the same rows while they are clean: its accuracy, what each trigger does to it, Neural Cleanse."""
    clean, trusted = supplied(seed)
    model = FIT(joined(clean, trusted), seed)
    return {
        "attack": None,
        "seed": seed,
        "accuracy": effect(model, None)["accuracy"],
        "asr": {name: effect(model, how.shown)["asr"] for name, how in ATTACKS.items() if how.shown is not None},
        "cleanse": cleansed(model, trusted, seed),
    }


def cells() -> Sequence[lab.Cell]:
    found = [lab.Cell(f"clean.{seed}", measure_clean, {"seed": seed}) for seed in SEEDS]
    return found + [
        lab.Cell(f"{attack}.{seed}", measure, {"attack": attack, "seed": seed}) for attack in ATTACKS for seed in SEEDS
    ]


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    import poisoning_detection_claims

    return poisoning_detection_claims.claims(rows)


def table(rows: Mapping[str, lab.Row]) -> str:
    import poisoning_detection_claims

    return poisoning_detection_claims.table(rows)


if __name__ == "__main__":
    import poisoning_detection

    lab.main(poisoning_detection, "detection")
