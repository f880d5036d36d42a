"""A report as JUnit XML, which every pipeline shows: a test case for each requirement, attacker and preflight check.

A requirement that fails is a `<failure>`, one that is inconclusive an `<error>`, an attacker of whom nothing was
measured is `<skipped>`. So the file has a failure exactly if the verdict is fail, and neither failure nor error exactly
if it is pass.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from redan.evidence.report import Report, Verdict
from redan.report import extraction_words, poison_words
from redan.report.advice import next_steps
from redan.report.untrusted import cleaned
from redan.report.words import asked, found, must, noted, sentence

__all__ = ["render"]


def render(report: Report) -> str:
    """Write the file's text. The same report gives the same bytes."""
    report = cleaned(report)
    root = Element("testsuites", name="redan")
    suites = [_requirements(root, report), _attackers(root, report), _preflight(root, report)]
    for suite in suites:
        _count(suite, report)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    root.set("time", f"{report.run.seconds:.3f}")
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _requirements(root: Element, report: Report) -> Element:
    suite = SubElement(root, "testsuite", name=f"{report.system}: requirements", time=f"{report.run.seconds:.3f}")
    properties = SubElement(suite, "properties")
    facts = {
        "verdict": str(report.verdict),
        "exit_code": str(report.exit_code),
        "run": report.run.id,
        "folder": report.run.folder,
        "seed": str(report.run.seed),
        "rows": str(report.run.rows),
        **{f"digest.{name}": value or "" for name, value in sorted(report.digests.items())},
    }
    for name, value in facts.items():
        SubElement(properties, "property", name=name, value=value)
    for part in report.requirements:
        case = _case(suite, part.against or "no attacker", asked(part))
        said = f"{found(part)}, required {must(part)}"
        _judged(case, part.verdict, said, part.reasons)
        if part.interval is not None:
            low, high = part.interval.low, part.interval.high
            told = f"{100 * part.interval.confidence:g} % interval {low:.4f} to {high:.4f} ({part.interval.method})"
            SubElement(case, "system-out").text = f"{said}; {told}"
    if report.verdict not in {Verdict.PASS, *(part.verdict for part in report.requirements)}:
        _judged(_case(suite, "report", "verdict"), report.verdict, "; ".join(report.reasons), report.reasons)
    notes = [*next_steps(report), *noted(report)]
    if notes:
        SubElement(suite, "system-out").text = "\n".join(notes)
    return suite


def _attackers(root: Element, report: Report) -> Element:
    suite = SubElement(root, "testsuite", name=f"{report.system}: attackers")
    for part in report.attackers:
        case = _case(suite, part.kind, part.name)
        if part.poisoning is not None:
            said = [*poison_words.headline(report, part, part.poisoning)]
            known = poison_words.whole(part.poisoning) is not None
            _told(case, said, poison_words.left_out(part.poisoning), known=known)
        elif part.extraction is not None:
            said = [*extraction_words.headline(part.extraction)]
            known = extraction_words.whole(part.extraction) is not None
            _told(case, said, extraction_words.left_out(part.extraction), known=known)
        elif part.counts is None:
            SubElement(case, "skipped", message=part.reason or part.status)
        else:
            c = part.counts
            far = f"{c.broken} of {c.right} right rows broken, {c.robust} of {c.drawn} robust"
            SubElement(case, "system-out").text = far
    return suite


def _told(case: Element, said: list[str], left: list[str], *, known: bool) -> None:
    """What trained models showed of an attacker; skipped where nothing is known. left: what was not done to its end."""
    if not known:
        SubElement(case, "skipped", message="; ".join(said))
    SubElement(case, "system-out").text = "\n".join(map(sentence, [*said, *left]))


def _preflight(root: Element, report: Report) -> Element:
    """Warnings are test cases that pass and say so: a broken set-up has no report."""
    suite = SubElement(root, "testsuite", name=f"{report.system}: preflight")
    for check in report.preflight:
        case = _case(suite, "preflight", check.check)
        said = check.detail if check.status == "pass" else f"{check.status}: {check.detail}; {check.remedy}"
        SubElement(case, "system-out").text = said
    return suite


def _case(suite: Element, kind: str, name: str) -> Element:
    return SubElement(suite, "testcase", classname=f"redan.{kind}", name=name)


def _judged(case: Element, verdict: Verdict, said: str, reasons: list[str]) -> None:
    tag = {Verdict.FAIL: "failure", Verdict.INCONCLUSIVE: "error"}.get(verdict)
    if tag is not None:
        SubElement(case, tag, message=said, type=str(verdict)).text = "\n".join(reasons)


def _count(suite: Element, report: Report) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("timestamp", report.run.started)
