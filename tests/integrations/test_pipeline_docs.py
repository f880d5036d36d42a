"""docs/pipeline.md and examples/imagenet/README.md say what is so."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from redan.threat.file import read

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


def test_the_test_on_the_page_passes() -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "docs/pipeline.md", "exec", dont_inherit=True), names)  # noqa: S102  # our page
    figures: dict[str, Any] = {}
    names["test_garments_are_robust"](figures.__setitem__)
    assert figures["redan.verdict"] == "pass"


def test_what_the_page_imports_of_redan_is_there() -> None:
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("redan.integrations"):
                spec = find_spec(node.module)
                assert spec is not None
                assert spec.origin is not None
                text = Path(spec.origin).read_text(encoding="utf-8")
                assert all(re.search(rf"^(def|class) {each.name}\b", text, re.MULTILINE) for each in node.names)


def test_what_the_page_gives_the_templates_is_known_to_them() -> None:
    github, gitlab = (yaml.safe_load(block) for block in blocks("yaml"))
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (step,) = [s for s in github["jobs"]["robustness"]["steps"] if s.get("id") == "redan"]
    assert set(step["with"]) <= set(action["inputs"])
    assert "run" in action["outputs"]
    template = yaml.safe_load((ROOT / "ci" / "gitlab" / "redan.gitlab-ci.yml").read_text(encoding="utf-8"))
    assert set(gitlab["robustness"]["variables"]) <= set(template[gitlab["robustness"]["extends"]]["variables"])


def test_the_example_names_the_requirements_that_its_file_has() -> None:
    readme = (ROOT / "examples" / "imagenet" / "README.md").read_text(encoding="utf-8")
    model = read(ROOT / "examples" / "imagenet" / "threat-model.yaml").model
    for requirement in model.requirements:
        assert f"{requirement.metric} ≥ {requirement.at_least:.2f}" in readme
    assert all(attacker.name in readme for attacker in model.attackers)
