"""redan's side of `make bench-attacks`: each contest's attack within its budget, at its defaults otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import worker
from torch import Tensor

import redan
from attacks_cells import DEGREES, PIXELS, Contest
from redan.engine.fit import Fitter
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.bim import BIM
from redan.evasion.carlini_wagner import CarliniWagnerL2
from redan.evasion.carlini_wagner_l0 import CarliniWagnerL0
from redan.evasion.carlini_wagner_linf import CarliniWagnerLinf
from redan.evasion.cascade import Sweep
from redan.evasion.ddn import DDN
from redan.evasion.deepfool import DeepFool
from redan.evasion.ead import EAD
from redan.evasion.fab import FAB
from redan.evasion.fgsm import FGSM
from redan.evasion.fmn import FMN
from redan.evasion.jsma import JSMA
from redan.evasion.lbfgs import LBFGS
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.pdpgd import PDPGD
from redan.evasion.pgd import PGD
from redan.evasion.sigma_zero import SigmaZero
from redan.evasion.spatial import SpatialGrid
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evasion.treatments import Diverse, Scaled, Translated, Variance
from redan.evasion.universal import UAP, Stamp, UniversalPGD
from redan.losses import dlr, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Attack, Ball, Bounded
from redan.referee import Closest, First

SETS: dict[str, Callable[[float], Ball]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
SIDE = 28  # of the sample images, in pixels
GRIDS = ((11, 5), (5, 7), (31, 3), (3, 9), (21, 3))  # of turns and of shifts either way, one a candidate
ENGINE = FMN(steps=89)  # the recommended minimum-norm engine: 89 gradient queries, and one that judges the last point

_BIM = tuple(BIM(steps=20, rate=rate) for rate in (0.05, 0.1, 0.15, 0.2, 0.3))
_PGD = tuple(PGD(steps=40, rate=rate) for rate in (0.025, 0.0625, 0.1, 0.15, 0.25))
_PGD_L1 = tuple(PGD(steps=40, rate=rate) for rate in (0.05, 0.1, 0.25, 0.5, 1.0))
_SPARSE = tuple(PGD(steps=40, rate=rate, random_start=False) for rate in (0.05, 0.1, 0.25, 0.5, 1.0))
_MOMENTUM = tuple(MomentumFGSM(steps=20, rate=rate) for rate in (0.05, 0.1, 0.15, 0.2, 0.3))
_DIVERSE = MomentumFGSM(steps=20, treatments=(Translated(), Diverse()))  # as torchattacks' TIFGSM is
_DEEPFOOL = tuple(DeepFool(steps=50, overshoot=overshoot) for overshoot in (0.02, 0.005, 0.05, 0.1, 0.2))

Candidates = tuple[Attack[Any, Any], ...]


def _line(attack: MomentumFGSM) -> Candidates:
    return tuple(replace(attack, rate=rate) for rate in (0.1, 0.15, 0.2, 0.25, 0.3))


def _fab(steps: int) -> tuple[FAB, ...]:
    plain = FAB(steps=steps)
    return (
        plain,
        replace(plain, overshoot=1.2),
        replace(plain, pull=0.3),
        replace(plain, backward=0.7),
        replace(plain, pull=0.5, overshoot=1.1),
    )


_LINE: dict[str, Candidates] = {  # the successors of MI-FGSM
    "nifgsm": _line(MomentumFGSM(steps=20, nesterov=True)),
    "sinifgsm": _line(MomentumFGSM(steps=10, nesterov=True, treatments=(Scaled(),))),
    "vmifgsm": _line(MomentumFGSM(steps=10, variance=Variance())),
    "vnifgsm": _line(MomentumFGSM(steps=10, nesterov=True, variance=Variance())),
    "difgsm": _line(MomentumFGSM(steps=20, treatments=(Diverse(),))),
    "tifgsm": _line(MomentumFGSM(steps=20, treatments=(Translated(),))),
}

# Where the peers' settings differ in the step, ours do too; elsewhere there is one, with the defaults of redan.
OURS: dict[str, Candidates] = {
    "fgsm-linf": (FGSM(),),
    "fgsm-l2": (FGSM(),),
    "bim-linf": _BIM,
    "bim-l2": _BIM,
    "pgd-linf": _PGD,
    "pgd-l2": _PGD,
    "pgd-l1": _PGD_L1,
    "sparse-descent-l1": _SPARSE,
    "mi-fgsm-linf": _MOMENTUM,
    "mi-fgsm-l2": _MOMENTUM,
    **{f"{kind}-linf": attacks for kind, attacks in _LINE.items()},
    "apgd-ce-linf": (APGD(steps=100),),
    "apgd-ce-l2": (APGD(steps=100),),
    "apgd-ce-l1": (APGDL1(steps=100),),
    "apgd-dlr-linf": (APGD(steps=100, loss=dlr),),
    "apgd-dlr-l2": (APGD(steps=100, loss=dlr),),
    "apgd-t-linf": (Sweep(APGD(steps=20, loss=targeted_dlr)),),
    "apgd-t-l2": (Sweep(APGD(steps=20, loss=targeted_dlr)),),
    "apgd-t-l1": (Sweep(APGDL1(steps=36, loss=targeted_dlr), targets=5),),
    **{f"fab-t-{norm}": tuple(Sweep(fab) for fab in _fab(18)) for norm in ("linf", "l2", "l1")},
    "square-linf": (Square(queries=500),),
    "square-l2": (SquareL2(queries=500),),
    "square-l1": (SquareL1(queries=500),),
    "lbfgs-l2": (LBFGS(searches=5, steps=20),),
    "cw-l2": (CarliniWagnerL2(searches=3, steps=100),),
    "cw-long-l2": (CarliniWagnerL2(searches=9, steps=100),),
    "cw-linf": (CarliniWagnerLinf(steps=300),),
    "cw-l0": (CarliniWagnerL0(steps=300),),
    "ead-l1": (
        EAD(searches=3, steps=100),
        EAD(searches=3, steps=100, weight=64.0),
        EAD(searches=3, steps=100, weight=1024.0),
        EAD(searches=3, steps=100, beta=0.5),
        EAD(searches=5, steps=60),
    ),
    "ddn-l2": (DDN(steps=100),),
    **{f"fmn-{norm}": (FMN(steps=100),) for norm in SETS},
    **{f"pdpgd-{norm}": (PDPGD(steps=100),) for norm in SETS},
    **{f"fab-{norm}": _fab(53) for norm in ("linf", "l2", "l1")},
    "sigma-zero-l0": (
        SigmaZero(steps=100),
        SigmaZero(steps=100, rate=0.5),
        SigmaZero(steps=100, patience=0.05),
        SigmaZero(steps=100, threshold=0.1, patience=0.02),
        SigmaZero(steps=100, sigma=0.1),
    ),
    "jsma-l0": (JSMA(steps=66),),
    "deepfool-l2": _DEEPFOOL,
    "deepfool-linf": _DEEPFOOL,
    "engine-l2": (ENGINE,),
    "grid-spatial": tuple(SpatialGrid(queries=turns * shifts**2 - 1) for turns, shifts in GRIDS),
    "transfer-mi-fgsm-linf": _MOMENTUM,
    **{f"transfer-{kind}-linf": attacks for kind, attacks in _LINE.items() if kind != "tifgsm"},
    "transfer-tifgsm-linf": (
        *(replace(_DIVERSE, rate=rate) for rate in (0.15, 0.2, 0.3)),
        *(MomentumFGSM(steps=20, rate=rate, treatments=(Translated(),)) for rate in (0.15, 0.2)),
    ),
}

_UAP = (
    UAP(passes=29, fooled=1.0),
    UAP(passes=29, fooled=1.0, overshoot=10.0),
    UAP(passes=29, fooled=1.0, overshoot=0.02, batch=16),
    UAP(passes=10, fooled=1.0, overshoot=0.02, steps=3),
    UAP(passes=14, fooled=1.0, steps=2),
)
_UNIVERSAL_PGD = (
    UniversalPGD(passes=30),
    UniversalPGD(passes=30, rate=0.5),
    UniversalPGD(passes=30, cap=10.0),
    UniversalPGD(passes=30, batch=32, rate=0.5),
    UniversalPGD(passes=30, batch=128),
)
FITTED: dict[str, tuple[Fitter[Stamp], ...]] = {  # what they fit is judged on other rows
    **{f"uap-{norm}": _UAP for norm in ("linf", "l2")},
    **{f"universal-pgd-{norm}": _UNIVERSAL_PGD for norm in ("linf", "l2")},
}


def candidates(contest: Contest) -> tuple[object, ...]:
    """Our settings in a contest: attacks, or fitters where one change is fitted first; none where we have neither."""
    return FITTED.get(contest.name, ()) if contest.fitted else OURS.get(contest.name, ())


def within(contest: Contest, candidate: int) -> Bounded:
    """The set that a candidate moves in."""
    if contest.norm != "spatial":
        return SETS[contest.norm](contest.eps)
    turns, shifts = GRIDS[candidate]
    return Spatial(DEGREES, PIXELS / SIDE, rotations=turns, translations=shifts)


class Made(NamedTuple):
    """What one run cost, and made; passes in examples, our clean pass and second measurement among them."""

    x_adv: Tensor
    cpu_seconds: float
    forwards: int
    backwards: int


def run(contest: Contest, candidate: int, model: str, index: Sequence[int], seed: int) -> Made:
    """Our attack of a contest on the test images at `index`, all rows right.

    Passes are those of the model attacked, and of the one that its attacker looks into instead.
    """
    counted = worker.Counted(worker.load_model(model)).eval()
    lent = worker.Counted(worker.load_model(contest.seen(model))).eval()
    everything = worker.load_rows(1000)
    x, y = (part[torch.tensor(index)].clone() for part in everything)
    reach: Any = within(contest, candidate)  # the set of its attack
    keep = Closest() if contest.nearest else First()
    start = time.process_time()
    if contest.fitted:
        first, rows = contest.fitted
        x_fit, y_fit = (part[first : first + rows] for part in everything)
        attack: Attack[Any, Any] = redan.fit(
            counted, x_fit, y_fit, FITTED[contest.name][candidate], within=reach, seed=seed
        )
    else:
        attack = OURS[contest.name][candidate]
    surrogates = () if contest.lent is None else (lent,)
    result = redan.attack(counted, x, y, attack, within=reach, surrogates=surrogates, keep=keep, seed=seed, workers=1)
    spent = time.process_time() - start
    forwards, backwards = counted.forwards + lent.forwards, counted.backwards + lent.backwards
    return Made(result.adversarial, spent, forwards, backwards)
