"""The preflight: is the set-up such that its numbers would mean anything?

Each check is one small function of a `Scene`. It names what it found, how sure it is, and the remedy. Its level
says what happens when it fires: refuse (nothing is attacked), switch (redan goes on another way and says so),
or warn (a pass cannot rest on it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from redan.errors import AccessError, PreflightError
from redan.evidence.statistics import p_at_least
from redan.goals import Untargeted
from redan.losses import margin
from redan.oracle import Answers, evaluate, micro_batch
from redan.targets import Output, Target, TorchTarget

_SAMPLE = 64  # rows that are asked more than once


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
    where = f"data lie in [{least:.4g}, {most:.4g}], declared bounds are [{low:g}, {high:g}]"
    if least < low or most > high:
        remedy = "undo the data's normalization (declare it in inputs.normalization), or correct inputs.bounds"
        return Finding(name, Level.REFUSE, True, where, remedy)
    if most - least < 0.1 * (high - low):
        remedy = "correct inputs.bounds: the data fill less than a tenth of them, so ε would be in the wrong unit"
        return Finding(name, Level.REFUSE, True, where, remedy)
    return Finding(name, Level.REFUSE, False, where)


def labels(scene: Scene) -> Finding:
    """Labels that are not the model's class numbers make every row wrong."""
    name, classes = "labels", scene.target.classes or int(_answers(scene).output.shape[1])
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
    x = scene.x[:_SAMPLE].to(device=bare.device, dtype=bare.dtype)
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
    """Gradients that are zero, or not finite, say nothing: attacks that climb would fail for that alone."""
    name = "gradients"
    x = scene.x[:_SAMPLE].to(device=scene.target.device, dtype=scene.target.dtype)
    y = scene.y[:_SAMPLE].to(scene.target.device)
    remedy = "find the step that stops the gradient (rounding, argmax, detach) and give it a smooth stand-in"
    try:
        answers = evaluate(scene.target, x, micro=micro_batch(x), goal=Untargeted(y), loss=margin)
    except AccessError:
        return Finding(name, Level.WARN, True, "the output has no gradient in the input at all", remedy)
    steepest = answers.gradient.flatten(1).abs().amax(1)
    blind = int((~(steepest > 0) | steepest.isinf()).sum())
    detail = f"{blind} of {len(x)} rows have a zero or non-finite gradient of the margin"
    return Finding(name, Level.WARN, blind * 20 > len(x), detail, remedy if blind * 20 > len(x) else "")


def determinism(scene: Scene) -> Finding:
    """A model that answers the same input differently must be judged over several answers."""
    name = "determinism"
    x = scene.x[:_SAMPLE].to(device=scene.target.device, dtype=scene.target.dtype)
    answers = [evaluate(scene.target, x, micro=micro_batch(x)) for _ in range(4)]
    usable = torch.stack([a.answered for a in answers]).all(0)
    z = torch.stack([a.output for a in answers])[:, usable]
    if z.shape[1] == 0:
        return Finding(name, Level.SWITCH, False, "no answer to compare")
    spread = float((z.amax(0) - z.amin(0)).max())
    scale = max(1e-12, float(z.abs().max()))
    detail = f"four answers to the same rows differ by {spread:.3g} at the most"
    remedy = "rows are judged over 20 fresh answers each, on one core; make the model deterministic for an exact count"
    varies = spread > 1e-4 * scale
    return Finding(name, Level.SWITCH, varies, detail, remedy if varies else "")


CHECKS: tuple[Callable[[Scene], Finding], ...] = (
    submodule_modes,
    bounds,
    finite_answers,
    labels,
    output_scale,
    clean_accuracy,
    gradients,
    determinism,
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
