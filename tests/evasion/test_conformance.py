"""Every attack that is shipped passes the conformance test that third parties run on theirs."""

import inspect
import pkgutil
from importlib import import_module
from typing import Any

import pytest
import torch

import redan.evasion
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.bim import BIM
from redan.evasion.carlini_wagner import CarliniWagnerL2
from redan.evasion.carlini_wagner_l0 import CarliniWagnerL0
from redan.evasion.carlini_wagner_linf import CarliniWagnerLinf
from redan.evasion.cascade import Cascade, Restarts, Sweep
from redan.evasion.ddn import DDN
from redan.evasion.deepfool import DeepFool
from redan.evasion.descent import Descent
from redan.evasion.ead import EAD
from redan.evasion.fab import FAB
from redan.evasion.fast_cascade import Closing, FastCascade, FastCascadeL2, Stage
from redan.evasion.fgsm import FGSM
from redan.evasion.fmn import FMN, Start
from redan.evasion.given import Given
from redan.evasion.hopskipjump import HopSkipJump
from redan.evasion.jsma import JSMA
from redan.evasion.ladder import Ladder
from redan.evasion.lbfgs import LBFGS
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.orthogonal_pgd import BalancedPGD, OrthogonalPGD
from redan.evasion.pdpgd import PDPGD
from redan.evasion.pgd import PGD
from redan.evasion.sigma_zero import SigmaZero
from redan.evasion.spatial import SpatialGrid
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evasion.treatments import Translated, Variance
from redan.evasion.universal import Stamp
from redan.losses import dlr, margin, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, cost, needs, settings
from redan.testing import check_attack

# (attack, the sets it is for, within how many times the optimum it breaks every row of a two-class linear victim)
SETS: dict[str, Any] = {"Linf": Linf, "L2": L2, "L1": L1}


class Shifted(Spatial):
    """Spatial has no norm: a bound, ample, on how much more than the share of the ranges a pixel changes."""

    def steepest(self, gradient: torch.Tensor) -> torch.Tensor:
        return 1e4 * gradient.sign()


SETS["Shifted"] = lambda radius: Shifted(30, 0.2, rotations=3, translations=3, radius=radius)


class Counted(L0):
    """L0 measures no length: a bound, ample, on how much a linear score changes with one coordinate in any box."""

    def steepest(self, gradient: torch.Tensor) -> torch.Tensor:
        return 1e4 * gradient.sign()


SETS["Counted"] = Counted
Told = tuple[Attack[Any, Any], tuple[str, ...], float | None]
ATTACKS: list[Told] = [
    (FGSM(), ("Linf", "L2", "L1"), 1.01),
    (BIM(steps=5), ("Linf", "L2", "L1"), 1.01),
    (PGD(steps=20), ("Linf",), 1.1),
    (APGD(steps=12), ("Linf", "L2"), 1.05),
    (APGDL1(steps=12), ("L1",), 1.05),
    (Square(queries=30), ("Linf",), None),
    (SquareL2(queries=20), ("L2",), None),
    (SquareL1(queries=15), ("L1",), None),
    (DeepFool(steps=8), ("Linf", "L2"), 1.01),
    (FAB(steps=12), ("L2",), 1.01),
    (Sweep(FAB(steps=6), 3), ("Linf",), 1.01),
    (JSMA(steps=6), ("Counted",), None),
    (RandomNoise(tries=4), ("Linf", "L2", "L1"), None),
    (MomentumFGSM(steps=5), ("Linf", "L2", "L1"), 1.05),
    (SpatialGrid(queries=26), ("Shifted",), None),
    (Stamp(perturbation=torch.tensor(0.1), origin="by hand"), ("Linf", "L2", "L1"), None),
    (Restarts(PGD(steps=6), 2), ("L2",), 1.25),
    (Ladder(attack=PGD(steps=6)), ("L2",), 1.25),
    (Cascade((FGSM(), APGD(steps=10))), ("Linf",), 1.05),
    (LBFGS(searches=8, steps=6), ("L2",), 1.05),
    (CarliniWagnerL2(searches=3, steps=25, rate=0.03, weight=8.0), ("L2",), 1.15),
    (CarliniWagnerLinf(steps=100, rate=0.02), ("Linf",), 1.25),
    (CarliniWagnerL0(steps=30), ("Counted",), None),
    (EAD(searches=3, steps=40, rate=0.03, beta=0.5, weight=16.0), ("L1",), 1.25),
    (DDN(steps=25), ("L2",), 1.05),
    (FMN(steps=40), ("L1",), 1.25),
    (Descent(), ("Linf", "L2", "L1"), 1.05),
    (
        Closing(
            (Descent(),), Descent(random_start=True, loss=margin), (Stage(PGD(steps=4), 0.5),), RandomNoise(tries=2)
        ),
        ("L2",),
        1.05,
    ),
    (FastCascade(thorough=False, queries=100), ("Linf",), 1.05),
    (FastCascadeL2(thorough=False, queries=100), ("L2",), 1.05),
    (PDPGD(steps=12, dual_rate=0.5), ("Linf",), None),
    (SigmaZero(steps=10), ("Counted",), None),
    (HopSkipJump(queries=100, first=10, tries=12), ("L2",), 2.0),
]

FURTHER: list[Told] = [
    (PGD(steps=20), ("L2", "L1"), 1.1),
    (Square(queries=200), ("Linf",), 1.9),
    (SquareL2(queries=60), ("L2",), 1.9),
    (SquareL1(queries=120), ("L1",), 1.9),
    (FAB(steps=12), ("Linf", "L1"), 1.01),
    (Sweep(FAB(steps=6), 3), ("L2",), 1.01),
    (FMN(steps=40), ("Linf", "L2"), 1.25),
    (PDPGD(steps=12, dual_rate=0.5), ("L2", "L1"), None),
    (APGD(steps=10, loss=dlr), ("L2",), 1.1),
    (DeepFool(steps=4, candidates=1, search=2), ("Linf", "L2"), 1.01),
    (FAB(steps=6, restarts=2, candidates=2), ("Linf", "L2"), 1.01),
    (JSMA(steps=6, theta=-0.5, pairs=False), ("Counted",), None),
    (MomentumFGSM(steps=4, nesterov=True, treatments=(Translated(size=1),)), ("Linf", "L2", "L1"), 1.05),
    (MomentumFGSM(steps=4, nesterov=True, variance=Variance(copies=2)), ("Linf",), 1.05),
    (Sweep(APGD(steps=10, loss=targeted_dlr), 3), ("Linf", "L2"), 1.1),
    (Sweep(APGDL1(steps=10, loss=targeted_dlr), 2), ("L1",), 1.25),
    (Cascade((PGD(steps=5), Square(queries=20))), ("Linf",), 1.25),
    (Cascade((PGD(steps=5), Restarts(SquareL2(queries=10), 2))), ("L2",), 1.25),
    (FMN(steps=20, outside=False), ("L2",), 1.1),
    (FMN(steps=40, rate=0.3, start=Start.FAR), ("L2",), 1.1),
    (FMN(steps=40, start=Start.OPPOSITE), ("Linf", "L2", "L1"), 1.25),
    (Descent(steps=20, random_start=True, loss=margin), ("Linf", "L2", "L1"), 1.05),
    (FastCascade(thorough=False), ("Linf",), 1.05),
    (FastCascadeL2(thorough=False), ("L2",), 1.05),
    (FastCascade(queries=20), ("Linf",), 1.05),
    (FastCascadeL2(queries=20), ("L2",), 1.05),
    (FMN(steps=8), ("Counted",), None),
    (HopSkipJump(queries=100, first=10, tries=12), ("Linf",), 3.0),
    (HopSkipJump(queries=500, first=20, tries=20), ("Linf", "L2"), 1.25),
    (PDPGD(steps=8), ("Counted",), None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "sets", "reach"), FURTHER, ids=settings)
def test_it_conforms_in_other_settings(one: Attack[Any, Any], sets: tuple[str, ...], reach: float | None) -> None:
    test_it_conforms(one, sets, reach)


LONG = (CarliniWagnerL2, CarliniWagnerLinf, EAD, LBFGS)
"""Penalty methods: hundreds of steps a run."""


@pytest.mark.parametrize(
    ("one", "sets", "reach"),
    [pytest.param(*each, marks=[pytest.mark.slow] * isinstance(each[0], LONG)) for each in ATTACKS],
    ids=settings,
)
def test_it_conforms(one: Attack[Any, Any], sets: tuple[str, ...], reach: float | None) -> None:
    report = check_attack(one, reach=reach, within=[SETS[name] for name in sets])

    assert report.sets == sets
    assert report.attack == type(one).__name__


JOINT = (BalancedPGD(steps=12), OrthogonalPGD(steps=12))  # need a model that refuses: tests/rejection attacks one
GIVEN = (Given(),)  # needs inputs that were made elsewhere: test_given.py
EACH = (*(one for one, _, _ in ATTACKS), *JOINT, *GIVEN)


def shipped() -> dict[str, type[Any]]:
    """Every public class of the evasion room that can be called with a referee."""
    modules = [import_module(f"redan.evasion.{m.name}") for m in pkgutil.iter_modules(redan.evasion.__path__)]
    return {
        name: kind
        for module in modules
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and not name.startswith("_")
        and "referee" in inspect.signature(kind.__call__).parameters
    }


def test_none_is_left_out() -> None:
    assert {type(one).__name__ for one in EACH} == set(shipped())


@pytest.mark.parametrize("name", sorted(shipped()))
def test_metadata(name: str) -> None:
    """A frozen value with slots and a docstring; what it needs can be read, and what it costs."""
    kind = shipped()[name]
    one = next(one for one in EACH if type(one) is kind)

    assert kind.__doc__
    assert (import_module(kind.__module__).__doc__ or "").strip()
    assert kind.__dataclass_params__.frozen
    assert hasattr(kind, "__slots__")
    assert hash(one) == hash(one)
    assert needs(one).access in Access
    told = cost(one, 10)
    assert told is not None
    assert told.queries > 0
    assert told.backwards >= 0  # a loss with a column a class costs one each
