"""What redan can do: every entry is documented, builds, needs what it says, and repeats itself by seed."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from redan.engine.run import attack
from redan.errors import SettingError
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Ball, Cost, cost, needs, settings
from redan.registry.attacks import ATTACKS, Entry, entry
from redan.testing.victims import LinearVictim

NAMES = [f"{each.name}-{'-'.join(kind.__name__ for kind in each.sets)}" for each in ATTACKS]
SETS: dict[type, Any] = {
    Linf: Linf(0.02),
    L2: L2(0.08),
    L1: L1(0.2),
    L0: L0(3),
    Spatial: Spatial(0, 0.2),
}
every = pytest.mark.parametrize("each", ATTACKS, ids=NAMES)


def test_names_and_sets_are_unique() -> None:
    told = [(each.name, kind) for each in ATTACKS for kind in each.sets]
    assert len(set(told)) == len(told)


@every
def test_an_entry_is_complete(each: Entry) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", each.name)
    assert each.sets
    assert set(each.sets) <= set(SETS)
    assert each.paper in ("a baseline", "redan's own") or re.search(r"\b(19|20)\d\d, arXiv:\d{4}\.\d{4,5}$", each.paper)
    assert each.techniques
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", technique) for technique in each.techniques)


@every
def test_an_entry_s_attack_is_documented(each: Entry) -> None:
    made = each.make()
    doc = inspect.getdoc(type(made))
    assert doc is not None
    assert doc.splitlines()[0].endswith((".", ","))
    module = inspect.getdoc(sys.modules[type(made).__module__])
    assert module is not None
    year = re.search(r"\b(19|20)\d\d\b", each.paper)
    if year is not None:
        parts = [type(part) for part in getattr(made, "parts", ())]
        inner = "".join(f"{inspect.getdoc(part)} {inspect.getdoc(sys.modules[part.__module__])}" for part in parts)
        assert year.group() in module + doc + inner, "the docstring names the paper"


@every
def test_an_entry_builds_the_same_frozen_value(each: Entry) -> None:
    made, again = each.make(), each.make()
    assert made == again
    assert hash(made) == hash(again)
    assert settings(made) == settings(again)
    with pytest.raises((AttributeError, TypeError)):
        made.steps = 3  # type: ignore[attr-defined]  # that is what is tried


@every
def test_an_entry_needs_what_its_signature_says(each: Entry) -> None:
    need = needs(each.make())
    assert each.access == need.access
    assert need.access in (Access.LABELS, Access.SCORES, Access.GRADIENTS)
    assert need.within is Ball or need.within in each.sets
    told = cost(each.make(), 10)
    assert told is not None
    assert told.queries >= 1
    assert (told.backwards > 0) == (each.access is Access.GRADIENTS)
    white_box = "AML.T0043.000" in each.techniques
    assert white_box == (each.access is Access.GRADIENTS)


KINDS = [(each, kind) for each in ATTACKS for kind in each.sets]
FEW = Capability(queries_per_row=45)
ONE_EACH = [(each, each.sets[number % len(each.sets)]) for number, each in enumerate(ATTACKS)]


def named(value: object) -> str | None:
    name: str | None = getattr(value, "name", None)
    return name


def told(each: Entry) -> Cost:
    """What four classes cost at most."""
    most = cost(each.make(), 4)
    assert most is not None
    return most


def attacks_and_repeats_itself(each: Entry, kind: type, capability: Capability | None, queries: int) -> None:
    victim = LinearVictim.drawn(3, classes=4, shape=(12,))
    x, y = victim.rows(5)
    within, made = SETS[kind], each.make()
    if isinstance(made, Square | SquareL1 | SquareL2):
        made = replace(made, queries=150)
    one, again = (
        attack(victim.module(), x, y, made, within=within, seed=7, workers=workers, block=size, capability=capability)
        for workers, size in ((1, 5), (2, 3))
    )
    assert torch.equal(one.adversarial, again.adversarial)
    assert torch.equal(one.queries, again.queries)
    assert bool(within.contains(one.adversarial, x).all())
    assert 0 < int(one.queries.max()) <= queries
    assert one.errors == {}


@pytest.mark.parametrize(
    ("each", "kind"), [pair for pair in KINDS if pair in ONE_EACH or told(pair[0]).queries <= 45], ids=named
)
def test_an_entry_attacks_and_repeats_itself(each: Entry, kind: type) -> None:
    """As far as 45 queries reach, those that go on in one of their sets; the test below goes to the end in all."""
    attacks_and_repeats_itself(each, kind, FEW, min(45, told(each).queries))


@pytest.mark.slow
@pytest.mark.parametrize(("each", "kind"), [(each, kind) for each, kind in KINDS if told(each).queries > 45], ids=named)
def test_an_entry_repeats_itself_to_its_end(each: Entry, kind: type) -> None:
    attacks_and_repeats_itself(each, kind, None, told(each).queries)


@every
def test_an_entry_is_found_by_name_and_set(each: Entry) -> None:
    for kind in each.sets:
        assert entry(each.name, kind) is each


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"there is no attack named 'pdg'; redan knows random-noise, fgsm, .*square"):
        entry("pdg", Linf)


def test_a_norm_that_an_attack_lacks_is_told() -> None:
    with pytest.raises(SettingError, match=r"square moves in Linf, L2, L1, not in Box; choose another attack"):
        entry("square", type("Box", (), {}))


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "apgd-ce", "apgd-t", "square"])
def test_what_l0_lacks_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingError, match=rf"{name} moves in Linf, L2, L1, not in L0; choose another"):
        entry(name, L0)
    assert entry("random-noise", L0).sets[-1] is L0
