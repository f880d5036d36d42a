"""Checks of input gradients: that they are there, and that they are the slopes of the answers.

Attacks that climb fail on a model whose gradients are masked, and that failure is no robustness (Athalye et al.
2018). Tolerances: one row in twenty may be blind, one in four misled; few rows must show that at 1 %.
"""

from __future__ import annotations

import torch
from torch import Tensor

from redan.answers import Answers, evaluate, micro_batch
from redan.assessment.checks_answers import finite
from redan.assessment.checks_look import Look
from redan.assessment.checks_scene import Finding, Level
from redan.errors import AccessError
from redan.evidence.statistics import p_at_least
from redan.losses import margin
from redan.protocols import Access
from redan.rows import Goal

_SURE = 0.01
_BLIND, _MISLED = 0.05, 0.25  # of the rows
_SATURATED = 1000  # cross-entropy's gradient underflows at a score gap of 104: here it stays flat all the way
_STEP = 1e-3  # of the box's width, for slopes: above rounding, below most kinks
_WITHIN = 0.1  # of the smallest radius in L∞, where that is less: attacks are not told of what lies farther off
_LEAN = 4  # how far a step leans uphill: times the rise of a step in a random direction
_REMEDY = "find the step that stops or bends the gradient (rounding, argmax, detach) and give it a smooth stand-in"


def climbed(look: Look) -> Answers | None:
    """The gradient of the margin on the sample; None if the output has none in the input, or the target shows none."""
    x = look.sample
    try:
        if _shown(look):
            return evaluate(look.scene.target, x, micro=micro_batch(x), goal=look.goal, loss=margin)
    except AccessError:
        pass
    return None


def _shown(look: Look) -> bool:
    return look.scene.target.access >= Access.GRADIENTS


def gradients(look: Look, answers: Answers | None) -> Finding:
    """Gradients that are zero or not finite, or scores so far apart that cross-entropy has none."""
    name = "gradients"
    if not _shown(look):
        return Finding(name, Level.WARN, False, "the target shows no gradients, so no attack can climb them")
    if answers is None:
        return Finding(name, Level.WARN, True, "the output has no gradient in the input at all", _REMEDY)
    asked = look.clean.answered[: len(look.sample)]
    n = int(asked.sum())
    blind = int((asked & _zero(answers.gradient)).sum())
    detail = f"{blind} of {n} rows have a zero or non-finite gradient of the margin"
    if n and p_at_least(blind, n, _BLIND) <= _SURE:
        return Finding(name, Level.WARN, True, detail, _REMEDY)
    flat = int((asked & (answers.loss.abs() > _SATURATED) & _flat(look.goal, answers.output)).sum())
    if n and p_at_least(flat, n, _BLIND) <= _SURE:
        detail = f"{flat} of {n} rows have scores so far apart (over {_SATURATED}) that cross-entropy is flat"
        return Finding(name, Level.WARN, True, detail, "return the scores without the factor that blows them up")
    return Finding(name, Level.WARN, False, detail)


def _zero(gradient: Tensor) -> Tensor:
    """Rows whose gradient is zero or not finite: (N,) bool. A row that was not answered has gradient 0."""
    steepest = gradient.flatten(1).abs().amax(1)
    return ~(steepest > 0) | steepest.isinf()


def _flat(goal: Goal, output: Tensor) -> Tensor:
    """Rows whose cross-entropy has gradient 0 in every score: softmax is 1 for right, as this type rounds it."""
    share = goal.scores(output).softmax(1)
    return ((share == 0) | (share == 1)).all(1) & goal.right(output)


def gradient_slopes(look: Look, answers: Answers | None, noise: float) -> Finding:
    """Gradients that are there, but not the slopes of the answers around them.

    noise: how far answers to one row differ by themselves. A target with a declared stand-in gradient is not held
    to its slopes.
    """
    name = "gradient-slopes"
    if answers is None or look.scene.target.surrogate:
        return Finding(name, Level.WARN, False, "no gradient to compare, or a declared stand-in for it")
    n = int(look.clean.answered[: len(look.sample)].sum())
    false = int((answers.answered & _misled(look, answers, noise)).sum())
    detail = f"{false} of {n} rows have a gradient that is not the slope of the answers around them"
    if n and p_at_least(false, n, _MISLED) <= _SURE:
        return Finding(name, Level.WARN, True, detail, _REMEDY)
    return Finding(name, Level.WARN, False, detail)


def _misled(look: Look, answers: Answers, noise: float) -> Tensor:
    """Rows whose margin does not rise along one direction as the gradient says: (N,) bool.

    The error must be above half of the promise, and above the answers' own noise.
    """
    (low, high), x = look.scene.target.bounds, look.sample
    slope = finite(answers.gradient).flatten(1)
    step = leaning(slope, step_of(high - low, look.scene.radius)).reshape(x.shape)
    above = (x + step).clamp(low, high)
    below = (x - step).clamp(low, high) if look.plan.both_ways else x
    tops = look.ask(above).output
    bottoms = look.ask(below).output if look.plan.both_ways else answers.output
    goal = look.goal
    rise = goal.loss(goal.scores(tops)) - goal.loss(goal.scores(bottoms))
    promised = (slope * (above - below).flatten(1)).sum(1)
    error = (rise - promised).abs()
    rounding = max(1e-5, 8 * torch.finfo(rise.dtype).eps)
    floor = max(4 * noise, rounding * float(finite(answers.output).abs().max()))
    return (error > promised.abs() / 2) & (error > floor)


def step_of(width: float, radius: float | None) -> float:
    """How long a step tries a slope: a thousandth of the box's width, and no more than a tenth of an L∞ radius."""
    return _STEP * width if radius is None else min(_STEP * width, _WITHIN * radius)


def leaning(slope: Tensor, step: float) -> Tensor:
    """A step for each slope (N, D), so far up or down in every coordinate.

    It leans uphill just so far that the slope promises four times what a random step brings: more than chance, and
    not so steep that honest curvature shows.
    """
    lean = (_LEAN * slope.norm(dim=1) / slope.abs().sum(1).clamp_min(1e-30)).clamp_max(1)
    chance = torch.rand(slope.shape, generator=torch.Generator().manual_seed(0)).to(slope)
    return torch.where(chance < (1 + lean[:, None]) / 2, slope.sign(), -slope.sign()) * step
