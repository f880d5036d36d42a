"""What is tried again, adapted to what looked suspicious (Tramèr et al. 2020, arXiv:2002.08347: attacks must be).

Each retry changes what is climbed, or how; rows are still judged by the model's own answers. It works on the rows that
the ones before it left standing, so the order is from the cheapest to the dearest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from redan.assessment.indicators_attacks import doubled
from redan.engine.block import Job
from redan.engine.intake import count_classes
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Cascade, Restarts, Sweep
from redan.evasion.descent import Descent
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evidence.diagnosis import NAIVE
from redan.losses import dlr, margin, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack
from redan.robustness import Mode, attacks_of
from redan.targets import Target, rescaled, retraced, smoothed, student

_DRAWS = 20  # of a stochastic model, each gradient (Athalye et al. 2018 take 10 to 40)
_SQUARE: dict[type, type[Square] | type[SquareL2] | type[SquareL1]] = {Linf: Square, L2: SquareL2, L1: SquareL1}
_MASKED = (
    "zero-gradients",
    "shattered-gradients",
    "non-differentiable-stage",
    "one-step-beats-iteration",
    "loss-not-rising",
    "silent-success",
    "unbounded-does-not-break",
    "not-monotone",
    "black-box-beats-gradients",
    "random-beats-gradients",
    "masked gradients",
    "vanishing gradients",
    "black box beats white box",
    NAIVE,
)
_CHANCE = ("stochastic-gradients", "eot-not-converged")
_EFFORT = ("doubling-helps",)


class Adapted(NamedTuple):
    """A job changed to what was found, with one attack; or why there is none."""

    job: Job | None
    detail: str


@dataclass(frozen=True, slots=True)
class Retry:
    """One way to try again.

    calls: the indicators that call for it. adapt: the job on its rows, other rows of the run to calibrate on, and the
    run's mode: how much is tried.
    """

    name: str
    calls: tuple[str, ...]
    adapt: Callable[[Job, Tensor, Mode], Adapted]

    def because(self, raised: Collection[str]) -> list[str]:
        """Which of what was raised calls for it."""
        return [name for name in raised if name in self.calls]


def _draws(job: Job) -> Job:
    """The job with as many draws a gradient as a stochastic model needs."""
    return replace(job, eot=max(job.eot, _DRAWS)) if job.target.stochastic else job


def _climbs(job: Job, mode: Mode) -> Attack[Any, Any]:
    """What is tried on gradients that are no longer masked: the mode's own attacks, then longer climbs."""
    classes = job.aim.task.outcomes(count_classes(job.target, job.x, job.y, job.aim.task))
    named = attacks_of(Mode.QUICK if mode is Mode.QUICK else Mode.DEFAULT, job.within, Access.GRADIENTS, classes)
    more: Attack[Any, Any] = Restarts(Descent(steps=100, random_start=True, loss=margin), 2)
    longer = () if mode is Mode.QUICK or isinstance(job.within, L0) else (more,)
    return Cascade((*(attack for _, attack in named), *longer))


def _on(means: Callable[[Target[Tensor], Tensor], Target[Tensor] | None], what: str) -> Callable[..., Adapted]:
    """A retry that climbs what a means makes of the target."""

    def adapt(job: Job, known: Tensor, mode: Mode) -> Adapted:
        scaled = job.target if means is rescaled else rescaled(job.target, known) or job.target
        target = means(scaled, known)
        if target is None:
            return Adapted(None, f"{what}: not possible, or nothing to gain, with this model")
        return Adapted(replace(_draws(job), target=target, attacks=(("climbs", _climbs(job, mode)),)), what)

    return adapt


def _smoothed(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """Smoothed over what the model does, not over what it says of its gradients."""
    return smoothed(retraced(target, x) or target, x)


def _expectation(job: Job, known: Tensor, mode: Mode) -> Adapted:  # noqa: ARG001
    what = f"each gradient is the mean of {_DRAWS} draws (expectation over transformation)"
    if not job.target.stochastic:
        return Adapted(None, f"{what}: the model answers the same each time")
    return Adapted(replace(_draws(job), attacks=(("climbs", _climbs(job, mode)),)), what)


def _effort(job: Job, known: Tensor, mode: Mode) -> Adapted:  # noqa: ARG001
    what = "the same attacks again with other random numbers, and longer climbs"
    return Adapted(replace(_draws(job), seed=job.seed + 1, attacks=(("climbs", doubled(job)),)), what)


def _losses(job: Job, known: Tensor, mode: Mode) -> Adapted:
    steps = 50 if mode is Mode.QUICK else 200
    what = f"other losses, more steps and restarts: APGD on cross-entropy, DLR and targeted DLR, {steps} steps each"
    if not isinstance(job.within, Linf | L2):
        return Adapted(None, f"{what}: built in L-infinity and L2")
    target = _seeing(rescaled(job.target, known) or job.target, known)
    if target is None:
        return Adapted(None, f"{what}: the answers have no gradient in the input")
    classes = job.aim.task.outcomes(count_classes(job.target, job.x, job.y, job.aim.task))
    parts = (
        Restarts(APGD(steps=steps), 2),
        Restarts(APGD(steps=steps, loss=dlr), 2),
        Sweep(APGD(steps=steps, loss=targeted_dlr), targets=min(9, classes - 1)),
    )
    return Adapted(replace(_draws(job), target=target, attacks=(("climbs", Cascade(parts)),)), what)


def _seeing(target: Target[Tensor], x: Tensor) -> Target[Tensor] | None:
    """The target, or with its operations played back where its own gradient is zero on half of rows x or more."""
    with torch.enable_grad():
        moving = x.to(target.dtype).requires_grad_()
        scores = target(moving)
        slope = None
        if scores.requires_grad:
            (slope,) = torch.autograd.grad(scores.amax(1).sum(), moving, allow_unused=True)
    if slope is not None and float((slope.flatten(1) != 0).any(1).float().mean()) > 0.5:
        return target
    return retraced(target, x)


def _black_box(job: Job, known: Tensor, mode: Mode) -> Adapted:  # noqa: ARG001
    queries = 1000 if mode is Mode.QUICK else 5000
    what, square = f"no gradients at all: Square with {queries:,} queries", _SQUARE.get(type(job.within))
    if square is None:
        return Adapted(None, f"{what}: it has no form in this set")
    return Adapted(replace(job, attacks=(("square", square(queries=queries)),)), what)


RETRIES = (
    Retry(
        "rescaled-scores",
        _MASKED,
        _on(rescaled, "scores are brought back to a scale on which losses have slopes"),
    ),
    Retry(
        "retraced-gradients",
        _MASKED,
        _on(retraced, "the model's operations are played back with smooth stand-ins (BPDA)"),
    ),
    Retry("expectation-over-draws", _CHANCE, _expectation),
    Retry("more-effort", _EFFORT, _effort),
    Retry("other-losses", (*_MASKED, *_EFFORT), _losses),
    Retry(
        "smoothed-gradients",
        _MASKED,
        _on(_smoothed, "each gradient is the mean of gradients at points around"),
    ),
    Retry(
        "student-gradients",
        _MASKED,
        _on(student, "gradients are those of a student trained on the model's answers"),
    ),
    Retry("black-box", (*_MASKED, *_EFFORT, *_CHANCE), _black_box),
)
