"""The verdict: pass, fail or inconclusive, computed from a report's counts and nothing else.

A pass needs the bound on the bad side to meet the threshold, a fail the bound on the other side to miss it.
Rows that errored or stayed undecided count against whatever is being shown. At equality a bound meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redan.evidence.bootstrap import bootstrap_bounds
from redan.evidence.report import AttackerPart, IntervalPart, Report, RequirementPart, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.statistics import holm, lower_bound, p_at_least, p_at_most, upper_bound


@dataclass(frozen=True, slots=True)
class Judgment:
    """A verdict with its reasons and the requirements it rests on."""

    verdict: Verdict
    reasons: tuple[str, ...]
    requirements: tuple[RequirementPart, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return self.verdict.exit_code


@dataclass(frozen=True, slots=True)
class _Count:
    """A rate to judge: k of n; low and high: k if every open row went one way, or the other."""

    k: int
    low: int
    high: int
    n: int
    errors: int
    undecided: int
    held: tuple[int, ...] | None = None  # a stochastic model's rows by how often they held

    def lower(self, level: float) -> float:
        if not self.held:
            return lower_bound(self.low, self.n, level)
        return bootstrap_bounds((self.held[0] + self.errors + self.undecided, *self.held[1:]), level)[0]

    def upper(self, level: float) -> float:
        if not self.held:
            return upper_bound(self.high, self.n, level)
        return bootstrap_bounds((*self.held[:-1], self.held[-1] + self.errors + self.undecided), level)[1]

    @property
    def value(self) -> float | None:
        if self.held:
            steps = len(self.held) - 1
            return sum(i * count for i, count in enumerate(self.held)) / steps / max(1, self.n)
        return self.k / self.n if self.n else None


def _clean(a: AttackerPart) -> _Count | None:
    if (c := a.counts) is None:
        return None
    return _Count(c.right, c.right, c.right + c.unanswered, c.drawn, c.unanswered, 0)


def _robust(a: AttackerPart) -> _Count | None:
    if (c := a.counts) is None:
        return None
    held = tuple(c.held) if c.held is not None else None
    return _Count(c.robust, c.robust, c.robust + c.errors + c.undecided, c.drawn, c.errors, c.undecided, held)


def _success(a: AttackerPart) -> _Count | None:
    if (c := a.counts) is None:
        return None
    high = c.broken + c.errors + c.undecided
    return _Count(c.broken, c.broken, high, c.right + c.unanswered, c.errors, c.undecided)


_RATES: dict[Metric, Callable[[AttackerPart], _Count | None]] = {
    Metric.CLEAN_ACCURACY: _clean,
    Metric.ROBUST_ACCURACY: _robust,
    Metric.ATTACK_SUCCESS_RATE: _success,
}


@dataclass(frozen=True, slots=True)
class _Case:
    """One requirement with the rate it is about, or why there is none."""

    requirement: Requirement
    count: _Count | None
    missing: str | None
    distrust: tuple[str, ...]

    def p_value(self, passing: bool) -> float:
        """How surprising the counts would be if the pass (or the fail) were not deserved."""
        count, at = self.count, self.requirement.threshold
        if count is None or not count.n:
            return 1.0
        if count.held:
            return 1.0  # a bootstrap has no p-value: it gets the strictest level, and leaves the others theirs
        above = (self.requirement.direction is Direction.AT_LEAST) == passing
        return p_at_least(count.low, count.n, at) if above else p_at_most(count.high, count.n, at)


def _case(report: Report, requirement: Requirement) -> _Case:
    assessed = [a for a in report.attackers if a.counts is not None]
    if requirement.metric is Metric.CLEAN_ACCURACY:
        if not assessed:
            return _Case(requirement, None, "no row was measured", ())
        return _Case(requirement, _clean(assessed[0]), None, ())
    named = [a for a in report.attackers if requirement.against in (None, a.name)]
    if not named:
        return _Case(requirement, None, f"the report has no attacker named '{requirement.against}'", ())
    if requirement.metric not in _RATES:
        return _Case(requirement, None, f"{requirement.metric} is not built yet", ())
    if len(named) > 1:
        return _Case(requirement, None, "several attackers fit; say against which", ())
    (attacker,) = named
    if attacker.counts is None:
        return _Case(requirement, None, attacker.reason or "the attacker was not assessed", ())
    distrust = tuple(d.detail for d in attacker.diagnosis if d.blocks_pass)
    return _Case(requirement, _RATES[requirement.metric](attacker), None, distrust)


def _judged(case: _Case, pass_level: float, fail_level: float, confidence: float) -> RequirementPart:
    requirement, count, at = case.requirement, case.count, case.requirement.threshold
    verdict, reasons, used, shown = Verdict.INCONCLUSIVE, [], None, None
    if count is None or not count.n:
        reasons = [case.missing or "no row counts toward it"]
    else:
        at_least = requirement.direction is Direction.AT_LEAST
        sides = (count.lower, count.upper) if at_least else (count.upper, count.lower)
        good, bad = sides[0](pass_level), sides[1](fail_level)
        passed = good >= at if at_least else good <= at
        failed = bad < at if at_least else bad > at
        tail = (1 - confidence) / 2
        method = "bootstrap" if count.held else "clopper-pearson"
        shown = IntervalPart(
            low=count.lower(tail), high=count.upper(tail), confidence=confidence, method=method, sides=2
        )
        used = bad if failed else good
        words = f"{count.k} of {count.n}" if not count.held else f"{count.value:.3f} over {count.n} rows"
        what = f"{words}, bound {used:.4f}, threshold {at:g}"
        if failed:
            verdict, reasons = Verdict.FAIL, [f"shown to miss the threshold: {what}"]
        elif passed and not case.distrust:
            verdict, reasons = Verdict.PASS, [f"shown to meet the threshold: {what}"]
        elif passed:
            reasons = [f"the counts would pass, but cannot be trusted: {why}" for why in case.distrust]
        else:
            reasons = [f"not shown either way: {what}; more rows would decide"]
            if count.errors + count.undecided:
                reasons.append(f"{count.errors} rows errored and {count.undecided} stayed undecided; they never help")
    return RequirementPart(
        metric=requirement.metric,
        against=requirement.against,
        direction=requirement.direction,
        threshold=at,
        value=None if count is None else count.value,
        unit="share of rows" if requirement.metric.is_rate else "distance",
        k=None if count is None else count.k,
        n=None if count is None else count.n,
        errors=0 if count is None else count.errors,
        undecided=0 if count is None else count.undecided,
        interval=shown,
        bound_used=used,
        rows_to_decide=None,
        certified=None,
        verdict=verdict,
        reasons=reasons,
    )


def judge(report: Report, requirements: Sequence[Requirement] | None = None) -> Judgment:
    """Judge a report by its own requirements, or by others.

    One-sided exact bounds at the run's confidence, shared by Holm's procedure among the passes and among the
    fails, unless the threat model says family: none. One fail fails; else one inconclusive requirement, an
    attacker who was not assessed, or no requirement at all make it inconclusive.
    """
    if requirements is None:
        requirements = [_requirement(part) for part in report.requirements]
    cases = [_case(report, requirement) for requirement in requirements]
    alpha = 1 - report.run.confidence
    levels = []
    for passing in (True, False):
        strict = alpha / max(1, len(cases))
        found = holm([case.p_value(passing) for case in cases], alpha).levels
        level = [strict if c.count is not None and c.count.held else at for c, at in zip(cases, found, strict=True)]
        levels.append(level if report.run.family == "holm" else [alpha] * len(cases))
    parts = tuple(
        _judged(case, passing, failing, report.run.confidence)
        for case, passing, failing in zip(cases, *levels, strict=True)
    )
    reasons = [
        f"{p.metric}{f' against {p.against}' if p.against else ''}: {r}"
        for p in parts
        if p.verdict is not Verdict.PASS
        for r in p.reasons
    ]
    if any(part.verdict is Verdict.FAIL for part in parts):
        return Judgment(Verdict.FAIL, tuple(reasons), parts)
    reasons += [f"{a.name}: {a.reason}" for a in report.attackers if a.counts is None]
    if not parts:
        reasons.append("the threat model has no requirements, so there is nothing to pass")
    return Judgment(Verdict.INCONCLUSIVE if reasons else Verdict.PASS, tuple(reasons), parts)


def _requirement(part: RequirementPart) -> Requirement:
    return Requirement.model_validate(
        {"metric": part.metric, part.direction.value: part.threshold, "against": part.against}
    )
