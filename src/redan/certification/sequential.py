"""Is a rate above another? A test that looks at many moments, of error probability α all in all, computed exactly.

A fixed-size test asks N draws of every row. This one asks whether the draws so far decide, at a few dozen moments up to
the same N, with boundaries in the number of misses (draws that count against the row):

- shown, where misses are so few that all the chances of getting there, summed over the moments, stay below α while the
  rate is the one to be beaten. The part of α that may be used up by each moment is fixed beforehand (Lan and DeMets
  1983, Biometrika 70:659) and grows with the logarithm of the draws, since nobody knows how far above the rate is. Most
  of it is kept for the last moment, so that the power is nearly that of the fixed-size test.
- given up, where misses are so many that the fixed-size test would hardly be passed. Given its sum, the way there is
  a draw without replacement whatever the rate, so this needs no rate either: of rows that the fixed-size test just
  passes, a set share is given up at the most, and of all others that it passes fewer. Giving up never errs: α is
  spent as though nobody gave up, so a caller may also stop for reasons of his own.

All sums are over the exact binomial walk (Armitage, McPherson and Rowe 1969, JRSS-A 132:235), in float64; what its
tails leave out counts as an error. A confidence sequence answers the same question without a horizon (Voráček 2024,
arXiv:2406.17830; `redan.evidence.sequences` has one), and pays for that in power at the last draw.

>>> test = sequential_test(0.9, 10_000, 0.001)
>>> found = walk(test, 0.99)
>>> round(found.shown, 3), round(found.draws)
(1.0, 149)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from redan.errors import SettingError
from redan.evidence.statistics import check_share, p_at_least

__all__ = ["SequentialTest", "Walk", "error", "sequential_test", "walk"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_LAST = 0.9
"""Share of α, at the most, that is kept for the last moment; as much as whole misses take up."""
_FIRST = 0.2
"""Share of the rest that is used up at the first moment at which a row without a miss could be shown."""
_LOST = 0.01
"""Share of the rows that the fixed-size test just passes that may be given up."""
_SOONEST, _GROWTH = 16, 1.1
"""The first moment, and how many times more draws the next one has."""
_TAIL = 1e-15
_ROUNDING = 1e-9
"""Share of α that is left for the rounding of the sums; there are some hundred, good to about 1e-13 each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequentialTest:
    """When to stop. rate: the one to be beaten; alpha: the chance, at the most, of showing a row of no larger rate.

    looks (L,): the number of draws at each moment, the last is the most that is asked. shown (L,): the most misses at
    which the rate is shown to be larger, -1 where none are few enough. given_up (L,): the fewest at which it is given
    up. fixed: the most misses with which the fixed-size test of as many draws shows it; -1 where N draws are too few
    even without a miss: then there are no looks, and nothing is to be asked.
    """

    rate: float
    alpha: float
    looks: Whole
    shown: Whole
    given_up: Whole
    fixed: int


class Walk(NamedTuple):
    """What a test does with draws of some rate: the chance that it shows the row, and the draws it asks in the mean."""

    shown: float
    draws: float


@lru_cache(maxsize=64)
def sequential_test(rate: float, most: int, alpha: float) -> SequentialTest:
    """The test of "the rate is no larger than `rate`" against "it is larger" with `most` draws at the most.

    Raises SettingError for values that cannot be.

    >>> len(sequential_test(0.9999, 1_000, 0.001).looks)  # not even 1,000 draws without a miss show that
    0
    """
    check_share("alpha", alpha)
    if most < 1 or not 0 < rate <= 1:
        raise SettingError(
            f"a test asks 1 draw or more whether a rate is above another from 0 to 1, 0 excluded, got {most} draws and "
            f"{rate}; Cohen et al. ask 100,000"
        )
    fixed = _fewest(rate, most, alpha)
    if fixed < 0:
        none = np.empty(0, dtype=np.int64)
        return SequentialTest(rate=rate, alpha=alpha, looks=none, shown=none, given_up=none, fixed=fixed)
    last = _fewest(rate, most, _LAST * alpha)
    early = alpha * (1 - _ROUNDING) - float(binom.cdf(fixed if last < 0 else last, most, 1 - rate))
    first = math.ceil(math.log(early * _FIRST) / math.log(rate)) if early > 0 else most
    looks = _looks(first, most)
    shown = _shown(rate, looks, _spending(first, most, early), alpha * (1 - _ROUNDING))
    given_up = np.maximum(_given_up(looks, fixed), shown + 1)
    given_up[-1] = shown[-1] + 1
    return SequentialTest(rate=rate, alpha=alpha, looks=looks, shown=shown, given_up=given_up, fixed=fixed)


def walk(test: SequentialTest, rate: float, *, patient: bool = False) -> Walk:
    """What the test does with draws of this rate, exactly. patient: nobody gives up before the last moment.

    >>> walk(sequential_test(0.5, 1_000, 0.001), 1.0)  # draws without a miss, until 2 % of α is used up
    Walk(shown=1.0, draws=16.0)
    """
    states, shown, draws, before = _State(np.ones(1), 0), 0.0, 0.0, 0
    for look, least, most in zip(test.looks.tolist(), test.shown.tolist(), test.given_up.tolist(), strict=True):
        draws += float(states.chance.sum()) * (look - before)
        states, before = _drawn(states, look - before, 1 - rate), look
        shown += float(states.upto(least).sum())
        states = states.above(least) if patient else states.above(least).below(most)
        if not len(states.chance):
            break
    return Walk(shown, draws)


def error(test: SequentialTest) -> float:
    """The chance that a row whose rate is exactly the one to be beaten is shown, by whoever never gives up.

    A larger chance than any row's with a smaller rate: fewer misses, draw by draw, never take a row out of the shown.
    """
    return walk(test, test.rate, patient=True).shown


# -- the boundaries --------------------------------------------------------------------------------------------


class _State(NamedTuple):
    """The chance of each number of misses that is still in play, from `first` on."""

    chance: Floats
    first: int

    def upto(self, misses: int) -> Floats:
        return self.chance[: max(0, misses + 1 - self.first)]

    def above(self, misses: int) -> _State:
        gone = min(len(self.chance), max(0, misses + 1 - self.first))
        return _State(self.chance[gone:], self.first + gone)

    def below(self, misses: int) -> _State:
        return _State(self.chance[: max(0, misses - self.first)], self.first)


def _drawn(states: _State, draws: int, miss: float) -> _State:
    """After more draws, each a miss with this chance."""
    if miss <= 0:
        return states
    if miss >= 1:
        return _State(states.chance, states.first + draws)
    low, high = max(0, int(binom.ppf(_TAIL, draws, miss))), int(binom.isf(_TAIL, draws, miss))
    chance = np.convolve(states.chance, binom.pmf(np.arange(low, high + 1), draws, miss))
    kept = int(np.searchsorted(np.cumsum(chance[::-1]), _TAIL))
    return _State(chance[: len(chance) - kept], states.first + low)


def _fewest(rate: float, most: int, alpha: float) -> int:
    """The most misses with which Clopper and Pearson's lower bound of N draws is at least the rate; -1 if none are."""
    low, high = -1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if p_at_least(most - middle, most, rate) <= alpha:
            low = middle
        else:
            high = middle
    return low


def _looks(first: int, most: int) -> Whole:
    found, look = {min(first, most), most}, _SOONEST
    while look < most:
        found.add(look)
        look = math.ceil(look * _GROWTH)
    return np.array(sorted(found), dtype=np.int64)


def _spending(first: int, most: int, early: float) -> Callable[[int], float]:
    """The chance of an error, at the most, up to each number of draws below the last."""

    def spent(draws: int) -> float:
        if draws < first:
            return 0.0
        return early * (_FIRST + (1 - _FIRST) * math.log(draws / first) / math.log(most / first))

    return spent


def _shown(rate: float, looks: Whole, spent: Callable[[int], float], alpha: float) -> Whole:
    """The most misses at each look that keep the chance of an error below what may be spent by then, α at the last."""
    states, before, found, used = _State(np.ones(1), 0), 0, np.full(len(looks), -1, dtype=np.int64), 0.0
    for at, look in enumerate(looks.tolist()):
        states, before = _drawn(states, look - before, 1 - rate), look
        lost = max(0.0, 1 - used - float(states.chance.sum()))  # the tails that were left out: errors, for all we know
        total = used + lost + np.cumsum(states.chance)
        few = int(np.searchsorted(total, spent(look) if look < looks[-1] else alpha, side="right"))
        if few:
            used += float(states.chance[:few].sum())
            found[at] = states.first + few - 1
            states = states.above(int(found[at]))
    return found


def _given_up(looks: Whole, fixed: int) -> Whole:
    """The fewest misses at each look at which the walks that end with `fixed` misses are cut, `_LOST` of them in all.

    Walks under any rate do, weighted by the chance of going on to that end.
    """
    most = int(looks[-1])
    miss = max(fixed, 0.5) / most
    end, opening = float(binom.pmf(fixed, most, miss)), 2 / int(looks[0])
    states, before, lost = _State(np.ones(1), 0), 0, 0.0
    found = np.full(len(looks), most + 1, dtype=np.int64)
    for at, look in enumerate(looks[:-1].tolist()):
        states, before = _drawn(states, look - before, miss), look
        misses = states.first + np.arange(len(states.chance))
        mass = states.chance * binom.pmf(fixed - misses, most - look, miss) / end
        cut = lost + np.cumsum(mass[::-1])[::-1]  # of all from here on
        keep = int((cut > _LOST * math.log(look * opening) / math.log(most * opening)).sum())
        if keep < len(cut):
            lost = float(cut[keep])
        found[at] = states.first + keep
        states = states.below(int(found[at]))
    return found
