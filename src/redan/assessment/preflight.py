"""The preflight: is the set-up such that its numbers would mean anything?

Each check is one small function. It names what it found, on how many rows, and the remedy. Its level says what
happens when it fires: refuse (nothing is attacked), switch (redan goes on another way and says so), or warn.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from redan.assessment import checks_answers, checks_data, checks_gradients, checks_repeats
from redan.assessment.checks_look import first_look
from redan.assessment.checks_scene import Budget, Finding, Level, Requirement, Scene
from redan.errors import PreflightError, TargetError

__all__ = ["Budget", "Finding", "Level", "Requirement", "Scene", "preflight", "refuse"]

_SHAPE = "output-shape"


def _findings(scene: Scene) -> Iterator[Finding]:
    """Every check in order, as it is asked for: no question is put to the model before its turn."""
    yield checks_data.submodule_modes(scene)
    yield checks_data.device(scene)
    yield checks_data.dtype(scene)
    yield checks_data.bounds(scene)
    yield checks_data.duplicates(scene)
    yield checks_data.sample_size(scene)
    look = first_look(scene)
    yield checks_answers.output_shape(look)
    yield checks_answers.finite_answers(look)
    yield checks_answers.labels(look)
    yield checks_answers.classes(look)
    yield checks_answers.output_scale(look)
    repeats = checks_repeats.asked_again(look)
    yield checks_repeats.determinism(repeats)
    yield checks_repeats.state(repeats)
    yield checks_repeats.batch_mates(repeats)
    yield checks_answers.constant_answers(look)
    yield checks_answers.clean_accuracy(look)
    yield checks_answers.eight_bit(look, repeats.varies)
    steep = checks_gradients.climbed(look)
    yield checks_gradients.gradients(look, steep)
    yield checks_gradients.gradient_slopes(look, steep, repeats.noise)


def preflight(scene: Scene) -> tuple[Finding, ...]:
    """All checks, in order. The first that refuses ends them: what follows would rest on it.

    A random model draws the same numbers at each call, and none of the caller's.
    """
    found: list[Finding] = []
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        try:
            for finding in _findings(scene):
                found.append(finding)
                if finding.fired and finding.level is Level.REFUSE:
                    break
        except TargetError as error:  # answers that are no scores, from the first batch or a later one
            cause, _, remedy = str(error).partition("; ")
            found = [finding for finding in found if finding.check != _SHAPE]
            found.append(Finding(_SHAPE, Level.REFUSE, True, cause, remedy))
    return tuple(found)


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raise PreflightError for the finding that refuses, if there is one."""
    for finding in findings:
        if finding.fired and finding.level is Level.REFUSE:
            raise PreflightError(f"preflight {finding.check}: {finding.detail}; {finding.remedy}")
