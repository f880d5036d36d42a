"""SARIF: valid by its schema, an alert for all that is not shown to hold, the same alert from run to run."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from redan.evidence.report import Report, Verdict
from redan.report.sarif import render
from redan.report.untrusted import visible

SCHEMA = Path(__file__).parent / "schemas/sarif-2.1.0-rtm.5.json"
SHA256 = "2d99159ae54a3eea97f81781cff48780548657c35949f4b7f25e99a2ba4de4f8"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft4Validator:
    text = SCHEMA.read_bytes()
    assert hashlib.sha256(text).hexdigest() == SHA256
    return jsonschema.Draft4Validator(json.loads(text), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)


def run_of(report: Report, validator: jsonschema.Draft4Validator, **settings: str) -> dict[str, Any]:
    """The one run of the file, after the file is validated."""
    log = json.loads(render(report, **settings))
    assert [error.message for error in validator.iter_errors(log)] == []
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} <= rules
    found: dict[str, Any] = run
    return found


@pytest.mark.parametrize(
    ("verdict", "levels"), [(Verdict.PASS, []), (Verdict.FAIL, ["error"]), (Verdict.INCONCLUSIVE, ["warning"])]
)
def test_what_is_not_shown_to_hold_is_an_alert(
    reports: dict[Verdict, Report], validator: jsonschema.Draft4Validator, verdict: Verdict, levels: list[str]
) -> None:
    run = run_of(reports[verdict], validator)
    assert [result["level"] for result in run["results"]] == levels
    assert run["invocations"][0]["exitCode"] == verdict.exit_code
    assert run["properties"]["digests"] == reports[verdict].digests
    for result in run["results"]:
        assert result["ruleId"] == "redan/robust_accuracy"
        assert "Accuracy under attack by anyone with a camera: " in result["message"]["text"]


def test_the_schema_can_refuse(reports: dict[Verdict, Report], validator: jsonschema.Draft4Validator) -> None:
    log = json.loads(render(reports[Verdict.FAIL]))
    log["runs"][0]["results"][0]["level"] = "severe"
    assert list(validator.iter_errors(log)) != []


def test_rules_carry_the_techniques(everything: Report, validator: jsonschema.Draft4Validator) -> None:
    rules = {rule["id"]: rule["properties"] for rule in run_of(everything, validator)["tool"]["driver"]["rules"]}
    robust = rules["redan/robust_accuracy"]
    assert {"security", *everything.attackers[0].techniques} == set(robust["tags"])
    assert float(robust["security-severity"]) >= 7
    assert "security-severity" not in rules["redan/clean_accuracy"]


def test_what_makes_a_number_doubtful_is_said(everything: Report, validator: jsonschema.Draft4Validator) -> None:
    run = run_of(everything, validator)
    texts = [result["message"]["text"] for result in run["results"] if result["ruleId"] == "redan/untrusted-number"]
    assert texts == ["Anyone with a camera: masked gradients: 64 of 64 rows have none."]
    notes = " ".join(note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"])
    for words in ("a third of the rows repeat", "connection reset", "square", "seconds", "supplier was not assessed"):
        assert words in notes


@pytest.mark.parametrize(
    ("kind", "rule", "level"),
    [
        ("rich", "backdoor_success", "error"),
        ("targeted", "attack_success_rate", "error"),
        ("availability", "poisoned_accuracy", "error"),
        ("nothing", "backdoor_success", "warning"),
    ],
)
def test_a_poisoning_requirement_is_an_alert(
    poisoned: dict[str, Report], validator: jsonschema.Draft4Validator, kind: str, rule: str, level: str
) -> None:
    run = run_of(poisoned[kind], validator)
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == (f"redan/{rule}", level)
    notes = " ".join(note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"])
    assert ("was not assessed: the inputs have no bounds" in notes) == (kind == "nothing")
    tags = {each["id"]: each["properties"]["tags"] for each in run["tool"]["driver"]["rules"]}
    assert "AML.T0020" in tags[f"redan/{rule}"]


@pytest.mark.parametrize(
    ("kind", "rule", "level"),
    [
        ("fidelity", "extraction_fidelity", "error"),
        ("transfer", "transfer_success", "error"),
        ("cut", "extraction_fidelity", "warning"),
        ("nothing", "extraction_fidelity", "warning"),
    ],
)
def test_a_copying_requirement_is_an_alert(
    copied: dict[str, Report], validator: jsonschema.Draft4Validator, kind: str, rule: str, level: str
) -> None:
    run = run_of(copied[kind], validator)
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == (f"redan/{rule}", level)
    assert "stolen copy by API customer" in result["message"]["text"]
    notes = " ".join(note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"])
    assert ("was not assessed: the model answers no rows of ours" in notes) == (kind == "nothing")
    assert ("no extraction.pool is given" in notes) == (kind == "fidelity")
    tags = {each["id"]: each["properties"]["tags"] for each in run["tool"]["driver"]["rules"]}
    assert "AML.T0024.002" in tags[f"redan/{rule}"]


def test_a_verdict_that_no_requirement_explains_is_an_alert(
    reports: dict[Verdict, Report], validator: jsonschema.Draft4Validator
) -> None:
    bare = reports[Verdict.INCONCLUSIVE].model_copy(update={"requirements": [], "reasons": ["nothing is required"]})
    (result,) = run_of(bare, validator)["results"]
    assert (result["ruleId"], result["level"]) == ("redan/verdict", "warning")
    assert result["message"]["text"] == "nothing is required"


def test_an_alert_stays_the_same_while_numbers_change(reports: dict[Verdict, Report]) -> None:
    def marks(report: Report) -> list[dict[str, str]]:
        return [each["partialFingerprints"] for each in json.loads(render(report))["runs"][0]["results"]]

    report = reports[Verdict.FAIL]
    part = report.requirements[1]
    later = part.model_copy(update={"value": 0.25, "k": 8, "reasons": ["less"]})
    again = report.model_copy(update={"requirements": [report.requirements[0], later]})
    other = report.model_copy(update={"system": "another"})
    assert marks(again) == marks(report) != marks(other)


def test_it_points_at_the_threat_model(reports: dict[Verdict, Report], validator: jsonschema.Draft4Validator) -> None:
    run = run_of(reports[Verdict.FAIL], validator, threat_model="threat models/a#b.yaml")
    (place,) = run["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "threat%20models/a%23b.yaml"


def test_hostile_text_stays_text(hostile: Report, validator: jsonschema.Draft4Validator) -> None:
    run = run_of(hostile, validator)
    for result in run["results"]:
        text = result["message"]["text"]
        assert not re.search(r"(?<!\\)\[[^\]]*\]\(", text)  # a link
        assert not re.search(r"(?<!\{)\{(\{\{)*(?!\{)", text)  # a placeholder
    text = run["results"][0]["message"]["text"]
    for escaped, sign in (("\\[", "["), ("\\]", "]"), ("\\\\", "\\"), ("{{", "{"), ("}}", "}")):
        text = text.replace(escaped, sign)
    assert visible(hostile.attackers[0].name) in text
    render(hostile).encode()


def test_the_same_report_gives_the_same_file(everything: Report) -> None:
    assert render(everything) == render(Report.model_validate(everything.model_dump()))
