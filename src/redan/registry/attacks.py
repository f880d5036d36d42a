"""Attacks on the inputs of a trained model: each with what it needs, its paper and its technique."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redan.errors import SettingError
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
from redan.evasion.fast_cascade import FastCascade, FastCascadeL2
from redan.evasion.fgsm import FGSM
from redan.evasion.fmn import FMN
from redan.evasion.hopskipjump import HopSkipJump
from redan.evasion.jsma import JSMA
from redan.evasion.lbfgs import LBFGS
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.pdpgd import PDPGD
from redan.evasion.pgd import PGD
from redan.evasion.sigma_zero import SigmaZero
from redan.evasion.spatial import SpatialGrid
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evasion.treatments import Diverse, Scaled, Translated, Variance
from redan.losses import dlr, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, needs

_WHITE_BOX, _BLACK_BOX, _BY_HAND, _EVADE = "AML.T0043.000", "AML.T0043.001", "AML.T0043.003", "AML.T0015"  # MITRE ATLAS


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack as the planner and the report know it. What it needs is read from its signature."""

    name: str
    make: Callable[[], Attack[Any, Any]]
    sets: tuple[type, ...]
    paper: str
    techniques: tuple[str, ...]

    @property
    def access(self) -> Access:
        return needs(self.make()).access


def _apgd_dlr() -> APGD:
    return APGD(loss=dlr)


def _apgd_t() -> Sweep[Any, Any]:
    return Sweep(APGD(loss=targeted_dlr))


def _fab_t() -> Sweep[Any, Any]:
    return Sweep(FAB())


def _apgd_dlr_l1() -> APGDL1:
    return APGDL1(loss=dlr)


def _apgd_t_l1() -> Sweep[Any, Any]:
    return Sweep(APGDL1(loss=targeted_dlr))


def _vmi_fgsm() -> MomentumFGSM:
    return MomentumFGSM(variance=Variance())


def _si_ni_fgsm() -> MomentumFGSM:
    return MomentumFGSM(nesterov=True, treatments=(Scaled(),))


def _ti_di_mi_fgsm() -> MomentumFGSM:
    return MomentumFGSM(treatments=(Translated(), Diverse()))


ATTACKS: tuple[Entry, ...] = (
    Entry("random-noise", RandomNoise, (Linf, L2, L1, L0), "a baseline", (_EVADE,)),
    Entry("fgsm", FGSM, (Linf, L2, L1), "Goodfellow 2015, arXiv:1412.6572", (_WHITE_BOX, _EVADE)),
    Entry("bim", BIM, (Linf, L2, L1), "Kurakin 2017, arXiv:1607.02533", (_WHITE_BOX, _EVADE)),
    Entry("mi-fgsm", MomentumFGSM, (Linf, L2, L1), "Dong 2018, arXiv:1710.06081", (_WHITE_BOX, _EVADE)),
    Entry("vmi-fgsm", _vmi_fgsm, (Linf, L2, L1), "Wang and He 2021, arXiv:2103.15571", (_WHITE_BOX, _EVADE)),
    Entry("si-ni-fgsm", _si_ni_fgsm, (Linf, L2, L1), "Lin 2020, arXiv:1908.06281", (_WHITE_BOX, _EVADE)),
    Entry("ti-di-mi-fgsm", _ti_di_mi_fgsm, (Linf, L2, L1), "Dong 2019, arXiv:1904.02884", (_WHITE_BOX, _EVADE)),
    Entry("pgd", PGD, (Linf, L2, L1), "Madry 2018, arXiv:1706.06083", (_WHITE_BOX, _EVADE)),
    Entry("apgd-ce", APGD, (Linf, L2), "Croce and Hein 2020, arXiv:2003.01690", (_WHITE_BOX, _EVADE)),
    Entry("apgd-dlr", _apgd_dlr, (Linf, L2), "Croce and Hein 2020, arXiv:2003.01690", (_WHITE_BOX, _EVADE)),
    Entry("apgd-t", _apgd_t, (Linf, L2), "Croce and Hein 2020, arXiv:2003.01690", (_WHITE_BOX, _EVADE)),
    Entry("apgd-ce", APGDL1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_WHITE_BOX, _EVADE)),
    Entry("apgd-dlr", _apgd_dlr_l1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_WHITE_BOX, _EVADE)),
    Entry("apgd-t", _apgd_t_l1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_WHITE_BOX, _EVADE)),
    Entry("fast-cascade", FastCascade, (Linf,), "redan's own", (_WHITE_BOX, _EVADE)),
    Entry("fast-cascade", FastCascadeL2, (L2,), "redan's own", (_WHITE_BOX, _EVADE)),
    Entry("deepfool", DeepFool, (Linf, L2), "Moosavi-Dezfooli 2016, arXiv:1511.04599", (_WHITE_BOX, _EVADE)),
    Entry("fab", FAB, (Linf, L2, L1), "Croce and Hein 2020, arXiv:1907.02044", (_WHITE_BOX, _EVADE)),
    Entry("fab-t", _fab_t, (Linf, L2, L1), "Croce and Hein 2020, arXiv:1907.02044", (_WHITE_BOX, _EVADE)),
    Entry("jsma", JSMA, (L0,), "Papernot 2016, arXiv:1511.07528", (_WHITE_BOX, _EVADE)),
    Entry("spatial-grid", SpatialGrid, (Spatial,), "Engstrom 2019, arXiv:1712.02779", (_BY_HAND, _EVADE)),
    Entry("square", Square, (Linf,), "Andriushchenko 2020, arXiv:1912.00049", (_BLACK_BOX, _EVADE)),
    Entry("square", SquareL2, (L2,), "Andriushchenko 2020, arXiv:1912.00049", (_BLACK_BOX, _EVADE)),
    Entry("square", SquareL1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_BLACK_BOX, _EVADE)),
    Entry("hop-skip-jump", HopSkipJump, (Linf, L2), "Chen 2020, arXiv:1904.02144", (_BLACK_BOX, _EVADE)),
    Entry("lbfgs", LBFGS, (L2,), "Szegedy 2014, arXiv:1312.6199", (_WHITE_BOX, _EVADE)),
    Entry("carlini-wagner", CarliniWagnerL2, (L2,), "Carlini and Wagner 2017, arXiv:1608.04644", (_WHITE_BOX, _EVADE)),
    Entry("carlini-wagner", CarliniWagnerL0, (L0,), "Carlini and Wagner 2017, arXiv:1608.04644", (_WHITE_BOX, _EVADE)),
    Entry(
        "carlini-wagner", CarliniWagnerLinf, (Linf,), "Carlini and Wagner 2017, arXiv:1608.04644", (_WHITE_BOX, _EVADE)
    ),
    Entry("ead", EAD, (L1,), "Chen 2018, arXiv:1709.04114", (_WHITE_BOX, _EVADE)),
    Entry("ddn", DDN, (L2,), "Rony 2019, arXiv:1811.09600", (_WHITE_BOX, _EVADE)),
    Entry("fmn", FMN, (Linf, L2, L1, L0), "Pintor 2021, arXiv:2102.12827", (_WHITE_BOX, _EVADE)),
    Entry("pdpgd", PDPGD, (Linf, L2, L1, L0), "Matyasko and Chau 2021, arXiv:2106.01538", (_WHITE_BOX, _EVADE)),
    Entry("sigma-zero", SigmaZero, (L0,), "Cinà 2025, arXiv:2402.01879", (_WHITE_BOX, _EVADE)),
)


def entry(name: str, within: type) -> Entry:
    """The attack of that name for that kind of set. Raises SettingError with the nearest names."""
    named = [e for e in ATTACKS if e.name == name]
    if not named:
        known = ", ".join(dict.fromkeys(e.name for e in ATTACKS))
        raise SettingError(f"there is no attack named '{name}'; redan knows {known}")
    fitting = [e for e in named if within in e.sets]
    if not fitting:
        sets = ", ".join(s.__name__ for e in named for s in e.sets)
        raise SettingError(f"{name} moves in {sets}, not in {within.__name__}; choose another attack for this change")
    return fitting[0]
