"""Reports of every verdict, one that holds everything a report can, one of hostile text; and a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

import redan
from redan.errors import ReportError
from redan.evidence.report import Doubt, Report, Tried, Verdict
from redan.evidence.requirement import Requirement
from redan.report.gallery import Example, Gallery
from redan.report.pdf import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EXAMPLE = Path(__file__).parents[2] / "examples/fashion/robust.yaml"
HOSTILE = (
    "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)></style></title>]]>&amp;"
    "|`x`| [a](http://evil.example) ![i](https://evil.example/i.png) https://evil.example www.evil.example "
    "@root #1 {{ 7 * 7 }} {0} *b* _i_ ~s~ $m$ \\ \x00\x1b[31m\u202e\ud800\ufffe\r\n## heading\n- item"
)


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[Verdict, Report]:
    """One run of the shipped classifier, which passes, fails or leaves open what is required of it."""
    folder = tmp_path_factory.mktemp("views")
    document = yaml.safe_load(EXAMPLE.read_text())
    document["requirements"][0]["at_least"] = 0.5
    document["requirements"][1]["at_least"] = 0.7
    document["attacks"]["mode"] = "quick"
    document["statistics"]["rows"] = 32
    document["run"]["out"] = str(folder)
    path = folder / "threat-model.yaml"
    path.write_text(yaml.safe_dump(document))
    found = {Verdict.INCONCLUSIVE: redan.assess(path)}
    for verdict, threshold in ((Verdict.PASS, 0.3), (Verdict.FAIL, 0.99)):
        document["requirements"][1]["at_least"] = threshold
        wanted = [Requirement.model_validate(each) for each in document["requirements"]]
        judged = redan.judge(found[Verdict.INCONCLUSIVE], wanted)
        found[verdict] = found[Verdict.INCONCLUSIVE].model_copy(
            update={
                "verdict": judged.verdict,
                "exit_code": judged.exit_code,
                "reasons": list(judged.reasons),
                "requirements": list(judged.requirements),
            }
        )
    assert all(report.verdict is verdict for verdict, report in found.items())
    return found


@pytest.fixture(scope="session")
def everything(reports: dict[Verdict, Report]) -> Report:
    """Inconclusive, with two attackers, of whom one was not assessed, and with something in every list."""
    document = reports[Verdict.INCONCLUSIVE].model_dump()
    first = document["attackers"][0]
    first["diagnosis"] = [
        {
            "name": "masked gradients",
            "status": Doubt.SUSPICIOUS,
            "detail": "64 of 64 rows have none",
            "blocks_pass": True,
        },
        {"name": "silent-success", "status": Doubt.OK, "detail": "none of 64 rows", "blocks_pass": False},
    ]
    first["retries"] = [
        {
            "name": "retraced-gradients",
            "because": ["masked gradients"],
            "detail": "operations played back",
            "status": Tried.DONE,
            "attempted": 64,
            "broken": 3,
        }
    ]
    first["counts"].update(errors=2, undecided=1, robust=first["counts"]["robust"] - 3)
    first["attacks"][0].update(usd=1.25, status="cut")
    second = {**first, "name": "supplier", "kind": "poisoning", "status": "not built", "reason": "not built yet"}
    second.update(counts=None, attacks=[], by_class=[], curve=[], diagnosis=[], retries=[], success_8bit=None)
    document["attackers"].append(second)
    document["requirements"][1].update(errors=2, undecided=1)
    document["preflight"][0].update(status="warn", detail="a third of the rows repeat", remedy="draw others")
    document["skipped"] = ["square"]
    document["errors"] = [{"attacker": first["name"], "reason": "connection reset", "rows": 2, "first": "00ff"}]
    document["limits_hit"] = ["seconds"]
    document["reasons"] = ["supplier: not built yet"]
    return Report.model_validate(document)


@pytest.fixture(scope="session")
def hostile(everything: Report) -> Report:
    """Every free text ends in what could harm a page, a file or its reader."""

    def walked(value: Any, key: str = "") -> Any:
        if type(value) is str:  # not the verdicts and metrics: those are no free text
            return value if key == "started" else value + HOSTILE
        if isinstance(value, list):
            return [walked(each) for each in value]
        if isinstance(value, dict):
            return {name: walked(each, name) for name, each in value.items()}
        return value

    return Report.model_validate(walked(everything.model_dump()))


@pytest.fixture
def gallery() -> Gallery:
    """A gray and a colored picture, and a row that is no picture."""
    draw = torch.Generator().manual_seed(0)

    def example(*shape: int) -> Example:
        x0 = torch.rand(shape, generator=draw)
        x = (x0 + 0.1 * torch.randn(shape, generator=draw).sign()).clamp(0, 1)
        return Example(
            attacker="anyone with a camera",
            row="00ff",
            label=2,
            clean=2,
            adversarial=4,
            distance=0.1,
            x0=x0,
            x=x,
            scores=(torch.arange(10.0), -torch.arange(10.0)),
        )

    return Gallery(examples=(example(1, 28, 28), example(3, 16, 20), example(7)))


def missing(reason: str) -> None:
    """Skip, unless somebody relies on the test."""
    if os.environ.get("CI") == "true" or os.environ.get("REDAN_CHROMIUM") == "required":
        pytest.fail(f"{reason}: run tools/chromium.sh")
    pytest.skip(f"{reason}: run tools/chromium.sh")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is."""
    try:
        return find_browser()
    except ReportError:
        missing("no Chromium is on the path")
        raise


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium to look at pages with; its event loop ends with the module's tests."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed")
        raise
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
