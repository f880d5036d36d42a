"""The crosswalk: no id dangles, every check, metric and attack has its items, every text has a date and a source."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from redan import samples
from redan.assessment.parts import standard_heads, techniques_of
from redan.assessment.preflight import Scene, preflight
from redan.evidence.requirement import Metric, Requirement
from redan.registry.attacks import ATTACKS
from redan.targets import from_torch
from redan.threat.attackers import Knowledge
from redan.threat.file import read
from redan.threat.standards import crosswalk, subjects_of
from redan.threat.techniques import subject, techniques

Write = Callable[..., Path]


def test_no_id_dangles_and_none_is_idle() -> None:
    walk = crosswalk()
    used = {id for ids in walk.subjects.values() for id in ids}
    assert used == set(walk.items)
    assert {item.text for item in walk.items.values()} == set(walk.texts)


def test_every_text_is_dated() -> None:
    for text in crosswalk().texts.values():
        assert datetime.date(2020, 1, 1) < text.date < datetime.date(2027, 1, 1)
        assert text.version
    law = crosswalk().texts["eu-ai-act"]
    assert "2027-12-02" in law.version  # as amended in 2026: the duties do not apply since August 2026
    assert "2026-08-02" not in law.version


def test_every_attack_and_technique_maps_to_known_items() -> None:
    walk = crosswalk()
    assert all(set(entry.techniques) <= set(walk.items) for entry in ATTACKS)
    for each in techniques():
        assert walk.of(subject(each)), each.name


def test_every_check_has_a_subject() -> None:
    images, labels = samples.fashion_mnist()
    target = from_torch(samples.model("natural"), classes=10)
    scene = Scene(target, torch.from_numpy(images[:64]), torch.from_numpy(labels[:64]), image=True)
    checks = {f"check/{found.check}" for found in preflight(scene)}
    assert checks == {subject for subject in crosswalk().subjects if subject.startswith("check/")}


def test_every_metric_has_a_subject() -> None:
    required = [Requirement(metric=m, at_least=0.5, against="x" if m.needs_attacker else None) for m in Metric]
    metrics = {next(iter(subjects_of(each))) for each in required}
    assert metrics == {subject for subject in crosswalk().subjects if subject.startswith("metric/")}


@pytest.mark.parametrize("knowledge", [*Knowledge])
def test_every_knowledge_is_a_subject(knowledge: Knowledge) -> None:
    assert crosswalk().of(f"evasion/{knowledge}")


def test_an_unknown_subject_is_an_error() -> None:
    with pytest.raises(KeyError):
        crosswalk().of("evasion/telepathy")


POISONING: dict[str, Any] = {
    "name": "supplier",
    "kind": "poisoning",
    "why": "labels are bought",
    "goal": {"backdoor": {"trigger": "blend", "target": 0}},
    "capability": {"share": 0.01},
}
EXTRACTION: dict[str, Any] = {
    "name": "customer",
    "kind": "extraction",
    "why": "answers are sold",
    "knowledge": "scores",
    "goal": {"fidelity": "test"},
    "capability": {"queries_total": 100},
}


def test_items_name_the_attackers_that_they_are_about(shop: Write) -> None:
    loaded = read(shop(attackers__1=POISONING, attackers__2=EXTRACTION))
    heads = {head.id: head for head in standard_heads(loaded.model)}
    assert set(heads) == set(crosswalk().items)
    assert heads["AML.T0043.000"].attackers == ["anyone"]
    assert heads["AML.T0020"].attackers == ["supplier"]
    assert heads["AML.T0024.002"].attackers == ["customer"]
    assert heads["AML.M0004"].attackers == ["customer"]  # it alone has a limit on queries
    assert heads["AML.T0043.001"].attackers == []
    assert heads["AIA Annex IV 2(g)"].itself
    assert not heads["AML.T0020"].itself
    assert techniques_of(loaded.model.attackers[1]) == ["AML.T0018.000", "AML.T0020", "AML.T0043.004"]
