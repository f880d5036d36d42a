"""The plan and the attackers in the report's words."""

from __future__ import annotations

from redan.evidence.report import PlanPart
from redan.threat import attackers as who
from redan.threat.parts import Part
from redan.threat.planner import Campaign, Plan


def change_of(campaign: Campaign) -> str | None:
    """What the attacker may change, in the file's words."""
    match campaign.attacker:
        case who.Evasion(change=change):
            return ", ".join(f"{key}: {value}" for key, value in change.model_dump(mode="json").items())
    return None


def goal_of(campaign: Campaign) -> str:
    """What the attacker wants, in the file's words."""
    goal = campaign.attacker.goal
    said = goal.model_dump(mode="json", exclude_none=True) if isinstance(goal, Part) else goal
    return ", ".join(f"{key}: {value}" for key, value in said.items()) if isinstance(said, dict) else str(said)


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
