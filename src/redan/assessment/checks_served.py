"""Checks of what is served with the model or as the model: each member of an ensemble, and the detector.

The checks of the answers see an ensemble's common answer, which hides what a member answers, and the answers of a model
without its detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from redan.answers import evaluate, micro_batch
from redan.assessment import checks_answers
from redan.assessment.checks_look import first_look
from redan.assessment.checks_scene import Budget, Finding, Level, Scene
from redan.assessment.meeting import answering
from redan.ensembles import Together
from redan.errors import AccessError
from redan.evidence.detected import DetectorHead
from redan.evidence.statistics import interval
from redan.goals import Untargeted
from redan.losses import margin
from redan.preprocessing.wrapped import Preprocessed
from redan.protocols import Access
from redan.rejection import Refusing, refused
from redan.rejection.goal import Accepted

__all__ = ["served_checks"]

_SECONDS = 0.5  # of each member
_ROWS, _SAMPLE = 256, 32  # asked whether they are refused; of those, climbed
_SURE, _BLIND = 0.99, 0.05  # confidence of a refused share above the stated rate; rows of the sample
_ANSWERS = (
    checks_answers.output_shape,
    checks_answers.finite_answers,
    checks_answers.output_scale,
    checks_answers.constant_answers,
)


def served_checks(scene: Scene, head: DetectorHead | None, before: Sequence[Finding]) -> tuple[Finding, ...]:
    """What the checks before did not see; nothing where one of them refuses. scene: its target is what is served."""
    if any(finding.fired and finding.level is Level.REFUSE for finding in before):
        return ()
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        return tuple(_findings(scene, head))


def _findings(scene: Scene, head: DetectorHead | None) -> Iterator[Finding]:
    match answering(scene.target):
        case Together() as ensemble:
            yield _members(scene, ensemble)
        case Preprocessed(target=Together() as ensemble) as before:
            x = before.transformed(scene.x[:_ROWS].to(before.device, before.dtype))
            yield _members(replace(scene, x=x, y=scene.y[:_ROWS]), ensemble)
    match scene.target:
        case Refusing() if head is not None:
            yield _detector(scene, scene.target, head)


def _members(scene: Scene, ensemble: Together) -> Finding:
    """What the first member that is not as declared answers."""
    name, members = "members", ensemble.target.members
    for number, member in enumerate(members, 1):
        look = first_look(replace(scene, target=member, budget=Budget(seconds=_SECONDS)))
        for check in _ANSWERS:
            found = check(look)
            if found.fired:
                detail = f"member {number} of {len(members)}, {found.check}: {found.detail}"
                return Finding(name, found.level, True, detail, found.remedy)
    return Finding(name, Level.REFUSE, False, f"each of {len(members)} members answers as declared")


def _detector(scene: Scene, target: Refusing, head: DetectorHead) -> Finding:
    """Clean rows that are refused, and whether the way under the threshold can be climbed."""
    name, remedy = "detector", "calibrate it on trusted rows that are like those to come, or state the rate that it has"
    order = torch.randperm(len(scene.x), generator=torch.Generator().manual_seed(0))[:_ROWS].to(scene.x.device)
    x, y = scene.x[order].to(target.device, target.dtype), scene.y[order].to(target.device)
    clean = evaluate(target, x, micro=micro_batch(x))
    n, k = int(clean.answered.sum()), int((clean.answered & refused(clean.output)).sum())
    detail = f"{k} of {n} clean rows are refused, {head.rate:.3g} of them at the most is stated"
    if n and interval(k, n, _SURE).low > head.rate:
        return Finding(name, Level.WARN, True, detail, remedy)
    if target.access < Access.GRADIENTS:
        return Finding(name, Level.WARN, False, detail)
    part = slice(0, _SAMPLE)
    try:
        steep = evaluate(target, x[part], micro=micro_batch(x), goal=Accepted(Untargeted(y[part])), loss=margin)
    except AccessError:
        return Finding(name, Level.WARN, True, f"{detail}; its suspicion has no gradient in the input", _STAND_IN)
    flat = int((steep.answered & (steep.gradient.flatten(1).abs().amax(1) == 0)).sum())
    detail += f"; {flat} of {len(x[part])} rows have no slope toward acceptance"
    return Finding(name, Level.WARN, flat > _BLIND * len(x[part]), detail, _STAND_IN)


_STAND_IN = "find the step of the detector that stops the gradient, and give it a smooth stand-in"
