"""Indicators that gradients are missing, or lead nowhere (Athalye, Carlini and Wagner 2018, arXiv:1802.00420).

Each looks at random points of the attacker's set, where climbs go, and not at the clean inputs alone. One row in
twenty may be blind and one in four misled; few rows must show that at 1 %.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from redan.answers import Answers
from redan.assessment.checks_gradients import leaning, step_of
from redan.assessment.examinee import Examinee
from redan.errors import AccessError
from redan.evidence.log import Indication
from redan.evidence.report import Doubt
from redan.evidence.statistics import p_at_least
from redan.losses import cross_entropy
from redan.perturbations.norms import Linf
from redan.rows import take
from redan.targets import retraced

_SURE = 0.01
_BLIND, _MISLED = 0.05, 0.25  # of the rows
_ALIKE = 0.9  # cosine of two gradients that say the same
_NEARBY, _TURNED = 1 / 32, 0.5  # of the radius; cosine of two gradients that do not lead the same way
_CONVERGED = 0.5  # median cosine of two independent averages


def ok(name: str, detail: str) -> Indication:
    """Looked at, and no reason to doubt."""
    return Indication(name=name, status=Doubt.OK, detail=detail)


def suspicious(name: str, detail: str) -> Indication:
    """A reason to doubt."""
    return Indication(name=name, status=Doubt.SUSPICIOUS, detail=detail)


def not_applicable(name: str, detail: str) -> Indication:
    """Nothing to look at."""
    return Indication(name=name, status=Doubt.NOT_APPLICABLE, detail=detail)


def told(name: str, doubt: bool, detail: str) -> Indication:
    """Suspicious if there is doubt, else ok."""
    return suspicious(name, detail) if doubt else ok(name, detail)


_NONE = "the answers have no gradient in the input"


def zero(examinee: Examinee) -> Indication:
    """Gradients that are absent, zero or not finite, of the margin or of cross-entropy."""
    name, rows = "zero-gradients", examinee.mixed
    found = examinee.slopes(rows)
    if found is None:
        return suspicious(name, f"{_NONE} at all: nothing can be climbed")
    x, answers = found
    n, flat = int(answers.answered.sum()), int((answers.answered & _zero(answers.gradient)).sum())
    detail = f"{flat} of {n} rows have a zero gradient of the margin"
    if n and p_at_least(flat, n, _BLIND) <= _SURE:
        return suspicious(name, detail)
    entropy = examinee.ask(x, rows, cross_entropy)
    lost = int((entropy.answered & _zero(entropy.gradient)).sum())
    return told(name, bool(n) and p_at_least(lost, n, _BLIND) <= _SURE, f"{detail}, {lost} of cross-entropy")


def shattered(examinee: Examinee) -> Indication:
    """Gradients that are not the slopes of the answers around them, or that another point nearby turns around.

    Nearby is a 32nd of the radius in a random direction: a climb takes longer steps. A declared stand-in (BPDA) is no
    slope of answers that go in steps, and is not held to them; it must not turn around either.
    """
    name, rows = "shattered-gradients", examinee.mixed
    found = examinee.slopes(rows)
    if found is None:
        return not_applicable(name, _NONE)
    if examinee.job.target.stochastic:
        return not_applicable(name, "answers vary by themselves, so slopes cannot be compared with them")
    x, answers = found
    if examinee.job.target.surrogate:
        detail = "a declared stand-in is not held to the slopes of the answers"
    else:
        n, false = int(answers.answered.sum()), int((answers.answered & _off(examinee, rows, x, answers)).sum())
        detail = f"{false} of {n} rows have a gradient that is not the slope of the answers around a random point"
        if n and p_at_least(false, n, _MISLED) <= _SURE:
            return suspicious(name, detail)
    nearby = examinee.nearby(x, rows, _NEARBY)
    turned = int((_cosine(answers.gradient, examinee.ask(nearby, rows).gradient) < _TURNED).sum())
    detail += f", {turned} another one a 32nd of the radius away"
    return told(name, p_at_least(turned, len(rows), _MISLED) <= _SURE, detail)


def _off(examinee: Examinee, rows: Tensor, x: Tensor, answers: Answers) -> Tensor:
    """Rows whose margin does not rise along one direction as the gradient says: (R,) bool."""
    low, high = examinee.job.target.bounds
    slope = answers.gradient.nan_to_num().flatten(1)
    within = examinee.within
    radius = float(torch.as_tensor(within.radius).min()) if isinstance(within, Linf) else None
    step = leaning(slope, step_of(high - low, radius)).reshape(x.shape)
    above, below = (x + step).clamp(low, high), (x - step).clamp(low, high)
    tops, bottoms = (examinee.ask(side, rows, None).output for side in (above, below))
    (goal,) = take(rows, examinee.goal)
    rise = goal.loss(goal.scores(tops)) - goal.loss(goal.scores(bottoms))
    promised = (slope * (above - below).flatten(1)).sum(1)
    floor = max(1e-5, 8 * torch.finfo(rise.dtype).eps) * float(answers.output.nan_to_num().abs().max())
    return (rise - promised).abs() > promised.abs().clamp_min(floor * 2) / 2


def stochastic(examinee: Examinee) -> Indication:
    """Gradients that differ from one question to the next, and are climbed one by one."""
    name, rows = "stochastic-gradients", examinee.mixed
    found = examinee.slopes(rows)
    if found is None:
        return not_applicable(name, _NONE)
    x, first = found
    alike = _cosine(first.gradient, examinee.ask(x, rows).gradient)
    differ = int((alike < _ALIKE).sum())
    detail = f"{differ} of {len(rows)} rows have another gradient when they are asked again"
    draws = examinee.job.draws
    if draws > 1:
        return ok(name, f"{detail}; each step takes the mean of {draws}")
    return told(name, p_at_least(differ, len(rows), _BLIND) <= _SURE, detail)


def unconverged(examinee: Examinee) -> Indication:
    """Means of a stochastic model's gradients (EOT) that two independent sets of draws do not agree on."""
    name, draws = "eot-not-converged", examinee.job.draws
    if not examinee.job.target.stochastic:
        return not_applicable(name, "the model answers the same each time")
    rows = examinee.mixed
    try:
        x = examinee.starts(rows)
        one, other = (examinee.ask(x, rows, draws=draws).gradient for _ in range(2))
    except AccessError:
        return not_applicable(name, _NONE)
    median = float(_cosine(one, other).median())
    detail = f"two means of {draws} draws have a median cosine of {median:.2f}"
    return told(name, median < _CONVERGED, detail)


def stage(examinee: Examinee) -> Indication:
    """A stage whose backward pass is zero or its own: rounding, thresholds, detach, a custom function.

    The operations that were run are played back with a smooth stand-in for each step (`redan.targets.retraced`); where
    that gives another gradient than the model's own, the model has a stage that a climb does not see.
    """
    name, rows = "non-differentiable-stage", examinee.mixed
    target = examinee.job.target
    if target.surrogate:
        return ok(name, "the model declares a stand-in gradient for its stage (BPDA)")
    if target.stochastic:
        return not_applicable(name, "answers vary by themselves, so that two gradients cannot be compared")
    other = retraced(target, examinee.job.x[rows])
    if other is None:
        return not_applicable(name, "its operations cannot be played back one by one")
    found = examinee.slopes(rows)
    if found is None:
        return suspicious(name, f"{_NONE}, and the operations that were run have one")
    x, own = found
    again = examinee.ask(x, rows, target=other)
    alike = _cosine(own.gradient, again.gradient)
    differ = int((alike < _ALIKE).sum())
    detail = f"{differ} of {len(rows)} rows have another gradient when each operation is played back smoothly"
    return told(name, p_at_least(differ, len(rows), _BLIND) <= _SURE, detail)


def _zero(gradient: Tensor) -> Tensor:
    """Rows whose gradient is zero or not finite: (N,) bool."""
    steepest = gradient.flatten(1).abs().amax(1)
    return ~(steepest > 0) | steepest.isinf()


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each row's two gradients: (N,); 1 where both are zero."""
    one, other = (_unit(each.nan_to_num().flatten(1)) for each in (one, other))
    return torch.where((one == 0).all(1) & (other == 0).all(1), 1, (one * other).sum(1))


def _unit(gradient: Tensor) -> Tensor:
    """Each row of length 1; steepest first, since a square may run under where the gradient does not."""
    return functional.normalize(gradient / gradient.abs().amax(1, keepdim=True).clamp_min(1e-38), dim=1)
