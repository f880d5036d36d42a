"""ART's activation clustering and spectral signatures beside redan's on the same features; BackdoorBench's setting.

Cases: victims of 6,000 Fashion-MNIST images with a backdoor. What goes into the victim's last layer is computed once
and given to both sides: redan's detectors here, ART's in a process of its own (`peers/detectors.py`). ART's clustering
only flags rows; its signatures give scores if asked for all rows.

Published: BackdoorBench (Wu et al. 2022, arXiv:2206.12654) poisons CIFAR-10; here the same attacks at the same ratios
are put into the 60,000 images of Fashion-MNIST, rows are taken out by its rules, and a network is trained anew.

`poisoning_peers_claims.py` says what follows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import numpy as np
from numpy.typing import NDArray
from worker import keep_memory

import harness
import poisoning_lab as lab
from redan.data.samples import Samples
from redan.defenses.activation_clustering import ActivationClustering
from redan.defenses.features import penultimate
from redan.defenses.measures import area_under_curve
from redan.defenses.spectral_signatures import SpectralSignatures
from redan.defenses.suspicion import Detector, Numbers, Suspects
from redan.poisoning.backdoor import Backdoor
from redan.poisoning.budget import Budget
from redan.poisoning.triggers import Blend, Patch, Sinusoid
from redan.targets.torch import from_torch

MEASURES = (
    "benchmarks/poisoning_peers.py",
    "benchmarks/poisoning_lab.py",
    "benchmarks/peers/detectors.py",
    "src/redan/defenses/activation_clustering.py",
    "src/redan/defenses/features.py",
    "src/redan/defenses/measures.py",
    "src/redan/defenses/spectral_signatures.py",
    "src/redan/defenses/suspicion.py",
    "src/redan/poisoning/backdoor.py",
    "src/redan/poisoning/budget.py",
    "src/redan/poisoning/choice.py",
    "src/redan/poisoning/triggers.py",
)
ROWS = 6000
SEEDS = (0, 1, 2)
CASES = (("badnets", 0.01), ("badnets", 0.03), ("badnets", 0.05), ("blended", 0.03), ("sig", 0.03))
ATTACKS = {
    "badnets": Backdoor(trigger=Patch(), target=0),
    "blended": Backdoor(trigger=Blend(), target=0),
    "sig": Backdoor(trigger=Sinusoid(amplitude=40 / 255), target=0, clean_label=True),
}
CLUSTERING: Mapping[str, Mapping[str, Any]] = {
    "PCA, smaller": {},
    "PCA, silhouette": {"cluster_analysis": "silhouette-scores"},
    "PCA, distance": {"cluster_analysis": "distance"},
    "PCA, relative size": {"cluster_analysis": "relative-size"},
    "ICA, smaller": {"reduce": "FastICA"},
    "ICA, silhouette": {"reduce": "FastICA", "cluster_analysis": "silhouette-scores"},
}
"""ART's settings of activation clustering; the first is its default."""
SIGNATURES: Mapping[str, Mapping[str, Any]] = {
    "49.5 % of each class": {},
    "15 % of each class": {"expected_pp_poison": 0.1},
}
"""ART's settings of spectral signatures; the first is its default."""
EVERY = {"expected_pp_poison": 1.0, "eps_multiplier": 1.0}
"""All rows are told with their scores."""
TIMED = ("PCA, smaller", "PCA, silhouette", "ICA, smaller")
REPEATS = 7
RESAMPLES = 400
PUBLISHED = (("badnets", 0.01), ("badnets", 0.05), ("badnets", 0.1), ("blended", 0.05))


def cells() -> list[lab.Cell]:
    import poisoning_peers as here  # not `__main__`, which a child process would not find

    return [
        lab.Cell(f"{attack}-{share:g}-{seed}", here.beside, {"attack": attack, "share": share, "seed": seed})
        for attack, share in CASES
        for seed in SEEDS
    ] + [
        lab.Cell(f"whole-{attack}-{share:g}-{seed}", here.published, {"attack": attack, "share": share, "seed": seed})
        for attack, share in PUBLISHED
        for seed in SEEDS[:1]
    ]


# -- on the same features ----------------------------------------------------------------------------------


def beside(attack: str, share: float, seed: int) -> lab.Row:
    """One victim's features, and what both sides find in them."""
    keep_memory()
    split = lab.fashion()
    suspects, poisoned, victim = poisoned_set(lab.subset(split.train, ROWS, seed), attack, share, seed, small=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        np.savez(path, features=suspects.known_features(), labels=suspects.samples.y)
        peer = harness.Peer(harness.ROOT / "benchmarks" / "peers" / "detectors.py")
        try:
            return {
                "attack": attack,
                "share": share,
                "seed": seed,
                "poisoned": int(poisoned.sum()),
                **victim,
                "versions": peer.ask(versions=True),
                "clustering": clustering(suspects, poisoned, peer, str(path)),
                "signatures": signatures(suspects, poisoned, peer, str(path)),
                "seconds": seconds(suspects, peer, str(path)),
            }
        finally:
            peer.close()


def poisoned_set(
    clean: Samples, attack: str, share: float, seed: int, *, small: bool
) -> tuple[Suspects, NDArray[np.bool_], lab.Row]:
    """A poisoned training set with features, which of its rows are poisoned (N,), and what became of its victim."""
    poisoner = ATTACKS[attack]
    made = poisoner(clean, Budget(share=share, may_change_labels=not poisoner.clean_label), seed=seed)
    model = lab.Training(epochs=10, batch=64)(made.samples, seed) if small else lab.Training()(made.samples, seed)
    poisoned = np.zeros(len(made.samples), dtype=bool)
    poisoned[made.changed] = True
    features = penultimate(from_torch(model), made.samples)
    return Suspects(samples=made.samples, features=features), poisoned, outcome(model, poisoner)


def outcome(model: Any, poisoner: Backdoor) -> lab.Row:
    """Accuracy on the clean test rows, and the share of stamped ones that get the class that the attacker wants."""
    test = lab.fashion().test
    victims = poisoner.victims(test.x, test.y)
    return {
        "accuracy": float((lab.answers(model, test.x) == test.y).mean()),
        "success": float((lab.answers(model, victims.x) == victims.wanted).mean()),
    }


def clustering(suspects: Suspects, poisoned: NDArray[np.bool_], peer: harness.Peer, path: str) -> lab.Row:
    """Activation clustering. ART's flags as scores of 0 and 1 have an area too: their balanced accuracy."""
    ours = ActivationClustering()(suspects, seed=0)
    ranks = np.argsort(-ours, kind="stable")
    row: lab.Row = {"ours": area(ours, poisoned), "art": {}}
    for name, settings in CLUSTERING.items():
        answer = peer.ask(detector="activation-clustering", features=path, settings=settings)
        if answer.get("error"):
            row["art"][name] = {"error": answer["error"]}
            continue
        flagged = np.array(answer["clean"]) == 0
        mine = np.zeros(len(flagged), dtype=bool)
        mine[ranks[: int(flagged.sum())]] = True
        row["art"][name] = {
            **hits(mine, flagged, poisoned),
            "area": area(flagged.astype(float), poisoned),
            "difference": resampled(ours, flagged.astype(float), poisoned),
        }
    return row


def signatures(suspects: Suspects, poisoned: NDArray[np.bool_], peer: harness.Peer, path: str) -> lab.Row:
    """Spectral signatures. Areas are those in the attacked class, as scores are compared within a class."""
    ours = SpectralSignatures()(suspects, seed=0)
    told = peer.ask(detector="spectral-signatures", features=path, settings=EVERY)["scores"]
    theirs = np.array([told[str(at)] for at in range(len(suspects))])
    labels = suspects.samples.y
    mine = labels == 0
    centered = np.zeros(len(suspects))  # ART's score with the rows centered, as in the paper's algorithm
    features = suspects.known_features()
    for label in np.unique(labels):
        of_it = features[labels == label] - features[labels == label].mean(0)
        centered[labels == label] = np.abs(of_it @ np.linalg.svd(of_it, full_matrices=False)[2][0])
    row: lab.Row = {
        "ours": area(ours[mine], poisoned[mine]),
        "area": area(theirs[mine], poisoned[mine]),
        "art centered": area(centered[mine], poisoned[mine]),
        "difference": resampled(ours[mine], theirs[mine], poisoned[mine]),
        "ideas": {name: area(score[mine], poisoned[mine]) for name, score in ideas(suspects).items()},
        "art": {},
    }
    for name, settings in SIGNATURES.items():
        answer = peer.ask(detector="spectral-signatures", features=path, settings=settings)
        flagged = np.array(answer["clean"]) == 0
        found = np.zeros(len(flagged), dtype=bool)
        for label in np.unique(labels):
            at = np.flatnonzero(labels == label)
            found[at[np.argsort(-ours[at], kind="stable")[: int(flagged[at].sum())]]] = True
        row["art"][name] = hits(found, flagged, poisoned)
    return row


def ideas(suspects: Suspects) -> dict[str, Numbers]:
    """Other scores from a class's principal directions, tried where the paper's score is behind: (N,) each."""
    features, labels = suspects.known_features(), suspects.samples.y
    found = {name: np.zeros(len(suspects)) for name in ("10 directions", "5 whitened directions", "skewed side")}
    for label in np.unique(labels):
        mine = labels == label
        centered = features[mine] - features[mine].mean(0)
        along = centered @ np.linalg.svd(centered, full_matrices=False)[2][:10].T
        scaled = along / np.maximum(along.std(0), 1e-12)
        skew = (scaled**3).mean(0)
        most = int(np.abs(skew[:5]).argmax())
        found["10 directions"][mine] = (along**2).sum(1)
        found["5 whitened directions"][mine] = (scaled[:, :5] ** 2).sum(1)
        found["skewed side"][mine] = scaled[:, most] * np.sign(skew[most])
    return found


def area(scores: Numbers, poisoned: NDArray[np.bool_]) -> float:
    """The area under the curve, to 5 digits."""
    return round(area_under_curve(scores, poisoned), 5)


def hits(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], poisoned: NDArray[np.bool_]) -> lab.Row:
    """How many rows were flagged, and which poisoned ones among them by either side alone."""
    return {
        "flagged": int(theirs.sum()),
        "hits": int((theirs & poisoned).sum()),
        "our flagged": int(ours.sum()),
        "our hits": int((ours & poisoned).sum()),
        "only ours": int((ours & ~theirs & poisoned).sum()),
        "only theirs": int((theirs & ~ours & poisoned).sum()),
    }


def resampled(ours: Numbers, theirs: Numbers, poisoned: NDArray[np.bool_]) -> list[float]:
    """The 2.5 % and 97.5 % points of our area less theirs, over rows drawn again, poisoned and clean ones apart."""
    draw = np.random.default_rng(0)
    bad, good = np.flatnonzero(poisoned), np.flatnonzero(~poisoned)
    found = []
    for _ in range(RESAMPLES):
        at = np.concatenate([draw.choice(bad, len(bad)), draw.choice(good, len(good))])
        found.append(area_under_curve(ours[at], poisoned[at]) - area_under_curve(theirs[at], poisoned[at]))
    return [round(float(point), 5) for point in np.quantile(found, (0.025, 0.975))]


def seconds(suspects: Suspects, peer: harness.Peer, path: str) -> lab.Row:
    """CPU seconds of each repeat, ours and ART's in turns, after one run that is not counted."""
    ours: dict[str, Detector] = {"clustering": ActivationClustering(), "signatures": SpectralSignatures()}
    asked = [("clustering", "activation-clustering", name, CLUSTERING[name]) for name in TIMED]
    asked.append(("signatures", "spectral-signatures", "15 % of each class", SIGNATURES["15 % of each class"]))
    row: lab.Row = {}
    for kind, detector, name, settings in asked:
        times: dict[str, list[float]] = {"ours": [], "art": []}
        for repeat in range(REPEATS + 1):
            begun = time.process_time()
            ours[kind](suspects, seed=repeat)
            mine = time.process_time() - begun
            theirs = peer.ask(detector=detector, features=path, settings=settings, seed=repeat)["cpu_seconds"]
            if repeat:
                times["ours"].append(round(mine, 5))
                times["art"].append(round(theirs, 5))
        row[f"{kind}: {name}"] = times
    return row


# -- in BackdoorBench's setting ----------------------------------------------------------------------------


def published(attack: str, share: float, seed: int) -> lab.Row:
    """All 60,000 rows, poisoned; rows taken out by each of BackdoorBench's two rules; networks trained anew.

    Its activation clustering takes out the smaller cluster of every class, and its spectral signatures 15 % of every
    class, whatever the share of poison (its configurations `ac` and `spectral`).
    """
    suspects, poisoned, victim = poisoned_set(lab.fashion().train, attack, share, seed, small=False)
    row: lab.Row = {"attack": attack, "share": share, "seed": seed, "poisoned": int(poisoned.sum()), **victim}
    labels = suspects.samples.y
    spectral = SpectralSignatures()(suspects, seed=seed)
    taken = np.zeros(len(suspects), dtype=bool)
    for label in np.unique(labels):
        of_it = labels == label
        taken[of_it] = spectral[of_it] > np.quantile(spectral[of_it], 0.85)
    for name, out in (("ac", ActivationClustering()(suspects, seed=seed) > 0), ("spectral", taken)):
        kept = Samples(suspects.samples.x[~out], labels[~out], split="train")
        row[name] = {
            "taken out": int(out.sum()),
            "poisoned rows left": int((poisoned & ~out).sum()),
            **outcome(lab.Training()(kept, seed), ATTACKS[attack]),
        }
    return row


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    import poisoning_peers_claims

    return poisoning_peers_claims.claims(rows)


def table(rows: Mapping[str, lab.Row]) -> str:
    import poisoning_peers_claims

    return poisoning_peers_claims.table(rows)


if __name__ == "__main__":
    import poisoning_peers

    lab.main(poisoning_peers, "peers")
