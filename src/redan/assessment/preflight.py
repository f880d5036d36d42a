"""The preflight: is the set-up such that its numbers would mean anything?

Each check is one small function of a `Scene`. It names what it found, how sure it is, and the remedy. Its level
says what happens when it fires: refuse (nothing is attacked), switch (redan goes on another way and says so),
or warn (a pass cannot rest on it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from redan.errors import AccessError, PreflightError
from redan.evidence.statistics import p_at_least
from redan.goals import Untargeted
from redan.losses import cross_entropy, margin
from redan.oracle import Answers, evaluate, micro_batch
from redan.targets import Output, Target, TorchTarget

_SAMPLE = 64  # rows that are asked more than once
_SATURATED = 1000  # cross-entropy's gradient underflows at a score gap of 104: here it stays flat all the way
_STEP = 1e-3  # of the box's width, for slopes: above rounding, below most kinks


class Level(StrEnum):
    """What a check does when it fires."""

    REFUSE = "refuse"
    SWITCH = "switch"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. status: pass, or the level it fired at."""

    check: str
    level: Level
    fired: bool
    detail: str
    remedy: str = ""

    @property
    def status(self) -> str:
        return str(self.level) if self.fired else "pass"


@dataclass(frozen=True, slots=True)
class Scene:
    """What the checks look at: the target, the drawn rows, and its clean answers to them.

    expected: (accuracy, tolerance) that the owner states, or None.
    """

    target: Target[Tensor]
    x: Tensor
    y: Tensor
    clean: Answers | None = None
    expected: tuple[float, float] | None = None


def _answers(scene: Scene) -> Answers:
    if scene.clean is not None:
        return scene.clean
    x = scene.x.to(device=scene.target.device, dtype=scene.target.dtype)
    return evaluate(scene.target, x, micro=micro_batch(x))


def _sample(scene: Scene) -> Tensor:
    """The first rows, as the target takes them."""
    return scene.x[:_SAMPLE].to(device=scene.target.device, dtype=scene.target.dtype)


def _finite(z: Tensor) -> Tensor:
    return z.masked_fill(~z.isfinite(), 0)


def submodule_modes(scene: Scene) -> Finding:
    """A dropout or batch norm in training mode changes every answer."""
    name = "submodule-modes"
    if not isinstance(scene.target, TorchTarget):
        return Finding(name, Level.REFUSE, False, "not a torch module")
    modules = list(scene.target.module.named_modules())
    training = [f"{name or 'the module itself'} ({type(m).__name__})" for name, m in modules if m.training]
    if training:
        detail = f"{len(training)} of {len(modules)} submodules are in training mode: {', '.join(training[:3])}"
        return Finding(name, Level.REFUSE, True, detail, "call model.eval() where the model is built")
    return Finding(name, Level.REFUSE, False, f"all {len(modules)} submodules are in evaluation mode")


def bounds(scene: Scene) -> Finding:
    """Data outside the declared box, or in a corner of it, give ε another meaning."""
    name, (low, high) = "bounds", scene.target.bounds
    least, most = float(scene.x.min()), float(scene.x.max())
    box = scene.x.new_tensor([low, high])  # as the data's own type rounds it
    where = f"data lie in [{least:.4g}, {most:.4g}], declared bounds are [{low:g}, {high:g}]"
    if least < float(box[0]) or most > float(box[1]):
        remedy = "undo the data's normalization (declare it in inputs.normalization), or correct inputs.bounds"
        return Finding(name, Level.REFUSE, True, where, remedy)
    if most - least < 0.1 * (high - low):
        remedy = "correct inputs.bounds: the data fill less than a tenth of them, so ε would be in the wrong unit"
        return Finding(name, Level.REFUSE, True, where, remedy)
    return Finding(name, Level.REFUSE, False, where)


def labels(scene: Scene) -> Finding:
    """Labels that are not the model's class numbers make every row wrong."""
    name, scores = "labels", int(_answers(scene).output.shape[1])
    classes = scene.target.classes or scores
    if scores != classes:
        detail = f"the model answers {scores} scores a row, and {classes} classes are declared"
        return Finding(name, Level.REFUSE, True, detail, "correct system.classes, or return one score a class")
    least, most = int(scene.y.min()), int(scene.y.max())
    where = f"labels go from {least} to {most}, the model has the classes 0 to {classes - 1}"
    if least < 0 or most >= classes:
        return Finding(name, Level.REFUSE, True, where, "number the classes from 0, in the model's order")
    missing = classes - len(scene.y.unique(sorted=True))  # type: ignore[no-untyped-call]  # torch's unique is untyped
    if missing:
        return Finding(name, Level.WARN, False, f"{where}; {missing} classes have no drawn row")
    return Finding(name, Level.REFUSE, False, where)


def finite_answers(scene: Scene) -> Finding:
    """A NaN answer is neither right nor wrong."""
    name, answers = "finite-answers", _answers(scene)
    failed = int((~answers.answered).sum())
    if not failed:
        return Finding(name, Level.WARN, False, f"{len(scene.x)} rows answered")
    first = next(iter(answers.reasons.values()), "no answer")
    detail = f"{failed} of {len(scene.x)} rows got no usable answer ({first})"
    level = Level.REFUSE if failed == len(scene.x) else Level.WARN
    return Finding(name, level, True, detail, "those rows are errors and never help to pass; try one by hand")


def output_scale(scene: Scene) -> Finding:
    """Probabilities declared as logits saturate, and their gradients vanish; and the other way round."""
    name = "output-scale"
    if not isinstance(scene.target, TorchTarget):
        return Finding(name, Level.REFUSE, False, "not a torch module")
    bare = replace(scene.target, output=Output.LOGITS)
    x = _sample(scene)
    answers = evaluate(bare, x, micro=micro_batch(x))
    z = answers.output[answers.answered]
    if not len(z):
        return Finding(name, Level.REFUSE, False, "no answer to look at")
    sums = z.sum(1)
    like = bool(((z >= 0) & (z <= 1)).all()) and bool(((sums - 1).abs() < 1e-3).all())
    what = f"answers lie in [{float(z.min()):.4g}, {float(z.max()):.4g}] and rows sum to {float(sums.mean()):.4g}"
    if like and scene.target.output is Output.LOGITS:
        remedy = "return the scores before softmax, or declare output: probabilities"
        return Finding(name, Level.REFUSE, True, f"declared logits look like probabilities: {what}", remedy)
    if not like and scene.target.output is Output.PROBABILITIES:
        return Finding(name, Level.REFUSE, True, f"declared probabilities are none: {what}", "declare output: logits")
    return Finding(name, Level.REFUSE, False, what)


def clean_accuracy(scene: Scene) -> Finding:
    """A model at chance on clean rows was given other inputs, or other labels, than it was trained on."""
    name, answers = "clean-accuracy", _answers(scene)
    n, classes = len(scene.y), answers.output.shape[1]
    right = int((answers.answered & (answers.output.argmax(1).cpu() == scene.y.cpu())).sum())
    detail = f"{right} of {n} rows are answered right ({right / n:.3f}), chance is {1 / classes:.3f}"
    remedy = "check normalization, channel order, and that labels follow the order of system.classes"
    if right == 0:
        return Finding(name, Level.REFUSE, True, f"no row is answered right: {detail}", remedy)
    if p_at_least(right, n, 1 / classes) > 0.05:
        return Finding(name, Level.REFUSE, True, f"not above chance: {detail}", remedy)
    if scene.expected is not None and abs(right / n - scene.expected[0]) > scene.expected[1]:
        expected, within = scene.expected
        wanted = f"{detail}; the threat model expects {expected:g} within {within:g}"
        return Finding(name, Level.REFUSE, True, wanted, f"{remedy}; or correct system.expect")
    return Finding(name, Level.REFUSE, False, detail)


def gradients(scene: Scene) -> Finding:
    """Gradients that are zero, not finite or not those of the answers: attacks that climb would fail for that alone."""
    name = "gradients"
    x, asked = _sample(scene), _answers(scene).answered[:_SAMPLE]
    goal = Untargeted(scene.y[:_SAMPLE].to(scene.target.device))
    remedy = "find the step that stops or bends the gradient (rounding, argmax, detach) and give it a smooth stand-in"
    try:
        answers, other = (
            evaluate(scene.target, x, micro=micro_batch(x), goal=goal, loss=loss) for loss in (margin, cross_entropy)
        )
    except AccessError:
        return Finding(name, Level.WARN, True, "the output has no gradient in the input at all", remedy)
    n = max(1, int(asked.sum()))
    blind = int((asked & _zero(answers.gradient)).sum())
    flat = int((asked & _zero(other.gradient) & (answers.loss.abs() > _SATURATED)).sum())
    false = int((asked & _misled(scene.target, x, goal, answers)).sum())
    detail = f"{blind} of {n} rows have a zero or non-finite gradient of the margin"
    if blind * 20 > n:
        return Finding(name, Level.WARN, True, detail, remedy)
    if flat * 20 > n:
        detail = f"{flat} of {n} rows have scores so far apart (over {_SATURATED}) that cross-entropy is flat"
        return Finding(name, Level.WARN, True, detail, "return the scores without the factor that blows them up")
    if false * 4 > n:
        detail = f"{false} of {n} rows have a gradient that is not the slope of the answers around them"
        return Finding(name, Level.WARN, True, detail, remedy)
    return Finding(name, Level.WARN, False, detail)


def _zero(gradient: Tensor) -> Tensor:
    """Rows whose gradient is zero or not finite: (N,) bool. A row that was not answered has gradient 0."""
    steepest = gradient.flatten(1).abs().amax(1)
    return ~(steepest > 0) | steepest.isinf()


def _misled(target: Target[Tensor], x: Tensor, goal: Untargeted, answers: Answers) -> Tensor:
    """Rows whose margin does not change along two random directions as the gradient says: (N,) bool.

    The margin is read a thousandth of the box to either side. The error must be above half of what such a step
    changes on average, and above the answers' own noise. Random models and honest kinks stay far below.
    """
    low, high = target.bounds
    noise = _finite(evaluate(target, x, micro=micro_batch(x)).output - answers.output).abs().max()
    floor = torch.maximum(4 * noise, 1e-5 * _finite(answers.output).abs().max())
    draw = torch.Generator().manual_seed(0)
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(2):
        signs = torch.randint(0, 2, x.shape, generator=draw).to(x) * 2 - 1
        ends = [(x + side * signs * _STEP * (high - low)).clamp(low, high) for side in (1, -1)]
        above, below = (goal.loss(evaluate(target, end, micro=micro_batch(x)).output) for end in ends)
        step = (ends[0] - ends[1]).flatten(1)
        slope = answers.gradient.flatten(1)
        usual = slope.norm(dim=1) * step.norm(dim=1) / step.shape[1] ** 0.5
        error = (above - below - (slope * step).sum(1)).abs()
        found |= (error > usual / 2) & (error > floor)
    return found


def _regrouped(target: Target[Tensor], x: Tensor, parts: Sequence[Tensor]) -> Answers:
    """Answers to x, asked part by part, in the order of x."""
    asked = [evaluate(target, x[part], micro=micro_batch(x)) for part in parts if len(part)]
    back = torch.cat(list(parts)).argsort()
    output, answered = (torch.cat([getattr(a, key) for a in asked])[back] for key in ("output", "answered"))
    return Answers(output, x.new_empty(0), x.new_empty(0), answered, {})


def determinism(scene: Scene) -> Finding:
    """A model that answers the same input differently must be judged over several answers.

    Rows are asked again together, backwards and in two halves, and compared with their first answers too: an
    answer may depend on chance, on what was asked before, or on the rows beside it.
    """
    name, x, clean = "determinism", _sample(scene), _answers(scene)
    here = torch.arange(len(x), device=x.device)
    first = Answers(clean.output[: len(x)], clean.loss, clean.gradient, clean.answered[: len(x)], {})
    again = [_regrouped(scene.target, x, parts) for parts in ([here], [here], [here.flip(0)], here.tensor_split(2))]
    everything = [first, *again]
    usable = torch.stack([answers.answered for answers in everything]).all(0)
    z = _finite(torch.stack([answers.output for answers in everything]))[:, usable]
    if z.shape[1] == 0:
        return Finding(name, Level.SWITCH, False, "no answer to compare")
    spread = float((z.amax(0) - z.amin(0)).max())
    scale = max(1e-12, float(z.abs().max()))
    detail = f"five answers to the same rows differ by {spread:.3g} at the most"
    remedy = "rows are judged over 20 fresh answers each, on one core; make the model deterministic for an exact count"
    varies = spread > 1e-4 * scale
    return Finding(name, Level.SWITCH, varies, detail, remedy if varies else "")


CHECKS: tuple[Callable[[Scene], Finding], ...] = (
    submodule_modes,
    bounds,
    finite_answers,
    labels,
    output_scale,
    determinism,  # before accuracy, which chance may spoil
    clean_accuracy,
    gradients,
)


def preflight(scene: Scene) -> tuple[Finding, ...]:
    """All checks, in order. The first that refuses ends them: what follows would rest on it."""
    found: list[Finding] = []
    for check in CHECKS:
        if check is finite_answers:
            scene = replace(scene, clean=_answers(scene))
        finding = check(scene)
        found.append(finding)
        if finding.fired and finding.level is Level.REFUSE:
            break
    return tuple(found)


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raise PreflightError for the finding that refuses, if there is one."""
    for finding in findings:
        if finding.fired and finding.level is Level.REFUSE:
            raise PreflightError(f"preflight {finding.check}: {finding.detail}; {finding.remedy}")
