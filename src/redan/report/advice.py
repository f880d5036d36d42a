"""What to do next, requirement by requirement."""

from __future__ import annotations

from collections.abc import Iterator

from redan.evidence.report import Report, RequirementPart, Verdict
from redan.evidence.requirement import Direction, Metric
from redan.report import extraction_advice, poison_words
from redan.report.words import COPIES, VICTIMS, attacker_of, counted, titled

__all__ = ["next_steps"]


def next_steps(report: Report) -> tuple[str, ...]:
    """What to do now, most pressing first."""
    steps = [step for part in report.requirements if part.verdict is Verdict.FAIL for step in _mend(report, part)]
    steps += [
        step for part in report.requirements if part.verdict is Verdict.INCONCLUSIVE for step in _settle(report, part)
    ]
    steps += [f"{a.name} was not assessed: {a.reason}" for a in report.attackers if not a.assessed]
    if not report.requirements:
        steps.append("Write requirements into the threat model: without them there is nothing to pass")
    if report.verdict is Verdict.PASS:
        steps.append(f"Keep this run as the baseline: redan report NEW-RUN --compare {report.run.folder}")
    return tuple(dict.fromkeys(steps))


def _mend(report: Report, part: RequirementPart) -> Iterator[str]:
    attacker = attacker_of(report, part)
    if not part.metric.needs_attacker:
        yield "Mend the model before its robustness: it misses a requirement without any attacker"
    elif attacker is not None and attacker.poisoning is not None:
        yield from poison_words.advice(attacker, attacker.poisoning)
    elif attacker is not None and attacker.extraction is not None and part.direction is Direction.AT_MOST:
        yield from extraction_advice.advice(attacker, attacker.extraction, part)
    elif attacker is None or attacker.kind != "evasion":
        yield f"Change the model or its defenses against {part.against}, then assess again"
    else:
        lost = sorted((c for c in attacker.by_class if c.robust < c.right), key=lambda c: (c.robust - c.right, c.name))
        names = ", ".join(c.name for c in lost[:3])
        within = "" if attacker.change is None else f" within {attacker.change}"
        most = f"; most rows are lost in {names}" if names else ""
        yield f"Train the model against {attacker.name}{within} (adversarial training), then assess again{most}"


def _settle(report: Report, part: RequirementPart) -> Iterator[str]:
    attacker = attacker_of(report, part)
    blocked = [diagnosis for diagnosis in attacker.diagnosis if diagnosis.blocks_pass] if attacker else []
    if blocked:
        why = blocked[0].detail if len(blocked) == 1 else ", ".join(diagnosis.name for diagnosis in blocked)
        yield f"Find out why before you trust a pass against {part.against}: {why}"
    if part.rows_to_decide is not None and part.unit == VICTIMS:
        yield f"Train about {part.rows_to_decide:,} victims of each attack, then assess again"
    elif part.rows_to_decide is not None and part.unit == COPIES:
        yield f"Make about {part.rows_to_decide:,} copies by each extractor (extraction: copies), then assess again"
    elif part.rows_to_decide is not None:
        yield f"Draw about {part.rows_to_decide:,} rows (statistics: rows), then assess again"
    elif part.value == part.threshold:
        yield f"{titled(part)}: what was measured is the threshold itself, which no number of {counted(part)} decides"
    if part.undecided:
        left = f"{part.undecided:,} {counted(part)} are undecided"
        yield f"Raise our limits (limits:), and go on with redan assess --resume: {left}"
    proven = part.certified
    if part.metric is Metric.CERTIFIED_ACCURACY and proven is not None and proven.k < proven.n:
        yield (
            f"Train the model for certificates (redan harden --method ibp), or require robust_accuracy instead: "
            f"{proven.n - proven.k:,} rows have no certificate"
        )
    if part.errors:
        yield f"Mend what kept {part.errors:,} {counted(part)} from being judged, then assess again"
    if part.bound_used is None:
        yield from (f"{titled(part)}: {reason}" for reason in part.reasons)
