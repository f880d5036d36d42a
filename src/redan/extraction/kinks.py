"""Where a piecewise linear function of one number bends, to the precision of its values and not of a bisection.

The slopes at both ends of an interval say where it bends if it bends once: where the two lines meet. Answers there
say whether it is so, and an interval that bends more often is cut in two. This is the search for critical points of
Jagielski, Carlini, Berthelot, Kurakin and Papernot 2020, High Accuracy and High Fidelity Extraction of Neural Networks,
arXiv:1909.01838. Deviations: all intervals are asked together, all outputs count, and what is asked is not the bend but
the points right before and right after it, and two drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Kinks", "kinks"]

_PART = 16
"""Slopes are taken over this part of an interval, at either end: a line drawn on to the other end errs by about 23
times the error of a value, whatever the interval's length."""
_SLACK = 100.0
"""Errors of values that a drawn line may be off."""


class Kinks(NamedTuple):
    """The bends between 0 and 1, in order."""

    at: Tensor
    """(M,) float64."""
    sure: Tensor
    """(M,) bool: False where more than one may lie too near to each other to be told apart."""


def kinks(values: Callable[[Tensor], Tensor], *, noise: float, draw: torch.Generator, finest: float = 1e-9) -> Kinks:
    """The bends of `values`, which gives (N, K) for numbers (N,) in [0, 1].

    noise: standard deviation of the error of a value; a bend that changes no value by more than about 100 times as much
    is not seen. finest: two bends nearer to each other may be reported as one that is not sure.

    >>> bent = lambda t: ((t - 0.25).clamp_min(0) - 3 * (t - 0.7).clamp_min(0))[:, None]
    >>> kinks(bent, noise=1e-16, draw=torch.Generator().manual_seed(0)).at.numpy().round(12).tolist()
    [0.25, 0.7]
    """
    low, high = torch.tensor([0.0, 1.0], dtype=torch.float64).chunk(2)
    at_low, at_high = values(torch.cat([low, high])).chunk(2)
    found: list[Tensor] = []
    blurred: list[Tensor] = []
    limit = _SLACK * noise
    while len(low):
        narrow = high - low < finest
        blurred.append(((low + high) / 2)[narrow])
        low, high, at_low, at_high = low[~narrow], high[~narrow], at_low[~narrow], at_high[~narrow]
        if not len(low):
            break
        before, after = _slopes(values, low, high, at_low, at_high)
        length, bend = (high - low)[:, None], after - before
        ahead = at_low + before * length - at_high  # how far the first line misses the other end
        straight = (ahead.abs().amax(1) <= limit) & ((bend * length).abs().amax(1) <= 2 * limit)
        back = -(ahead * bend).sum(1) / bend.square().sum(1).clamp_min(1e-300)
        meeting = high - back
        once = ~straight & (back > 0) & (meeting > low)
        once &= (ahead + bend * back[:, None]).abs().amax(1) <= 2 * limit
        meeting = torch.where(once, meeting, high)

        def drawn(t: Tensor, of: Tensor) -> Tensor:
            """The two lines, at t."""
            first = at_low[of] + before[of] * (t - low[of])[:, None]  # noqa: B023 - used within this turn
            second = at_high[of] + after[of] * (t - high[of])[:, None]  # noqa: B023
            return torch.where((t < meeting[of])[:, None], first, second)  # noqa: B023

        every, some = torch.arange(len(low)), once.nonzero().flatten()
        share = 0.35 + 0.3 * torch.rand(len(low), generator=draw, dtype=torch.float64)
        middle = low + share * (high - low)
        left = middle < meeting
        other = torch.where(left, meeting + share * (high - meeting), low + share * (meeting - low))
        # Two bends of opposite signs meet outside of where they are: so it must bend right here, as far as can be seen.
        room = torch.minimum(meeting - low, high - meeting) / 2
        aside = torch.minimum(room, 8 * limit / bend.abs().amax(1).clamp_min(1e-300))[some]
        asked = torch.cat([middle, meeting[some] - aside, meeting[some] + aside, other[some]])
        of = torch.cat([every, some, some, some])
        answers = values(asked)
        wrong = (answers - drawn(asked, of)).abs().amax(1) > limit
        agreed = (straight | once).index_put((of[wrong],), torch.tensor(False))
        found.append(meeting[agreed & once])
        cut, at_cut = middle[~agreed], answers[: len(middle)][~agreed]
        low, high = torch.cat([low[~agreed], cut]), torch.cat([cut, high[~agreed]])
        at_low, at_high = torch.cat([at_low[~agreed], at_cut]), torch.cat([at_cut, at_high[~agreed]])
    at = torch.cat([*found, *blurred])
    sure = torch.arange(len(at)) < sum(len(part) for part in found)
    at, order = at.sort()
    return Kinks(at, sure[order])


def _slopes(
    values: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor
) -> tuple[Tensor, Tensor]:
    """The slopes (N, K) after the lower ends and before the upper ends."""
    step = (high - low) / _PART
    near, far = low + step, high - step
    at_near, at_far = values(torch.cat([near, far])).chunk(2)
    return (at_near - at_low) / (near - low)[:, None], (at_high - at_far) / (high - far)[:, None]
