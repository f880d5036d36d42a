"""`report.json`: its published schema is the code's, real reports are valid by it, and spoiled ones are not."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
from pydantic import ValidationError

import redan
from redan.evidence.report import Report, Verdict, schema

Write = Callable[..., Path]
TOOL = Path(__file__).parents[2] / "tools" / "write_schema.py"

KEYS = {
    "": {
        *("schema_version", "verdict", "exit_code", "reasons", "system", "classes", "requirements", "attackers"),
        *(
            "defenses",
            "detector",
            "preflight",
            "plan",
            "standards",
            "skipped",
            "errors",
            "limits_hit",
            "calls",
            "shows_not",
            "risks",
            "run",
            "environment",
            "digests",
        ),
    },
    "requirements": {
        *("metric", "against", "direction", "threshold", "value", "unit", "k", "n", "errors", "undecided"),
        *("interval", "bound_used", "rows_to_decide", "certified", "verdict", "reasons"),
    },
    "attackers": {
        *("name", "kind", "techniques", "change", "knowledge", "status", "reason", "counts", "attacks", "by_class"),
        *("curve", "success_8bit", "diagnosis", "why", "goal", "impact", "strength", "retries", "defended"),
        *("transfers",),
        *("poisoning", "extraction", "certified"),
    },
    "preflight": {"check", "level", "status", "detail", "remedy"},
}
ATTACK = {
    *("name", "settings", "status", "attempted", "broken", "errors", "queries", "forwards", "backwards"),
    *("seconds", "usd"),
}
INTERVAL = {"low", "high", "confidence", "method", "sides"}
DIGESTS = {"model", "data", "rows", "threat_model", "redan", "evidence"}


def published() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("redan.evidence").joinpath("report.schema.json").read_text("utf-8"))
    return loaded


@pytest.fixture
def document(shop: Write) -> dict[str, Any]:
    """A real report, read back from the disk: one attacker assessed, one not built, and a metric that is not."""
    path = shop(
        attackers__1={
            "name": "supplier",
            "kind": "poisoning",
            "why": "suppliers label",
            "goal": "availability",
            "capability": {"share": 0.01},
        },
        requirements__1={"metric": "clean_accuracy", "at_least": 0.5},
        requirements__2={"metric": "certified_accuracy", "at_least": 0.5, "against": "anyone"},
    )
    report = redan.assess(path)
    loaded: dict[str, Any] = json.loads((Path(report.run.folder) / "report.json").read_text("utf-8"))
    return loaded


def test_the_published_schema_is_the_code_s_and_a_schema() -> None:
    assert published() == schema(), "run tools/write_schema.py"
    jsonschema.Draft202012Validator.check_schema(published())
    assert published()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_tool_writes_the_schema_and_says_when_it_is_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("write_schema", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    path = tmp_path / "report.schema.json"
    assert tool.main(["--check"], path) == 1
    assert "stale" in capsys.readouterr().err
    assert tool.main([], path) == 0
    assert tool.main(["--check"], path) == 0
    assert json.loads(path.read_text("utf-8")) == published()
    path.write_text(path.read_text("utf-8").replace("0", "1", 1))
    assert tool.main(["--check"], path) == 1
    assert tool.main(["--chek"], path) == 2


def test_the_tool_ends_with_its_exit_code() -> None:
    assert subprocess.run([sys.executable, TOOL, "--check"], check=False, timeout=60).returncode == 0


def test_a_real_report_is_valid_and_complete(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(published()).validate(document)
    assert set(document) == KEYS[""]
    for part in ("requirements", "attackers", "preflight"):
        assert document[part]
        assert all(set(each) == KEYS[part] for each in document[part])
    assert [set(attack) for attack in document["attackers"][0]["attacks"]] == [ATTACK]
    assert set(document["requirements"][0]["interval"]) == INTERVAL
    assert set(document["digests"]) == DIGESTS
    assert all(len(value) == 64 for value in document["digests"].values())


def test_a_report_reads_back_as_itself(document: dict[str, Any]) -> None:
    report = Report.model_validate(document)
    assert json.loads(report.model_dump_json()) == document
    assert redan.judge(report).verdict is Verdict.INCONCLUSIVE


SPOILED: list[tuple[tuple[str | int, ...], object]] = [
    (("verdict",), "passed"),
    (("verdict",), None),
    (("exit_code",), "0"),
    (("reasons",), "none"),
    (("schema_version",), "one"),
    (("requirements", 0, "k"), 1.5),
    (("requirements", 0, "value"), "high"),
    (("requirements", 0, "metric"), "accuracy"),
    (("requirements", 0, "direction"), "above"),
    (("requirements", 0, "interval", "low"), None),
    (("requirements", 0, "interval", "level"), 0.9),
    (("attackers", 0, "counts", "robust"), "all"),
    (("attackers", 0, "attacks", 0, "status"), 3),
    (("attackers", 0, "note"), "trust me"),
    (("digests", "model"), 7),
    (("digests",), []),
    (("run", "reproducible"), "yes"),
    (("extra",), 1),
]


def test_a_spoiled_report_is_not_valid(document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(published())
    for path, value in SPOILED:
        spoiled = copy.deepcopy(document)
        part: Any = spoiled
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        assert not validator.is_valid(spoiled), path
        with pytest.raises(ValidationError):
            Report.model_validate_json(json.dumps(spoiled), strict=True)


def test_no_key_may_be_missing(document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(published())
    for key in KEYS[""] - {"schema_version"}:
        assert not validator.is_valid({k: v for k, v in document.items() if k != key}), key
    for part in ("requirements", "attackers", "preflight"):
        for key in KEYS[part]:
            spoiled = copy.deepcopy(document)
            del spoiled[part][0][key]
            assert not validator.is_valid(spoiled), (part, key)


def test_a_report_without_its_version_or_of_another_is_not_valid(document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(published())
    assert not validator.is_valid({**document, "schema_version": 2})
    del document["schema_version"]
    assert not validator.is_valid(document)
