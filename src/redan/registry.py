"""What redan can do, as literal tables: each attack with what it needs, its paper and its technique."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redan.errors import SettingError
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.bim import BIM
from redan.evasion.cascade import Sweep
from redan.evasion.fgsm import FGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.losses import dlr, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack, needs

_WHITE_BOX, _BLACK_BOX, _EVADE = "AML.T0043.000", "AML.T0043.001", "AML.T0015"  # MITRE ATLAS


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


def _apgd_dlr_l1() -> APGDL1:
    return APGDL1(loss=dlr)


def _apgd_t_l1() -> Sweep[Any, Any]:
    return Sweep(APGDL1(loss=targeted_dlr))


ATTACKS: tuple[Entry, ...] = (
    Entry("random-noise", RandomNoise, (Linf, L2, L1, L0), "a baseline", (_EVADE,)),
    Entry("fgsm", FGSM, (Linf, L2, L1), "Goodfellow 2015, arXiv:1412.6572", (_WHITE_BOX, _EVADE)),
    Entry("bim", BIM, (Linf, L2, L1), "Kurakin 2017, arXiv:1607.02533", (_WHITE_BOX, _EVADE)),
    Entry("pgd", PGD, (Linf, L2, L1), "Madry 2018, arXiv:1706.06083", (_WHITE_BOX, _EVADE)),
    Entry("apgd-ce", APGD, (Linf, L2), "Croce and Hein 2020, arXiv:2003.01690", (_WHITE_BOX, _EVADE)),
    Entry("apgd-dlr", _apgd_dlr, (Linf, L2), "Croce and Hein 2020, arXiv:2003.01690", (_WHITE_BOX, _EVADE)),
    Entry("apgd-t", _apgd_t, (Linf, L2), "Croce and Hein 2020, arXiv:2003.01690", (_WHITE_BOX, _EVADE)),
    Entry("apgd-ce", APGDL1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_WHITE_BOX, _EVADE)),
    Entry("apgd-dlr", _apgd_dlr_l1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_WHITE_BOX, _EVADE)),
    Entry("apgd-t", _apgd_t_l1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_WHITE_BOX, _EVADE)),
    Entry("square", Square, (Linf,), "Andriushchenko 2020, arXiv:1912.00049", (_BLACK_BOX, _EVADE)),
    Entry("square", SquareL2, (L2,), "Andriushchenko 2020, arXiv:1912.00049", (_BLACK_BOX, _EVADE)),
    Entry("square", SquareL1, (L1,), "Croce and Hein 2021, arXiv:2103.01208", (_BLACK_BOX, _EVADE)),
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
