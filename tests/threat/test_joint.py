"""What a mode adds because of what is served."""

from __future__ import annotations

import pytest

from redan.evasion.apgd_l1 import APGDL1
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Bounded, cost, needs
from redan.rejection import Lagrangian
from redan.robustness import Mode, attacks_of
from redan.threat.joint import JOINT, joint_attacks, leveled_attacks
from redan.threat.model import Ensemble, Factory


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("within", [Linf(0.1), L2(0.5), L1(3.0)])
def test_every_mode_has_joint_attacks_that_climb(mode: Mode, within: Bounded) -> None:
    found = joint_attacks(mode, within)
    assert {name for name, _ in found} == set(JOINT)
    assert all(needs(attack).access is Access.GRADIENTS for _, attack in found)


def test_in_other_sets_there_are_none() -> None:
    assert joint_attacks(Mode.AUDIT, L0(5)) == ()
    assert joint_attacks(Mode.AUDIT, Spatial(10, 0.1)) == ()


def test_a_longer_mode_spends_more() -> None:
    spent = []
    for mode in (Mode.QUICK, Mode.DEFAULT, Mode.AUDIT):
        found = [cost(attack, 10) for _, attack in joint_attacks(mode, Linf(0.1))]
        spent.append(sum(each.queries for each in found if each is not None))
    assert spent == sorted(spent)
    assert spent[0] < spent[2] / 10


def test_in_l1_the_sum_is_climbed_by_steps_for_l1() -> None:
    (sum_of_both,) = [attack for name, attack in joint_attacks(Mode.QUICK, L1(3.0)) if name == "lagrangian"]
    assert isinstance(sum_of_both, Lagrangian)
    assert isinstance(sum_of_both.attack, APGDL1)


def test_only_attacks_that_climb_are_leveled() -> None:
    own = attacks_of(Mode.AUDIT, Linf(0.1), Access.GRADIENTS, 10)
    assert [name for name, _ in own] == ["fast-cascade", "square"]
    pair = Ensemble.model_validate({"ensemble": {"members": [{"factory": "a:b"}, {"factory": "a:c"}]}})
    assert [name for name, _ in leveled_attacks(pair, own)] == ["fast-cascade-leveled"]
    assert leveled_attacks(Factory.model_validate({"factory": "a:b"}), own) == ()
