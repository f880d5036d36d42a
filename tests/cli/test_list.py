"""`redan list`: names for `attacks.skip`, papers for a bibliography, items for an auditor."""

from __future__ import annotations

import json
import re

import pytest

from redan.cli.app import run
from redan.registry.attacks import ATTACKS
from redan.registry.defenses import DEFENSES
from redan.registry.detectors import DETECTORS
from redan.registry.extractors import EXTRACTORS
from redan.registry.poisoners import POISONERS
from redan.threat.joint import JOINT
from redan.threat.standards import crosswalk
from redan.threat.techniques import PLANNED

Captured = pytest.CaptureFixture[str]


def listed(capsys: Captured, *arguments: str) -> str:
    assert run(["list", *arguments]) == 0
    return capsys.readouterr().out


def test_attacks_that_run_today(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = listed(capsys).splitlines()
    assert lines[0].split() == ["name", "needs", "changes", "paper"]
    assert max(map(len, lines)) <= 80
    names = {line.split()[0] for line in lines[1:] if not line.startswith(" ")}
    assert names == {entry.name for entry in ATTACKS} | set(JOINT)


@pytest.mark.parametrize(
    ("what", "headings", "names"),
    [
        ("poisoners", "name goal labels needs paper", {each.name for each in POISONERS}),
        ("detectors", "name sees blind to paper", {each.name for each in DETECTORS}),
        ("defenses", "name kind attacked by paper", {each.name for each in DEFENSES}),
        ("extractors", "name needs goal curve paper", {each.name for each in EXTRACTORS}),
    ],
)
def test_what_poisons_what_finds_it_and_what_copies(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, what: str, headings: str, names: set[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = listed(capsys, what).splitlines()
    assert lines[0].split() == headings.split()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines[1:] if not line.startswith(" ")} == names
    rows = json.loads(listed(capsys, what, "--json"))
    assert {row["name"] for row in rows} == names
    text = listed(capsys, what, "--bibtex")
    assert ("BadNets" in text) == (what == "poisoners")
    assert ("Spectral Signatures" in text) == (what == "detectors")
    assert ("Knockoff Nets" in text) == (what == "extractors")
    assert ("PatchCleanser" in text) == (what == "defenses")


def test_defenses_say_how_they_are_used_and_what_they_prove(capsys: Captured) -> None:
    rows = {row["name"]: row for row in json.loads(listed(capsys, "defenses", "--json"))}
    assert rows["total-variation"]["attacked by"] == "BPDA, EOT"
    assert rows["total-variation"]["stochastic"] == "yes"
    assert rows["smallest-change"]["verifier"] == "complete, deterministic, glass-box verifier, computer arithmetic"
    assert rows["pgd-at"] == {
        "name": "pgd-at",
        "kind": "training",
        "attacked by": "all attacks",
        "paper": "Madry 2018, arXiv:1706.06083",
        "used": "redan harden --method pgd-at",
        "stochastic": "no",
        "differentiable": "yes",
        "verifier": "–",
        "techniques": "AML.M0003",
    }


def test_help_tells_detectors_of_poison_from_those_of_attacks(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(listed(capsys, "--help").split())
    assert "`redan list detectors` finds poison among training rows" in text
    assert "What refuses inputs that were attacked is among `redan list defenses`" in text


def test_techniques_built_or_not(capsys: Captured) -> None:
    rows = json.loads(listed(capsys, "techniques", "--json"))
    assert {row["name"]: row["built"] for row in rows} == {
        **{entry.name: "yes" for entry in ATTACKS},
        **{entry.name: "yes" for entry in POISONERS},
        **{entry.name: "yes" for entry in EXTRACTORS},
        **{each.name: "not yet" for each in PLANNED},
        **dict.fromkeys(JOINT, "yes"),
    }
    (pgd,) = [row for row in rows if row["name"] == "pgd"]
    assert pgd["paper"] == "Madry 2018, arXiv:1706.06083"


def test_bibtex(capsys: Captured) -> None:
    text = listed(capsys, "--bibtex")
    keys = re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE)
    assert len(set(keys)) == len(keys) >= 5
    assert "madry2018towards" in keys
    assert text.count("{") == text.count("}")
    assert "BadNets" not in text
    assert "BadNets" in listed(capsys, "techniques", "--bibtex")


def test_standards(capsys: Captured) -> None:
    rows = json.loads(listed(capsys, "standards", "--json"))
    assert [row["id"] for row in rows] == list(crosswalk().items)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["dated"]) for row in rows)


def test_what_has_no_papers_has_no_bibtex(capsys: Captured) -> None:
    assert run(["list", "standards", "--bibtex"]) == 2
    assert (
        "--bibtex is for attacks, defenses, poisoners, detectors, extractors and techniques" in capsys.readouterr().err
    )
