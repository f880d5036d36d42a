"""Checks of the first answers: their shape and scale, labels, constant answers, clean accuracy, 8-bit inputs.

Few rows accuse nobody: a rate counts against a model when an exact bound at 1 % says so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redan.assessment.checks_look import Look
from redan.assessment.checks_scene import Finding, Level
from redan.evidence.statistics import interval, p_at_least, upper_bound
from redan.goals import Task
from redan.targets import Output

_SURE = 0.01  # a rate's bound misses with this chance at most
_BY_CHANCE = 1e-6  # that so many classes are missing among rows of classes that are equally likely
_SAME = 1e-6  # of the largest score: answers that differ by less are the same
_GRID = 1e-2  # of a level: rounding of the data's own type
_FLIPPED, _MOVED = 0.05, 0.1  # rows that answer another class; change of the scores against their spread


def finite(z: Tensor) -> Tensor:
    """z with 0 where it is not finite."""
    return z.masked_fill(~z.isfinite(), 0)


def output_shape(look: Look) -> Finding:
    """One score a class for each row, and as many classes as declared."""
    name, scores = "output-shape", int(look.clean.output.shape[1])
    declared = look.scene.target.classes
    if not bool(look.clean.answered.any()):
        return Finding(name, Level.REFUSE, False, "no answer to look at")
    if look.task is not Task.CLASS:
        return _other_shape(look, scores)
    if scores < 2:
        remedy = "return one score a class, or declare two classes: the number is then the second one's"
        return Finding(name, Level.REFUSE, True, "the model answers one number a row", remedy)
    if declared is not None and scores != declared:
        detail = f"the model answers {scores} scores a row, and {declared} classes are declared"
        return Finding(name, Level.REFUSE, True, detail, "correct system.classes, or return one score a class")
    return Finding(name, Level.REFUSE, False, f"{scores} scores a row")


def _other_shape(look: Look, scores: int) -> Finding:
    """One answer a label, or one value."""
    name, declared = "output-shape", look.scene.target.classes
    need = 1 if look.task is Task.VALUE else declared
    what = f"the model answers {scores} numbers a row"
    if need is not None and scores != need:
        remedy = "return one score a label" if look.task is Task.LABELS else "return one value a row"
        return Finding(name, Level.REFUSE, True, f"{what}, and {need} are declared", f"{remedy}, or correct the file")
    return Finding(name, Level.REFUSE, False, what)


def finite_answers(look: Look) -> Finding:
    """A NaN answer is neither right nor wrong."""
    name, n = "finite-answers", len(look.x)
    failed = int((~look.clean.answered).sum())
    if not failed:
        return Finding(name, Level.WARN, False, f"{n} rows answered{look.partly}")
    first = next(iter(look.clean.reasons.values()), "no answer")
    detail = f"{failed} of {n} rows got no usable answer ({first}){look.partly}"
    level = Level.REFUSE if failed == n else Level.WARN
    return Finding(name, level, True, detail, "those rows are errors and never help to pass; try one by hand")


def labels(look: Look) -> Finding:
    """Labels that are not the model's class numbers make every row wrong."""
    name, y, classes = "labels", look.scene.y, int(look.clean.output.shape[1])
    if look.task is Task.VALUE:
        return Finding(
            name, Level.REFUSE, False, f"the right values go from {float(y.min()):.4g} to {float(y.max()):.4g}"
        )
    if look.task is Task.LABELS:
        if y.dim() == 2 and y.shape[1] == classes:
            return Finding(
                name, Level.REFUSE, False, f"{float(y.sum(1).double().mean()):.2f} of {classes} labels a row"
            )
        detail = f"labels are {tuple(y.shape)}, and the model answers {classes} a row"
        return Finding(name, Level.REFUSE, True, detail, "give a column of 0 and 1 for each label the model answers")
    if y.shape != look.scene.x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        detail = f"labels are {y.dtype} {tuple(y.shape)} for {len(look.scene.x)} rows"
        return Finding(name, Level.REFUSE, True, detail, "give one class number a row (for one-hot labels y.argmax(1))")
    least, most = int(y.min()), int(y.max())
    where = f"the data's labels go from {least} to {most}, the model has the classes 0 to {classes - 1}"
    if least < 0 or most >= classes:
        return Finding(name, Level.REFUSE, True, where, "number the classes from 0, in the model's order")
    return Finding(name, Level.REFUSE, False, where)


def classes(look: Look) -> Finding:
    """A class without a row is not assessed. A few of many classes may be missing by chance."""
    name, k, n = "classes", int(look.clean.output.shape[1]), len(look.scene.y)
    if look.task is not Task.CLASS:
        return Finding(name, Level.WARN, False, "rows have no one class")
    there = torch.bincount(look.scene.y.flatten().long().cpu(), minlength=k)
    missing = (there == 0).nonzero().flatten().tolist()
    m = len(missing)
    if not m:
        return Finding(name, Level.WARN, False, f"each of the {k} classes has {int(there.min())} rows or more")
    detail = f"{m} of {k} classes have no drawn row ({', '.join(map(str, missing[:5]))}{', …' if m > 5 else ''})"
    ways = math.lgamma(k + 1) - math.lgamma(m + 1) - math.lgamma(k - m + 1)
    chance = ways + n * math.log1p(-m / k)  # logarithm of a bound on the chance that m classes are missing
    if chance < math.log(_BY_CHANCE):
        remedy = "draw rows of every class (shuffle sorted data), or leave the class out of system.classes"
        return Finding(name, Level.WARN, True, detail, remedy)
    return Finding(name, Level.WARN, False, f"{detail}; {n} rows may miss them by chance")


def output_scale(look: Look) -> Finding:
    """Probabilities declared as logits saturate, and their gradients vanish; and the other way round.

    A target answers on the scale of logits: what is declared as probabilities comes back as its logarithm.
    """
    name, declared = "output-scale", look.scene.target.output
    z = look.clean.output[look.clean.answered]
    if not len(z):
        return Finding(name, Level.REFUSE, False, "no answer to look at")
    if declared not in (Output.LOGITS, Output.PROBABILITIES) or look.task is not Task.CLASS:
        return Finding(name, Level.REFUSE, False, f"answers lie in [{float(z.min()):.4g}, {float(z.max()):.4g}]")
    p = z.exp() if declared is Output.PROBABILITIES else z
    sums, slack = p.sum(1), max(1e-3, 8 * torch.finfo(p.dtype).eps)
    like = bool(((p >= 0) & (p <= 1 + slack)).all()) and bool(((sums - 1).abs() < slack).all())
    what = f"answers lie in [{float(p.min()):.4g}, {float(p.max()):.4g}] and rows sum to {float(sums.mean()):.4g}"
    if like and declared is Output.LOGITS:
        remedy = "return the scores before softmax, or declare output: probabilities"
        return Finding(name, Level.REFUSE, True, f"declared logits look like probabilities: {what}", remedy)
    if not like and declared is Output.PROBABILITIES:
        return Finding(name, Level.REFUSE, True, f"declared probabilities are none: {what}", "declare output: logits")
    return Finding(name, Level.REFUSE, False, what)


def constant_answers(look: Look) -> Finding:
    """A model that answers every row alike is as robust as it is useless."""
    name, answered = "constant-answers", look.clean.answered
    z, x, y = finite(look.clean.output[answered]), look.x[answered].flatten(1), look.y[answered]
    remedy = "find where the input is lost (an exception swallowed, a clamp, an empty mask), and try two rows by hand"
    if len(z) > 1 and bool((x != x[0]).any()):
        apart = float((z.amax(0) - z.amin(0)).max())
        if apart <= _SAME * float(z.abs().max()):
            detail = f"all {len(z)} answers are the same scores, for different rows"
            return Finding(name, Level.REFUSE, True, detail, remedy)
    if look.task is not Task.CLASS:
        return Finding(name, Level.REFUSE, False, f"{len(z)} rows get different answers")
    guesses = z.argmax(1)
    found = len(guesses.bincount().nonzero()) if len(z) else 0
    others = int((y != guesses[0]).sum()) if found == 1 else 0
    if others and upper_bound(0, others, _SURE) < 0.5:
        detail = f"all {len(z)} rows are answered with class {int(guesses[0])}, and {others} of them have another label"
        return Finding(name, Level.REFUSE, True, detail, remedy)
    return Finding(name, Level.REFUSE, False, f"{found} classes are answered to {len(z)} rows")


def clean_accuracy(look: Look) -> Finding:
    """A model at chance on clean rows was given other inputs, or other labels, than it was trained on.

    It is at chance when its rows do not show more than chance, and do show less than half of the way from chance
    to no error. What the owner expects is refused when the rows' exact 99 % interval excludes it.
    """
    name, n, right = "clean-accuracy", len(look.x), int(look.right.sum())
    classed = look.task is Task.CLASS
    chance = 1 / look.clean.output.shape[1] if classed else 0.0
    beside = f", chance is {chance:.3f}" if classed else ""
    detail = f"{right} of {n} rows are answered right ({right / n:.3f}){beside}{look.partly}"
    remedy = "check normalization, channel order, and that labels follow the order of system.classes"
    if not classed and right == 0:
        return Finding(name, Level.REFUSE, True, f"no row is answered right: {detail}", remedy)
    if classed and p_at_least(right, n, chance) > 0.05 and upper_bound(right, n, _SURE) < (1 + chance) / 2:
        what = "no row is answered right" if right == 0 else "not above chance"
        return Finding(name, Level.REFUSE, True, f"{what}: {detail}", remedy)
    if look.scene.expected is not None:
        expected, within = look.scene.expected
        shown = interval(right, n, 1 - _SURE)
        if expected + within < shown.low or expected - within > shown.high:
            detail += f"; that shows {shown.low:.3f} to {shown.high:.3f}"
            detail += f", and the threat model expects {expected:g} within {within:g}"
            return Finding(name, Level.REFUSE, True, detail, f"{remedy}; or correct system.expect")
    return Finding(name, Level.REFUSE, False, detail)


def eight_bit(look: Look, varies: bool) -> Finding:
    """Pictures are kept in 8 bits: a model that answers otherwise when they are reads what no file holds.

    varies: whether the answers change by themselves, so that nothing could be told.
    """
    name, x = "eight-bit", look.sample
    if not look.scene.image:
        return Finding(name, Level.WARN, False, "the inputs are not declared to be images")
    low, high = look.scene.target.bounds
    levels = (x - low) / (high - low) * 255
    off = float((levels - levels.round()).abs().max())
    if off < _GRID:
        return Finding(name, Level.WARN, False, f"{len(x)} images lie on the 8-bit grid")
    told = f"{len(x)} images lie up to {off:.2f} levels off the 8-bit grid, as no picture file does"
    if varies or not look.plan.rounded:
        why = "answers vary by themselves" if varies else "the budget is spent"
        return Finding(name, Level.WARN, False, f"{told}; answers to the rounded ones were not compared: {why}")
    answers = look.ask(levels.round() / 255 * (high - low) + low)
    both = answers.answered & look.clean.answered[: len(x)]
    before, after = finite(look.clean.output[: len(x)][both]), finite(answers.output[both])
    n, flipped = len(before), int((before.argmax(1) != after.argmax(1)).sum())
    spread = float((before - before.mean(0)).abs().mean()) if n else 0.0
    moved = float((before - after).abs().mean()) / max(spread, 1e-12) if n else 0.0
    detail = f"{told}; rounded, {flipped} of {n} get another class, and scores move by {moved:.1%} of their spread"
    if n and (p_at_least(flipped, n, _FLIPPED) <= _SURE or moved > _MOVED):
        remedy = "load the data as they are stored (x / 255), and round inside the model what it must not see"
        return Finding(name, Level.WARN, True, detail, remedy)
    return Finding(name, Level.WARN, False, detail)
