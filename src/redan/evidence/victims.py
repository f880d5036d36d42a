"""Rates over trained victims: Student's t over them, with the test rows' own sampling added; equivalence by TOST.

A victim's rate is one number; how victims differ is what training and the draw of the poison leave to chance. The test
rows are a sample too, the same one for all victims, so that more victims do not make its error smaller: the variance
of a mean is s² / V + p (1 - p) / m, with s² of V victims, m rows, and p pulled toward ½ by half a row (an upper
estimate: s² holds a part of the rows' error already). Bounds come from t with V - 1 degrees of freedom (Student 1908).
They assume that victims' rates scatter about alike on both sides; where victims fall on both sides of a threshold, a
pass is not believed. Victims that are hit or not (one chosen row each) are counted exactly instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance

from scipy.special import stdtr, stdtrit

from redan.evidence.poisoned import Equivalence, EquivalencePart, MeanPart
from redan.evidence.rates import Count
from redan.evidence.statistics import check_share, lower_bound, p_at_least, p_at_most, upper_bound

__all__ = ["Several", "Victims", "equivalence"]

_MOST = 10_000  # victims that anybody would be told to train


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """One attack's victims at one share.

    rates: of each victim, in [0, 1]. rows: asked of each; 1 where a victim is hit or not. missing: victims of whom
    nothing is known: they count as 0 where a lower bound is wanted, as 1 for an upper one.

    >>> found = Victims(rates=(0.96, 0.97, 0.98), rows=1000)
    >>> round(found.value, 2), round(found.lower(0.05), 3), round(found.upper(0.05), 3)
    (0.97, 0.947, 0.993)
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
        known = self._filled(0.0)
        if self.exact:
            return lower_bound(sum(known.rates), len(known.rates), level)
        return max(0.0, known.value - known._reach(level)) if len(known.rates) > 1 else 0.0

    def upper(self, level: float) -> float:
        """The true mean is above it with chance `level` at most."""
        known = self._filled(1.0)
        if self.exact:
            return upper_bound(sum(known.rates), len(known.rates), level)
        return min(1.0, known.value + known._reach(level)) if len(known.rates) > 1 else 1.0

    def p_value(self, threshold: float, *, above: bool) -> float:
        """Against the contrary of: the mean is above (below) the threshold. It agrees with the bounds."""
        known = self._filled(0.0 if above else 1.0)
        n = len(known.rates)
        if self.exact:
            test = p_at_least if above else p_at_most
            return test(sum(known.rates), n, threshold)
        if n < 2:
            return 1.0
        beyond = known.value - threshold if above else threshold - known.value
        return float(stdtr(n - 1, -beyond / known._error))

    def to_decide(self, threshold: float, level: float, *, above: bool) -> int | None:
        """Victims at which that would be shown if mean and scatter stay as they are; None if no number would."""
        beyond = self.value - threshold if above else threshold - self.value
        if beyond <= 0 or not self.rates:
            return None
        step = max(1, len(self.rates))
        n = step
        while n <= _MOST:
            many = replace(self, rates=self.rates * (n // step), errors=0, undecided=0)
            if many.p_value(threshold, above=above) <= level:
                return n
            n += step
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

    def _filled(self, rate: float) -> Victims:
        return replace(self, rates=(*self.rates, *([rate] * self.missing)), errors=0, undecided=0)

    @property
    def _error(self) -> float:
        """Standard error of the mean."""
        n, pulled = len(self.rates), (self.value * self.rows + 0.5) / (self.rows + 1)
        return math.sqrt(variance(self.rates) / n + pulled * (1 - pulled) / self.rows)

    def _reach(self, level: float) -> float:
        return float(stdtrit(len(self.rates) - 1, 1 - level)) * self._error


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
        """How bounds are computed."""
        return self.each[0].method

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
        """Why bounds that lie above (below) the threshold are not believed: victims that lie on its other side."""
        found = []
        for victims in self.each:
            beyond = sum(rate < threshold if above else rate > threshold for rate in victims.rates)
            if beyond and not victims.exact:
                side = "below" if above else "above"
                of = f" of {victims.name}" if victims.name else ""
                found.append(f"{beyond} of {len(victims.rates)} victims{of} lie {side} the threshold by themselves")
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
