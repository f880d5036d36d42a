"""Ensembles and detectors: what each is worth to an attacker who meets what is served, and to one who does not.

Networks and rows are those of `defenses_preprocessing`: three small ones, one a seed, each beside what is served on 150
test rows of its own, at three radii in L∞.

Ensembles have three members. `averaged` is the mean of their probabilities, `voting` a majority; both of networks that
were trained one by one. `adp` is averaged too, of members trained at once to differ (Pang et al. 2019,
arXiv:1901.08846). The bare network is the first that was trained by itself. Rows are counted that hold:

    bare        of the bare network, as in `defenses_preprocessing`
    naive       of the ensemble, shown what APGD found first against the bare network
    adaptive    of the ensemble, shown all that was found against the bare network and against each member, and attacked
                as a whole, along its own gradient and along `leveled`, by the APGDs that the bare one met

Carried over, of rows that both have right: inputs that 40 steps of APGD made on one member, of each row the one with
the highest loss, which another member answers wrong (`redan.ensembles.between`).

Detectors refuse at most 5 % of clean rows, calibrated on 1,000 test rows that are used for nothing else: distance from
the 10th nearest of 5,000 training rows in the penultimate features (Sun et al. 2022, arXiv:2204.06507), and Mahalanobis
distances in three layers (Lee et al. 2018, arXiv:1807.03888). Feature squeezing is in `defenses_preprocessing`, with
what "holds" means.

`defenses_served_claims.py` says what follows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch
from torch import Tensor, nn

import defenses_preprocessing as alone
import harness
import parts
import poisoning_lab as lab
from redan.engine.run import attack
from redan.ensembles import ADP, Combine, Members, Together, Transfers, between, leveled, together
from redan.evasion.apgd import APGD
from redan.evasion.fmn import FMN
from redan.perturbations.norms import Linf
from redan.rejection import Detector, Features, mahalanobis, nearest_rows, refusing
from redan.targets import Target, from_torch

MEASURES = (
    "benchmarks/defenses_preprocessing.py",
    "benchmarks/defenses_served.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/ensembles",
    "src/redan/rejection",
)
MEMBERS = 3
BANK, NEAREST = 5000, 10
SETTINGS = tuple(
    alone.Setting(f"linf-{radius:g}", Linf(radius), FMN(steps=50)) for radius in (0.05, 0.1, 0.2)
)  # a bare network keeps a third of the rows, a tenth, none
CARRIED = APGD(steps=40)


def cells() -> list[parts.Cell]:
    import defenses_served as here  # not `__main__`, which a child process would not find

    works = {"ensembles": here.ensembles, "detectors": here.detectors}
    return [parts.Cell(f"{name}-{seed}", work, {"seed": seed}) for name, work in works.items() for seed in alone.SEEDS]


def network(seed: int, member: int = 0) -> nn.Module:
    """A network trained by itself; member 0 is the bare one of its seed, as in `defenses_preprocessing`."""
    return alone.trained(seed + 100 * member)


def ensembles(seed: int) -> parts.Row:
    """Every ensemble beside the bare network of its seed."""
    apart = [network(seed, member) for member in range(MEMBERS)]
    bare, rows = from_torch(apart[0], classes=10), alone.judged_on(seed)
    known = {setting.name: alone.against_bare(bare, rows, setting, seed) for setting in SETTINGS}
    members = {
        "averaged": (apart, Combine.PROBABILITIES),
        "voting": (apart, Combine.VOTES),
        "adp": (list(trained_to_differ(seed).members), Combine.PROBABILITIES),
    }
    found = {}
    for name, (modules, combine) in members.items():
        ensemble = together([from_torch(module, classes=10) for module in modules], combine)
        settings = {setting.name: whole(ensemble, rows, setting, known[setting.name], seed) for setting in SETTINGS}
        found[name] = {"settings": settings}
    return {"clean_bare": int(alone.right(bare, *rows).sum()), "served": found}


def trained_to_differ(seed: int) -> Members:
    """Three members at once, as `defenses_preprocessing.trained` trains one, by the loss of ADP."""
    rows = lab.subset(lab.fashion().train, alone.TRAINED_ON, seed)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    steps, rule = alone.PASSES * -(-alone.TRAINED_ON // alone.BATCH), ADP()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Members([lab.Network() for _ in range(MEMBERS)])
        optimizer = torch.optim.Adam(model.parameters(), lr=alone.RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, alone.RATE, total_steps=steps)
        for _ in range(alone.PASSES):
            for at in torch.split(torch.randperm(alone.TRAINED_ON), alone.BATCH):
                loss = rule(model.each(x[at]), y[at]).mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    return model.eval()


def whole(ensemble: Together, rows: alone.Rows, setting: alone.Setting, known: alone.Found, seed: int) -> parts.Row:
    """An ensemble at one radius. known: what was found against the bare network."""
    clean = alone.right(ensemble, *rows)
    carried = between(ensemble, *rows, CARRIED, within=setting.within, seed=seed, workers=1)
    nearest, naive = (clean & alone.right(ensemble, x, rows.y) for x in (known.nearest, known.first))
    own = clean & unbroken(ensemble, rows, setting, seed) & unbroken(leveled(ensemble), rows, setting, seed)
    shown = (carried.judged & ~carried.broken)[:, -1].all(0)
    return {
        "rows": len(clean),
        "clean": int(clean.sum()),
        "bare": int(known.held.sum()),
        "own": int(own.sum()),
        "naive": alone.beside(known.held, naive),
        "adaptive": alone.beside(known.held, nearest & naive & own & shown),
        "between": carried_over(carried, [(i, j) for i in range(MEMBERS) for j in range(MEMBERS) if i != j]),
        "to_whole": carried_over(carried, [(i, MEMBERS) for i in range(MEMBERS)]),
        "on_itself": carried_over(carried, [(MEMBERS, MEMBERS)]),
    }


def unbroken(target: Target[Tensor], rows: alone.Rows, setting: alone.Setting, seed: int) -> Tensor:
    """Rows that an attack on the target leaves: (N,) bool."""
    found = attack(target, *rows, alone.STRONG, within=setting.within, seed=seed, workers=1)
    assert not found.errors
    return ~found.success


def carried_over(found: Transfers, ways: list[tuple[int, int]]) -> list[int]:
    """Inputs made on the first model of each way that break the second, and of how many."""
    rates = [found.rate(source, target) for source, target in ways]
    return [sum(rate.k for rate in rates), sum(rate.n for rate in rates)]


def detectors(seed: int) -> parts.Row:
    """The bare network of a seed behind each detector."""
    model = network(seed)
    rows = lab.subset(lab.fashion().train, BANK, seed)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    bare = from_torch(model, classes=10)
    inner = [part for part in model.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    found: dict[str, Detector] = {
        "nearest-rows": nearest_rows(Features(target=bare), x, k=NEAREST),
        "mahalanobis": mahalanobis(Features(target=bare, layers=tuple(inner[1:])), x, y),
    }
    served = {}
    for name, detector in found.items():
        refuses = refusing(bare, detector, alone.calibrated_on().x, false_positive_rate=alone.FALSE_POSITIVES)
        told = alone.detected(refuses, bare, alone.judged_on(seed), SETTINGS, seed)
        served[name] = {"settings": told["settings"]}
    return {"clean_bare": int(alone.right(bare, *alone.judged_on(seed)).sum()), "served": served}


def claims(rows: Mapping[str, parts.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("defenses_served_claims").claims(rows)
    return found


def table(rows: Mapping[str, parts.Row]) -> str:
    """Every ensemble and detector at every radius, and what carries over."""
    found: str = import_module("defenses_served_claims").table(rows)
    return found


if __name__ == "__main__":
    import defenses_served

    parts.main(defenses_served, "defenses/served")
