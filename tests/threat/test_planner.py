"""From a threat model to a plan: what is chosen, what is not, why, and what it can cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redan.assessment.build import added_attacks
from redan.errors import SetError, SettingError
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.cascade import Sweep
from redan.evasion.fast_cascade import FastCascade
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.goals import LeastLikely, Targeted, Untargeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Access, Cost, Scores
from redan.registry.attacks import ATTACKS
from redan.rows import Rows
from redan.threat.file import read
from redan.threat.planner import Plan, Status, Step, plan
from redan.threat.schema import ThreatModel
from redan.threat.techniques import techniques

Write = Callable[..., Path]


def model(shop: Write, **changed: object) -> ThreatModel:
    return read(shop(**changed)).model


def steps(found: Plan, status: str) -> dict[str, Step]:
    return {step.attack: step for step in found.steps if step.status == status}


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("quick", ["fast-cascade"]),
        ("default", ["fast-cascade"]),
        ("audit", ["fast-cascade", "square"]),
    ],
)
def test_modes(shop: Write, mode: str, names: list[str]) -> None:
    found = plan(model(shop, attacks__mode=mode))
    (campaign,) = found.campaigns
    assert [name for name, _ in campaign.attacks] == names
    assert list(steps(found, "chosen")) == names
    assert campaign.within == Linf(0.1)
    assert (campaign.aim, campaign.knowledge) == (Untargeted(), Access.GRADIENTS)


@pytest.mark.parametrize(("mode", "queries"), [("audit", 5000), ("autoattack", 5000)])
def test_attacks_of_a_mode_are_those_of_its_definition(shop: Write, mode: str, queries: int) -> None:
    (campaign,) = plan(model(shop, attacks__mode=mode, system__classes=10)).campaigns
    assert dict(campaign.attacks)["square"] == Square(queries=queries)
    if mode == "autoattack":
        assert isinstance(dict(campaign.attacks)["apgd-t"], Sweep)
        assert dict(campaign.attacks)["apgd-ce"] == APGD(steps=100)
    else:
        assert dict(campaign.attacks)["fast-cascade"] == FastCascade()


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (50, 9)])
def test_the_cost_is_the_exact_worst_case(shop: Write, classes: int, targets: int) -> None:
    change = {"l1": 0.5}
    found = steps(
        plan(model(shop, attackers__0__change=change, attacks__mode="default", system__classes=classes)), "chosen"
    )
    costs = {name: (step.queries, step.backwards) for name, step in found.items()}
    schedule = APGDL1().cost(classes)
    assert costs == {
        "apgd-ce": schedule,
        "fmn": (101, 100),
        "apgd-t": Cost(1, 0) + schedule.times(targets),
        "square": (1000, 0),
    }


@pytest.mark.parametrize(("change", "kind"), [({"linf": 0.1}, Linf), ({"l2": 0.5}, L2), ({"l1": 0.5}, L1)])
def test_every_technique_stands_once(shop: Write, change: dict[str, float], kind: type) -> None:
    found = plan(model(shop, attackers__0__change=change, attacks__mode="audit"))
    assert sorted(step.attack for step in found.steps) == sorted(each.name for each in techniques())
    assert all(step.reason and step.techniques for step in found.steps)
    assert all((step.attacker is None) != (step.status is Status.CHOSEN) for step in found.steps)
    fitting = {each.name for each in ATTACKS if kind in each.sets}
    assert {s.attack for s in found.steps if s.status in (Status.CHOSEN, Status.NOT_NEEDED)} == fitting
    square = dict(found.campaigns[0].attacks)["square"]
    assert type(square).__name__ == {"Linf": "Square", "L2": "SquareL2", "L1": "SquareL1"}[kind.__name__]


def test_reasons_say_why(shop: Write) -> None:
    found = plan(model(shop, attacks__mode="audit", attacks__skip=["square"]))
    assert steps(found, "chosen")["fast-cascade"].reason == "mode audit, knowledge gradients"
    assert steps(found, "not needed")["pgd"].reason == "mode audit takes stronger ones"
    assert steps(found, "skipped")["square"].reason == "the threat model says attacks.skip"
    assert found.skipped == ("square",)
    scores = plan(model(shop, attackers__0__knowledge="scores", attacks__mode="default"))
    assert list(steps(scores, "chosen")) == ["square"]
    assert steps(scores, "not realistic")["pgd"].reason == "it needs gradients, and anyone sees scores"
    assert steps(scores, "not testable")["nes"].reason == "redan has not built it yet"
    moved = "it does not move within linf, which is all that anyone may change"
    assert steps(scores, "not realistic")["zoo"].reason == moved
    assert steps(scores, "not realistic")["badnets"].reason == "no attacker of kind poisoning is named"


POISONING = {
    "name": "supplier",
    "kind": "poisoning",
    "why": "suppliers label",
    "goal": "availability",
    "capability": {"share": 0.1},
}
INSIDER: dict[str, Any] = {
    "name": "insider",
    "kind": "evasion",
    "why": "staff leave",
    "goal": "untargeted",
    "knowledge": "scores",
    "change": {"linf": 0.1},
}


def test_what_two_attackers_choose_stands_once_for_each(shop: Write) -> None:
    found = plan(model(shop, attackers__1=POISONING, attackers__2=INSIDER, attacks__mode="default"))
    assert [(s.attacker, s.attack) for s in found.steps if s.status is Status.CHOSEN] == [
        ("anyone", "fast-cascade"),
        ("insider", "square"),
    ]
    left = [s.attack for s in found.steps if s.status is not Status.CHOSEN]
    assert len(set(left)) == len(left)
    assert not set(left) & {"fast-cascade", "square"}


def test_a_transfer_asks_the_target_once(shop: Write) -> None:
    step = steps(plan(model(shop, **SURROGATE)), "chosen")["mi-fgsm"]
    assert (step.queries, step.forwards, step.backwards) == (1, 11, 10)


def test_money_is_told_where_there_is_a_price(shop: Write) -> None:
    priced = {"capability": {"queries_per_row": 200, "usd_per_1000_queries": 1.5}, "knowledge": "scores"}
    found = plan(model(shop, **{f"attackers__0__{key}": value for key, value in priced.items()}))
    assert steps(found, "chosen")["square"].usd == pytest.approx(200 * 1.5 / 1000)
    assert steps(plan(model(shop)), "chosen")["fast-cascade"].usd is None


def test_a_scores_attacker_spends_what_he_has(shop: Write) -> None:
    scores = {"attackers__0__knowledge": "scores"}
    (limited,) = plan(model(shop, **scores, attackers__0__capability={"queries_per_row": 123})).campaigns
    assert dict(limited.attacks)["square"] == Square(queries=123)
    assert limited.capability.queries_per_row == 123
    (free,) = plan(model(shop, **scores)).campaigns
    assert free.capability.queries_per_row is None


SURROGATE: dict[str, Any] = {
    "attackers__0__knowledge": "surrogate",
    "attackers__0__surrogates": [{"factory": "{shop}:build", "arguments": {"kind": "Pairs"}}],
}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"attackers__0__change": {"l0": 2}}, ["sigma-zero", "fmn"]),
        ({"attackers__0__change": {"l0": 2}, "attacks__mode": "quick"}, ["sigma-zero"]),
        ({"attackers__0__change": {"l2": 0.5}, "attackers__0__knowledge": "labels"}, ["hop-skip-jump"]),
        (SURROGATE, ["mi-fgsm", "vmi-fgsm", "ti-di-mi-fgsm"]),
        ({**SURROGATE, "attacks__mode": "quick"}, ["mi-fgsm"]),
        ({"attackers__0__change": {"spatial": {"rotation": 5}}, "attackers__0__knowledge": "labels"}, ["spatial-grid"]),
        ({"attackers__0__change": {"spatial": {"translation": 0.1}}}, ["spatial-grid"]),
    ],
)
def test_the_change_and_the_knowledge_choose(shop: Write, changed: dict[str, Any], names: list[str]) -> None:
    image = {"system__inputs": {"kind": "image", "shape": [1, 4, 4], "bounds": [0, 1]}}
    said = {"attacks__mode": "default", **image, **changed}
    found = plan(model(shop, **said))
    assert [name for name, _ in found.campaigns[0].attacks] == names
    assert list(steps(found, "chosen")) == names
    assert found.campaigns[0].reason is None


def test_draws_of_gradients_are_in_the_bill_and_said(shop: Write) -> None:
    said = {"attacks__mode": "audit", "attacks__eot": 7}
    once, many = (steps(plan(model(shop, **(said | {"attacks__eot": n}))), "chosen") for n in (1, 7))
    for name, times in (("fast-cascade", 7), ("square", 1)):
        assert many[name].queries == times * (once[name].queries or 0) > 0
        assert many[name].backwards == times * (once[name].backwards or 0)
    assert "gradients averaged over 7 draws" in many["fast-cascade"].reason
    assert "draws" not in many["square"].reason + once["fast-cascade"].reason
    lent = steps(plan(model(shop, **SURROGATE, **said)), "chosen")["mi-fgsm"]
    assert lent.queries == 1  # of the target; the draws are the surrogate's


@pytest.mark.parametrize(
    ("goal", "aim"),
    [("untargeted", Untargeted()), ({"targeted": 2}, Targeted(2)), ({"targeted": "least_likely"}, LeastLikely())],
)
def test_goals(shop: Write, goal: Any, aim: object) -> None:
    (campaign,) = plan(model(shop, attackers__0__goal=goal)).campaigns
    assert campaign.aim == aim


IMAGE: dict[str, Any] = {"system__inputs": {"kind": "image", "shape": [1, 4, 4], "bounds": [0, 1]}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"attackers__0": POISONING, "requirements": []}, "there are no training rows to poison; give system.data"),
        (
            {"attackers__0__change": {"l1": 1.0}, "attackers__0__knowledge": "labels"},
            "no attack on labels alone is built in L1 yet",
        ),
        ({"attackers__0__change": {"l0": 2}, "attackers__0__knowledge": "scores"}, "no L0 attack without gradients"),
        (
            {"attackers__0__goal": {"targeted": 1}, "attackers__0__knowledge": "labels"},
            "a wanted class by labels alone is not built yet",
        ),
        ({**IMAGE, "attackers__0__change": {"patch": {"area": 0.1}}}, "changes of kind patch are not built yet"),
        (
            {"attacks__mode": "autoattack", "attackers__0__change": {"l0": 2}},
            "AutoAttack is defined in Linf, L2 and L1",
        ),
    ],
)
def test_what_is_not_built_is_named(shop: Write, changed: dict[str, Any], words: str) -> None:
    found = plan(model(shop, **changed))
    (campaign,) = found.campaigns
    assert campaign.within is None
    assert campaign.attacks == ()
    assert words in (campaign.reason or "")
    assert not steps(found, "chosen")
    assert sorted(step.attack for step in found.steps) == sorted(each.name for each in techniques())


def test_one_attacker_who_is_not_built_leaves_the_others(shop: Write) -> None:
    found = plan(model(shop, attackers__1=POISONING))
    assert [campaign.within for campaign in found.campaigns] == [Linf(0.1), None]


@pytest.mark.parametrize("name", ["pdg", "APGD", "square-l2", ""])
def test_an_unknown_attack_to_skip_is_refused(shop: Write, name: str) -> None:
    read_model = model(shop).model_copy()
    wrong = read_model.model_copy(update={"attacks": read_model.attacks.model_copy(update={"skip": (name,)})})
    with pytest.raises(
        SettingError, match=rf"attacks.skip names '{name}', which is no attack .*`redan list techniques`"
    ):
        plan(wrong)


# -- the user's own attacks -----------------------------------------------------------------------------


def added(shop: Write, *names: str, **changed: Any) -> Plan:
    loaded = read(shop(attacks__add=[f"{{shop}}:{name}" for name in names], **changed))
    return plan(loaded.model, added_attacks(loaded.model, loaded.folder))


def test_an_added_attack_is_chosen_by_name_after_the_mode_s(shop: Write) -> None:
    found = added(shop, "Corner")
    assert [name for name, _ in found.campaigns[0].attacks] == ["fast-cascade", "Corner"]
    step = steps(found, "chosen")["Corner"]
    assert (step.reason, step.queries, step.techniques) == ("the threat model says attacks.add", None, ())


def test_an_added_attack_that_no_attacker_can_use_is_refused(shop: Write) -> None:
    with pytest.raises(SetError, match=r"adds? names OnlyL2, .*moves in L2, and the change is Linf; leave it out"):
        added(shop, "OnlyL2")
    with pytest.raises(SetError, match=r"names Climber, .*needs gradients, and the attacker's knowledge is scores"):
        added(shop, "Climber", attackers__0__knowledge="scores")
    with pytest.raises(SetError, match="no attacker is built yet"):
        added(shop, "Corner", attackers__0__change={"l1": 1.0}, attackers__0__knowledge="labels")


def test_an_added_attack_is_used_by_whom_it_fits(shop: Write) -> None:
    other = {
        "name": "insider",
        "kind": "evasion",
        "why": "staff",
        "goal": "untargeted",
        "knowledge": "scores",
        "change": {"l2": 0.5},
    }
    found = added(shop, "OnlyL2", attackers__1=other)
    assert [[name for name, _ in campaign.attacks] for campaign in found.campaigns] == [
        ["fast-cascade"],
        ["square", "OnlyL2"],
    ]
    assert [(s.attacker, s.status) for s in found.steps if s.attack == "OnlyL2"] == [("insider", "chosen")]


def test_an_added_attack_may_be_skipped(shop: Write) -> None:
    found = added(shop, "Corner", attacks__skip=["Corner"])
    assert [name for name, _ in found.campaigns[0].attacks] == ["fast-cascade"]
    assert steps(found, "skipped")["Corner"].reason == "the threat model says attacks.skip"


def test_a_value_may_be_added_as_well_as_a_class(shop: Write) -> None:
    def mine(referee: Scores[Any], rows: Rows[Any, Any]) -> None: ...

    found = plan(model(shop), {"pgd-10": PGD(steps=10), "mine": mine})
    assert [name for name, _ in found.campaigns[0].attacks] == ["fast-cascade", "pgd-10", "mine"]
    assert steps(found, "chosen")["pgd-10"].queries == 11
