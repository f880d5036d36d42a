"""JUnit: its totals say what the verdict says, its form is what pipelines read, hostile text stays text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from redan.evidence.report import Report, Verdict
from redan.report.junit import render
from redan.report.untrusted import visible

# What Jenkins' and GitLab's readers know: the attributes and the children of each element.
FORM: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        {"properties", "testcase", "system-out"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "classname"}, {"failure", "error", "skipped", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}


def read(report: Report) -> ET.Element:
    """The file as a pipeline parses it, after its form is checked."""
    root = ET.fromstring(render(report).encode())  # noqa: S314
    for element in root.iter():
        attributes, children = FORM[element.tag]
        assert set(element.attrib) <= attributes
        assert {child.tag for child in element} <= children
    for suite in root.iter("testsuite"):
        assert suite.attrib["tests"] == str(len(suite.findall("testcase")))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"), ("tests", "testcase")):
        assert root.attrib[key] == str(len(list(root.iter(tag))))
    return root


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_totals_agree_with_the_verdict(reports: dict[Verdict, Report], verdict: Verdict) -> None:
    root = read(reports[verdict])
    totals = (int(root.attrib["failures"]) > 0, int(root.attrib["errors"]) > 0)
    assert (
        totals
        == {
            Verdict.PASS: (False, False),
            Verdict.FAIL: (True, False),
            Verdict.INCONCLUSIVE: (False, True),
        }[verdict]
    )


@pytest.mark.parametrize(("verdict", "tag"), [(Verdict.FAIL, "failure"), (Verdict.INCONCLUSIVE, "error")])
def test_a_verdict_that_no_requirement_explains_is_a_case_of_its_own(
    reports: dict[Verdict, Report], verdict: Verdict, tag: str
) -> None:
    bare = reports[verdict].model_copy(update={"requirements": [], "reasons": ["supplier: not built yet"]})
    (found,) = read(bare).iter(tag)
    assert found.attrib["message"] == "supplier: not built yet"


def test_a_failure_says_what_was_asked_found_and_how_sure(reports: dict[Verdict, Report]) -> None:
    report = reports[Verdict.FAIL]
    part = report.requirements[1]
    cases = {case.attrib["name"]: case for case in read(report).iter("testcase")}
    case = cases["robust_accuracy ≥ 0.99"]
    assert case.attrib["classname"] == "redan.anyone with a camera"
    failure = case.find("failure")
    assert failure is not None
    assert f"{part.k} of {part.n} rows" in failure.attrib["message"]
    assert failure.text == "\n".join(part.reasons)
    assert "95 % interval" in (case.findtext("system-out") or "")
    assert cases["clean_accuracy ≥ 0.5"].find("failure") is None


def test_what_was_not_assessed_is_skipped_and_what_fired_is_said(everything: Report) -> None:
    root = read(everything)
    (skipped,) = root.iter("skipped")
    assert skipped.attrib["message"] == "not built yet"
    said = [each.text or "" for each in root.iter("system-out")]
    assert "warn: a third of the rows repeat; draw others" in said
    assert any("skipped on request: square" in text for text in said)
    digests = {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")}
    assert digests["digest.evidence"] == everything.digests["evidence"]


def test_a_poisoning_requirement_is_a_case_of_its_own(poisoned: dict[str, Report]) -> None:
    root = read(poisoned["rich"])
    cases = {case.attrib["name"]: case for case in root.iter("testcase")}
    failure = cases["backdoor_success ≤ 0.1"].find("failure")
    assert failure is not None
    assert "mean of 10 victims), required at most 10" in failure.attrib["message"]
    assert "interval 0.9484 to 0.9884 (student-t)" in (cases["backdoor_success ≤ 0.1"].findtext("system-out") or "")
    told = cases["data contributor"].findtext("system-out") or ""
    assert "answered as the attacker wants over 10 trained victims" in told
    assert "Sleeper-agent: the attacker has no surrogate." in told
    assert root.attrib["skipped"] == "0"
    nothing = read(poisoned["nothing"])
    assert (nothing.attrib["errors"], nothing.attrib["failures"], nothing.attrib["skipped"]) == ("1", "0", "1")
    (skipped,) = nothing.iter("skipped")
    assert skipped.attrib["message"] == "nothing could be measured: the inputs have no bounds"


def test_a_copying_requirement_is_a_case_of_its_own(copied: dict[str, Report]) -> None:
    root = read(copied["fidelity"])
    cases = {case.attrib["name"]: case for case in root.iter("testcase")}
    failure = cases["extraction_fidelity ≤ 0.9"].find("failure")
    assert failure is not None
    assert "mean of 3 copies), required at most 90" in failure.attrib["message"]
    told = cases["API customer"].findtext("system-out") or ""
    assert "a copy that agrees on 95.8" in told
    assert "Equation-solving: the model has 78,500 parameters" in told
    assert root.attrib["skipped"] == "0"
    nothing = read(copied["nothing"])
    assert (nothing.attrib["errors"], nothing.attrib["failures"], nothing.attrib["skipped"]) == ("1", "0", "1")
    (skipped,) = nothing.iter("skipped")
    assert skipped.attrib["message"] == "nothing could be measured: the model answers no rows of ours"


def test_hostile_text_about_copies_stays_text(
    copied: dict[str, Report], made_hostile: Callable[[Report], Report]
) -> None:
    root = read(made_hostile(copied["fidelity"]))
    assert [each.tag for each in root.iter()] == [each.tag for each in read(copied["fidelity"]).iter()]


def test_hostile_text_about_poison_stays_text(
    poisoned: dict[str, Report], made_hostile: Callable[[Report], Report]
) -> None:
    root = read(made_hostile(poisoned["rich"]))
    assert [each.tag for each in root.iter()] == [each.tag for each in read(poisoned["rich"]).iter()]


def test_hostile_text_stays_text(hostile: Report, everything: Report) -> None:
    root = read(hostile)
    assert [each.tag for each in root.iter()] == [each.tag for each in read(everything).iter()]
    names = {case.attrib["name"] for case in root.iter("testcase")}
    assert visible(hostile.attackers[0].name) in names


def test_the_same_report_gives_the_same_file(everything: Report) -> None:
    assert render(everything) == render(Report.model_validate(everything.model_dump()))
