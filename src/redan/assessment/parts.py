"""The plan, the attackers and the standards in the report's words."""

from __future__ import annotations

from redan.evidence.log import StandardHead
from redan.evidence.report import PlanPart
from redan.extraction.customer import Shows, View
from redan.threat import attackers as who
from redan.threat.parts import Part
from redan.threat.planner import Plan
from redan.threat.schema import ThreatModel
from redan.threat.standards import crosswalk, subjects_of


def change_of(attacker: who.Attacker) -> str | None:
    """What the attacker may change, in the file's words."""
    match attacker:
        case who.Evasion(change=change):
            return ", ".join(f"{key}: {value}" for key, value in change.model_dump(mode="json").items())
        case who.Poisoning(capability=capability):
            labels = "labels too" if capability.may_change_labels else "labels stay true"
            of = f" of {', '.join(capability.sources)}" if capability.sources else ""
            return f"{100 * capability.share:g} % of the training rows{of}, {labels}"
    return None


def answers_of(view: View) -> str:
    """What an answer holds for its customer, in words."""
    if view.shows is Shows.LABELS:
        return "the class alone"
    scores = "raw scores" if view.shows is Shows.RAW else "probabilities"
    cut = "" if view.top is None else f", the {view.top} largest"
    noise = f", with noise of {view.noise:g}" if view.noise else ""
    return scores + noise + cut + ("" if view.decimals is None else f", rounded to {view.decimals} decimals")


def goal_of(attacker: who.Attacker) -> str:
    """What the attacker wants, in the file's words."""
    goal = attacker.goal
    return _words(goal.model_dump(mode="json", exclude_none=True) if isinstance(goal, Part) else goal)


def _words(said: object) -> str:
    """What a file says, in one line, the braces and quotes left out."""
    if not isinstance(said, dict):
        return str(said)
    return ", ".join(
        f"{key} ({_words(value)})" if isinstance(value, dict) else f"{key}: {value}" for key, value in said.items()
    )


def plan_parts(plan: Plan) -> list[PlanPart]:
    """The plan as the report shows it."""
    return [
        PlanPart(
            attacker=step.attacker,
            attack=step.attack,
            status=str(step.status),
            reason=step.reason,
            techniques=list(step.techniques),
            queries=step.queries,
            forwards=step.forwards,
            backwards=step.backwards,
            usd=step.usd,
        )
        for step in plan.steps
    ]


def techniques_of(attacker: who.Attacker) -> list[str]:
    """The ids of MITRE ATLAS for what an attacker does."""
    return sorted(id for id in crosswalk().of(*subjects_of(attacker)) if id.startswith("AML.T"))


def standard_heads(model: ThreatModel) -> list[StandardHead]:
    """Every item of the standards, with the attackers that it is about."""
    known = crosswalk()
    about = [(known.of(*subjects_of(attacker)), attacker.name) for attacker in model.attackers]
    about += [(known.of(*subjects_of(each)), each.against) for each in model.requirements if each.against]
    of_itself = [each for each in model.requirements if each.against is None]
    checks = [subject for subject in known.subjects if subject.startswith("check/")]
    itself = known.of("report", *checks, *(subject for each in of_itself for subject in subjects_of(each)))
    heads = []
    for item in known.items.values():
        text = known.texts[item.text]
        heads.append(
            StandardHead(
                id=item.id,
                name=item.name,
                text=text.name,
                version=text.version,
                date=text.date.isoformat(),
                source=text.source,
                attackers=list(dict.fromkeys(name for ids, name in about if item.id in ids)),
                itself=item.id in itself,
                shows=item.shows,
                shows_not=item.shows_not,
            )
        )
    return heads
