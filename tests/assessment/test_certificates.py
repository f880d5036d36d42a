"""The verdict on certified accuracy: what passes, what fails, and what no certificate can show."""

from __future__ import annotations

from typing import Any

from redan.assessment.certificates import CertifiedLine, Subject, judged, worst
from redan.evidence.report import IntervalPart, Verdict
from redan.evidence.requirement import Metric, Requirement
from redan.evidence.statistics import lower_bound, upper_bound


def line(k: int, *, n: int = 100, open: int = 0, alpha: float | None = None, **changed: Any) -> CertifiedLine:
    part = IntervalPart(low=0, high=1, confidence=0.95, method="clopper-pearson", sides=2)
    made = CertifiedLine(
        attackers=["anyone"],
        norm="linf",
        radius=0.1,
        covers=["anyone"],
        subject=Subject.SERVED,
        k=k,
        n=n,
        interval=part,
        right=n,
        open=open,
        completeness="incomplete",
        certainty="deterministic",
        verifier="",
        alpha=alpha,
        samples=None,
        seconds=0.0,
    )
    return made.model_copy(update=changed)


def ruled(at: float, *lines: CertifiedLine, rows: int = 100, up: bool = True) -> Verdict:
    ends = {"at_least" if up else "at_most": at}
    wanted = Requirement(metric=Metric.CERTIFIED_ACCURACY, against="anyone", **ends)
    (found,) = judged([wanted], lines, rows, 0.95, family=True)
    return found.verdict


def test_a_pass_needs_the_one_sided_exact_bound() -> None:
    bound = lower_bound(80, 100, 0.05)
    assert ruled(bound, line(80, open=20)) is Verdict.PASS
    assert ruled(bound + 1e-9, line(80, open=20)) is Verdict.INCONCLUSIVE


def test_a_fail_needs_rows_that_are_shown_to_break() -> None:
    assert ruled(0.9, line(50, open=50)) is Verdict.INCONCLUSIVE
    assert ruled(0.9, line(50, open=0)) is Verdict.FAIL
    bound = upper_bound(70, 100, 0.05)
    assert ruled(bound + 1e-9, line(50, open=20)) is Verdict.FAIL
    assert ruled(bound, line(50, open=20)) is Verdict.INCONCLUSIVE


def test_rows_that_were_not_reached_never_help() -> None:
    assert ruled(0.7, line(50, n=50), rows=50) is Verdict.PASS
    assert ruled(0.7, line(50, n=50), rows=100) is Verdict.INCONCLUSIVE
    assert ruled(0.7, line(0, n=50), rows=100) is Verdict.FAIL  # half are broken, whatever the others are


def test_at_most_is_the_other_way_round() -> None:
    assert ruled(0.2, line(50, open=50), up=False) is Verdict.FAIL
    assert ruled(0.9, line(50, open=50), up=False) is Verdict.INCONCLUSIVE
    assert ruled(0.9, line(50, open=0), up=False) is Verdict.PASS


def test_certificates_that_may_be_false_count_for_less() -> None:
    bound = lower_bound(80, 100, 0.05)
    assert ruled((bound - 0.01) / 0.99, line(80, alpha=0.01)) is Verdict.PASS
    assert ruled((bound - 0.01) / 0.99 + 1e-9, line(80, open=20, alpha=0.01)) is Verdict.INCONCLUSIVE


def test_only_what_is_served_and_holds_the_attackers_set_counts() -> None:
    assert ruled(0.5, line(100, subject=Subject.SMOOTHED)) is Verdict.INCONCLUSIVE
    assert ruled(0.5, line(100, covers=[])) is Verdict.INCONCLUSIVE
    assert ruled(0.5) is Verdict.INCONCLUSIVE
    assert ruled(0.5, line(0, radius=0.2, open=100), line(100)) is Verdict.PASS  # the smallest set that holds it


def test_several_requirements_share_the_risk() -> None:
    wanted = [
        Requirement(metric=Metric.CERTIFIED_ACCURACY, against=name, at_least=lower_bound(80, 100, 0.05))
        for name in ("anyone", "someone")
    ]
    lines = [line(80, open=20), line(80, open=20, covers=["someone"])]
    alone, shared = (judged(wanted, lines, 100, 0.95, family=family) for family in (False, True))
    assert [each.verdict for each in alone] == [Verdict.PASS] * 2
    assert [each.verdict for each in shared] == [Verdict.INCONCLUSIVE] * 2
    assert worst([Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE]) is Verdict.FAIL
