"""From the log to the report: counts, accounts and diagnoses of each attacker, read from the evidence alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redan.assessment.preflight import Finding
from redan.engine.outcomes import Account, summed
from redan.evidence.report import (
    AttackerPart,
    AttackPart,
    ClassPart,
    Counts,
    Diagnosis,
    ErrorPart,
    PlanPart,
)
from redan.protocols import Access, settings
from redan.registry import ATTACKS
from redan.threat import attackers as who
from redan.threat.planner import Campaign, Plan

_BINS = 20


@dataclass
class Tally:
    """One attacker's rows, counted line by line."""

    drawn: Counter[int] = field(default_factory=Counter)  # by class
    right: Counter[int] = field(default_factory=Counter)
    robust: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    broken: int = 0
    errors: int = 0
    undecided: int = 0
    held: list[int] = field(default_factory=lambda: [0] * (_BINS + 1))
    blind: int = 0
    backwards: int = 0
    by: Counter[str] = field(default_factory=Counter)  # rows that each attack broke
    accounts: dict[str, list[Account]] = field(default_factory=lambda: defaultdict(list))
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)


def tally(records: Iterable[dict[str, Any]], attacker: str) -> Tally:
    """Count one attacker's lines of the log; a row's measured status is its last word."""
    found, rows = Tally(), {}
    for record in records:
        if record.get("attacker") != attacker:
            continue
        if record["event"] == "row":
            rows[record["row"]] = record
        elif record["event"] == "block":
            for account in record["accounts"]:
                found.accounts[account["name"]].append(Account(**account))
        elif record["event"] == "measured":
            _count(found, rows.pop(record["row"]), record)
    return found


def _count(found: Tally, row: dict[str, Any], measured: dict[str, Any]) -> None:
    y, right, status = row["y"], row["right"], measured["status"]
    found.drawn[y] += 1
    found.right[y] += right
    found.blind += row["blind"]
    found.backwards += row["backwards"]
    if status == "error":
        found.errors += right or not row["answered"]
        found.unanswered += not row["answered"]
        rows, first = found.reasons.get(measured["reason"], (0, row["id"]))
        found.reasons[measured["reason"]] = (rows + 1, first)
    elif status == "undecided" and right:
        found.undecided += 1
    elif right and status == "broken":
        found.broken += 1
        found.by[row["by"]] += 1
    elif right and status == "robust":
        found.robust[y] += 1
    if status in ("broken", "robust") or (row["answered"] and not right):
        found.held[round((1 - measured["share"]) * _BINS) if right or status == "broken" else 0] += 1


def _diagnosis(found: Tally, findings: Sequence[Finding], undone: Sequence[str], knowledge: Access) -> list[Diagnosis]:
    diagnoses = [
        Diagnosis(
            name="masked gradients",
            detail=f"{finding.detail}: attacks that climb gradients are blind there",
            blocks_pass=True,
        )
        for finding in findings
        if finding.check == "gradients" and finding.fired and knowledge == Access.GRADIENTS
    ]
    if found.backwards and found.blind > 0.5 * found.backwards and not diagnoses:
        share = found.blind / found.backwards
        diagnoses.append(
            Diagnosis(
                name="vanishing gradients",
                detail=f"{share:.0%} of the gradients that attacks asked for were zero or not finite",
                blocks_pass=True,
            )
        )
    if undone:
        diagnoses.append(
            Diagnosis(
                name="attacks that failed", detail=f"{', '.join(undone)} raised and did not finish", blocks_pass=True
            )
        )
    return diagnoses


def attacker_part(
    campaign: Campaign,
    records: Iterable[dict[str, Any]],
    findings: Sequence[Finding],
    classes: Sequence[str],
    stochastic: bool,
    cut: bool,
) -> tuple[AttackerPart, list[ErrorPart]]:
    """One assessed attacker, and the rows that could not be judged."""
    attacker = campaign.attacker
    found = tally(records, attacker.name)
    said = {name: settings(attack) for name, attack in campaign.attacks}
    attacks, undone = [], []
    for name, accounts in found.accounts.items():
        total = summed(accounts)
        if total.reason:
            undone.append(name)
        attacks.append(
            AttackPart(
                name=name,
                settings=said[name],
                status="error" if total.reason else "cut" if cut else "done",
                attempted=total.attempted,
                broken=found.by[name],
                errors=total.errors,
                queries=total.queries,
                forwards=total.forwards,
                backwards=total.backwards,
                seconds=round(total.seconds, 3),
                usd=None,
            )
        )
    counts = Counts(
        drawn=found.drawn.total(),
        right=found.right.total(),
        unanswered=found.unanswered,
        robust=found.robust.total(),
        broken=found.broken,
        errors=found.errors,
        undecided=found.undecided,
        held=found.held if stochastic else None,
    )
    techniques = {t for e in ATTACKS if e.name in said for t in e.techniques}
    part = AttackerPart(
        name=attacker.name,
        kind=str(attacker.kind),
        techniques=sorted(techniques),
        change=change_of(campaign),
        knowledge=campaign.knowledge.name.lower(),
        status="assessed",
        reason=None,
        counts=counts,
        attacks=attacks,
        by_class=[
            ClassPart(name=name, drawn=found.drawn[c], right=found.right[c], robust=found.robust[c])
            for c, name in enumerate(classes)
        ],
        curve=[],
        success_8bit=None,
        diagnosis=_diagnosis(found, findings, undone, campaign.knowledge),
    )
    errors = [
        ErrorPart(attacker=attacker.name, reason=reason, rows=rows, first=first)
        for reason, (rows, first) in found.reasons.items()
    ]
    return part, errors


def change_of(campaign: Campaign) -> str | None:
    """What the attacker may change, in the file's words."""
    match campaign.attacker:
        case who.Evasion(change=change):
            return ", ".join(f"{key}: {value}" for key, value in change.model_dump(mode="json").items())
    return None


def unbuilt_part(campaign: Campaign) -> AttackerPart:
    """An attacker who was not assessed, and why."""
    reason = campaign.reason or "every attack was skipped"
    return AttackerPart(
        name=campaign.attacker.name,
        kind=str(campaign.attacker.kind),
        techniques=[],
        change=change_of(campaign),
        knowledge=None,
        status="not built" if campaign.reason else "skipped",
        reason=reason,
        counts=None,
        attacks=[],
        by_class=[],
        curve=[],
        success_8bit=None,
        diagnosis=[],
    )


def plan_parts(plan: Plan) -> list[PlanPart]:
    """The plan as the report shows it."""
    return [
        PlanPart(
            attacker=step.attacker,
            attack=step.attack,
            status=step.status,
            reason=step.reason,
            techniques=list(step.techniques),
            queries=step.queries,
            forwards=step.queries,
            backwards=step.backwards,
        )
        for step in plan.steps
    ]
