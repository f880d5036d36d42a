"""Transformations of inputs: what each is worth against an attack that does not know of it, and one that does.

Three small networks (`poisoning_lab.Network`, 3 passes over 20,000 images of Fashion-MNIST, one a seed), each on 150
test rows of its own. For each transformation, at two radii in L∞ and two in L2 (the smaller ones leave a bare network
about a tenth of the rows, the larger ones next to none), rows are counted that hold:

    bare        of the network alone, against APGD on cross-entropy (40 steps), APGD at each of 4 classes (20 steps
                each), and the nearest wrong inputs that FMN (L∞) or DDN (L2) finds
    nearest     of the network behind the transformation, shown those nearest inputs: the naive attack of the papers
                that proposed the transformations (DeepFool, Carlini and Wagner's, iterated FGSM)
    naive       the same, shown what APGD found against the bare network first, at the whole radius
    adaptive    the same, shown all of these and attacked as served: the APGDs again, along stand-ins (BPDA), gradients
                averaged over 5 draws where it draws (EOT)

A row that is answered wrong without an attack holds nowhere. What draws is judged by most of 20 fresh answers. A
thermometer's network is trained on its codes; its bare one is trained the same way on plain inputs. Feature squeezing
(Xu et al. 2018: 1 bit, a median over 2 x 2 pixels) refuses inputs, at 5 % false positives calibrated on 1,000 other
rows: a row holds if it is accepted and right as it is, and never accepted and wrong; its adaptive attacks are joint
ones (`redan.rejection.worth`).

Settings are those that the papers name for small or grey images, or Guo et al. 2018 (3 bits, quality 75, weight 0.03);
Xie et al. 2018 enlarge images by a tenth, here they shrink by up to a seventh, so that the network still fits.

`defenses_preprocessing_claims.py` says what follows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from torch import Tensor, nn

import harness
import parts
import poisoning_lab as lab
from redan.engine.run import attack
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Cascade, Sweep
from redan.evasion.ddn import DDN
from redan.evasion.fmn import FMN
from redan.evasion.ladder import Ladder
from redan.evasion.orthogonal_pgd import BalancedPGD, OrthogonalPGD
from redan.evasion.pgd import PGD
from redan.losses import margin, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.preprocessing import (
    JPEG,
    BitDepth,
    FeatureSqueezing,
    Median,
    NonLocalMeans,
    ResizePad,
    Thermometer,
    TotalVariation,
    Transformation,
    behind,
    grey_squeezers,
)
from redan.protocols import Attack
from redan.referee import Closest
from redan.rejection import Lagrangian, Refusing, Scored, refused, refusing, worth
from redan.targets import Target, from_torch

MEASURES = (
    "benchmarks/defenses_preprocessing.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/preprocessing",
    "src/redan/rejection",
)
SEEDS = (0, 1, 2)
TRAINED_ON, PASSES, BATCH, RATE = 20_000, 3, 128, 2e-3
ROWS, CALIBRATION = 150, 1000
FALSE_POSITIVES = 0.05
DRAWS, JUDGED = 5, 20
STAGES: Mapping[str, Transformation] = {
    "bit-depth": BitDepth(bits=3),
    "jpeg": JPEG(quality=75),
    "total-variation": TotalVariation(steps=50),
    "resize-pad": ResizePad(smallest=24, side=28, fill=0),
    "median": Median(size=2),
    "non-local-means": NonLocalMeans(),
}
THERMOMETER = Thermometer()


class Setting(NamedTuple):
    """What may be changed. nearest: finds the nearest wrong inputs."""

    name: str
    within: Linf | L2
    nearest: Attack[Any, Any]


SETTINGS = (
    Setting("linf-0.1", Linf(0.1), FMN(steps=50)),
    Setting("linf-0.2", Linf(0.2), FMN(steps=50)),
    Setting("l2-1.5", L2(1.5), DDN(steps=50)),
    Setting("l2-3.5", L2(3.5), DDN(steps=50)),
)
STRONG = Cascade((APGD(steps=40), Sweep(APGD(steps=20, loss=targeted_dlr), targets=4)))
JOINT: tuple[Attack[Any, Any], ...] = (
    Sweep(Ladder(attack=BalancedPGD(steps=40)), targets=3),
    OrthogonalPGD(steps=40),
    Lagrangian(attack=PGD(steps=20, loss=margin), weights=(0.1, 1.0, 10.0)),
)


def cells() -> list[parts.Cell]:
    import defenses_preprocessing as here  # not `__main__`, which a child process would not find

    return [
        *(parts.Cell(f"{name}-{seed}", here.transformed, {"name": name, "seed": seed})
          for name in STAGES for seed in SEEDS),
        *(parts.Cell(f"thermometer-{seed}", here.coded, {"seed": seed}) for seed in SEEDS),
        *(parts.Cell(f"feature-squeezing-{seed}", here.squeezed, {"seed": seed}) for seed in SEEDS),
    ]  # fmt: skip


def trained(seed: int, stage: Transformation | None = None) -> nn.Module:
    """A network trained from scratch on images, or on what the stage makes of them."""
    rows = lab.subset(lab.fashion().train, TRAINED_ON, seed)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = lab.Network()
        if stage is not None:
            network.features[0] = nn.Conv2d(stage.shape((1, 28, 28))[0], 16, 3, stride=2, padding=1)
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=PASSES * -(-TRAINED_ON // BATCH))
        for _ in range(PASSES):
            for at in torch.split(torch.randperm(TRAINED_ON), BATCH):
                shown = x[at] if stage is None else stage(x[at])
                loss = nn.functional.cross_entropy(network(shown), y[at])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    return network.eval()


class Rows(NamedTuple):
    """Images (N, 1, 28, 28) and classes (N,)."""

    x: Tensor
    y: Tensor


def judged_on(seed: int) -> Rows:
    """The test rows of a seed, none of which another seed has."""
    order = np.random.default_rng(0).permutation(len(lab.fashion().test))
    return _rows(order[seed * ROWS : (seed + 1) * ROWS])


def calibrated_on() -> Rows:
    """Test rows on which nothing is attacked."""
    order = np.random.default_rng(0).permutation(len(lab.fashion().test))
    return _rows(order[-CALIBRATION:])


def _rows(at: np.ndarray[Any, Any]) -> Rows:
    test = lab.fashion().test
    return Rows(torch.from_numpy(test.x[at]), torch.from_numpy(test.y[at]))


def right(target: Target[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Which inputs are answered right, by most answers: (N,) bool."""
    draws = JUDGED if target.stochastic else 1
    with torch.no_grad():
        return torch.stack([target(x).argmax(1) == y for _ in range(draws)]).float().mean(0) > 0.5


class Found(NamedTuple):
    """What was found against a bare target. held: rows on which nothing was."""

    nearest: Tensor
    first: Tensor
    held: Tensor


def against_bare(target: Target[Tensor], rows: Rows, setting: Setting, seed: int) -> Found:
    """The nearest inputs that a bare target answers wrong, and the first that a strong attack finds."""
    near = attack(target, *rows, setting.nearest, within=setting.within, keep=Closest(), seed=seed, workers=1)
    first = attack(target, *rows, STRONG, within=setting.within, seed=seed, workers=1)
    assert not near.errors
    assert not first.errors
    return Found(near.adversarial, first.adversarial, right(target, rows.x, rows.y) & ~near.success & ~first.success)


def against(served: Target[Tensor], bare: Target[Tensor], seed: int) -> parts.Row:
    """A defended target beside a bare one, at every setting."""
    rows = judged_on(seed)
    torch.manual_seed(seed)  # of the draws that judge what was found
    found = {}
    for setting in SETTINGS:
        known = against_bare(bare, rows, setting, seed)
        clean = right(served, rows.x, rows.y)
        nearest, naive = (clean & right(served, x, rows.y) for x in (known.nearest, known.first))
        own = attack(
            served,
            *rows,
            STRONG,
            within=setting.within,
            eot=DRAWS if served.stochastic else 1,
            seed=seed,
            workers=1,
        )
        assert not own.errors
        found[setting.name] = {
            "rows": len(clean),
            "clean": int(clean.sum()),
            "bare": int(known.held.sum()),
            "own": int((clean & ~own.success).sum()),
            "nearest": beside(known.held, nearest),
            "naive": beside(known.held, naive),
            "adaptive": beside(known.held, nearest & naive & ~own.success),
        }
    return {"clean_bare": int(right(bare, rows.x, rows.y).sum()), "settings": found}


def beside(bare: Tensor, served: Tensor) -> dict[str, int]:
    """How many rows hold in both, in one of them, and with the defense at all."""
    return {
        "both": int((bare & served).sum()),
        "lost": int((bare & ~served).sum()),
        "won": int((~bare & served).sum()),
        "held": int(served.sum()),
    }


def transformed(name: str, seed: int) -> parts.Row:
    """A network behind a transformation that it was not trained with."""
    bare = from_torch(trained(seed), classes=10)
    return against(behind(bare, [STAGES[name]]), bare, seed)


def coded(seed: int) -> parts.Row:
    """A network trained on thermometers, beside one trained on plain inputs."""
    bare = from_torch(trained(seed), classes=10)
    return against(behind(from_torch(trained(seed, THERMOMETER), classes=10), [THERMOMETER]), bare, seed)


def squeezed(seed: int) -> parts.Row:
    """A network that refuses what it answers otherwise once squeezed."""
    bare = from_torch(trained(seed), classes=10)
    squeezing = FeatureSqueezing(target=bare, squeezers=grey_squeezers())
    detector = Scored(score=squeezing.scores, surrogate=True)
    served = refusing(bare, detector, calibrated_on().x, false_positive_rate=FALSE_POSITIVES)
    return detected(served, bare, judged_on(seed), SETTINGS, seed)


def detected(served: Refusing, bare: Target[Tensor], rows: Rows, settings: Sequence[Setting], seed: int) -> parts.Row:
    """A target that refuses, beside the bare one: the rows of `against`, and how many clean ones are refused."""
    found = {}
    with torch.no_grad():
        answers = served(rows.x)
    fine = right(bare, rows.x, rows.y) & ~refused(answers)
    for setting in settings:
        near = attack(bare, *rows, setting.nearest, within=setting.within, keep=Closest(), seed=seed, workers=1)
        with torch.no_grad():
            shown = served(near.adversarial)
        accepted_wrong = ~refused(shown) & (shown[:, :-1].argmax(1) != rows.y)
        told = worth(
            served, *rows, within=setting.within, naive=[STRONG, setting.nearest], joint=JOINT, seed=seed, workers=1
        )
        assert not told.undecided
        found[setting.name] = {
            "rows": told.bare.n,
            "clean": told.clean.k,
            "refused": told.refused.k,
            "bare": told.bare.k,
            "nearest": beside(right(bare, rows.x, rows.y) & ~near.success, fine & ~accepted_wrong),
            "naive": {"held": told.naive.k},
            "adaptive": {
                "both": told.compared.both,
                "lost": told.compared.lost,
                "won": told.compared.won,
                "held": told.joint.k,
            },
        }
    return {"clean_bare": int(right(bare, rows.x, rows.y).sum()), "settings": found}


def claims(rows: Mapping[str, parts.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("defenses_preprocessing_claims").claims(rows)
    return found


def table(rows: Mapping[str, parts.Row]) -> str:
    """Every transformation at every radius."""
    found: str = import_module("defenses_preprocessing_claims").table(rows)
    return found


if __name__ == "__main__":
    import defenses_preprocessing

    parts.main(defenses_preprocessing, "defenses/preprocessing")
