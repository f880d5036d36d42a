"""The interview: answers in, a threat model out that says what was answered, or one sentence about the first slip."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from redan.errors import SettingError
from redan.threat.asking import Question
from redan.threat.file import read
from redan.threat.interview import QUESTIONS, blank, conduct, from_preset
from redan.threat.presets import MARK, preset
from redan.threat.schema import ThreatModel

EVADED = {
    "name": "garment-sorter",
    "classes": "3",
    "kind": "image",
    "shape": "1, 28, 28",
    "model": "shop:build",
    "test": "rows.npz",
    "inputs_from": "anyone with a camera",
    "evasion_impact": "high",
    "training_from": "nobody",
    "api_to": "nobody",
    "robust_accuracy": "0.6",
}
ALL = EVADED | {
    "purpose": "sort returned garments",
    "inputs_why": "pictures come from customers",
    "knowledge": "labels",
    "queries": "500",
    "amount": "8/255",
    "training_from": "supplier b",
    "training_why": "suppliers label their own pictures",
    "share": "0.02",
    "change_labels": "yes",
    "poisoning_goal": "backdoor",
    "train": "shop:rows",
    "training": "shop:fit",
    "poisoning_impact": "critical",
    "api_to": "API customer",
    "api_answers": "labels",
    "api_queries": "unlimited",
    "extraction_impact": "low",
    "clean_accuracy": "none",
    "extraction_fidelity": "0.75",
}
BY_NAME = {question.name: question for question in QUESTIONS}


def asked(answers: dict[str, str]) -> Callable[..., str]:
    """A person who gives these answers, and else takes the default."""

    def ask(question: Question, default: str, choices: tuple[str, ...], check: Callable[[str], str]) -> str:
        assert question.ask.endswith("?")
        assert question.about
        assert not choices or default in choices
        return check(answers.get(question.name, default))

    return ask


def model_of(text: str, folder: Path) -> ThreatModel:
    (folder / "made.yaml").write_text(text, encoding="utf-8")
    return read(folder / "made.yaml").model


def test_the_file_says_what_was_answered(tmp_path: Path) -> None:
    document = yaml.safe_load(conduct(blank(), ALL))
    system = document["system"]
    assert system | {"model": 0, "data": 0, "training": 0} == {
        "name": "garment-sorter",
        "purpose": "sort returned garments",
        "impact": {"evasion": "high", "poisoning": "critical", "extraction": "low"},
        "task": "classification",
        "classes": 3,
        "model": 0,
        "output": "logits",
        "inputs": {"kind": "image", "shape": [1, 28, 28], "bounds": [0, 1]},
        "data": 0,
        "training": 0,
    }
    assert system["model"] == {"factory": "shop:build"}
    assert system["data"] == {"test": {"path": "rows.npz"}, "train": "shop:rows"}
    assert system["training"] == {"call": "shop:fit", "deterministic": False}
    assert document["attackers"] == [
        {
            "name": "anyone with a camera",
            "kind": "evasion",
            "why": "pictures come from customers",
            "goal": "untargeted",
            "knowledge": "labels",
            "change": {"linf": 0.0313725},
            "capability": {"queries_per_row": 500},
        },
        {
            "name": "supplier b",
            "kind": "poisoning",
            "why": "suppliers label their own pictures",
            "goal": {"backdoor": {"trigger": "patch", "target": 0}},
            "capability": {"share": 0.02, "may_change_labels": True},
        },
        {
            "name": "API customer",
            "kind": "extraction",
            "why": "answers cost less than a model of one's own, and a copy shows how to fool the original",
            "knowledge": "labels",
            "goal": {"fidelity": "test"},
        },
    ]
    assert document["requirements"] == [
        {"metric": "robust_accuracy", "at_least": 0.6, "against": "anyone with a camera"},
        {"metric": "poisoned_accuracy", "at_least": 0.7, "against": "supplier b"},
        {"metric": "extraction_fidelity", "at_most": 0.75, "against": "API customer"},
    ]
    model_of(conduct(blank(), ALL), tmp_path)


def test_flags_in_any_order_and_a_person_make_the_same_file() -> None:
    text = conduct(blank(), ALL)
    assert conduct(blank(), dict(reversed(ALL.items()))) == text
    assert conduct(blank(), {}, asked(ALL)) == text
    assert conduct(blank(), {"name": ALL["name"]}, asked({**ALL, "name": "not asked"})) == text
    assert text.count("#") > 15


KINDS = ("image", "tensor", "table", "text", "bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_is_an_answer(kind: str, tmp_path: Path) -> None:
    """Whatever was chosen before: a person who only presses Enter gets a file, and so does one who chooses."""
    changes = BY_NAME["change"].choices({"kind": kind})
    assert changes
    for path in [*({"change": change} for change in changes), {"knowledge": "scores"}, {"model_kind": "http"}]:
        model_of(conduct(blank(), {}, asked({"kind": kind} | path)), tmp_path)
    everybody = (True, True, True)
    some = [("classification", who) for who in product((True, False), repeat=3) if any(who)]
    for task, who in [*some, ("multilabel", everybody), ("regression", everybody)]:
        gates = zip(("inputs_from", "training_from", "api_to"), who, strict=True)
        path = {name: f"somebody of {name}" if there else "nobody" for name, there in gates}
        model = model_of(conduct(blank(), {}, asked({"kind": kind, "task": task} | path)), tmp_path)
        assert len(model.attackers) == sum(who)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"classes": "1"}, "--classes: system.classes must be at least 2, got 1"),
        ({"classes": "a, b, a"}, "--classes: system.classes must have unique names, got 'a' twice"),
        ({"kind": "picture"}, "--kind: must be image, tensor, table, text or bytes, got 'picture'"),
        ({"knowledge": "gradient"}, "got 'gradient'; did you mean gradients?"),
        ({"shape": "28, 28"}, "--shape: system.inputs.shape is too short: entry 3 is missing"),
        ({"shape": "28x28"}, "--shape: must be a number, got '28x28'"),
        ({"bounds": "1, 0"}, "--bounds: system.inputs.bounds must be [low, high] with low below high, got [1, 0]"),
        ({"amount": "300/255"}, "--amount: attackers[0].change.linf must not exceed the width of inputs.bounds"),
        ({"amount": "nan"}, "--amount: attackers[0].change.linf must be a finite number, got nan"),
        ({"amount": "1/0"}, "--amount: must be a number, got '1/0'"),
        ({"change": "words"}, "--change: must be linf, l2, l1, l0, patch, rotation or translation, got 'words'"),
        ({"model": "net.onnx"}, "--model: system.model.factory must be of the form 'module:name', got 'net.onnx'"),
        ({"model_kind": "http", "model": "https://me:pass1@x"}, "--model: system.model.http.url must not hold a user"),
        ({"test": "rows"}, "--test: system.data.test must be of the form 'module:name', got 'rows'"),
        ({"name": " "}, "--name: must be a line of text, got ''"),
        ({"name": "a\nb"}, "--name: must be a line of text"),
        ({"inputs_from": "nobody"}, "--evasion-impact does not fit the other answers; leave it out"),
        ({"queries": "3"}, "--queries does not fit the other answers; leave it out"),
        ({"robust_accuracy": "60"}, "--robust-accuracy: requirements[1]: at_least must lie from 0 to 1"),
        ({"api_to": "anyone with a camera"}, "--api-to: attackers[1].name repeats attackers[0]: names must be unique"),
    ],
)
def test_a_wrong_answer_is_one_sentence_that_names_its_flag(changed: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingError) as error:
        conduct(blank(), EVADED | changed)
    assert sentence in str(error.value)
    assert "pass1" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_person_is_told_at_once() -> None:
    """The check of each question raises; nothing later has to."""
    told: list[str] = []

    def ask(question: Question, default: str, choices: tuple[str, ...], check: Callable[[str], str]) -> str:
        for wrong in {"classes": ("1", "x"), "share": ("0", "2"), "bounds": ("3, 2",)}.get(question.name, ()):
            with pytest.raises(SettingError) as error:
                check(wrong)
            told.append(str(error.value))
        return check({"training_from": "somebody"}.get(question.name, default))

    conduct(blank(), {}, ask)
    assert len(told) == 5


def test_somebody_must_attack() -> None:
    nobody = {key: value for key, value in EVADED.items() if key not in {"evasion_impact", "robust_accuracy"}}
    with pytest.raises(SettingError, match=r"^--api-to: attackers must have 1 or more entries, got 0$"):
        conduct(blank(), nobody | {"inputs_from": "No one"})


def test_without_a_terminal_everything_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(SettingError) as error:
        conduct(blank(), {"kind": "text", "inputs_from": "nobody", "training_from": "users", "task": "regression"})
    found = str(error.value)
    assert "--name, --model, --test, --train, --training, --poisoning-impact, --api-to; or give --preset" in found
    assert "--shape" not in found
    for key in EVADED:
        left = {name: value for name, value in EVADED.items() if name != key}
        with pytest.raises(SettingError, match=f"these flags are missing: {BY_NAME[key].flag}(;|, )"):
            conduct(blank(), left)


@given(st.text())
@settings(max_examples=25)
def test_any_line_of_text_survives_the_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    said = text.strip()
    try:
        made = conduct(blank(), EVADED | {"name": text, "inputs_why": text})
    except SettingError:
        assert not said or not said.isprintable()
        return
    model = model_of(made, tmp_path_factory.getbasetemp())
    assert model.system.name == model.attackers[0].why == said


# -- with a preset --------------------------------------------------------------------------------------------


def test_a_preset_asks_for_what_it_leaves_open_and_keeps_the_rest(tmp_path: Path) -> None:
    names: list[str] = []

    def ask(question: Question, default: str, choices: tuple[str, ...], check: Callable[[str], str]) -> str:
        names.append(question.name)
        return check(default)

    text = conduct(from_preset(preset("driving")), {}, ask)
    assert {"name", "classes", "shape", "model", "test", "train", "training", "evasion_impact"} <= set(names)
    assert not {"kind", "inputs_from", "change", "robust_accuracy"} & set(names)
    assert yaml.safe_load(text) == yaml.safe_load(preset("driving").text)
    assert model_of(conduct(from_preset(preset("fraud")), {}), tmp_path).system.name == "payment screen"


def test_a_preset_takes_flags(tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": "signs: ours", "classes": "stop, go", "model": "net.onnx", "model_kind": "onnx"}
    system = model_of(conduct(from_preset(preset("driving")), given), tmp_path).system
    assert (system.name, system.classes) == ("signs: ours", ("stop", "go"))
    assert system.model.model_dump() == {"onnx": Path("net.onnx")}
    with pytest.raises(SettingError, match="^--kind is not asked with a preset; change it in the file"):
        conduct(from_preset(preset("driving")), {"kind": "text"})
    with pytest.raises(SettingError, match="^--classes: system.classes must be at least 2"):
        conduct(from_preset(preset("driving")), {"classes": "1"})


def test_what_is_left_open_is_marked() -> None:
    for name in ("model", "test", "train", "training"):
        assert MARK in BY_NAME[name].default({"model_kind": "factory"})
