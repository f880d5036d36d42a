"""What every view says in the same words: what broke, how sure that is, what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from redan.evidence.defended import shown
from redan.evidence.report import (
    AttackerPart,
    ClassPart,
    Diagnosis,
    Doubt,
    Report,
    RequirementPart,
    RetryPart,
    RiskPart,
    Tried,
    Verdict,
)
from redan.evidence.requirement import Direction, Metric
from redan.evidence.statistics import lower_bound, upper_bound
from redan.report.figures import NONE, capital, percent, sentence, tenths

__all__ = [
    "NONE",
    "asked",
    "attacker_of",
    "by_risk",
    "capital",
    "class_name",
    "counted",
    "doubts",
    "examined",
    "found",
    "headline",
    "must",
    "noted",
    "percent",
    "retried",
    "said_counts",
    "sentence",
    "span",
    "sure",
    "threshold",
    "titled",
    "worst_classes",
]

_TITLES = {
    Metric.CLEAN_ACCURACY: "accuracy without an attacker",
    Metric.ROBUST_ACCURACY: "accuracy under attack",
    Metric.WORST_CLASS_ROBUST_ACCURACY: "accuracy of the worst class under attack",
    Metric.ATTACK_SUCCESS_RATE: "share of right rows broken",
    Metric.BACKDOOR_SUCCESS: "share of triggered rows answered as the attacker wants",
    Metric.POISONED_ACCURACY: "accuracy after training on poisoned rows",
    Metric.EXTRACTION_FIDELITY: "agreement of a stolen copy",
    Metric.TRANSFER_SUCCESS: "share of right rows broken by inputs made on a stolen copy",
}
_CHOSEN = "share of chosen rows answered as the attacker wants"
VICTIMS, COPIES = "share of victims", "share of copies"
"""The units of what is measured over trained victims and stolen copies."""


def _bound(value: float, direction: str, at: float) -> str:
    """A bound in percent, rounded to the careful side, with as many places as keep it on its side of a threshold."""
    rounding = ROUND_FLOOR if direction == "at least" else ROUND_CEILING
    for places in ("0.1", "0.01", "0.001", "0.0001"):
        shown = tenths(value, rounding, places)
        if (shown < 100 * Decimal(str(at))) == (value < at):
            break
    return f"{direction} {shown}\N{NO-BREAK SPACE}%"


def threshold(part: RequirementPart) -> str:
    """The threshold as one reads it: percent for a rate, with all the places that the threat model gives."""
    if not part.metric.is_rate:
        return f"{part.threshold:g}"
    return f"{(100 * Decimal(str(part.threshold))).normalize():f}\N{NO-BREAK SPACE}%"


def asked(part: RequirementPart) -> str:
    """A requirement as the threat model has it: `robust_accuracy ≥ 0.6`."""
    sign = "≥" if part.direction is Direction.AT_LEAST else "≤"
    return f"{part.metric} {sign} {part.threshold:.10g}"


def titled(part: RequirementPart) -> str:
    """A requirement's metric in plain words, with the attacker."""
    title = _TITLES.get(part.metric, str(part.metric).replace("_", " "))
    if part.metric is Metric.ATTACK_SUCCESS_RATE and part.unit == VICTIMS:
        title = _CHOSEN
    return title if part.against is None else f"{title} by {part.against}"


def found(part: RequirementPart) -> str:
    """What was observed of a requirement, and of how many rows, victims or copies."""
    if part.value is None:
        return "not measured"
    value = percent(part.value) if part.metric.is_rate else f"{part.value:.4g}"
    if part.k is not None:
        return f"{value} ({part.k:,} of {part.n:,} {counted(part)})"
    return value if part.n is None else f"{value} (mean of {part.n:,} {counted(part)})"


def counted(part: RequirementPart) -> str:
    """What a requirement's n counts."""
    return {VICTIMS: "victims", COPIES: "copies"}.get(part.unit, "rows")


def sure(report: Report, part: RequirementPart) -> str:
    """How sure a requirement's verdict is, as one sentence."""
    if part.bound_used is None or not part.metric.is_rate:
        return f"{titled(part)}: nothing is shown"
    more = part.direction is Direction.AT_LEAST
    side = "at least" if more != (part.verdict is Verdict.FAIL) else "at most"
    known = "is" if part.verdict is not Verdict.INCONCLUSIVE else "is only shown to be"
    level = f"{100 * report.run.confidence:g}\N{NO-BREAK SPACE}% confidence"
    if report.run.family == "holm" and len(report.requirements) > 1:
        level += f" for the {len(report.requirements)} requirements together"
    return f"{titled(part)} {known} {_bound(part.bound_used, side, part.threshold)}, at {level}"


def headline(report: Report) -> tuple[str, ...]:
    """What broke, or held, or stayed open: a sentence each."""
    worst = [part for part in report.requirements if part.verdict is report.verdict]
    lines = tuple(f"{titled(part)}: {found(part)}, required {must(part)}" for part in worst)
    return lines or tuple(report.reasons) or ("the threat model requires nothing",)


def must(part: RequirementPart) -> str:
    """What a requirement asks of the value."""
    return f"{'at least' if part.direction is Direction.AT_LEAST else 'at most'} {threshold(part)}"


def attacker_of(report: Report, part: RequirementPart) -> AttackerPart | None:
    """The attacker that a requirement is about."""
    return next((a for a in report.attackers if a.name == part.against), None)


def by_risk(report: Report) -> list[tuple[AttackerPart, RiskPart | None]]:
    """The attackers, the one whose success is worst first; last those of whom nothing was measured."""
    risks = {risk.attacker: risk for risk in report.risks}
    pairs = [(part, risks.get(part.name)) for part in report.attackers]
    return sorted(pairs, key=lambda pair: (pair[1] is None, pair[1].rank if pair[1] else 0))


def worst_classes(part: AttackerPart) -> list[ClassPart]:
    """The classes of which rows were drawn, that with the lowest robust accuracy first."""
    return sorted((c for c in part.by_class if c.drawn), key=lambda c: (c.robust / c.drawn, c.name))


def class_name(report: Report, index: int) -> str:
    """A class's name, or its number where it has none; the answer after the last class is a detector's refusal."""
    if report.detector is not None and index == len(report.classes):
        return "refused"
    return report.classes[index] if 0 <= index < len(report.classes) else f"class {index}"


def span(report: Report, k: int, n: int, unsettled: int = 0) -> tuple[float, float] | None:
    """The two-sided exact interval of k of n rows, of which `unsettled` more may be successes.

    None where it would not hold: of a gate, which chose n by what it saw, and of a model that answers by chance.
    """
    if report.run.gate or report.run.model_stochastic or not n:
        return None
    tail = (1 - report.run.confidence) / 2
    return lower_bound(k, n, tail), upper_bound(k + unsettled, n, tail)


def said_counts(part: AttackerPart) -> list[tuple[str, int, str]]:
    """What became of an attacker's rows: (key, rows, words), nothing that is zero but for robust and broken."""
    if (c := part.counts) is None:
        return []
    wrong = c.drawn - c.right - c.unanswered - c.missing
    kinds = (
        ("robust", c.robust, "robust"),
        ("broken", c.broken, "broken"),
        ("open", c.errors + c.undecided + c.missing, "not judged"),
        ("wrong", wrong, "wrong without an attack"),
    )
    return [(key, rows, words) for key, rows, words in kinds if rows or key in ("robust", "broken")]


def doubts(part: AttackerPart) -> list[Diagnosis]:
    """What is suspicious about an attacker's numbers."""
    return [diagnosis for diagnosis in part.diagnosis if diagnosis.status is Doubt.SUSPICIOUS]


def examined(part: AttackerPart) -> str | None:
    """How many indicators of a failing attack were looked at, in words; None where none was."""
    counted = Counter(diagnosis.status for diagnosis in part.diagnosis)
    if not counted[Doubt.OK] + counted[Doubt.NOT_APPLICABLE]:
        return None
    rest = f", {counted[Doubt.NOT_APPLICABLE]} not applicable" if counted[Doubt.NOT_APPLICABLE] else ""
    return f"{counted[Doubt.OK]} of {len(part.diagnosis)} indicators of a failing attack give no reason to doubt{rest}"


def retried(part: AttackerPart) -> list[str]:
    """What was tried again, and what it changed; a comparison tells of its own inputs itself."""
    compared = [shown(each.beside) for each in part.defended]
    others = [retry for retry in part.retries if retry.name not in compared]
    return [f"{retry.name}: {_changed(retry)}; {retry.detail}" for retry in others]


def _changed(retry: RetryPart) -> str:
    if retry.status is Tried.NOT_APPLICABLE:
        return "not applicable"
    cut = " before our limits ended it" if retry.status is Tried.CUT else ""
    return f"broke {retry.broken:,} of {retry.attempted:,} rows that it was tried on{cut}"


def noted(report: Report) -> list[str]:
    """What to be careful about, the attackers' diagnoses first."""
    found = [f"{a.name}: {d.name}: {d.detail}" for a in report.attackers for d in doubts(a)]
    found += [f"{a.name}: tried again, {retry}" for a in report.attackers for retry in retried(a)]
    found += [f"{a.name}: {note}" for a in report.attackers if a.poisoning for note in a.poisoning.notes]
    found += [f"{a.name}: {note}" for a in report.attackers if a.extraction for note in a.extraction.notes]
    return found + cautions(report)


def calls(report: Report) -> list[str]:
    """What the endpoint was sent, and what was recognised of its answers; nothing for a model that is here."""
    part = report.calls
    if part is None:
        return []
    failed = ", ".join(f"{count:,} {reason}" for reason, count in part.failed.items())
    ends = (
        f"{part.answered:,} answered",
        f"{part.refused:,} refused for now" if part.refused else "",
        f"{sum(part.failed.values()):,} failed ({failed})" if part.failed else "",
        f"{len(part.unknown):,} of unknown fate, and billed" if part.unknown else "",
    )
    money = "" if part.usd is None else f"; about {part.usd:,.2f} USD"
    return [f"the endpoint was sent {part.sent:,} requests: {', '.join(filter(None, ends))}{money}", *part.notes]


def served(defenses: Sequence[str]) -> str:
    """What an input meets on its way to the model's answer; defenses: in words, the outermost last."""
    return " → ".join(("input", *reversed(defenses), "model"))


def cautions(report: Report) -> list[str]:
    """Warnings of the preflight, rows not judged, what was skipped, what ended the run."""
    said = [
        "; ".join(word for word in (f"preflight {check.check}: {check.detail}", check.remedy) if word)
        for check in report.preflight
        if check.status != "pass"
    ]
    units = {part.name: "victims" for part in report.attackers if part.poisoning is not None}
    units |= {part.name: "copies" for part in report.attackers if part.extraction is not None}
    said += [
        f"{e.rows:,} {units.get(e.attacker, 'rows')} could not be judged: {e.reason} (first: {e.first})"
        for e in report.errors
    ]
    said += [f"skipped on request: {name}" for name in report.skipped]
    said += [f"our own limit of {hit} ended the run: rows cut off are undecided" for hit in report.limits_hit]
    said += calls(report)
    if report.run.gate and report.run.rows < report.run.planned:
        said.append(f"the gate took {report.run.rows:,} of {report.run.planned:,} rows: no more were needed to decide")
    if any(part.counts is not None and part.counts.missing for part in report.attackers):
        said.append("the run was broken off before all rows were reached: redan assess --resume goes on with it")
    if not report.run.reproducible:
        said.append("the run cannot be repeated exactly")
    return said
