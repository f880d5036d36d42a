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
from attacks_cells import Contest
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
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evasion.treatments import Diverse, Scaled, Translated, Variance
from redan.losses import dlr, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Attack, Ball
from redan.referee import Closest, First

SETS: dict[str, Callable[[float], Ball]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
ENGINE = FMN(steps=89)  # the recommended minimum-norm engine: 89 gradient queries, and one that judges the last point

_BIM = tuple(BIM(steps=20, rate=rate) for rate in (0.05, 0.1, 0.15, 0.2, 0.3))
_PGD = tuple(PGD(steps=40, rate=rate) for rate in (0.025, 0.0625, 0.1, 0.15, 0.25))
_PGD_L1 = tuple(PGD(steps=40, rate=rate) for rate in (0.05, 0.1, 0.25, 0.5, 1.0))
_SPARSE = tuple(PGD(steps=40, rate=rate, random_start=False) for rate in (0.05, 0.1, 0.25, 0.5, 1.0))
_MOMENTUM = tuple(MomentumFGSM(steps=20, rate=rate) for rate in (0.05, 0.1, 0.15, 0.2, 0.3))

Candidates = tuple[Attack[Any, Any], ...]


def _line(attack: MomentumFGSM) -> Candidates:
    return tuple(replace(attack, rate=rate) for rate in (0.1, 0.15, 0.2, 0.25, 0.3))


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
    "nifgsm-linf": _line(MomentumFGSM(steps=20, nesterov=True)),
    "sinifgsm-linf": _line(MomentumFGSM(steps=10, nesterov=True, treatments=(Scaled(),))),
    "vmifgsm-linf": _line(MomentumFGSM(steps=10, variance=Variance())),
    "vnifgsm-linf": _line(MomentumFGSM(steps=10, nesterov=True, variance=Variance())),
    "difgsm-linf": _line(MomentumFGSM(steps=20, treatments=(Diverse(),))),
    "tifgsm-linf": _line(MomentumFGSM(steps=20, treatments=(Translated(),))),
    "apgd-ce-linf": (APGD(steps=100),),
    "apgd-ce-l2": (APGD(steps=100),),
    "apgd-ce-l1": (APGDL1(steps=100),),
    "apgd-dlr-linf": (APGD(steps=100, loss=dlr),),
    "apgd-dlr-l2": (APGD(steps=100, loss=dlr),),
    "apgd-t-linf": (Sweep(APGD(steps=20, loss=targeted_dlr)),),
    "apgd-t-l2": (Sweep(APGD(steps=20, loss=targeted_dlr)),),
    "apgd-t-l1": (Sweep(APGDL1(steps=36, loss=targeted_dlr), targets=5),),
    "fab-t-linf": (Sweep(FAB(steps=18)),),
    "fab-t-l2": (Sweep(FAB(steps=18)),),
    "fab-t-l1": (Sweep(FAB(steps=18)),),
    "square-linf": (Square(queries=500),),
    "square-l2": (SquareL2(queries=500),),
    "square-l1": (SquareL1(queries=500),),
    "lbfgs-l2": (LBFGS(searches=5, steps=20),),
    "cw-l2": (CarliniWagnerL2(searches=3, steps=100),),
    "cw-long-l2": (CarliniWagnerL2(searches=9, steps=100),),
    "cw-linf": (CarliniWagnerLinf(steps=300),),
    "cw-l0": (CarliniWagnerL0(steps=300),),
    "ead-l1": (EAD(searches=3, steps=100),),
    "ddn-l2": (DDN(steps=100),),
    **{f"fmn-{norm}": (FMN(steps=100),) for norm in SETS},
    **{f"pdpgd-{norm}": (PDPGD(steps=100),) for norm in SETS},
    **{f"fab-{norm}": (FAB(steps=53),) for norm in ("linf", "l2", "l1")},
    "sigma-zero-l0": (SigmaZero(steps=100),),
    "jsma-l0": (JSMA(steps=66),),
    "deepfool-l2": (DeepFool(steps=50),),
    "deepfool-linf": (DeepFool(steps=50),),
    "engine-l2": (ENGINE,),
}


class Made(NamedTuple):
    """What one run cost, and made; passes in examples, our clean pass and second measurement among them."""

    x_adv: Tensor
    cpu_seconds: float
    forwards: int
    backwards: int


def run(contest: Contest, candidate: int, model: str, index: Sequence[int], seed: int) -> Made:
    """Our attack of a contest on the test images at `index`, all rows right."""
    counted = worker.Counted(worker.load_model(model)).eval()
    x, y = (part[torch.tensor(index)].clone() for part in worker.load_rows(1000))
    within = SETS[contest.norm](contest.eps)
    keep = Closest() if contest.nearest else First()
    start = time.process_time()
    result = redan.attack(counted, x, y, OURS[contest.name][candidate], within=within, keep=keep, seed=seed, workers=1)
    spent = time.process_time() - start
    return Made(result.adversarial, spent, counted.forwards, counted.backwards)
