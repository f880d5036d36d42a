"""From an extraction attacker to what is tried for him: extractors by mode, answers to buy, their wording, why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redan.extraction.customer import Shows, Spending, View
from redan.protocols import Access
from redan.threat.extractors import ExtractionCampaign
from redan.threat.file import read
from redan.threat.planner import Plan, Status, Step, plan

Write = Callable[..., Path]
IMAGE = {"kind": "image", "shape": [1, 4, 4], "bounds": [0, 1]}
TABLE = {"kind": "table"}
CUSTOMER: dict[str, Any] = {
    "name": "customer",
    "kind": "extraction",
    "why": "answers are sold",
    "knowledge": "scores",
    "goal": {"fidelity": "test"},
    "capability": {"queries_total": 1000},
}
EVASION = {
    "name": "fraudster",
    "kind": "evasion",
    "why": "wrong answers pay",
    "goal": "untargeted",
    "knowledge": "scores",
    "change": {"linf": 0.1},
}


def planned(shop: Write, goal: object = None, *, knowledge: str = "scores", mode: str = "default", **more: Any) -> Plan:
    """The plan of one extraction attacker, and of an evasion attacker who may use the copy."""
    attacker = {**CUSTOMER, "knowledge": knowledge, "goal": goal or CUSTOMER["goal"]}
    said = {"attackers": [attacker, EVASION], "requirements": [], "attacks__mode": mode}
    return plan(read(shop(**(said | more))).model)


def the(found: Plan) -> ExtractionCampaign:
    (campaign,) = found.extractions
    return campaign


def steps(found: Plan, status: Status) -> dict[str, Step]:
    return {step.attack: step for step in found.steps if step.status is status}


EXACT = ["equation-solving", "functionally-equivalent"]
COPY = {"transfer": "fraudster"}


@pytest.mark.parametrize(
    ("goal", "knowledge", "inputs", "mode", "names"),
    [
        (None, "scores", IMAGE, "quick", ["knockoff-nets"]),
        (None, "scores", IMAGE, "default", ["knockoff-nets"]),
        (None, "scores", IMAGE, "autoattack", ["knockoff-nets"]),
        (None, "scores", IMAGE, "audit", ["knockoff-nets", "knockoff-adaptive", "copycat-cnn", *EXACT]),
        (None, "labels", IMAGE, "default", ["copycat-cnn"]),
        (None, "labels", IMAGE, "audit", ["copycat-cnn", "adaptive-retraining"]),
        (None, "scores", TABLE, "quick", ["knockoff-nets"]),
        (None, "scores", TABLE, "default", ["knockoff-nets", *EXACT]),
        (None, "labels", TABLE, "default", ["knockoff-nets", "adaptive-retraining"]),
        (None, "labels", TABLE, "audit", ["knockoff-nets", "adaptive-retraining", "equation-solving"]),
        (COPY, "scores", IMAGE, "quick", ["knockoff-nets"]),
        (COPY, "scores", IMAGE, "default", ["knockoff-nets", "jacobian-augmentation"]),
        (COPY, "labels", IMAGE, "default", ["copycat-cnn", "jacobian-augmentation"]),
        (COPY, "scores", TABLE, "default", ["knockoff-nets", "jacobian-augmentation"]),
        (COPY, "labels", TABLE, "default", ["knockoff-nets", "adaptive-retraining", "jacobian-augmentation"]),
    ],
)
def test_modes(shop: Write, goal: object, knowledge: str, inputs: dict[str, Any], mode: str, names: list[str]) -> None:
    evasion = {**EVASION, "knowledge": "gradients"} if mode == "autoattack" else EVASION
    customer = {**CUSTOMER, "knowledge": knowledge, "goal": goal or CUSTOMER["goal"]}
    found = planned(
        shop,
        mode=mode,
        attackers=[customer, evasion],
        system__inputs=inputs,
        system__data={"test": {"path": "rows.npz"}, "train": {"path": "rows.npz"}},
    )
    assert [each.name for each in the(found).attacks] == names
    chosen = [step for step in steps(found, Status.CHOSEN).values() if step.attacker == "customer"]
    assert [step.attack for step in chosen] == names
    assert all(step.techniques and "3 copies of 1,000 answers" in step.reason for step in chosen)
    assert the(found).transfer == ("fraudster" if goal else None)
    assert all((step.attacker is None) != (step.status is Status.CHOSEN) for step in found.steps)


@pytest.mark.parametrize(
    ("capability", "points", "spending"),
    [
        ({"queries_total": 1000}, (1000, 500, 200, 100), Spending(queries=1000)),
        (
            {"usd": 3.0, "usd_per_1000_queries": 1.5},
            (2000, 1000, 400, 200),
            Spending(usd=3.0, usd_per_1000_queries=1.5),
        ),
        (
            {"queries_total": 7, "usd": 3.0, "usd_per_1000_queries": 1.5},
            (7, 4, 2, 1),
            Spending(queries=7, usd=3.0, usd_per_1000_queries=1.5),
        ),
        ({}, (10_000, 5000, 2000, 1000), Spending(queries=10_000)),
    ],
)
def test_answers_that_money_buys(
    shop: Write, capability: dict[str, Any], points: tuple[int, ...], spending: Spending
) -> None:
    campaign = the(planned(shop, attackers=[{**CUSTOMER, "capability": capability}]))
    assert campaign.points == points
    assert campaign.spending == spending
    assert campaign.access is Access.SCORES
    assert planned(shop, attackers=[{**CUSTOMER, "capability": capability}]).price == campaign.price


def test_a_curve_of_one_s_own(shop: Write) -> None:
    assert the(planned(shop, extraction={"curve": [0.25, 0.1]})).points == (1000, 250, 100)
    assert the(planned(shop, mode="quick")).points == (1000,)
    assert the(planned(shop, mode="audit")).points == (1000, 500, 200, 100, 50, 20, 10)


@pytest.mark.parametrize(
    ("knowledge", "output", "said", "view"),
    [
        ("labels", "logits", {}, View(shows=Shows.LABELS)),
        ("scores", "logits", {}, View(shows=Shows.RAW)),
        ("scores", "logits", {"decimals": 2}, View(shows=Shows.RAW, decimals=2)),
        ("scores", "logits", {"top": 2}, View(shows=Shows.PROBABILITIES, top=2)),
        ("scores", "probabilities", {"decimals": 3, "top": 1}, View(decimals=3, top=1)),
        ("scores", "probabilities", {"noise": 0.1}, View(noise=0.1)),
    ],
)
def test_what_an_answer_holds(shop: Write, knowledge: str, output: str, said: dict[str, int], view: View) -> None:
    assert the(planned(shop, knowledge=knowledge, system__output=output, extraction=said)).view == view


def test_reasons_say_why(shop: Write) -> None:
    found = planned(shop, mode="audit", system__output="probabilities")
    told = steps(found, Status.NOT_REALISTIC)
    assert told["functionally-equivalent"].reason == "it needs raw outputs, and the model answers probabilities"
    assert told["tree-path-finding"].reason.startswith("it is for decision trees of tables")
    assert told["jacobian-augmentation"].reason == "it is not for the goal of customer"
    assert "give extraction.pool" in told["knockoff-adaptive"].reason
    assert steps(found, Status.NOT_NEEDED)["copycat-cnn"].reason == "mode audit takes others"
    labels = planned(shop, knowledge="labels")
    assert (
        steps(labels, Status.NOT_REALISTIC)["tree-path-finding"].reason == "it needs scores, and customer sees labels"
    )
    table = planned(shop, mode="audit", system__inputs=TABLE, extraction={"decimals": 2})
    assert steps(table, Status.NOT_REALISTIC)["tree-path-finding"].reason == (
        "it is for decision trees, and the model is none"
    )
    assert "rounded, cut or noisy" in steps(table, Status.NOT_REALISTIC)["functionally-equivalent"].reason
    wide = planned(shop, mode="default", system__inputs={"kind": "tensor", "shape": [5000], "bounds": [0, 1]})
    assert "4096 values at most" in steps(wide, Status.NOT_REALISTIC)["equation-solving"].reason
    skipped = planned(shop, attacks__skip=["knockoff-nets"])
    assert steps(skipped, Status.SKIPPED)["knockoff-nets"].reason == "the threat model says attacks.skip"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"attacks__skip": ["knockoff-nets"], "attacks__mode": "quick"}, "every attack that fits is skipped"),
        ({"system__inputs": {"kind": "text"}}, "extraction by text inputs is not built yet"),
        ({"system__task": "multilabel"}, "extraction is built for task: classification"),
        (
            {"attackers": [{**CUSTOMER, "capability": {"usd": 0.001, "usd_per_1000_queries": 1.5}}]},
            "the attacker's money buys no answer",
        ),
    ],
)
def test_what_cannot_be_tried_is_an_attacker_who_is_not_built(
    shop: Write, changed: dict[str, Any], reason: str
) -> None:
    found = planned(shop, **({"attackers": [CUSTOMER]} | changed))
    assert found.extractions == ()
    (campaign,) = found.campaigns
    assert reason in str(campaign.reason)


def test_a_copy_for_somebody_who_is_not_built_is_not_made(shop: Write) -> None:
    patch = {**EVASION, "change": {"patch": {"area": 0.05}}}
    found = planned(shop, attackers=[{**CUSTOMER, "goal": COPY}, patch], system__inputs=IMAGE)
    assert found.extractions == ()
    told = {each.attacker.name: each.reason for each in found.campaigns}
    assert "the copy is for fraudster" in str(told["customer"])
