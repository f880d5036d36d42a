"""What was certified, how, and whether that meets what the file requires of certified accuracy.

A certificate is a lower bound: the rows that have one are robust, those without may be. So a pass can be shown; a fail
only by rows that are shown to break, which an incomplete verifier finds among the wrong ones alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from redan.evidence.base import Part
from redan.evidence.report import IntervalPart, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.statistics import holm, lower_bound, p_at_least, p_at_most, upper_bound

__all__ = ["Certified", "CertifiedLine", "Ruling", "Subject", "judged", "worst"]


class Subject(StrEnum):
    """What a certificate is of."""

    SERVED = "served"
    """The model as the file serves it."""
    SMOOTHED = "smoothed"
    """The vote of that model's answers under noise, which the file does not serve."""
    DEFENDED = "defended"
    """PatchCleanser around that model, which the file does not serve."""


class CertifiedLine(Part):
    """Certified accuracy at one radius."""

    attackers: list[str]
    """For whom the radius was asked about; empty for patches."""
    norm: str
    """linf, l2, or patch."""
    radius: float
    """In units of the box; of patches the side, in pixels."""
    covers: list[str]
    """Attackers whose whole set lies inside."""
    subject: Subject
    k: int
    """Rows that are right and certified."""
    n: int
    """Rows that were looked at."""
    interval: IntervalPart
    """Of the share k of n, for rows drawn as these were."""
    right: int
    """Rows that the certified classifier answers right as they stand."""
    open: int
    """Rows that are neither certified nor shown to break."""
    completeness: str
    certainty: str
    verifier: str
    """All words of ISO/IEC 24029-2 for the verifier."""
    alpha: float | None
    """The chance at the most that a row's certificate is false; absent for a deterministic verifier."""
    samples: float | None
    """Noisy answers a row, on average; absent where there is no noise."""
    seconds: float
    """Of all rows; of trees one search answers all radii, and its seconds are each one's."""


class Ruling(Part):
    """One requirement on certified accuracy."""

    against: str
    direction: Direction
    threshold: float
    bound: float | None
    """The one-sided exact bound that decided, or failed to."""
    verdict: Verdict
    reasons: list[str]


class Certified(Part):
    """What `redan.certify` found. verdict: absent where the file requires no certified accuracy."""

    model: str
    subject: Subject
    sigma: float | None
    """The noise of the smoothed model; absent where there is none."""
    rows: int
    """Rows that were to be looked at."""
    confidence: float
    served_right: int | None
    """Rows that the model as served answers right, of those looked at; absent where that is what was certified."""
    lines: list[CertifiedLine]
    requirements: list[Ruling]
    verdict: Verdict | None
    stopped: str | None
    """Why not every row was looked at: interrupted, or the limit of the file that was hit."""
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """0 pass, or nothing required; 1 fail; 3 inconclusive."""
        return 0 if self.verdict is None else self.verdict.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One requirement with the line that speaks of it, or why there is none."""

    requirement: Requirement
    line: CertifiedLine | None
    missing: str
    rows: int

    @property
    def least(self) -> int:
        """Rows that are certified, of all drawn."""
        return 0 if self.line is None else self.line.k

    @property
    def most(self) -> int:
        """Rows that may be robust: all but those shown to break."""
        return self.rows if self.line is None else self.rows - (self.line.n - self.line.k - self.line.open)

    def _by_chance(self, rate: float) -> float:
        """The share of certified rows that this share of robust rows has at the most."""
        alpha = 0.0 if self.line is None else self.line.alpha or 0.0
        return alpha + (1 - alpha) * rate

    def lower(self, level: float) -> float:
        shift = self._by_chance(0.0)
        return max(0.0, (lower_bound(self.least, self.rows, level) - shift) / (1 - shift))

    def p_value(self, *, passing: bool) -> float:
        if self.line is None or not self.rows:
            return 1.0
        at, up = self.requirement.threshold, self.requirement.direction is Direction.AT_LEAST
        if up == passing:
            return p_at_least(self.least, self.rows, self._by_chance(at))
        return p_at_most(self.most, self.rows, at)


def judged(
    requirements: Sequence[Requirement], lines: Sequence[CertifiedLine], rows: int, confidence: float, *, family: bool
) -> list[Ruling]:
    """Each requirement on certified accuracy, by one-sided exact bounds at this confidence of all `rows` drawn.

    family: whether the requirements share the risk by Holm's procedure. Rows that were not reached never help.
    """
    cases = [_case(each, lines, rows) for each in requirements if each.metric is Metric.CERTIFIED_ACCURACY]
    levels = [
        holm([case.p_value(passing=passing) for case in cases], 1 - confidence).levels
        if family
        else [1 - confidence] * len(cases)
        for passing in (True, False)
    ]
    return [_ruled(case, *shared) for case, *shared in zip(cases, *levels, strict=True)]


def worst(found: Sequence[Verdict]) -> Verdict | None:
    """One fail fails, and one that is not shown passes nothing; None where nothing is required.

    >>> worst([Verdict.PASS, Verdict.INCONCLUSIVE]).value
    'inconclusive'
    """
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    return next((verdict for verdict in order if verdict in found), None)


def _case(requirement: Requirement, lines: Sequence[CertifiedLine], rows: int) -> _Case:
    """The smallest set that holds the attacker's: the one of which most rows can be certified."""
    name = str(requirement.against)
    about = sorted((line for line in lines if name in line.covers), key=lambda line: line.radius)
    missing = f"nothing is certified against {name}, whose change is not linf or l2, or who was not asked about"
    if any(name in line.attackers for line in lines):
        missing = (
            f"nothing was certified that holds all that {name} may do; leave the radii out, or give the attacker's"
        )
    served = [line for line in about if line.subject is Subject.SERVED]
    if about and not served:
        missing = (
            f"the {about[0].subject} model was certified, and the file serves the model without that: the counts are "
            "not about what is served"
        )
    return _Case(requirement=requirement, line=served[0] if served else None, missing=missing, rows=rows)


def _ruled(case: _Case, pass_level: float, fail_level: float) -> Ruling:
    requirement, line = case.requirement, case.line
    at, up = requirement.threshold, requirement.direction is Direction.AT_LEAST

    def ruling(verdict: Verdict, bound: float | None, *reasons: str) -> Ruling:
        return Ruling(
            against=str(requirement.against),
            direction=requirement.direction,
            threshold=at,
            bound=bound,
            verdict=verdict,
            reasons=list(reasons),
        )

    if line is None or not case.rows:
        return ruling(Verdict.INCONCLUSIVE, None, case.missing)
    low = case.lower(pass_level if up else fail_level)
    high = upper_bound(case.most, case.rows, fail_level if up else pass_level)
    passed, failed = (low >= at, high < at) if up else (high <= at, low > at)
    certain = f"{case.least:,} of {case.rows:,} certified, bound {low:.4f}"
    possible = f"{case.most:,} of {case.rows:,} not shown to break, bound {high:.4f}"
    if passed:
        shown, bound = (certain, low) if up else (possible, high)
        return ruling(Verdict.PASS, bound, f"shown to meet the threshold: {shown}, threshold {at:g}")
    if failed:
        shown, bound = (possible, high) if up else (certain, low)
        return ruling(Verdict.FAIL, bound, f"shown to miss the threshold: {shown}, threshold {at:g}")
    open_rows = case.most - case.least
    why = f"not shown either way: {certain}, threshold {at:g}"
    if not open_rows:
        return ruling(Verdict.INCONCLUSIVE, low if up else high, f"{why}; more rows would decide")
    return ruling(
        Verdict.INCONCLUSIVE,
        low if up else high,
        f"{why}; {open_rows:,} rows have no certificate and may be robust all the same, so their number shows no fail",
    )
