"""Bounds of a whole network around one row: intervals forward, linear relaxations backward.

A network is a list of steps in the order of computation; step -1, the input, is not in it. Every bound holds for the
numbers that the model really computes: wherever its result is rounded, the rounding is one more thing that an attacker
may choose (`Reached.slack`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.certification.region import Region
from redan.certification.rounding import OWN, Rounding, gamma, unit
from redan.certification.steps import Interval, Reached, Relu, Step

_NUMBERS = 2**20  # of coefficients held at once for one step: 8 MiB


@dataclass(slots=True)
class Bounds:
    """What is known of each step's numbers around one row."""

    steps: Sequence[Step]
    region: Region
    rounding: Rounding
    known: list[Reached] = field(default_factory=list)

    def of(self, step: int) -> Interval:
        return self.known[step].interval if step >= 0 else self.region.interval

    def given(self, step: int) -> list[Interval]:
        return [self.of(parent) for parent in self.steps[step].parents]


def intervals(steps: Sequence[Step], region: Region, rounding: Rounding) -> Bounds:
    """Bounds of every step by interval arithmetic (IBP)."""
    bounds = Bounds(steps, region, rounding)
    for at, step in enumerate(steps):
        bounds.known.append(step.forward(bounds.given(at), rounding))
    return bounds


def refined(steps: Sequence[Step], region: Region, rounding: Rounding) -> Bounds:
    """The same, each ReLU's input narrowed by linear relaxations of all before it, where its sign is open (CROWN)."""
    bounds = Bounds(steps, region, rounding)
    bent = {step.parents[0] for step in steps if isinstance(step, Relu)}
    for at, step in enumerate(steps):
        reached = step.forward(bounds.given(at), rounding)
        bounds.known.append(reached)
        if at in bent:
            bounds.known[at] = reached._replace(interval=_narrowed(bounds, at))
    return bounds


def _narrowed(bounds: Bounds, step: int) -> Interval:
    """The step's interval, those numbers whose sign is open bounded once more."""
    known = bounds.of(step)
    low, high = known.low.flatten().clone(), known.high.flatten().clone()
    widest = max(bounds.of(at).low.numel() for at in range(-1, step + 1))
    several = max(1, _NUMBERS // widest // 2)
    for some in torch.split(((low < 0) & (high > 0)).nonzero().flatten(), several):
        one = torch.zeros(len(some), len(low), dtype=OWN)
        one[torch.arange(len(some)), some] = 1
        found = lower(bounds, step, torch.cat([one, -one]).reshape(-1, *known.low.shape[1:]))
        low[some], high[some] = found[: len(some)], -found[len(some) :]
    shape = known.low.shape
    return known.within(Interval(low.reshape(shape), high.reshape(shape)))


def lower(bounds: Bounds, step: int, a: Tensor) -> Tensor:
    """Lower bounds of a · z, z the step's numbers, for S rows a (S, …): (S,); -inf where nothing can be said.

    What our own rounding may take is subtracted: of each coefficient, times the largest number that it can meet, and
    of each sum, as a share of the sizes of what it sums.
    """
    u, tiny, deep = unit(OWN), torch.finfo(OWN).tiny, len(bounds.steps) + 16
    kept = deep * u  # a coefficient is relaxed once, and summed over the uses of its number
    waiting, total = {step: a}, torch.zeros(len(a), dtype=OWN)
    for at in range(step, -1, -1):
        if at not in waiting:
            continue
        a, one = waiting.pop(at), bounds.steps[at]
        reached, given = bounds.known[at], bounds.given(at)
        count = math.prod(a.shape[1:])
        floor = tiny * (one.reach + count) * (1 + sum(float(part.size.sum()) for part in given))
        loose = reached.slack + gamma(one.reach + 16, u) * reached.summed + kept * reached.interval.size + floor
        back = one.backward(a, given)
        lost = a.abs().flatten(1) @ loose.flatten() * (1 + gamma(count + 16, u)) + floor
        total += back.added - lost - (lost + back.size) * gamma(count + deep, 2 * u)
        for parent, part in zip(one.parents, back.parents, strict=True):
            waiting[parent] = waiting[parent] + part if parent in waiting else part
    if -1 in waiting:
        a = waiting[-1]
        least, size = bounds.region.least(a)
        total += least - size * (kept + gamma(math.prod(a.shape[1:]) + deep, 2 * u))
    return total.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
