"""A report as SARIF 2.1.0 (OASIS, 2020), which code-hosting sites show beside the code.

What is not shown to hold is a result: a requirement that fails is an error, one that is inconclusive a warning, a
number that cannot be trusted a warning. Preflight warnings and rows that could not be judged are notifications of the
run. Each result points at the threat model, the file that a reader of the finding can act on.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias
from urllib.parse import quote

from redan.evidence.report import Report, RequirementPart, Verdict
from redan.report.advice import next_steps
from redan.report.untrusted import cleaned
from redan.report.words import asked, attacker_of, doubts, found, must, noted, sentence, titled

__all__ = ["render"]

_Json: TypeAlias = dict[str, Any]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_DISTRUST = "untrusted-number"
_VERDICT = "verdict"
# `open` would be the kind of what is inconclusive, but its level must be none, and viewers hide that.
_LEVELS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning"}


def render(report: Report, threat_model: str = "threat-model.yaml") -> str:
    """Write the file's text; threat_model is that file's path from the root of the repository, with slashes.

    The same report gives the same bytes.
    """
    report = cleaned(report)
    results = [*_requirements(report), *_distrusted(report)]
    if report.verdict is not Verdict.PASS and not results:
        results.append(_result(_VERDICT, _LEVELS[report.verdict], "; ".join(report.reasons), report.system))
    for each in results:
        each["locations"] = [_location(threat_model)]
    run = {
        "tool": {"driver": _driver(report)},
        "automationDetails": {"id": f"redan/{quote(report.system, safe='')}/{report.run.id}"},
        "invocations": [_invocation(report)],
        "results": results,
        "properties": {
            "verdict": str(report.verdict),
            "run": report.run.model_dump(mode="json"),
            "digests": report.digests,
            "requirements": [part.model_dump(mode="json") for part in report.requirements],
            "shows_not": report.shows_not,
        },
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"


def _driver(report: Report) -> _Json:
    driver: _Json = {"name": "redan", "rules": _rules(report)}
    if version := report.environment.get("redan"):
        driver["version"] = version
    return driver


def _rules(report: Report) -> list[_Json]:
    rules = []
    for metric in dict.fromkeys(part.metric for part in report.requirements):
        parts = [part for part in report.requirements if part.metric is metric]
        techniques = [t for part in parts if (a := attacker_of(report, part)) for t in a.techniques]
        # No CVSS score: it only files the alert with a viewer's security findings, as high.
        severity = {"security-severity": "7.0"} if metric.needs_attacker else {}
        said = f"The threat model's requirement on {metric} must be shown to hold."
        rules.append(_rule(str(metric), said, techniques, severity))
    rules.append(_rule(_DISTRUST, "A number may not be trusted, so that a pass cannot rest on it.", [], {}))
    rules.append(_rule(_VERDICT, "The verdict must be a pass.", [], {}))
    return rules


def _rule(name: str, said: str, techniques: list[str], properties: _Json) -> _Json:
    tags = ["security", *dict.fromkeys(techniques)]
    return {
        "id": f"redan/{name}",
        "name": "".join(word.title() for word in name.replace("-", "_").split("_")),
        "shortDescription": {"text": said},
        "properties": {"tags": tags, **properties},
    }


def _requirements(report: Report) -> list[_Json]:
    return [_missed(report, part) for part in report.requirements if part.verdict is not Verdict.PASS]


def _missed(report: Report, part: RequirementPart) -> _Json:
    sentences = [f"{titled(part)}: {found(part)}, required {must(part)}", *part.reasons, *next_steps(report)]
    properties = {"value": part.value, "threshold": part.threshold, "verdict": str(part.verdict)}
    found_here = _result(
        str(part.metric),
        _LEVELS[part.verdict],
        " ".join(map(sentence, sentences)),
        report.system,
        asked(part),
        part.against,
    )
    return {**found_here, "properties": properties}


def _distrusted(report: Report) -> list[_Json]:
    return [
        _result(_DISTRUST, "warning", sentence(f"{a.name}: {d.name}: {d.detail}"), report.system, a.name, d.name)
        for a in report.attackers
        for d in doubts(a)
    ]


def _result(rule: str, level: str, text: str, *identity: str | None) -> _Json:
    """A finding; what it is about, not what was measured, is its identity from run to run."""
    named = json.dumps([rule, *identity]).encode()
    return {
        "ruleId": f"redan/{rule}",
        "level": level,
        "message": {"text": _plain(text)},
        "partialFingerprints": {"redan/v1": hashlib.sha256(named).hexdigest()},
    }


def _plain(text: str) -> str:
    """Message text in which brackets are no link and braces no placeholder (SARIF 3.11.5, 3.11.6)."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("{", "{{").replace("}", "}}")


def _location(threat_model: str) -> _Json:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(threat_model, safe="/")},
            "region": {"startLine": 1},
        }
    }


def _invocation(report: Report) -> _Json:
    attackers = (f"{a.name} was not assessed: {a.reason}" for a in report.attackers if not a.assessed)
    notes = [*noted(report), *attackers]
    return {
        "executionSuccessful": True,
        "exitCode": report.exit_code,
        "startTimeUtc": report.run.started.replace("+00:00", "Z"),
        "toolExecutionNotifications": [{"level": "warning", "message": {"text": _plain(note)}} for note in notes],
    }
