"""Randomized smoothing that asks as many draws as a row needs: is it robust at a radius, or at how large a one?

Most rows are far from any doubt, and a fixed number of draws is spent on them for nothing. `robust_at` decides one
radius by a sequential test, `largest_radius` follows a confidence sequence; both are valid wherever they stop, and use
the draws that `redan.certification.smoothing.certify` would, in the same order.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from scipy.special import ndtr
from torch import Tensor, nn

from redan.certification.sequential import sequential_test
from redan.certification.smoothing import ABSTAINED, Smoothed, Smoothing, gathered, selected
from redan.certification.votes import Voters, by_rows
from redan.errors import SettingError
from redan.evidence.sequences import sequence_lower
from redan.evidence.statistics import lower_bound, upper_bound
from redan.targets import Target

__all__ = ["largest_radius", "robust_at"]

_LAST = 0.5
"""Share of α for the bound at the last draw, which needs to hold only there and is the tightest."""
_SOONEST, _GROWTH = 32, 1.2
_HOPE = 0.05
"""How unlikely the rate is, at the least, that a row's last bound is foretold with."""


def robust_at(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    radius: float,
    settings: Smoothing,
    *,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Smoothed:
    """Which rows x (N, …) the smoothed classifier answers alike all over the L2 ball of this radius.

    A row has the radius if its class is more probable than Φ(radius / σ), and that is tested with up to `draws` draws
    (`redan.certification.sequential`): nearly every row that `certify` finds a radius as large for is shown, and few
    need many draws. It is shown wrongly with a chance of alpha at most. Rows that are not shown abstain. A radius that
    `draws` draws cannot show of any row costs the selection alone. Each radius asked about is a question of its own,
    with an alpha of its own.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.eye(2)
    >>> found = robust_at(model, torch.tensor([[0.9, 0.1], [0.6, 0.4]]), 0.25, Smoothing(sigma=0.5, draws=1_000))
    >>> found.radius.tolist(), found.samples.tolist()
    ([0.25, 0.0], [165, 135])
    """
    if not 0 <= radius < math.inf:
        raise SettingError(f"a radius is a distance of 0 or more in units of the box, got {radius}")
    beaten = min(1.0, math.nextafter(float(ndtr(radius / settings.sigma)), 2.0))
    test = sequential_test(beaten, settings.draws, settings.alpha)

    def block(voters: Voters) -> list[tuple[int, float, int]]:
        top = selected(voters, settings)
        noise = voters.keyed("estimation")
        alive, before = torch.arange(len(top), device=top.device), 0
        misses, samples = torch.zeros_like(top), torch.full_like(top, settings.selection)
        shown = torch.zeros_like(top, dtype=torch.bool)
        for look, least, most in zip(test.looks.tolist(), test.shown.tolist(), test.given_up.tolist(), strict=True):
            if not len(alive):
                break
            draws, before = look - before, look
            misses[alive] += draws - noise.votes(alive, draws).gather(1, top[alive][:, None])[:, 0]
            samples[alive] += draws
            shown[alive] = misses[alive] <= least
            alive = alive[~shown[alive] & (misses[alive] < most)]
        return [
            (guess, radius, asked) if sure else (ABSTAINED, 0.0, asked)
            for guess, sure, asked in zip(top.tolist(), shown.tolist(), samples.tolist(), strict=True)
        ]

    return gathered(by_rows(model, x, settings.sigma, block, bounds=bounds, seed=seed, workers=workers), settings)


def largest_radius(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    settings: Smoothing,
    *,
    tolerance: float,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Smoothed:
    """The class of rows x (N, …) under noise and its certified radius, asked until little is left to gain.

    The bound of the class's probability holds at every draw (`redan.evidence.sequences.sequence_lower`, at half of
    alpha), and the last draw has Clopper and Pearson's besides, at the other half; the largest of them counts. A row
    stops where the radius that all `draws` draws may give it, were its probability as high as it may well be (95 %),
    is larger by `tolerance` (units of the box) at the most. The radius is valid for any tolerance; 0 asks all draws of
    every row that may gain.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.eye(2)
    >>> found = largest_radius(model, torch.tensor([[0.9, 0.1]]), Smoothing(sigma=0.5, draws=10_000), tolerance=0.1)
    >>> 0.4 < found.radius.item() < 0.5657, found.samples.item() < 5_000  # of the true distance 0.8 / √2
    (True, True)
    """
    if not 0 <= tolerance < math.inf:
        raise SettingError(f"tolerance is a distance of 0 or more in units of the box, got {tolerance}")

    def block(voters: Voters) -> list[tuple[int, float, int]]:
        top = selected(voters, settings)
        noise = voters.keyed("estimation")
        alive, look = torch.arange(len(top), device=top.device), 0
        hits, samples, best = torch.zeros_like(top), torch.full_like(top, settings.selection), [0.0] * len(top)
        while len(alive) and look < settings.draws:
            draws = min(settings.draws, max(_SOONEST, math.ceil(look * _GROWTH))) - look
            look += draws
            hits[alive] += noise.votes(alive, draws).gather(1, top[alive][:, None])[:, 0]
            samples[alive] += draws
            going = []
            for row, k in zip(alive.tolist(), hits[alive].tolist(), strict=True):
                found = _bounds(k, look, settings)
                best[row] = max(best[row], found.low)
                going.append(settings.radius(found.hoped) - settings.radius(best[row]) > tolerance)
            alive = alive[torch.tensor(going, dtype=torch.bool, device=alive.device)]
        return [
            (guess if low >= 0.5 else ABSTAINED, settings.radius(low), asked)
            for guess, low, asked in zip(top.tolist(), best, samples.tolist(), strict=True)
        ]

    return gathered(by_rows(model, x, settings.sigma, block, bounds=bounds, seed=seed, workers=workers), settings)


class _Bounds(NamedTuple):
    low: float  # the rate is at least that
    hoped: float  # what the last draw's bound may well become


@lru_cache(maxsize=4096)
def _bounds(k: int, n: int, settings: Smoothing) -> _Bounds:
    """After k hits in n draws."""
    most, last = settings.draws, settings.alpha * _LAST
    low = sequence_lower(k, n, settings.alpha - last, planned=most)
    if n == most:
        low = max(low, lower_bound(k, n, last))
    rate = upper_bound(k, n, _HOPE)
    return _Bounds(low, lower_bound(min(most, rate * most), most, last))
