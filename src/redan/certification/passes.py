"""Bounds of a whole network around one row: intervals forward, linear relaxations backward.

A network is a list of steps in the order of computation; step -1, the input, is not in it. Every bound holds for the
numbers that the model really computes: wherever its result is rounded, the rounding is one more thing that an attacker
may choose (`Reached.slack`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from redan.certification.patches import Patches
from redan.certification.region import Region
from redan.certification.rounding import OWN, Rounding, gamma, unit
from redan.certification.steps import Interval, Reached, Step, dot
from redan.certification.windows import Place, Pointwise, Window, cut

_NUMBERS = 2**20  # of coefficients held at once for one step: 8 MiB
_CALLS = 2**19  # what the calls of a step cost, in multiplications
_PICKED = 64  # what picking an image's numbers for one number of a patch costs


class Ready(NamedTuple):
    """What the way back over a step needs, the same for all coefficients.

    parts: the step's relaxation. loose: what a coefficient of 1 may lose by rounding, (1, …). floor: by underflow.
    """

    parts: tuple[Tensor, ...]
    loose: Tensor
    floor: float
    counted: bool


@dataclass(slots=True)
class Bounds:
    """What is known of each step's numbers around one row."""

    steps: Sequence[Step]
    region: Region
    rounding: Rounding
    known: list[Reached] = field(default_factory=list)
    _ready: dict[int, Ready] = field(default_factory=dict)

    def of(self, step: int) -> Interval:
        return self.known[step].interval if step >= 0 else self.region.interval

    def given(self, step: int) -> list[Interval]:
        return [self.of(parent) for parent in self.steps[step].parents]

    def takers(self, step: int) -> list[Step]:
        return [one for one in self.steps if step in one.parents]

    def counted(self, step: int) -> bool:
        """Whether the rounding of coefficients of this step's numbers has to be counted there.

        A step that a model computes exactly has none but ours, of a share of each coefficient times the size of its
        number. Where only affine steps take the result, those products are among the sizes that they sum, so it is
        counted with theirs.
        """
        return not self.steps[step].exact or not all(taker.straight for taker in self.takers(step))

    def ready(self, step: int) -> Ready:
        """Of our own rounding: each coefficient times the largest number that it can meet, and each sum of sizes."""
        if step not in self._ready:
            one, reached, given = self.steps[step], self.known[step], self.given(step)
            u, deep, count = unit(OWN), len(self.steps) + 16, reached.interval.low.numel()
            parts, size = one.relaxed(given)
            floor = torch.finfo(OWN).tiny * (one.reach + count) * (1 + sum(float(part.size.sum()) for part in given))
            kept = deep * u  # a coefficient is relaxed once, and summed over the uses of its number
            loose = reached.slack + gamma(one.reach + 16, u) * reached.summed + kept * reached.interval.size + floor
            if one.straight:
                deferred = sum(gamma(other.reach + 16, u) + kept for other in self.steps if other.exact)
                loose = loose + 2 * deferred * reached.summed
            if size is not None:
                loose = loose + size * gamma(count + deep, 2 * u)
            self._ready[step] = Ready(
                parts, loose * (1 + gamma(2 * count + 16 + deep, 2 * u)), floor, self.counted(step)
            )
        return self._ready[step]

    def narrow(self, step: int, interval: Interval) -> None:
        """Take this for the step's interval from now on."""
        self.known[step] = self.known[step]._replace(interval=interval)
        self._ready.pop(step, None)


def intervals(steps: Sequence[Step], region: Region, rounding: Rounding) -> Bounds:
    """Bounds of every step by interval arithmetic (IBP)."""
    bounds = Bounds(steps, region, rounding)
    for at, step in enumerate(steps):
        bounds.known.append(step.forward(bounds.given(at), rounding))
    return bounds


def refined(steps: Sequence[Step], region: Region, rounding: Rounding) -> Bounds:
    """The same, narrowed by linear relaxations of all before it what steps take, where they bend (CROWN)."""
    bounds = Bounds(steps, region, rounding)
    for at, step in enumerate(steps):
        bounds.known.append(step.forward(bounds.given(at), rounding))
        if step.straight:
            _narrow(bounds, at)
    return bounds


def _narrow(bounds: Bounds, step: int) -> None:
    """Bound those of a step's numbers once more whose interval matters: from above, then what still matters from below.

    A ReLU does not ask how far below 0 a number is that cannot be above.
    """
    if _settled(bounds, step):
        return
    for sign in (-1, 1):
        known = bounds.of(step)
        masks = [taker.open([known]) for taker in bounds.takers(step)]
        bending = [mask for mask in masks if mask is not None]
        if not bending:
            return
        mask = torch.stack(bending).any(0)
        tiles, together = _tiles(bounds, step, int(mask.sum()))
        signs = (-1, 1) if together else (sign,)
        for way, found in zip(signs, _least(bounds, step, mask, tiles, signs), strict=True):
            least, most = (found, known.high) if way > 0 else (known.low, -found)
            known = known.within(Interval(least, most))
        bounds.narrow(step, known)
        if together:
            return


def _settled(bounds: Bounds, step: int) -> bool:
    """Whether intervals are the best that can be said: of an affine function of a box itself."""
    if bounds.region.dual != 1:
        return False
    parents = bounds.steps[step].parents
    while parents != (-1,):
        if len(parents) > 1 or not isinstance(getattr(bounds.steps[parents[0]], "local", None), Pointwise):
            return False
        parents = bounds.steps[parents[0]].parents
    return True


def _least(
    bounds: Bounds, step: int, mask: Tensor, tiles: Sequence[Window | None], signs: Sequence[int]
) -> list[Tensor]:
    """For each sign, lower bounds of sign · z for those numbers z that the mask names, -inf of the others.

    By these windows; where there are none, each number by its own, all in one pass.
    """
    if not tiles:
        return [_patched(bounds, step, mask, sign) for sign in signs]
    found = [torch.full(mask.shape, -torch.inf, dtype=OWN) for _ in signs]
    for window in tiles:
        part = cut(mask, window)
        widest = max(bounds.of(at).low.numel() for at in range(-1, step + 1)) if window is None else part.numel() * 8
        for some in torch.split(part.nonzero(), max(1, _NUMBERS // widest // len(signs))):
            one = torch.zeros(len(some), *part.shape[1:], dtype=OWN)
            one[(torch.arange(len(some)), *some[:, 1:].unbind(1))] = 1
            values = lower(bounds, step, torch.cat([sign * one for sign in signs]), window)
            for into, value in zip(found, values.chunk(len(signs)), strict=True):
                cut(into, window)[some.unbind(1)] = value
    return found


def _patched(bounds: Bounds, step: int, mask: Tensor, sign: int) -> Tensor:
    """The same for one sign, each number with a window of its own."""
    found, (height, width) = torch.full(mask.shape, -torch.inf, dtype=OWN), mask.shape[2:]
    widest = _work(bounds, step, Window(height // 2, height // 2 + 1, width // 2, width // 2 + 1)).widest
    for some in torch.split(mask.nonzero(), max(1, _NUMBERS // widest)):
        _, channels, rows, columns = some.unbind(1)
        one = torch.zeros(len(some), mask.shape[1], 1, 1, dtype=OWN)
        one[torch.arange(len(some)), channels] = sign
        found[some.unbind(1)] = lower(bounds, step, one, Patches.at(rows, columns, height, width))
    return found


def _tiles(bounds: Bounds, step: int, count: int) -> tuple[Sequence[Window | None], bool]:
    """The windows to bound a step's numbers by, so many in all: as small as pays, none for one a number. And whether
    both ends at once pay."""
    shape, work = bounds.of(step).low.shape, count * _work(bounds, step, None).work
    best: tuple[float, Sequence[Window | None], bool] = (work, [None], False)
    if len(shape) != 4:
        return best[1:]
    height, width = shape[2:]
    for side in (1, 2, 4, 7):
        tiles = [
            Window(top, min(top + side, height), left, min(left + side, width))
            for top in range(0, height, side)
            for left in range(0, width, side)
        ]
        middle = tiles[len(tiles) // 2 + math.isqrt(len(tiles)) // 2 if len(tiles) > 1 else 0]
        work, numbers, passed, _ = _work(bounds, step, middle)
        if side == 1 and (each := count * (work + _PICKED * numbers) + passed * _CALLS) < best[0]:
            best = each, [], False
        work, calls = work * count, len(tiles) * passed * _CALLS
        if work + calls < best[0]:
            best = work + calls, tiles, work < calls
    return best[1:]


class _Work(NamedTuple):
    """What a bound of one number takes: multiplications; numbers of windows; steps; the most numbers of a step."""

    work: float
    numbers: int
    passed: int
    widest: int


def _work(bounds: Bounds, step: int, window: Window | None) -> _Work:
    waiting: dict[int, Any] = {step: window}
    work, numbers, passed, widest = 0.0, 0, 0, 1
    for at in range(step, -1, -1):
        if at not in waiting:
            continue
        window, one = waiting.pop(at), bounds.steps[at]
        looked: Any = None if window is None else one.looks(window)
        shape = bounds.of(at).low.shape
        here = math.prod(shape) if window is None or looked is None else math.prod(shape[:2]) * window.area
        work += here * (one.terms + 8)
        numbers += 0 if window is None else here
        widest = max(widest, here)
        for parent in one.parents:
            if parent in waiting:
                other = waiting[parent]
                waiting[parent] = None if looked is None or other is None else looked.around(other)
            else:
                waiting[parent] = looked
        passed += 1
    return _Work(work, numbers, passed, widest)


def lower(bounds: Bounds, step: int, a: Tensor, window: Place | None = None, *, bends: bool = True) -> Tensor:
    """Lower bounds of a · z, z the step's numbers, for S rows a (S, …): (S,); -inf where nothing can be said.

    window: where a's numbers are, if not everywhere. bends: whether to go on over steps that bend, by their lines; else
    their results' intervals are the end, so that only what is affine after them is taken as one (Gowal et al. 2018,
    section 3), which may be the tighter of both where a network was trained by it. What our own rounding may take is
    subtracted (`Bounds.ready`).
    """
    waiting: dict[int, tuple[Tensor, Place | None]] = {step: (a, window)}
    total = torch.zeros(len(a), dtype=OWN)
    deep, u = len(bounds.steps) + 16, unit(OWN)
    for at in range(step, -1, -1):
        if at not in waiting:
            continue
        if not bends and not bounds.steps[at].straight:
            a, window = waiting.pop(at)
            least, size = bounds.of(at).least(a, window)
            total += least - size * (deep * u + gamma(math.prod(a.shape[1:]) + deep, 2 * u))
            continue
        (a, window), one, ready = waiting.pop(at), bounds.steps[at], bounds.ready(at)
        looked = None if window is None or not window.pays(*bounds.of(at).low.shape[-2:]) else one.looks(window)
        if window is not None and looked is None:
            a, window = _everywhere(a, window, bounds.of(at)), None
        back = one.backward(a, [cut(part, window) for part in ready.parts], window)
        total += back.added - ready.floor
        if ready.counted or at == step:
            total -= dot(a.abs(), cut(ready.loose, window))
        for parent, part in zip(one.parents, back.parents, strict=True):
            more = part, looked
            waiting[parent] = _added(waiting[parent], more, bounds.of(parent)) if parent in waiting else more
    if -1 in waiting:
        a, window = waiting[-1]
        least, size = bounds.region.least(a, window)
        total += least - size * (deep * u + gamma(math.prod(a.shape[1:]) + deep, 2 * u))
    return total.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def _everywhere(a: Tensor, window: Place | None, known: Interval) -> Tensor:
    height, width = known.low.shape[-2:]
    return a if window is None else window.whole(a, height, width)


def _added(
    held: tuple[Tensor, Place | None], more: tuple[Tensor, Place | None], known: Interval
) -> tuple[Tensor, Place | None]:
    """The sum of coefficients of two windows."""
    (a, here), (b, there) = held, more
    around: Place | None = None if here is None or there is None else here.around(there)
    if here is None or there is None or around is None:
        return _everywhere(a, here, known) + _everywhere(b, there, known), None
    return here.widened(a, around) + there.widened(b, around), around
