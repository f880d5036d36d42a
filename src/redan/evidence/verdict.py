"""The verdict: pass, fail or inconclusive, computed from a report's counts and nothing else.

A pass needs the bound on the bad side to meet the threshold, a fail the bound on the other side to miss it.
Rows that errored, stayed undecided or were never reached count against whatever is being shown. At equality a bound
meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redan.evidence.bounds import Judged, bounded
from redan.evidence.extraction_rates import EXTRACTION_RATES
from redan.evidence.poison_rates import POISON_RATES
from redan.evidence.rates import RATES, Count
from redan.evidence.report import AttackerPart, Certified, IntervalPart, Report, RequirementPart, RunPart, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.statistics import holm


@dataclass(frozen=True, slots=True)
class Judgment:
    """A verdict with its reasons and the requirements it rests on."""

    verdict: Verdict
    reasons: tuple[str, ...]
    requirements: tuple[RequirementPart, ...]
    settled: bool
    """Whether more rows have nothing to decide: each requirement is passed or failed, or can never be."""

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return self.verdict.exit_code


@dataclass(frozen=True, slots=True)
class _Case:
    """One requirement with the rate it is about, or why there is none."""

    requirement: Requirement
    found: Judged | None
    missing: str = ""
    distrust: tuple[str, ...] = ()
    certified: Certified | None = None

    def above(self, passing: bool) -> bool:
        """Whether it is a rate above the threshold that shows a pass (or a fail)."""
        return (self.requirement.direction is Direction.AT_LEAST) == passing

    def p_value(self, passing: bool) -> float:
        """How surprising the counts would be if the pass (or the fail) were not deserved."""
        if self.found is None:
            return 1.0
        return self.found.p_value(self.requirement.threshold, above=self.above(passing))


def _case(report: Report, requirement: Requirement) -> _Case:
    metric = requirement.metric
    attackers = [a for a in report.attackers if requirement.against in (None, a.name)]
    if not metric.needs_attacker:  # the clean pass is the same for all
        attackers = [a for a in attackers if a.counts is not None][:1]
    if not attackers:
        named = f"the report has no attacker named '{requirement.against}'"
        return _Case(requirement, None, named if metric.needs_attacker else "no row was measured")
    if not any(metric in known for known in (RATES, POISON_RATES, EXTRACTION_RATES)):
        return _Case(requirement, None, f"{metric} is not built yet in an assessment")
    if len(attackers) > 1:
        return _Case(requirement, None, "several attackers fit; say against which")
    (attacker,) = attackers
    if not attacker.assessed and attacker.poisoning is None and attacker.extraction is None:
        return _Case(requirement, None, attacker.reason or "the attacker was not assessed")
    distrust: tuple[str, ...] = ()
    if metric.needs_attacker and metric is not Metric.CERTIFIED_ACCURACY:  # no attack's failure touches a proof
        distrust = tuple(d.detail for d in attacker.diagnosis if d.blocks_pass)
    found, certified = _rate(requirement, attacker, report.run), _certified(metric, attacker)
    if isinstance(found, str):
        return _Case(requirement, None, found, certified=certified)
    return _Case(requirement, found, "", distrust, certified)


def _certified(metric: Metric, attacker: AttackerPart) -> Certified | None:
    """Rows with a proof, beside the metrics that count robust rows; None where they are not believed."""
    found = attacker.certified
    if metric not in _ROBUST or found is None or found.reason is not None or found.contradicted:
        return None
    return Certified(k=found.certified, n=found.drawn)


_ROBUST = (Metric.ROBUST_ACCURACY, Metric.CERTIFIED_ACCURACY)


def _rate(requirement: Requirement, attacker: AttackerPart, run: RunPart) -> Judged | str:
    """The rate with its bounds, or why there is none."""
    metric = requirement.metric
    if attacker.poisoning is not None and metric in POISON_RATES:
        return POISON_RATES[metric](attacker.poisoning)
    if attacker.extraction is not None and metric in EXTRACTION_RATES:
        return EXTRACTION_RATES[metric](attacker.extraction, requirement.direction)
    if attacker.counts is None or metric not in RATES:
        return f"{metric} is not measured against an attacker of kind {attacker.kind}"
    rate = RATES[metric](attacker, attacker.counts)
    return rate if isinstance(rate, str) else bounded(rate, run)


@dataclass(frozen=True, slots=True)
class _Ruling:
    """What the counts show of one requirement."""

    verdict: Verdict
    reasons: tuple[str, ...]
    bound: float | None = None
    rows: int | None = None
    """Rows that would decide."""
    settled: bool = True


def _ruled(case: _Case, pass_level: float, fail_level: float) -> _Ruling:
    """The bounds at these levels beside the threshold."""
    found, at = case.found, case.requirement.threshold
    if found is None:
        return _Ruling(Verdict.INCONCLUSIVE, (case.missing,))
    worst, empty = found.worst, found.empty
    if not worst.n:
        return _Ruling(Verdict.INCONCLUSIVE, (f"no {found.unit} count toward it",), settled=False)
    if case.requirement.direction is Direction.AT_LEAST:
        (good, good_of), (bad, bad_of) = found.lower(pass_level), found.upper(fail_level)
        passed, failed = good >= at, bad < at
    else:
        (good, good_of), (bad, bad_of) = found.upper(pass_level), found.lower(fail_level)
        passed, failed = good <= at, bad > at
    bound, of = (bad, bad_of) if failed else (good, good_of)
    what = f"{_told(worst, found.unit)}, bound {bound:.4f}{_named(of) if of is not worst else ''}, threshold {at:g}"
    one = "copy" if found.unit == "copies" else found.unit.removesuffix("s")
    unshown = (f"no {one} of {', '.join(empty)} counts, so nothing is shown of it",) if empty else ()
    doubts = case.distrust + (unshown if case.above(True) else ()) + found.doubts(at, above=case.above(True))
    if failed:
        return _Ruling(Verdict.FAIL, (f"shown to miss the threshold: {what}",), bound)
    if passed and doubts:
        reasons = tuple(f"the counts would pass, but cannot be trusted: {why}" for why in doubts)
        return _Ruling(Verdict.INCONCLUSIVE, reasons, bound)
    if passed:
        return _Ruling(Verdict.PASS, (f"shown to meet the threshold: {what}",), bound)
    above = worst.value > at
    rows = found.rows_to_decide(at, pass_level if case.above(True) == above else fail_level, above=above)
    more = f"more {found.unit} would decide" + (f": about {rows} at this rate" if rows else "")
    unproven = sum(count.unproven for count in found.counts)
    told = [f"{unproven} {found.unit} have no certificate and may be robust all the same"] if unproven else []
    told += [more] if rows or not unproven else []
    reasons = (f"not shown either way: {what}; {'; '.join(told)}", *unshown)
    errors, undecided = (sum(each) for each in zip(*((c.errors, c.undecided) for c in found.counts), strict=True))
    if errors + undecided:
        reasons += (f"{errors} {found.unit} errored and {undecided} stayed undecided; they never help",)
    return _Ruling(Verdict.INCONCLUSIVE, reasons, bound, rows, settled=False)


def _told(count: Count, unit: str) -> str:
    whole = not count.held and count.mean is None
    return (f"{count.k} of {count.n}" if whole else f"{count.value:.3f} over {count.n} {unit}") + _named(count)


def _named(count: Count) -> str:
    return "" if count.name is None else f" in {count.name}"


def _part(case: _Case, ruling: _Ruling, confidence: float) -> RequirementPart:
    requirement, found, shown = case.requirement, case.found, None
    count = None if found is None else found.worst
    if found is not None and count is not None and count.n:
        tail = (1 - confidence) / 2
        shown = IntervalPart(
            low=found.lower(tail)[0], high=found.upper(tail)[0], confidence=confidence, method=found.method, sides=2
        )
    return RequirementPart(
        metric=requirement.metric,
        against=requirement.against,
        direction=requirement.direction,
        threshold=requirement.threshold,
        value=None if count is None or not count.n else count.value,
        unit=f"share of {'rows' if found is None else found.unit}" if requirement.metric.is_rate else "distance",
        k=None if count is None or count.mean is not None else count.k,
        n=None if count is None else count.n,
        errors=0 if count is None else count.errors,
        undecided=0 if count is None else count.undecided,
        interval=shown,
        bound_used=ruling.bound,
        rows_to_decide=ruling.rows,
        certified=case.certified,
        verdict=ruling.verdict,
        reasons=list(ruling.reasons),
    )


def judge(report: Report, requirements: Sequence[Requirement] | None = None) -> Judgment:
    """Judge a report by its own requirements, or by others.

    One-sided bounds at the run's confidence, shared by Holm's procedure among the passes and among the fails,
    unless the threat model says family: none. Exact for a fixed number of rows; of a gate's run they hold wherever
    it stopped. One fail fails; else one inconclusive requirement, an attacker who was not assessed, or no
    requirement at all make it inconclusive.
    """
    if requirements is None:
        requirements = [_requirement(part) for part in report.requirements]
    cases = [_case(report, requirement) for requirement in requirements]
    levels = [_levels(cases, report, passing=passing) for passing in (True, False)]
    rulings = [_ruled(case, *shared) for case, *shared in zip(cases, *levels, strict=True)]
    parts = tuple(_part(case, ruling, report.run.confidence) for case, ruling in zip(cases, rulings, strict=True))
    settled = all(ruling.settled for ruling in rulings)
    reasons = [
        f"{p.metric}{f' against {p.against}' if p.against else ''}: {r}"
        for p in parts
        if p.verdict is not Verdict.PASS
        for r in p.reasons
    ]
    if any(part.verdict is Verdict.FAIL for part in parts):
        return Judgment(Verdict.FAIL, tuple(reasons), parts, settled)
    reasons += [f"{a.name}: {a.reason}" for a in report.attackers if not a.assessed]
    if not parts:
        reasons.append("the threat model has no requirements, so there is nothing to pass")
    return Judgment(Verdict.INCONCLUSIVE if reasons else Verdict.PASS, tuple(reasons), parts, settled)


def settled(report: Report) -> bool:
    """Whether a gate may stop: more rows have nothing to decide of the report's requirements.

    A requirement is settled when it is passed or failed, and when it can never be: its metric or its attacker was
    not assessed, or the counts would pass and a diagnosis forbids to trust them.
    """
    return judge(report).settled


def _levels(cases: Sequence[_Case], report: Report, *, passing: bool) -> list[float]:
    """The level at which each requirement's pass (or fail) is tested."""
    alpha = 1 - report.run.confidence
    if report.run.family != "holm":
        return [alpha] * len(cases)
    found = holm([case.p_value(passing) for case in cases], alpha).levels
    tested = [case.found is None or case.found.tests for case in cases]
    # What has no p-value gets the strictest level, and leaves the others theirs.
    return [level if has else alpha / len(cases) for level, has in zip(found, tested, strict=True)]


def _requirement(part: RequirementPart) -> Requirement:
    return Requirement.model_validate(
        {"metric": part.metric, part.direction.value: part.threshold, "against": part.against}
    )
