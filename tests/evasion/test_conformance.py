"""Every attack that is shipped passes the conformance test that third parties run on theirs."""

import inspect
import pkgutil
from importlib import import_module
from typing import Any

import pytest

import redan.evasion
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.bim import BIM
from redan.evasion.cascade import Cascade, Restarts, Sweep
from redan.evasion.fgsm import FGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.losses import dlr, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Access, Attack, cost, needs, settings
from redan.testing import check_attack

# (attack, the sets it is for, within how many times the optimum it breaks every row of a two-class linear victim)
SETS: dict[str, Any] = {"Linf": Linf, "L2": L2, "L1": L1}
ATTACKS: list[tuple[Attack[Any, Any], tuple[str, ...], float | None]] = [
    (FGSM(), ("Linf", "L2", "L1"), 1.01),
    (BIM(steps=5), ("Linf", "L2", "L1"), 1.01),
    (PGD(steps=20), ("Linf", "L2", "L1"), 1.1),
    (APGD(steps=20), ("Linf", "L2"), 1.05),
    (APGD(steps=10, loss=dlr), ("L2",), 1.1),
    (APGDL1(steps=20), ("L1",), 1.05),
    (Square(queries=200), ("Linf",), 1.9),
    (SquareL2(queries=60), ("L2",), 1.9),
    (SquareL1(queries=120), ("L1",), 1.9),
    (RandomNoise(tries=10), ("Linf", "L2", "L1"), None),
    (Restarts(PGD(steps=6), 2), ("Linf", "L2"), 1.25),
    (Sweep(APGD(steps=10, loss=targeted_dlr), 3), ("Linf", "L2"), 1.1),
    (Sweep(APGDL1(steps=10, loss=targeted_dlr), 2), ("L1",), 1.25),
    (Cascade((FGSM(), APGD(steps=10))), ("Linf", "L2"), 1.05),
    (Cascade((PGD(steps=5), Square(queries=20))), ("Linf",), 1.25),
    (Cascade((PGD(steps=5), Restarts(SquareL2(queries=10), 2))), ("L2",), 1.25),
]


@pytest.mark.parametrize(("one", "sets", "reach"), ATTACKS, ids=settings)
def test_it_conforms(one: Attack[Any, Any], sets: tuple[str, ...], reach: float | None) -> None:
    report = check_attack(one, reach=reach, within=[SETS[name] for name in sets])

    assert report.sets == sets
    assert report.attack == type(one).__name__


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
    assert {type(one).__name__ for one, _, _ in ATTACKS} == set(shipped())


@pytest.mark.parametrize("name", sorted(shipped()))
def test_metadata(name: str) -> None:
    """A frozen value with slots and a docstring; what it needs can be read, and what it costs."""
    kind = shipped()[name]
    one = next(one for one, _, _ in ATTACKS if type(one) is kind)

    assert kind.__doc__
    assert (import_module(kind.__module__).__doc__ or "").strip()
    assert kind.__dataclass_params__.frozen
    assert hasattr(kind, "__slots__")
    assert hash(one) == hash(one)
    assert needs(one).access in Access
    told = cost(one, 10)
    assert told is not None
    assert told.queries >= told.backwards >= 0
