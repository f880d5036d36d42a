"""The presets: whole threat models of four kinds of system, each with its own plan."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from redan.errors import SettingError
from redan.threat.attackers import Kind
from redan.threat.file import read
from redan.threat.planner import Plan, Status, plan
from redan.threat.presets import MARK, Preset, filled, preset, presets, unfilled
from redan.threat.schema import ThreatModel

EACH = pytest.mark.parametrize("each", presets(), ids=lambda each: each.name)


def model_of(each: Preset, folder: Path) -> ThreatModel:
    path = folder / f"{each.name}.yaml"
    path.write_text(each.text, encoding="utf-8")
    return read(path).model


def realistic(found: Plan) -> frozenset[str]:
    """The techniques that somebody in the threat model could use, built or not."""
    return frozenset(step.attack for step in found.steps if step.status is not Status.NOT_REALISTIC)


@EACH
def test_a_preset_is_a_whole_threat_model(each: Preset, tmp_path: Path) -> None:
    """All three kinds of attackers, each with a reason of its own, an impact, and a requirement."""
    model = model_of(each, tmp_path)
    whys = [attacker.why for attacker in model.attackers]
    impact = model.system.impact
    assert {attacker.kind for attacker in model.attackers} == set(Kind)
    assert min(map(len, whys)) > 50
    assert len(set(whys)) == len(whys)
    assert None not in (impact.evasion, impact.poisoning, impact.extraction)
    assert {each.against for each in model.requirements if each.against} == {each.name for each in model.attackers}
    assert model.system.data.train is not None
    assert model.system.training is not None


@EACH
def test_only_model_data_and_training_are_left_to_fill_in(each: Preset) -> None:
    lines = each.text.splitlines()
    found = unfilled(each.text)
    assert [key for _, key in found] == [
        *("system.model.factory", "system.data.test", "system.data.train", "system.training.call"),
    ]
    assert all(MARK in lines[line - 1] for line, _ in found)


@EACH
def test_a_preset_explains_itself(each: Preset) -> None:
    lines = each.text.splitlines()
    assert lines[0] == f"# {each.about}"
    assert sum("#" in line for line in lines) >= 15
    assert max(map(len, lines)) <= 120


def test_the_four_plans_differ(tmp_path: Path) -> None:
    plans = {each.name: realistic(plan(model_of(each, tmp_path))) for each in presets()}
    own = {
        "driving": {"rp2", "apgd-ce", "badnets"},
        "malware": {"gamma", "malconv-padding", "gradient-matching"},
        "fraud": {"moeva", "label-flip", "equation-solving"},
        "moderation": {"hotflip", "textfooler", "bad-characters"},
    }
    evasions = {
        name: {one for one in found if any(one in each for each in own.values())} for name, found in plans.items()
    }
    for name, expected in own.items():
        assert expected <= plans[name], name
    for one, other in combinations(plans, 2):
        assert len(plans[one] ^ plans[other]) >= 5, (one, other)
        assert not own[one] <= evasions[other], (one, other)


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"no preset 'frod'; redan has driving, .*; did you mean fraud\?$"):
        preset("frod")


@EACH
def test_filling_in_changes_its_keys_and_nothing_else(each: Preset) -> None:
    values = {
        "system.model": "{onnx: net.onnx}",
        "system.classes": "[one, two]",
        "system.data.test": "{path: test.npz, x: images}",
        "system.impact.evasion": "low",
        "system.nowhere": "3",
    }
    text = filled(each.text, values)
    before, after = yaml.safe_load(each.text), yaml.safe_load(text)
    assert after["system"]["model"] == {"onnx": "net.onnx"}
    assert after["system"]["data"]["test"] == {"path": "test.npz", "x": "images"}
    before["system"] |= {"model": {"onnx": "net.onnx"}, "classes": ["one", "two"]}
    before["system"]["data"]["test"] = {"path": "test.npz", "x": "images"}
    before["system"]["impact"]["evasion"] = "low"
    assert after == before
    comments = re.compile(r"#.*")
    assert comments.findall(text) == comments.findall(each.text)
    assert [key for _, key in unfilled(text)] == ["system.data.train", "system.training.call"]
