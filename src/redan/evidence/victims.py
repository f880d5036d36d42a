"""Rates over trained victims: Student's t over them, with the test rows' own sampling added; equivalence by TOST.

A victim's rate is one number; how victims differ is what training and the draw of the poison leave to chance. The test
rows are a sample too, the same one for all victims, so that more victims do not make its error smaller: whether a mean
is beyond q is told by its distance from q over the root of s² / V + q (1 - q) / m, with s² of V victims and m rows,
against t with V - 1 degrees of freedom (Student 1908); the rows' part is that of a score test (Wilson 1927), as p̂ in
place of q misses too often near 0 and 1. Bounds are the q at which that turns. s² holds a part of the rows' error
already, so they are a little wide.
They assume that victims' rates scatter about alike on both sides; where victims fall on both sides of a threshold, a
pass is not believed. Victims that are hit or not (one chosen row each) are counted exactly instead.

A victim of whom nothing is known never helps. With t that takes more than counting it as 0 or 1: a rate far from the
others widens the interval even on the side where it lies. So each bound is the worst over all fates of such victims,
and over fewer of them: 0 or 1 each, as the bounds are concave in each rate and so worst at an end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.special import stdtr, stdtrit

from redan.evidence.base import MeanPart
from redan.evidence.poisoned import Equivalence, EquivalencePart
from redan.evidence.rates import Count
from redan.evidence.statistics import check_share, lower_bound, p_at_least, p_at_most, upper_bound

__all__ = ["Several", "Victims", "equivalence"]

_MOST = 10_000  # victims that anybody would be told to train


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some rates, as Student's t looks at them. squares: sum of squared deviations from the mean."""

    n: int
    mean: float
    squares: float
    rows: int

    def joined(self, ones: int, zeros: int) -> _Sample:
        """With some rates of 1 and of 0 more."""
        n = self.n + ones + zeros
        mean = (self.n * self.mean + ones) / n
        squares = self.squares + self.n * (self.mean - mean) ** 2 + ones * (1 - mean) ** 2 + zeros * mean**2
        return _Sample(n, mean, squares, self.rows)

    def repeated(self, times: int) -> _Sample:
        """So many times the same rates."""
        return _Sample(self.n * times, self.mean, self.squares * times, self.rows)

    def bound(self, level: float, *, above: bool) -> float:
        """The rate above (below) which the mean is shown to be: where the p-value is the level."""
        t = float(stdtrit(self.n - 1, 1 - level))
        pull = t * t / self.rows
        spread = pull * pull + 4 * pull * self.mean * (1 - self.mean) + 4 * (1 + pull) * t * t * self._scatter
        reach = math.copysign(math.sqrt(spread), -t if above else t)
        return (2 * self.mean + pull + reach) / (2 * (1 + pull))

    def p_value(self, threshold: float, *, above: bool) -> float:
        """Against the contrary of: the mean is above (below) the threshold."""
        beyond = self.mean - threshold if above else threshold - self.mean
        error = math.sqrt(self._scatter + threshold * (1 - threshold) / self.rows)
        if not error:  # all rates are one, and the threshold is 0 or 1
            return 0.0 if beyond > 0 else 1.0
        return float(stdtr(self.n - 1, -beyond / error))

    @property
    def _scatter(self) -> float:
        """Of the mean, as the victims' rates tell it: its variance."""
        return self.squares / (self.n - 1) / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """One attack's victims at one share.

    rates: of each victim, in [0, 1]; fewer than two show nothing, unless each is hit or not. rows: asked of each; 1
    where a victim is hit or not. errors, undecided: victims of whom nothing is known.

    >>> found = Victims(rates=(0.96, 0.97, 0.98), rows=1000)
    >>> round(found.value, 2), round(found.lower(0.05), 3), round(found.upper(0.05), 3)
    (0.97, 0.943, 0.989)
    """

    rates: tuple[float, ...]
    rows: int
    errors: int = 0
    undecided: int = 0
    name: str | None = None

    @property
    def missing(self) -> int:
        """Victims of whom nothing is known."""
        return self.errors + self.undecided

    @property
    def exact(self) -> bool:
        """Whether each victim is hit or not."""
        return self.rows == 1

    @property
    def value(self) -> float:
        """The mean over the victims that are known; 0 of none."""
        return fmean(self.rates) if self.rates else 0.0

    @property
    def count(self) -> Count:
        """The victims as a verdict names them."""
        return Count(
            k=round(sum(self.rates)) if self.exact else 0,
            n=len(self.rates) + self.missing,
            errors=self.errors,
            undecided=self.undecided,
            mean=None if self.exact else self.value,
            name=self.name,
        )

    def lower(self, level: float) -> float:
        """The true mean is below it with chance `level` at most."""
        if self.exact:
            return lower_bound(sum(self.rates), len(self.rates) + self.missing, level)
        return min((max(0.0, fate.bound(level, above=True)) for fate in self._fates()), default=0.0)

    def upper(self, level: float) -> float:
        """The true mean is above it with chance `level` at most."""
        if self.exact:
            return upper_bound(sum(self.rates) + self.missing, len(self.rates) + self.missing, level)
        return max((min(1.0, fate.bound(level, above=False)) for fate in self._fates()), default=1.0)

    def p_value(self, threshold: float, *, above: bool) -> float:
        """Against the contrary of: the mean is above (below) the threshold. It agrees with the bounds."""
        if self.exact:
            hits, n = sum(self.rates), len(self.rates) + self.missing
            return p_at_least(hits, n, threshold) if above else p_at_most(hits + self.missing, n, threshold)
        return max((fate.p_value(threshold, above=above) for fate in self._fates()), default=1.0)

    def to_decide(self, threshold: float, level: float, *, above: bool) -> int | None:
        """Victims at which that would be shown if mean and scatter stay as they are; None if no number would.

        It is a multiple of the victims that are known.
        """
        beyond = self.value - threshold if above else threshold - self.value
        if beyond <= 0 or not self.rates:
            return None
        known, test = len(self.rates), p_at_least if above else p_at_most
        sample = self._sample
        for times in range(1, _MOST // known + 1):
            n = known * times
            if self.exact:
                p = test(sum(self.rates) * times, n, threshold)
            else:
                p = sample.repeated(times).p_value(threshold, above=above) if n > 1 else 1.0
            if p <= level:
                return n
        return None

    def part(self, confidence: float) -> MeanPart | None:
        """The mean with its two-sided interval; None of no victim."""
        check_share("confidence", confidence)
        if not self.rates:
            return None
        tail = (1 - confidence) / 2
        return MeanPart(
            value=self.value,
            low=self.lower(tail),
            high=self.upper(tail),
            confidence=confidence,
            method=self.method,
            rows=self.rows,
            each=list(self.rates),
        )

    @property
    def method(self) -> str:
        """How bounds are computed."""
        return "clopper-pearson" if self.exact else "student-t"

    @property
    def _sample(self) -> _Sample:
        n = len(self.rates)
        return _Sample(n, self.value, variance(self.rates) * (n - 1) if n > 1 else 0.0, self.rows)

    def _fates(self) -> Iterator[_Sample]:
        """All that the rates might be; none where too few are known."""
        if len(self.rates) > 1:
            known = self._sample
            for more in range(self.missing + 1):
                for ones in range(more + 1):
                    yield known.joined(ones, more - ones)


@dataclass(frozen=True, slots=True)
class Several:
    """The victims of several attacks, of which an attacker would take the one that goes furthest.

    highest: whether it is the highest mean that counts (success), or the lowest (accuracy). What must hold of every
    attack is shown at the full level (Berger 1982, intersection-union test); what holds of any one of them at the
    level divided by their number (Bonferroni).
    """

    each: tuple[Victims, ...]
    highest: bool
    unit: str = "victims"

    @property
    def counts(self) -> tuple[Count, ...]:
        """Of each attack."""
        return tuple(victims.count for victims in self.each)

    @property
    def worst(self) -> Count:
        """Of the attack that goes furthest."""
        return (max if self.highest else min)(self.each, key=lambda victims: victims.value).count

    @property
    def empty(self) -> tuple[str, ...]:
        """Attacks without a victim."""
        return tuple(victims.name or "" for victims in self.each if not victims.rates)

    @property
    def method(self) -> str:
        """How bounds are computed; of the first attack that has a victim."""
        return next((victims.method for victims in self.each if victims.rates), self.each[0].method)

    @property
    def tests(self) -> bool:
        """There is a p-value."""
        return True

    def lower(self, level: float) -> tuple[float, Count]:
        """The lower bound, and whose it is."""
        return self._ends(level / len(self.each) if self.highest else level, Victims.lower)

    def upper(self, level: float) -> tuple[float, Count]:
        """The upper bound, and whose it is."""
        return self._ends(level if self.highest else level / len(self.each), Victims.upper)

    def _ends(self, level: float, bound: Callable[[Victims, float], float]) -> tuple[float, Count]:
        ends = [(bound(victims, level), victims.count) for victims in self.each]
        return (max if self.highest else min)(ends, key=lambda found: found[0])

    def p_value(self, threshold: float, *, above: bool) -> float:
        """Against the contrary of: the rate is above (below) the threshold."""
        found = [victims.p_value(threshold, above=above) for victims in self.each]
        any_will_do = above == self.highest
        return min(1.0, len(found) * min(found)) if any_will_do else max(found)

    def rows_to_decide(self, threshold: float, level: float, *, above: bool) -> int | None:
        """Victims of each attack at which that would be shown; None if no number would."""
        any_will_do = above == self.highest
        share = level / len(self.each) if any_will_do else level
        found = [victims.to_decide(threshold, share, above=above) for victims in self.each]
        known = [each for each in found if each is not None]
        if any_will_do:
            return min(known, default=None)
        return max(known) if len(known) == len(found) else None

    def doubts(self, threshold: float, *, above: bool) -> tuple[str, ...]:
        """Why bounds that lie above (below) the threshold are not believed: models that lie on its other side."""
        found = []
        for victims in self.each:
            beyond = sum(rate < threshold if above else rate > threshold for rate in victims.rates)
            if beyond and not victims.exact:
                side = "below" if above else "above"
                of = f" of {victims.name}" if victims.name else ""
                found.append(f"{beyond} of {len(victims.rates)} {self.unit}{of} lie {side} the threshold by themselves")
        return tuple(found)


def equivalence(
    poisoned: Sequence[float], clean: Sequence[float], *, margin: float, confidence: float
) -> EquivalencePart | None:
    """Whether two accuracies, pair by pair of one training seed, differ by less than a margin; None below two pairs.

    Two one-sided t tests over the pairs, each at 1 - confidence (TOST: Schuirmann 1987): both reject where the
    interval of 2 confidence - 1 lies inside the margins. It speaks of the test rows that were asked.

    >>> equivalence([0.9, 0.91, 0.9], [0.905, 0.91, 0.9], margin=0.01, confidence=0.95).shown
    <Equivalence.EQUIVALENT: 'equivalent'>
    """
    check_share("confidence", confidence)
    differences = [a - b for a, b in zip(poisoned, clean, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    middle = fmean(differences)
    reach = float(stdtrit(n - 1, confidence)) * math.sqrt(variance(differences) / n)
    low, high = middle - reach, middle + reach
    shown = Equivalence.NOT_SHOWN
    if -margin < low and high < margin:
        shown = Equivalence.EQUIVALENT
    elif low > margin or high < -margin:
        shown = Equivalence.DIFFERENT
    return EquivalencePart(
        difference=middle, low=low, high=high, confidence=confidence, margin=margin, pairs=n, shown=shown
    )
