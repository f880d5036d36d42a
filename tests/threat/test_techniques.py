"""What redan knows by name: each name once, with a paper, and a reason for whom it is not realistic."""

from __future__ import annotations

import re
from typing import Any

import pytest

from redan.registry.attacks import ATTACKS
from redan.registry.detectors import DETECTORS
from redan.registry.extractors import EXTRACTORS
from redan.registry.poisoners import POISONERS
from redan.threat import attackers as who
from redan.threat.attackers import Kind, Knowledge
from redan.threat.changes import L2Change, LinfChange
from redan.threat.joint import JOINT
from redan.threat.papers import arxiv_id, bibtex
from redan.threat.standards import crosswalk
from redan.threat.techniques import PLANNED, Technique, subject, techniques, unrealistic


def known(name: str) -> Technique:
    (found,) = [each for each in techniques() if each.name == name]
    return found


def test_each_name_stands_once_and_what_is_built_is_not_planned() -> None:
    names = [each.name for each in techniques()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    registered = {entry.name for table in (ATTACKS, POISONERS, EXTRACTORS) for entry in table}
    assert {each.name for each in techniques() if each.built} == registered | set(JOINT)
    assert {each.kind for each in PLANNED} == set(Kind)


def test_every_paper_has_an_entry() -> None:
    papers = {each.paper for each in techniques()} | {entry.paper for entry in ATTACKS}
    for paper in papers | {entry.paper for entry in DETECTORS}:
        if paper in ("a baseline", "redan's own", "Rousseeuw 1999", "Breunig 2000"):  # the last are not on arXiv
            continue
        id = arxiv_id(paper)
        assert id is not None, paper
        entry = bibtex([paper])
        assert f"eprint = {{{id}}}" in entry
        year = re.findall(r"\b(?:19|20)\d\d\b", paper)[0]
        assert f"year = {{{year}}}" in entry, paper
        assert paper.split()[0][:3] in entry, paper


def test_an_attack_of_several_sets_is_one_technique() -> None:
    assert LinfChange in known("square").changes
    assert L2Change in known("square").changes


def evasion(knowledge: Knowledge, change: dict[str, Any]) -> who.Attacker:
    about = {"name": "a", "kind": Kind.EVASION, "why": "w", "goal": "untargeted"}
    return who.Evasion.model_validate({**about, "knowledge": knowledge, "change": change})


LINF, PATCH = {"linf": 0.1}, {"patch": {"area": 0.1}}


@pytest.mark.parametrize(
    ("name", "knowledge", "change", "reason"),
    [
        ("pgd", Knowledge.GRADIENTS, LINF, None),
        ("pgd", Knowledge.SCORES, LINF, "it needs gradients, and a sees scores"),
        ("square", Knowledge.GRADIENTS, LINF, None),
        ("square", Knowledge.LABELS, LINF, "it needs scores, and a sees labels"),
        ("rays", Knowledge.LABELS, LINF, None),
        ("textfooler", Knowledge.SCORES, {"text": {"words": 2}}, None),
        ("adversarial-patch", Knowledge.GRADIENTS, PATCH, None),
        ("rp2", Knowledge.GRADIENTS, LINF, "it does not move within linf, which is all that a may change"),
        ("badnets", Knowledge.GRADIENTS, LINF, "no attacker of kind poisoning is named"),
    ],
)
def test_who_could_use_it(name: str, knowledge: Knowledge, change: dict[str, Any], reason: str | None) -> None:
    assert unrealistic(known(name), (evasion(knowledge, change),)) == reason


def test_one_able_attacker_is_enough() -> None:
    weak, able = evasion(Knowledge.LABELS, LINF), evasion(Knowledge.GRADIENTS, {"l2": 0.1})
    assert unrealistic(known("pgd"), (weak, able)) is None


def test_poison_needs_its_goal_and_its_labels() -> None:
    about = {"name": "p", "kind": Kind.POISONING, "why": "w", "capability": {"share": 0.1}}
    clean = who.Poisoning.model_validate({**about, "goal": {"backdoor": {"trigger": "patch", "target": 1}}})
    told = {each.name: unrealistic(each, (clean,)) for each in techniques() if each.kind is Kind.POISONING}
    assert told["badnets"] == told["wanet"] == "it changes labels, and p may not"
    assert told["label-consistent"] is told["sig"] is None
    assert told["gradient-matching"] == told["bullseye-polytope"] == "it is not for the goal of p"


@pytest.mark.parametrize(
    ("trigger", "name"),
    [
        ("patch", "badnets"),
        ({"patch": {"size": 2}}, "badnets"),
        ("blend", "blended"),
        ("sinusoid", "sinusoid-trigger"),
        ({"columns": {0: 1}}, "table-trigger"),
    ],
)
def test_a_stamp_needs_its_trigger(trigger: object, name: str) -> None:
    about = {"name": "p", "kind": Kind.POISONING, "why": "w"}
    goal = {"backdoor": {"trigger": trigger, "target": 1}}
    dirty = who.Poisoning.model_validate(
        {**about, "capability": {"share": 0.1, "may_change_labels": True}, "goal": goal}
    )
    told = {each.name: unrealistic(each, (dirty,)) for each in techniques() if each.triggers}
    assert [one for one, reason in told.items() if reason is None] == [name]
    called = trigger if isinstance(trigger, str) else next(iter(trigger)) if isinstance(trigger, dict) else ""
    left = {reason for one, reason in told.items() if one != name}
    assert left == {f"it does not plant {called}, which is the trigger of p"}


def test_poisoners_bring_their_ids_and_papers() -> None:
    for entry in POISONERS:
        found = known(entry.name)
        assert (found.kind, found.paper, found.ids, found.labels) == (
            *(Kind.POISONING, entry.paper, entry.techniques, entry.labels),
        )
        assert set(entry.techniques) <= set(crosswalk().of(subject(found)))


def test_a_copy_needs_what_it_sees() -> None:
    about = {"name": "c", "kind": Kind.EXTRACTION, "why": "w", "knowledge": "labels", "goal": {"fidelity": "test"}}
    thief = who.Extraction.model_validate(about)
    told = {each.name: unrealistic(each, (thief,)) for each in techniques() if each.kind is Kind.EXTRACTION}
    assert told["knockoff-nets"] is None
    assert told["tree-path-finding"] == "it needs scores, and c sees labels"
    assert told["jacobian-augmentation"] == "it is not for the goal of c"
