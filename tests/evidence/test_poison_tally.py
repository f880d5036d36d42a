"""A poisoning attacker's victims from lines of the log: what is told of each share, and what is judged of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from scipy.stats import binomtest, t

from redan.errors import EvidenceError
from redan.evidence.log import AttackerHead, AttackHead, BlockLine, EndedLine, Line, RowLine, RunLine
from redan.evidence.poison_lines import (
    CertifiedLine,
    InspectedLine,
    PoisonerHead,
    PoisoningHead,
    PoisonPoint,
    VictimLine,
)
from redan.evidence.poison_tally import PoisonTally
from redan.evidence.poisoned import (
    CertificatePart,
    CertifiedPoint,
    DetectorPart,
    Equivalence,
    PoisonerPart,
    PoisoningPart,
    SourcePart,
)
from redan.evidence.report import Report, RequirementPart, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.summary import summary
from redan.evidence.victims import Victims

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
Goal = Literal["backdoor", "targeted rows", "availability"]
ROWS, TRIGGERED = 1000, 900


def about(
    goal: Goal = "backdoor",
    *,
    poisoners: Sequence[str] = ("badnets",),
    points: Mapping[float, int] | None = None,
    clean: int = 3,
) -> PoisoningHead:
    return PoisoningHead(
        goal=goal,
        poisoners=[PoisonerHead(name=name, techniques=[f"T-{name}"]) for name in poisoners],
        points=[PoisonPoint(share=share, victims=many) for share, many in (points or {0.01: 3}).items()],
        clean=clean,
        margin=0.01,
        inspected=True,
        parts=0,
    )


def attacker(poisoning: PoisoningHead | None, name: str = "supplier") -> AttackerHead:
    evasion = AttackHead(name="apgd-ce", settings="APGD()", access="gradients")
    return AttackerHead(
        name=name,
        kind="evasion" if poisoning is None else "poisoning",
        why="suppliers label",
        goal="untargeted" if poisoning is None else poisoning.goal,
        impact="high",
        techniques=[],
        change=None,
        radius=None,
        knowledge=None,
        usd_per_1000_queries=None,
        status="assessed",
        reason=None,
        attacks=[evasion] if poisoning is None else [],
        poisoning=poisoning,
    )


def required(metric: Metric, direction: Direction, threshold: float, against: str = "supplier") -> Requirement:
    return Requirement.model_validate({"metric": metric, direction.value: threshold, "against": against})


def at_most(threshold: float, metric: Metric = Metric.BACKDOOR_SUCCESS) -> Requirement:
    return required(metric, Direction.AT_MOST, threshold)


def at_least(threshold: float) -> Requirement:
    return required(Metric.POISONED_ACCURACY, Direction.AT_LEAST, threshold)


def victim(number: int, success: float = 0.5, accuracy: float = 0.9, **changed: Any) -> VictimLine:
    """A victim of the first poisoner at the whole share; success and accuracy: of its rows."""
    said: dict[str, Any] = {
        **{"attacker": "supplier", "poisoner": "badnets", "share": 0.01, "number": number, "seed": 7 + number},
        **{"settings": "BadNets(size=3)", "changed": 40 + number, "used": 0.001 * (number + 1), "poison": "0" * 64},
        **{"rows": ROWS, "right": round(accuracy * ROWS)},
        **{"asked": {"supplier": (round(success * TRIGGERED), TRIGGERED)}},
        **{"answers": f"{number:06d}.safetensors", "sha256": "1" * 64, "seconds": 1.5, "error": None},
    }
    return VictimLine(**{**said, **changed})


def clean(number: int, accuracy: float = 0.91, success: float = 0.1, **changed: Any) -> VictimLine:
    """A victim of clean rows, asked the attacker's rows too."""
    about = {"attacker": None, "poisoner": None, "share": None, "poison": None, "changed": 0, "used": 0.0}
    return victim(number, success, accuracy, **{**about, **changed})


def failed(number: int, error: str = "RuntimeError: out of memory", **changed: Any) -> VictimLine:
    return victim(number, **{"error": error, "rows": 0, "right": 0, "asked": {}, **changed})


def hit(number: int, *, reached: bool, asked: bool = True) -> VictimLine:
    """A victim of which one chosen row is asked, or none where victims of clean rows have it wrong."""
    return victim(number, asked={"supplier": (int(reached and asked), int(asked))})


def tally(*lines: VictimLine | InspectedLine, head: PoisoningHead, wanted: Sequence[Requirement] = ()) -> PoisonTally:
    found = PoisonTally(attacker(head), head, wanted)
    for line in lines:
        found.see(line)
    return found


def part(
    *lines: VictimLine, head: PoisoningHead, wanted: Sequence[Requirement] = (), cut: bool = False
) -> PoisoningPart:
    of_clean = {line.number: line for line in lines if line.attacker is None}
    found = tally(*(line for line in lines if line.attacker), head=head, wanted=wanted)
    return found.part(of_clean, 0.95, cut=cut, certified=None)


def only(found: PoisoningPart) -> PoisonerPart:
    (poisoner,) = found.poisoners
    return poisoner


INSPECTED = InspectedLine(
    attacker="supplier",
    poisoner="badnets",
    detectors=[
        DetectorPart(name="spectral", status="done", reason=None, auc=0.9, recall=0.5, found=9, caught=8, q=0.1)
    ],
    sources=[SourcePart(source="web", rows=100, poisoned=9, suspicious=8)],
    repairs=[],
    trigger=None,
    notes=["no trusted rows"],
    pictures="000009.safetensors",
    sha256="2" * 64,
    seconds=3.0,
)


# -- what is told ----------------------------------------------------------------------------------------------


def test_every_number_of_a_point_by_hand() -> None:
    lines = [victim(0, 0.9, 0.90), victim(1, 1.0, 0.89), victim(2, 0.8, 0.91)]
    of_clean = [clean(0, 0.905), clean(1, 0.89), clean(2, 0.91)]
    found = only(part(*lines, *of_clean, head=about()))
    assert (found.name, found.settings, found.techniques) == ("badnets", "BadNets(size=3)", ["T-badnets"])
    assert (found.status, found.reason) == ("done", None)
    (point,) = found.points
    assert (point.share, point.changed, point.used, point.victims) == (0.01, 42, 0.003, 3)  # the most of the victims
    assert (point.errors, point.undecided) == (0, 0)
    assert point.success is not None
    assert (point.success.each, point.success.rows) == ([0.9, 1.0, 0.8], TRIGGERED)
    exact = Victims(rates=(0.9, 1.0, 0.8), rows=TRIGGERED)
    assert (point.success.low, point.success.high) == (exact.lower(0.025), exact.upper(0.025))
    assert point.clean_success is not None
    assert point.clean_success.each == [0.1, 0.1, 0.1]
    assert point.accuracy is not None
    assert (point.accuracy.each, point.accuracy.rows) == ([0.9, 0.89, 0.91], ROWS)
    assert point.clean_accuracy is not None
    assert point.clean_accuracy.each == [0.905, 0.89, 0.91]
    same = point.equivalence
    assert same is not None
    assert (same.pairs, same.margin, same.confidence) == (3, 0.01, 0.95)
    assert same.difference == pytest.approx(-0.005 / 3)
    assert same.high - same.difference == pytest.approx(t.ppf(0.95, 2) * 0.005 / 3)  # of -0.005, 0 and 0
    assert same.shown is Equivalence.EQUIVALENT


def test_victims_of_clean_rows_are_paired_by_number_and_only_where_both_are_known() -> None:
    of_clean = [clean(2, 0.95), clean(1, 0.90), clean(0, 0.91, error="it diverged"), clean(3, 0.5)]
    (point,) = only(part(victim(0, accuracy=0.8), victim(1), victim(2, accuracy=0.94), *of_clean, head=about())).points
    assert point.clean_accuracy is not None
    assert point.clean_accuracy.each == [0.90, 0.95]
    assert point.equivalence is not None
    assert point.equivalence.pairs == 2
    assert point.equivalence.difference == pytest.approx(-0.005)
    (lone,) = only(part(victim(0), clean(0), head=about(points={0.01: 1}))).points
    assert lone.equivalence is None
    assert lone.success is not None
    assert (lone.success.low, lone.success.high) == (0.0, 1.0)  # one victim shows nothing


def test_chosen_rows_are_victims_that_are_hit_or_not() -> None:
    lines = [hit(i, reached=i < 3) for i in range(5)]
    (point,) = only(part(*lines, *(clean(i) for i in range(5)), head=about("targeted rows", points={0.01: 5}))).points
    assert point.success is not None
    assert (point.success.each, point.success.rows, point.success.method) == ([1, 1, 1, 0, 0], 1, "clopper-pearson")
    low, high = binomtest(3, 5).proportion_ci(0.95, method="exact")
    assert (point.success.low, point.success.high) == pytest.approx((low, high))
    assert (point.clean_success, point.clean_accuracy, point.equivalence) == (None, None, None)
    assert point.accuracy is not None


def test_a_chosen_row_that_is_not_asked_counts_for_nobody() -> None:
    lines = [hit(0, reached=True), hit(1, reached=False), hit(2, reached=True, asked=False)]
    (point,) = only(part(*lines, head=about("targeted rows"))).points
    assert point.success is not None
    assert (point.success.each, point.victims, point.errors) == ([1.0, 0.0], 3, 0)


def test_availability_has_no_success() -> None:
    (point,) = only(part(victim(0), victim(1), clean(0), clean(1), head=about("availability"))).points
    assert (point.success, point.clean_success, point.undecided) == (None, None, 1)
    assert point.equivalence is not None


def test_errors_and_victims_that_were_not_reached_are_told_apart() -> None:
    found = only(part(victim(0), failed(1), head=about(points={0.01: 4}), cut=True))
    (point,) = found.points
    assert (point.victims, point.errors, point.undecided, found.status) == (1, 1, 2, "cut")
    assert point.success is not None
    assert point.success.each == [0.5]
    broken_off = only(part(victim(0), head=about()))
    assert broken_off.status == "error"
    assert broken_off.reason is not None
    assert "broken off" in broken_off.reason
    assert only(part(victim(0), failed(1), victim(2), head=about(), cut=True)).status == "done"


def test_errors_are_told_by_reason() -> None:
    two = about(poisoners=("badnets", "blend"))
    lines = [failed(2), failed(1), failed(0, "it diverged"), failed(0, "no pictures", poisoner="blend", unfit=True)]
    first, second = tally(*lines, victim(1, poisoner="blend"), head=two).errors()
    assert (first.attacker, first.reason, first.rows) == ("supplier", "training a victim: it diverged", 1)
    assert (second.rows, second.first) == (2, "victim 1 of badnets at 0.01")


def test_a_victim_counts_as_it_was_seen_last() -> None:
    again = part(failed(0), victim(1), victim(2), victim(0, 0.7), head=about())
    assert again == part(victim(0, 0.7), victim(1), victim(2), head=about())


def test_a_poisoner_that_cannot_be_used_has_no_points() -> None:
    two = about(poisoners=("badnets", "clean-label"), points={0.01: 2, 0.005: 1})
    unfit = failed(0, "it needs a surrogate's gradients", poisoner="clean-label", unfit=True)
    found = part(victim(0), victim(1), victim(0, share=0.005), unfit, victim(1, 1.0, poisoner="clean-label"), head=two)
    good, bad = found.poisoners
    assert (bad.status, bad.reason, bad.points) == ("not applicable", "it needs a surrogate's gradients", [])
    assert bad.breaks_at is None
    assert (good.status, found.strongest) == ("done", "badnets")
    none = part(unfit, head=about(poisoners=("clean-label",)))
    assert none.strongest is None


def test_what_was_inspected_and_certified_is_passed_on() -> None:
    points = [CertifiedPoint(changes=0, right=90), CertifiedPoint(changes=1, right=80)]
    certificate = CertificatePart(
        method="dpa", parts=9, copies=1, counts="rows", rows=100, untrained=0, points=points, share=0.001
    )
    head = about()
    found = tally(victim(0), INSPECTED, head=head).part(
        {}, 0.95, cut=False, certified=CertifiedLine(certificate=certificate)
    )
    assert (found.detectors, found.sources, found.notes) == (INSPECTED.detectors, INSPECTED.sources, INSPECTED.notes)
    assert (found.certificate, found.goal) == (certificate, "backdoor")


# -- the strongest, and where it breaks ---------------------------------------------------------------------


def curve(*rates: float, accuracies: Sequence[float] = ()) -> list[VictimLine]:
    shares, kept = (0.01, 0.005, 0.001), accuracies or [0.9] * len(rates)
    return [
        victim(n, rate, accuracy, share=share)
        for share, rate, accuracy in zip(shares, rates, kept, strict=False)
        for n in range(2)
    ]


THREE = {0.01: 2, 0.005: 2, 0.001: 2}


@pytest.mark.parametrize(
    ("rates", "wanted", "breaks_at"),
    [
        ((0.9, 0.6, 0.2), [], 0.005),
        ((0.9, 0.5, 0.49), [], 0.005),
        ((0.49, 0.3, 0.1), [], None),
        ((0.9, 0.6, 0.2), [at_most(0.1)], 0.001),
        ((0.9, 0.6, 0.2), [at_most(0.2)], 0.005),  # at the threshold it is met
        ((0.9, 0.6, 0.2), [at_most(0.95)], None),  # half of the rows is for where nothing is required
        ((0.9, 0.2, 0.6), [at_most(0.5)], 0.001),  # the smallest, whatever the ones between
        ((0.9, 0.6, 0.2), [at_most(0.7, Metric.ATTACK_SUCCESS_RATE)], 0.01),
        ((0.9, 0.6, 0.2), [required(Metric.BACKDOOR_SUCCESS, Direction.AT_MOST, 0.1, "another")], 0.005),
        ((0.9, 0.6, 0.2), [required(Metric.BACKDOOR_SUCCESS, Direction.AT_LEAST, 0.7)], 0.001),
        ((0.9, 0.6, 0.2), [at_most(0.95), at_least(0.95)], 0.001),  # any that breaks
        ((0.9, 0.6, 0.2), [at_least(0.9)], None),
    ],
)
def test_where_it_breaks(rates: tuple[float, ...], wanted: list[Requirement], breaks_at: float | None) -> None:
    assert only(part(*curve(*rates), head=about(points=THREE), wanted=wanted)).breaks_at == breaks_at


def test_availability_breaks_where_accuracy_is_required() -> None:
    lines = curve(0, 0, 0, accuracies=(0.7, 0.85, 0.9))
    head = about("availability", points=THREE)
    assert only(part(*lines, head=head, wanted=[at_least(0.88)])).breaks_at == 0.005
    assert only(part(*lines, head=head)).breaks_at is None


def test_a_share_without_a_victim_breaks_nothing() -> None:
    lines = [*curve(0.9, 0.9), failed(0, share=0.001), failed(1, share=0.001)]
    found = only(part(*lines, head=about(points=THREE), wanted=[at_most(0.1)]))
    assert found.breaks_at == 0.005
    assert (found.points[2].success, found.points[2].accuracy, found.points[2].used) == (None, None, 0.0)


def test_the_strongest_is_that_of_the_whole_share() -> None:
    two = about(poisoners=("badnets", "blend"), points=THREE)
    blend = [line.model_copy(update={"poisoner": "blend"}) for line in curve(0.8, 0.7, 0.7)]
    both = tally(*curve(0.9, 0.1, 0.1), *blend, head=two)
    assert both.strongest({}, 0.95) == both.part({}, 0.95, cut=False, certified=None).strongest == "badnets"
    assert tally(*curve(0.8), *blend, head=two).strongest({}, 0.95) == "badnets"  # the first of equals
    assert tally(*blend, head=two).strongest({}, 0.95) == "blend"
    assert tally(head=two).strongest({}, 0.95) is None
    spoilers = about("availability", poisoners=("badnets", "blend"))
    lines = [victim(0, accuracy=0.7), victim(0, accuracy=0.6, poisoner="blend")]
    assert tally(*lines, head=spoilers).strongest({}, 0.95) == "blend"


# -- the log ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        victim(0, poisoner="unheard"),
        victim(0, poisoner=None),
        victim(3),
        victim(-1),
        victim(0, share=0.02),
        victim(0, share=None),
        INSPECTED.model_copy(update={"poisoner": "unheard"}),
    ],
    ids=["poisoner", "no poisoner", "beyond", "below", "share", "no share", "inspected"],
)
def test_what_the_run_does_not_have_is_refused(line: VictimLine | InspectedLine) -> None:
    with pytest.raises(EvidenceError, match="not of the run; the evidence was changed"):
        tally(line, head=about())


def test_victims_of_nobody_are_refused() -> None:
    with pytest.raises(EvidenceError, match="victims of 'nobody', who is no attacker"):
        summary([run([attacker(about())], []), victim(0, attacker="nobody")])


def test_the_digest_is_of_what_was_found_and_not_of_how() -> None:
    lines: list[VictimLine | InspectedLine] = [victim(0), failed(1), victim(2), INSPECTED]
    plain = tally(*lines, head=about()).digest()
    for seed in range(4):
        shuffled = list(lines)
        random.Random(seed).shuffle(shuffled)
        assert tally(*shuffled, head=about()).digest() == plain
    same: list[dict[str, Any]] = [{"seconds": 9.0}, {"answers": None}]
    for changed in same:
        again = [line.model_copy(update=changed) if line is lines[0] else line for line in lines]
        assert tally(*again, head=about()).digest() == plain
    same = [{"seconds": 9.0}, {"pictures": "000010.safetensors"}]
    for changed in same:
        assert tally(*lines[:3], INSPECTED.model_copy(update=changed), head=about()).digest() == plain


@pytest.mark.parametrize(
    "changed", [{"right": 899}, {"sha256": "3" * 64}, {"seed": 0}, {"poison": "3" * 64}, {"asked": {}}, {"error": "x"}]
)
def test_another_victim_is_other_evidence(changed: dict[str, Any]) -> None:
    lines = [victim(0), victim(1), victim(2)]
    other = [victim(0).model_copy(update=changed), *lines[1:]]
    assert tally(*other, head=about()).digest() != tally(*lines, head=about()).digest()
    of_clean = [report(line, wanted=[], head=about()) for line in (clean(0), clean(0).model_copy(update=changed))]
    assert of_clean[0].digests["evidence"] != of_clean[1].digests["evidence"]


def test_no_victim_fewer_and_nothing_inspected_is_other_evidence() -> None:
    digests = {
        tally(*lines, head=about()).digest()
        for lines in ([], [victim(0)], [victim(0), victim(1)], [victim(1)], [victim(0), INSPECTED])
    }
    assert len(digests) == 5


def test_what_is_left_to_train_begins_with_the_whole_share() -> None:
    head = about(poisoners=("badnets", "blend"), points={0.01: 2, 0.005: 1})
    found = tally(head=head)
    assert found.pending() == [
        ("badnets", 0.01, 0),
        ("blend", 0.01, 0),
        ("badnets", 0.01, 1),
        ("blend", 0.01, 1),
        ("badnets", 0.005, 0),
        ("blend", 0.005, 0),
    ]
    found.see(victim(0))
    found.see(failed(1))  # is not tried again
    assert found.pending() == [("blend", 0.01, 0), ("blend", 0.01, 1), ("badnets", 0.005, 0), ("blend", 0.005, 0)]
    found.see(failed(0, poisoner="blend", unfit=True))
    assert found.pending() == [("badnets", 0.005, 0)]
    found.see(victim(0, share=0.005))
    assert found.pending() == []


# -- what is judged ------------------------------------------------------------------------------------------


def run(
    attackers: list[AttackerHead], wanted: Sequence[Requirement], *, family: str = "holm", rows: int = 0
) -> RunLine:
    return RunLine(
        id="run",
        started="2026-01-01T00:00:00+00:00",
        system="shop",
        classes=["a", "b"],
        ids=[f"row {i}" for i in range(rows)],
        labels=[0] * rows,
        requirements=list(wanted),
        attackers=attackers,
        preflight=[],
        plan=[],
        standards=[],
        skipped=[],
        mode="default",
        seed=0,
        confidence=0.95,
        family=family,
        gate=False,
        stochastic=False,
        eight_bit=False,
        environment={},
        digests={},
    )


DONE = EndedLine(why="done", rows=0, limits_hit=[], seconds=2.0)


def report(*lines: Line, wanted: Sequence[Requirement], head: PoisoningHead) -> Report:
    return summary([run([attacker(head)], wanted), *lines, DONE]).report("runs/run")


def judged(*lines: VictimLine, wanted: Requirement, head: PoisoningHead | None = None) -> RequirementPart:
    (found,) = report(*lines, wanted=[wanted], head=head or about(points={0.01: len(lines)})).requirements
    return found


def rates(*found: float) -> list[VictimLine]:
    return [victim(n, rate) for n, rate in enumerate(found)]


LOW = (0.005, 0.01, 0.015, 0.02, 0.005, 0.01, 0.015, 0.02, 0.01, 0.01)


def test_ten_victims_that_are_hit_fail() -> None:
    wide = (0.97, 0.96, 0.98, 0.95, 0.99, 0.97, 0.97, 0.96, 0.98, 0.97)
    found = report(*rates(*wide), wanted=[at_most(0.1)], head=about(points={0.01: 10}))
    (each,) = found.requirements
    assert (found.verdict, found.exit_code, each.verdict) == (FAIL, 1, FAIL)
    assert each.value == pytest.approx(0.97, abs=1e-3)
    assert (each.k, each.n, each.errors, each.undecided, each.unit) == (None, 10, 0, 0, "share of victims")
    assert each.reasons[0].startswith("shown to miss the threshold: 0.970 over 10 victims in badnets, bound 0.9")
    assert found.attackers[0].poisoning is not None
    point = found.attackers[0].poisoning.poisoners[0].points[0]
    assert point.success is not None
    own = Victims(rates=tuple(point.success.each), rows=TRIGGERED)
    assert each.bound_used == own.lower(1 - 0.95)
    assert each.interval is not None
    assert (each.interval.low, each.interval.high) == (point.success.low, point.success.high)
    assert (each.interval.method, each.interval.sides) == ("student-t", 2)


def test_ten_victims_that_are_hardly_hit_pass() -> None:
    assert judged(*rates(*LOW), wanted=at_most(0.1)).verdict is PASS
    assert report(*rates(*LOW), wanted=[at_most(0.1)], head=about(points={0.01: 10})).exit_code == 0
    assert judged(*rates(*LOW), wanted=at_most(0.02)).verdict is OPEN  # the rows' own draw


def test_a_bound_decides_at_its_own_threshold() -> None:
    for found, verdict in (((0.01, 0.012, 0.011), PASS), ((0.97, 0.96, 0.98), FAIL)):
        lines = rates(*found)
        bound = judged(*lines, wanted=at_most(0.1)).bound_used
        assert bound is not None
        assert judged(*lines, wanted=at_most(0.1)).verdict is verdict
        inside, outside = (1e-9, -1e-9) if verdict is PASS else (-1e-9, 1e-9)
        assert judged(*lines, wanted=at_most(bound + inside)).verdict is verdict
        assert judged(*lines, wanted=at_most(bound + outside)).verdict is OPEN


def test_three_victims_that_straddle_are_open() -> None:
    found = judged(*rates(0.02, 0.3, 0.04), wanted=at_most(0.1))
    assert found.verdict is OPEN
    assert found.value == pytest.approx(0.12, abs=1e-3)
    assert "more victims would decide" in found.reasons[0]
    assert found.rows_to_decide is not None
    assert found.rows_to_decide % 3 == 0


def test_a_pass_is_not_believed_where_a_victim_lies_beyond_the_threshold() -> None:
    lines = rates(*[0.01] * 19, 0.12)
    found = report(*lines, wanted=[at_most(0.1)], head=about(points={0.01: 20}))
    assert found.requirements[0].bound_used is not None
    assert found.requirements[0].bound_used < 0.1
    assert found.verdict is OPEN
    assert "cannot be trusted: 1 of 20 victims of badnets lie above the threshold" in found.reasons[0]
    low = rates(*[0.9] * 19, 0.05)
    assert judged(*low, wanted=at_most(0.1)).verdict is FAIL  # a fail is


def test_two_victims_may_fail_and_one_never_does() -> None:
    assert judged(*rates(0.97, 0.98), wanted=at_most(0.1)).verdict is FAIL
    assert judged(*rates(0.5, 0.98), wanted=at_most(0.1)).verdict is OPEN
    assert judged(*rates(0.98), wanted=at_most(0.1)).verdict is OPEN
    assert judged(*rates(0.0), wanted=at_most(0.9)).verdict is OPEN


def test_accuracy_that_must_be_kept() -> None:
    lines = [victim(n, accuracy=0.9 + 0.002 * n) for n in range(5)]
    assert judged(*lines, wanted=at_least(0.85)).verdict is PASS
    assert judged(*lines, wanted=at_least(0.9)).verdict is OPEN
    assert judged(*lines, wanted=at_least(0.95)).verdict is FAIL
    two = about(poisoners=("badnets", "flip"), points={0.01: 5})
    worse = [victim(n, accuracy=0.7 + 0.002 * n, poisoner="flip") for n in range(5)]
    found = judged(*lines, *worse, wanted=at_least(0.85), head=two)
    assert found.verdict is FAIL
    assert found.value == pytest.approx(0.704)  # of the poisoner that takes most
    assert "in flip" in found.reasons[0]
    assert judged(*lines, *worse, wanted=at_least(0.65), head=two).verdict is PASS
    assert judged(*lines, wanted=at_least(0.65), head=two).verdict is OPEN  # of flip no victim is known


def test_the_attacker_takes_the_poisoner_that_goes_furthest() -> None:
    two = about(poisoners=("badnets", "blend"), points={0.01: 10})
    strong = [victim(n, 0.9 + 0.002 * n, poisoner="blend") for n in range(10)]
    found = judged(*rates(*LOW), *strong, wanted=at_most(0.1), head=two)
    assert (found.verdict, found.n) == (FAIL, 10)
    assert "in blend" in found.reasons[0]
    weak = [victim(n, 0.02, poisoner="blend") for n in range(10)]
    assert judged(*rates(*LOW), *weak, wanted=at_most(0.1), head=two).verdict is PASS
    assert judged(*rates(*LOW), wanted=at_most(0.1), head=two).verdict is OPEN


def test_smaller_shares_are_told_and_not_judged() -> None:
    head = about(points={0.01: 3, 0.005: 3})
    low, high = rates(0.01, 0.01, 0.01), [victim(n, 0.9, share=0.005) for n in range(3)]
    assert judged(*low, *high, wanted=at_most(0.1), head=head).verdict is PASS
    flipped = [line.model_copy(update={"share": 0.005 if line.share == 0.01 else 0.01}) for line in (*low, *high)]
    assert judged(*flipped, wanted=at_most(0.1), head=head).verdict is FAIL


@pytest.mark.parametrize("kind", ["errors", "undecided"])
def test_victims_of_whom_nothing_is_known_take_verdicts_away(kind: str) -> None:
    head = about(points={0.01: 10})
    for line, at, alone in (((0.01,) * 7, 0.1, PASS), ((0.97, 0.98) * 3 + (0.97,), 0.6, FAIL)):
        lines = rates(*line)
        assert judged(*lines, wanted=at_most(at)).verdict is alone
        lost = [failed(n) for n in (7, 8, 9)] if kind == "errors" else []
        found = judged(*lines, *lost, wanted=at_most(at), head=head)
        assert (found.verdict, found.n, getattr(found, kind)) == (OPEN, 10, 3)
        assert any("they never help" in reason for reason in found.reasons)


@pytest.mark.parametrize(("k", "n", "at"), [(0, 20, 0.2), (2, 20, 0.2), (18, 20, 0.5), (0, 3, 0.5)])
def test_chosen_rows_are_judged_exactly(k: int, n: int, at: float) -> None:
    lines = [hit(i, reached=i < k) for i in range(n)]
    wanted = at_most(at, Metric.ATTACK_SUCCESS_RATE)
    found = judged(*lines, wanted=wanted, head=about("targeted rows", points={0.01: n}))
    low, high = (
        p.pvalue <= 0.05 for p in (binomtest(k, n, at, alternative="less"), binomtest(k, n, at, alternative="greater"))
    )
    assert found.verdict is (PASS if low else FAIL if high else OPEN)
    assert (found.k, found.n, found.value) == (k, n, k / n)
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((exact.low, exact.high))
    assert found.interval.method == "clopper-pearson"
    assert f"{k} of {n} in badnets" in found.reasons[0]
    one_error = judged(*lines[:-1], failed(n - 1), wanted=wanted, head=about("targeted rows", points={0.01: n}))
    assert one_error.verdict in (found.verdict, OPEN)


def test_an_attacker_whose_poisoners_cannot_be_used_is_open_with_the_reason() -> None:
    unfit = failed(0, "the model takes no pictures", unfit=True)
    found = report(unfit, wanted=[at_most(0.1)], head=about())
    assert (found.verdict, found.requirements[0].value) == (OPEN, None)
    assert "no poisoner could be used: the model takes no pictures" in found.reasons[0]
    two = about(poisoners=("badnets", "blend"), points={0.01: 10})
    blend = [victim(n, 0.01, poisoner="blend") for n in range(10)]
    assert judged(unfit, *blend, wanted=at_most(0.1), head=two).verdict is PASS  # the other one could be
    errors = report(*(failed(n) for n in range(3)), wanted=[at_most(0.1)], head=about())
    assert errors.verdict is OPEN
    assert any("3 victims errored" in reason for reason in errors.reasons)


def test_what_is_not_measured_of_a_poisoning_attacker_is_open_by_name() -> None:
    found = report(*rates(*LOW[:3]), wanted=[required(Metric.ROBUST_ACCURACY, Direction.AT_LEAST, 0.0)], head=about())
    assert found.verdict is OPEN
    assert "robust_accuracy is not measured against an attacker of kind poisoning" in found.reasons[0]
    spoiler = report(victim(0), victim(1), victim(2), wanted=[at_most(1.0)], head=about("availability"))
    assert spoiler.verdict is OPEN


def row(at: int, *, broken: bool) -> RowLine:
    return RowLine(
        attacker="anyone",
        row=at,
        id=f"row {at}",
        index=at,
        y=0,
        answered=True,
        right=True,
        status="broken" if broken else "robust",
        share=float(broken),
        by="apgd-ce" if broken else None,
        failed=None,
        reason=None,
        distance=None,
        near=None,
        before=0,
        after=int(broken),
        eight_bit=None,
        spent={"apgd-ce": (9, 9, 9)},
        blind=0,
        input="0" * 64,
        saved=None,
    )


def test_holm_shares_the_risk_among_rows_and_victims() -> None:
    """A requirement on rows and two on victims; each at the level that the others leave it."""
    block = BlockLine(attacker="anyone", inputs=None, sha256="0", seconds={}, crashed={})
    rows = [row(i, broken=i >= 90) for i in range(100)]
    lines = rates(0.08, 0.075, 0.07)
    alone = Victims(rates=tuple(round(r * TRIGGERED) / TRIGGERED for r in (0.08, 0.075, 0.07)), rows=TRIGGERED)

    def found(success: float, robust: float, family: str = "holm", accuracy: float = 0.5) -> Report:
        wanted = [
            required(Metric.ROBUST_ACCURACY, Direction.AT_LEAST, robust, "anyone"),
            at_most(success),
            at_least(accuracy),
        ]
        heads = [attacker(None, "anyone"), attacker(about())]
        seen: list[Line] = [run(heads, wanted, family=family, rows=100), block, *rows, *lines, DONE]
        return summary(seen).report("runs/run")

    def bounds(of: Report) -> list[float | None]:
        return [each.bound_used for each in of.requirements]

    sure = found(0.5, 0.5)
    assert sure.verdict is PASS
    success, robust = alone.upper(0.05) + 1e-6, binomtest(90, 100).proportion_ci(0.9, "exact").low - 1e-9
    assert [each.verdict for each in found(success, 0.5).requirements] == [PASS] * 3  # the sure ones leave it its level
    assert [each.verdict for each in found(success, robust).requirements] == [OPEN, OPEN, PASS]
    assert [each.verdict for each in found(success, robust, "none").requirements] == [PASS] * 3
    halved = bounds(found(success, robust))
    assert halved[1] == pytest.approx(alone.upper(0.025))
    assert halved[0] == pytest.approx(binomtest(90, 100).proportion_ci(0.95, "exact").low)
    thirds = bounds(found(success, robust, accuracy=0.9))
    assert thirds[1] == pytest.approx(alone.upper(0.05 / 3))


def test_risk_is_what_the_strongest_reaches() -> None:
    two = about(poisoners=("badnets", "blend"))
    lines = [*rates(0.9, 0.8, 0.7), *(victim(n, 0.1, poisoner="blend") for n in range(3))]
    (risk,) = report(*lines, wanted=[], head=two).risks
    assert (risk.attacker, risk.median_queries) == ("supplier", None)
    assert risk.success_rate == pytest.approx(0.8)
    spoiled = [*(victim(n, accuracy=0.7) for n in range(3)), *(clean(n, 0.9) for n in range(3))]
    (risk,) = report(*spoiled, wanted=[], head=about("availability")).risks
    assert risk.success_rate == pytest.approx(0.2)
    assert report(failed(0, unfit=True), wanted=[], head=about()).risks == []  # nothing is known of it


def test_an_attacker_of_whom_nothing_was_measured_is_not_assessed() -> None:
    """Neither a pass of what others are required to keep, nor evidence for any standard."""
    heads = [attacker(None, "anyone"), attacker(about())]
    block = BlockLine(attacker="anyone", inputs=None, sha256="0", seconds={}, crashed={})
    lines: list[Line] = [
        block,
        *(row(i, broken=False) for i in range(100)),
        failed(0, "no gradients", unfit=True),
        DONE,
    ]
    wanted = [required(Metric.ROBUST_ACCURACY, Direction.AT_LEAST, 0.5, "anyone")]
    found = summary([run(heads, wanted, rows=100), *lines]).report("runs/run")
    assert (found.verdict, found.requirements[0].verdict) == (OPEN, PASS)
    assert "supplier: no gradients" in found.reasons
    assert (found.attackers[1].assessed, found.attackers[1].strength) == (False, "not tested")


def test_a_run_whose_victims_are_not_all_trained_is_not_reproducible() -> None:
    assert not report(*rates(0.9, 0.8), wanted=[], head=about()).run.reproducible
    assert report(*rates(0.9, 0.8, 0.7), wanted=[], head=about()).run.reproducible


def test_a_report_with_victims_reads_back_as_itself() -> None:
    found = report(*rates(*LOW[:3]), clean(0), clean(1), INSPECTED, wanted=[at_most(0.1)], head=about())
    assert Report.model_validate_json(found.model_dump_json()) == found
    assert found.attackers[0].counts is None
    assert any("Victims are trained as the threat model's training function" in each for each in found.shows_not)
