"""An extraction attacker's copies from lines of the log: what is told of each budget, and what is judged of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from scipy.stats import binomtest

from redan.errors import EvidenceError
from redan.evidence.extracted import ExtractionPart
from redan.evidence.extraction_lines import (
    Compared,
    CopyLine,
    CopyPoint,
    DirectLine,
    ExtractionHead,
    ExtractorHead,
    Transferred,
)
from redan.evidence.extraction_tally import ExtractionTally
from redan.evidence.log import AttackerHead, EndedLine, RunLine
from redan.evidence.report import Report, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.summary import summary
from redan.evidence.victims import Victims

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
ROWS, PRICE = 1000, 2.0
BUDGETS = (1000, 100)


def about(goal: str = "fidelity", *, names: Sequence[str] = ("knockoff-nets",), **more: Any) -> ExtractionHead:
    told = {
        "goal": goal,
        "rows": "test",
        "transfer": "fraudster" if goal == "transfer" else None,
        "extractors": [ExtractorHead(name=name, techniques=["AML.T0024.002"]) for name in names],
        "copies": 3,
        "points": list(BUDGETS),
        "answers": "probabilities",
        "pool": "pool.npz, 5,000 rows",
        "queries_per_day": 50.0,
        "notes": [],
        "doubts": [],
    }
    return ExtractionHead.model_validate(told | more)


def attacker(head: ExtractionHead, price: float | None = PRICE) -> AttackerHead:
    return AttackerHead(
        name="customer",
        kind="extraction",
        why="answers are sold",
        goal=head.goal,
        impact="high",
        techniques=[],
        change=None,
        radius=None,
        knowledge="scores",
        usd_per_1000_queries=price,
        status="assessed",
        reason=None,
        attacks=[],
        extraction=head,
    )


def compared(agreeing: int, **more: Any) -> Compared:
    return Compared.model_validate(
        {"n": ROWS, "agreeing": agreeing, "unanswered": 0, "worst": 0.5, "right": 800, "model_right": 900} | more
    )


def copy(
    number: int,
    agreeing: Sequence[int] = (900, 500),
    *,
    extractor: str = "knockoff-nets",
    used: Transferred | None = None,
    **more: Any,
) -> CopyLine:
    points = [
        CopyPoint(
            queries=budget,
            paid=budget - number,
            compared={"test": compared(count), "uniform": compared(count // 2, right=None, model_right=None)},
            transferred=used if budget == BUDGETS[0] else None,
        )
        for budget, count in zip(BUDGETS, agreeing, strict=True)
    ]
    told = {
        "attacker": "customer",
        "extractor": extractor,
        "number": number,
        "seed": number,
        "settings": "KnockoffNets()",
        "points": points,
        "saved": None,
        "sha256": "",
        "seconds": 1.0,
        "error": None,
    }
    return CopyLine.model_validate(told | more)


def direct(**more: Any) -> DirectLine:
    told = {
        "attacker": "customer",
        "extractor": "knockoff-nets",
        "attacks": ["square"],
        "queries_per_row": 20,
        "rows": 100,
        "broken": 40,
        "errors": 0,
        "queries": 2000,
        "saved": None,
        "sha256": "",
        "seconds": 1.0,
    }
    return DirectLine.model_validate(told | more)


def tallied(lines: Sequence[CopyLine | DirectLine], head: ExtractionHead | None = None) -> ExtractionTally:
    whole = head or about()
    tally = ExtractionTally(attacker(whole), whole)
    for line in lines:
        tally.see(line)
    return tally


def part(
    lines: Sequence[CopyLine | DirectLine], head: ExtractionHead | None = None, *, cut: bool = False
) -> ExtractionPart:
    return tallied(lines, head).part(0.95, cut=cut)


def judged(
    lines: Sequence[CopyLine | DirectLine], *requirements: Requirement, head: ExtractionHead | None = None
) -> Report:
    run = RunLine(
        id="r",
        started="now",
        system="s",
        classes=["a", "b"],
        ids=["0"],
        labels=[0],
        requirements=list(requirements),
        attackers=[attacker(head or about())],
        preflight=[],
        plan=[],
        standards=[],
        skipped=[],
        mode="default",
        seed=0,
        confidence=0.95,
        family="holm",
        gate=False,
        stochastic=False,
        eight_bit=False,
        environment={},
        digests={},
    )
    return summary([run, *lines, EndedLine(why="done", rows=1, limits_hit=[], seconds=1.0)]).report("runs/r")


def required(metric: Metric, threshold: float, direction: Direction = Direction.AT_MOST) -> Requirement:
    return Requirement.model_validate({"metric": metric, direction.value: threshold, "against": "customer"})


def test_a_budget_is_the_mean_over_its_copies() -> None:
    found = part([copy(0, (900, 500)), copy(1, (910, 520)), copy(2, (920, 540))])
    (extractor,) = found.extractors
    whole, small = extractor.points
    assert (extractor.status, extractor.settings) == ("done", "KnockoffNets()")
    assert (whole.queries, whole.paid, whole.copies, whole.errors, whole.undecided) == (1000, 999, 3, 0, 0)
    assert whole.usd == pytest.approx(999 * PRICE / 1000)
    assert whole.days == pytest.approx(999 / 50)
    assert whole.saves == pytest.approx((365 * 50 - 999) * PRICE / 1000)
    assert part([copy(0)], about(queries_per_day=None)).extractors[0].points[0].saves is None
    test, uniform = whole.compared
    assert (test.rows, uniform.rows) == ("test", "uniform")
    assert test.fidelity == Victims(rates=(0.9, 0.91, 0.92), rows=ROWS).part(0.95)
    assert test.accuracy is not None
    assert test.accuracy.each == [0.8] * 3
    assert test.model_accuracy == 0.9
    assert (uniform.accuracy, uniform.model_accuracy) == (None, None)
    assert small.compared[0].fidelity == Victims(rates=(0.5, 0.52, 0.54), rows=ROWS).part(0.95)
    assert found.strongest == "knockoff-nets"
    assert found.measured


def test_milestones_are_the_least_budgets_that_reach_a_share() -> None:
    found = part([copy(0, (955, 905)), copy(1, (956, 906)), copy(2, (957, 907))])
    ninety, next_, last = found.extractors[0].milestones
    assert [each.share for each in (ninety, next_, last)] == [0.9, 0.95, 0.99]
    assert (ninety.queries, ninety.shown) == (99, 999)  # the mean of the copies' bills
    assert (next_.queries, next_.shown) == (999, None)
    assert (last.queries, last.usd) == (None, None)
    assert ninety.usd == pytest.approx(99 * PRICE / 1000)


def test_what_is_missing_is_counted_and_named() -> None:
    found = part([copy(0), copy(1, error="no clay", points=[])], cut=True)
    (extractor,) = found.extractors
    assert (extractor.status, extractor.reason) == ("cut", None)
    assert (extractor.points[0].copies, extractor.points[0].errors, extractor.points[0].undecided) == (1, 1, 1)
    broken = part([copy(0)])
    assert broken.extractors[0].status == "error"
    assert "broken off" in str(broken.extractors[0].reason)
    (error,) = tallied([copy(1, error="no clay", points=[]), copy(2, error="no clay", points=[])]).errors()
    assert (error.rows, error.first) == (2, "copy 1 of knockoff-nets")
    assert not part([copy(number, error="no clay", points=[]) for number in range(3)]).measured


def test_an_extractor_that_cannot_be_used_is_not_tried_again() -> None:
    head = about(names=("knockoff-nets", "equation-solving"))
    tally = tallied([copy(0, extractor="equation-solving", error="it is no line", unfit=True, points=[])], head)
    assert tally.pending() == [("knockoff-nets", 0), ("knockoff-nets", 1), ("knockoff-nets", 2)]
    found = tally.part(0.95, cut=False)
    by_name = {each.name: each for each in found.extractors}
    assert (by_name["equation-solving"].status, by_name["equation-solving"].reason) == (
        "not applicable",
        "it is no line",
    )
    assert by_name["equation-solving"].points == []
    assert tally.errors() == []


@pytest.mark.parametrize(
    "change",
    [
        {"extractor": "burglar"},
        {"number": 3},
        {"number": -1},
        {"points": [{**copy(0).points[0].model_dump(), "queries": 7}]},
    ],
)
def test_copies_of_another_run_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="not of the run"):
        tallied([CopyLine.model_validate(copy(0).model_dump() | change)])


USED = Transferred(rows=100, broken=60, errors=0, queries=200)


def test_a_copy_s_use_stands_beside_the_attack_without_one() -> None:
    head = about("transfer")
    found = part([*(copy(number, used=USED) for number in range(3)), direct()], head)
    used, alone = found.extractors[0].points[0].transfer, found.direct
    assert used is not None
    assert alone is not None
    assert used.success is not None
    assert (used.success.value, used.rows, used.queries) == (0.6, 100, 200)
    assert used.usd == pytest.approx((999 + 200) * PRICE / 1000)
    assert used.usd_per_success == pytest.approx((999 + 200) * PRICE / 1000 / 60)
    exact = binomtest(40, 100).proportion_ci(0.95, method="exact")
    assert [alone.low, alone.high] == pytest.approx([exact.low, exact.high])
    assert alone.usd_per_success == pytest.approx(2000 * PRICE / 1000 / 40)
    # 50 queries for each broken row without a copy, 200 / 60 with one that cost 999.
    assert alone.breaks_even == 22
    assert 999 + 22 * 200 / 60 <= 22 * 50
    assert 999 + 21 * 200 / 60 > 21 * 50


@pytest.mark.parametrize(
    ("used", "alone"),
    [
        (USED, direct(broken=0)),
        (USED.model_copy(update={"broken": 0}), direct()),
        (USED.model_copy(update={"queries": 3000}), direct()),
    ],
)
def test_a_copy_that_never_pays_has_no_break_even(used: Transferred, alone: DirectLine) -> None:
    found = part([*(copy(number, used=used) for number in range(3)), alone], about("transfer"))
    assert found.direct is not None
    assert found.direct.breaks_even is None


def test_the_strongest_is_told_by_the_goal() -> None:
    names = ("knockoff-nets", "copycat-cnn")
    more = USED.model_copy(update={"broken": 90})
    lines = [copy(number, (900, 500), used=USED) for number in range(3)]
    lines += [copy(number, (800, 500), extractor="copycat-cnn", used=more) for number in range(3)]
    assert part(lines, about("fidelity", names=names)).strongest == "knockoff-nets"
    assert part(lines, about("transfer", names=names)).strongest == "copycat-cnn"


def test_evidence_does_not_hang_on_order_or_time() -> None:
    lines = [copy(number, used=USED) for number in range(3)] + [direct()]
    whole = tallied(lines, about("transfer")).digest()
    shuffled = [line.model_copy(update={"seconds": 9.0, "saved": "x"}) for line in lines]
    random.Random(0).shuffle(shuffled)
    assert tallied(shuffled, about("transfer")).digest() == whole
    assert tallied([*lines[:2], copy(2, (899, 500), used=USED), direct()], about("transfer")).digest() != whole


def test_the_unit_of_a_verdict_is_the_copy() -> None:
    """The same 3,000 rows would decide at once, if they were independent."""
    apart = [copy(0, (700, 500)), copy(1, (850, 500)), copy(2, (990, 500))]
    report = judged(apart, required(Metric.EXTRACTION_FIDELITY, 0.8))
    assert report.verdict is OPEN
    (shown,) = report.requirements
    assert (shown.n, shown.k, shown.unit) == (3, None, "share of copies")
    assert shown.value == pytest.approx((0.7 + 0.85 + 0.99) / 3)
    alike = [copy(number, (900 + number, 500)) for number in range(3)]
    assert judged(alike, required(Metric.EXTRACTION_FIDELITY, 0.8)).verdict is FAIL
    assert judged(alike, required(Metric.EXTRACTION_FIDELITY, 0.97)).verdict is PASS


def test_a_pass_must_hold_against_each_extractor() -> None:
    head = about(names=("knockoff-nets", "copycat-cnn"))
    weak = [copy(number, (300, 200)) for number in range(3)]
    strong = [copy(number, (900 + number, 200), extractor="copycat-cnn") for number in range(3)]
    limit = required(Metric.EXTRACTION_FIDELITY, 0.5)
    assert judged([*weak, *strong], limit, head=head).verdict is FAIL
    assert judged(weak, limit, head=head).verdict is OPEN  # nothing is known of the other
    missing = [line.model_copy(update={"error": "no clay", "points": []}) for line in strong]
    assert judged([*weak, *missing], limit, head=head).verdict is OPEN


def test_what_an_attacker_lacks_forbids_a_pass_and_no_fail() -> None:
    head = about(doubts=["the attacker has noise alone"])
    alike = [copy(number, (900 + number, 500)) for number in range(3)]
    report = judged(alike, required(Metric.EXTRACTION_FIDELITY, 0.97), head=head)
    assert report.verdict is OPEN
    assert any("noise alone" in reason for reason in report.reasons)
    assert judged(alike, required(Metric.EXTRACTION_FIDELITY, 0.5), head=head).verdict is FAIL


def test_rows_on_which_transfer_failed_never_help() -> None:
    head = about("transfer")
    open_ = USED.model_copy(update={"broken": 30, "errors": 50})
    lines = [copy(number, used=open_) for number in range(3)]
    most, least = (
        judged(lines, required(Metric.TRANSFER_SUCCESS, 0.5, direction), head=head).requirements[0].value
        for direction in (Direction.AT_MOST, Direction.AT_LEAST)
    )
    assert most == pytest.approx(0.8)
    assert least == pytest.approx(0.3)


def test_risks_know_what_a_copy_costs() -> None:
    report = judged([copy(number) for number in range(3)])
    (risk,) = report.risks
    assert (risk.success_rate, risk.median_queries) == (0.9, 999)
    assert risk.usd_per_success == pytest.approx(999 * PRICE / 1000)
    used = judged([copy(number, used=USED) for number in range(3)], head=about("transfer"))
    assert used.risks[0].usd_per_success == pytest.approx((999 + 200) * PRICE / 1000 / 60)
    assert report.run.reproducible
    assert not judged([copy(0)]).run.reproducible
