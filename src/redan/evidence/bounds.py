"""A rate between its bounds: which ones hold depends on how the rows were taken and on what a row is.

A fixed number of rows, each right or not: Clopper–Pearson. Rows that are judged several times each: the bootstrap.
Rows that are taken until the requirements are decided: a confidence sequence, for either kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from redan.evidence.bootstrap import bootstrap_bounds
from redan.evidence.rates import Count, Rate
from redan.evidence.report import RunPart
from redan.evidence.sample_size import rows_to_decide
from redan.evidence.sequences import sequence_lower, sequence_p_at_least, sequence_p_at_most, sequence_upper
from redan.evidence.statistics import lower_bound, p_at_least, p_at_most, upper_bound

__all__ = ["Bounded", "Judged", "bounded"]


Bound: TypeAlias = Callable[[Count, float], float]
Test: TypeAlias = Callable[[float, float, float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """One-sided bounds of one count at a level, and p-values of (k, n, threshold) that agree with them, if any do."""

    method: str
    lower: Bound
    upper: Bound
    at_least: Test | None = None
    at_most: Test | None = None


_EXACT = _Bounds(
    method="clopper-pearson",
    lower=lambda count, level: lower_bound(count.least, count.n, level),
    upper=lambda count, level: upper_bound(count.most, count.n, level),
    at_least=p_at_least,
    at_most=p_at_most,
)


def _sequence(planned: int) -> _Bounds:
    return _Bounds(
        method="confidence-sequence",
        lower=lambda count, level: sequence_lower(count.least, count.n, level, planned=planned),
        upper=lambda count, level: sequence_upper(count.most, count.n, level, planned=planned),
        at_least=partial(sequence_p_at_least, planned=planned),
        at_most=partial(sequence_p_at_most, planned=planned),
    )


def _resampled_lower(count: Count, level: float) -> float:
    first, *rest = count.held or (0, 0)
    return bootstrap_bounds((first + count.open, *rest), level)[0]


def _resampled_upper(count: Count, level: float) -> float:
    *rest, last = count.held or (0, 0)
    return bootstrap_bounds((*rest, last + count.open), level)[1]


_RESAMPLED = _Bounds(method="bootstrap", lower=_resampled_lower, upper=_resampled_upper)


class Judged(Protocol):
    """A rate, or the worst of several, as a verdict looks at it."""

    @property
    def unit(self) -> str:
        """What is counted: rows, or victims."""
        ...

    @property
    def method(self) -> str: ...
    @property
    def tests(self) -> bool: ...
    @property
    def counts(self) -> tuple[Count, ...]: ...
    @property
    def worst(self) -> Count: ...
    @property
    def empty(self) -> tuple[str, ...]: ...
    def lower(self, level: float) -> tuple[float, Count]: ...
    def upper(self, level: float) -> tuple[float, Count]: ...
    def p_value(self, threshold: float, *, above: bool) -> float: ...
    def rows_to_decide(self, threshold: float, level: float, *, above: bool) -> int | None: ...
    def doubts(self, threshold: float, *, above: bool) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Bounded:
    """A rate with its bounds. Where it is the lowest of several (classes):

    - It is shown to be above t where each of them is, each at the full level. For that to be wrong, the bound of the
      class that is truly lowest must be wrong, which has chance `level`: no correction (Berger 1982,
      intersection–union test).
    - It is shown to be below t where any of them is, at the level divided by their number: any of the bounds may be
      the one that is wrong (Bonferroni).
    """

    rate: Rate
    _bounds: _Bounds
    unit: str = "rows"

    @property
    def counts(self) -> tuple[Count, ...]:
        """Of the rate, or of each of several."""
        return self.rate.counts

    @property
    def worst(self) -> Count:
        """The count of the lowest rate."""
        return self.rate.worst

    @property
    def empty(self) -> tuple[str, ...]:
        """Classes of which no row was drawn."""
        return self.rate.empty

    def doubts(self, threshold: float, *, above: bool) -> tuple[str, ...]:  # noqa: ARG002  (counts of rows have none)
        """Why bounds on one side of a threshold are not believed."""
        return ()

    @property
    def method(self) -> str:
        """How the bounds are computed."""
        return self._bounds.method

    @property
    def tests(self) -> bool:
        """Whether there is a p-value, so that Holm's procedure can choose the level."""
        return self._bounds.at_least is not None

    def lower(self, level: float) -> tuple[float, Count]:
        """The lower bound, and the count whose it is."""
        return min(((self._bounds.lower(c, level), c) for c in self.rate.counts), key=lambda found: found[0])

    def upper(self, level: float) -> tuple[float, Count]:
        """The upper bound, and the count whose it is."""
        share = level / len(self.rate.counts)
        return min(((self._bounds.upper(c, share), c) for c in self.rate.counts), key=lambda found: found[0])

    def p_value(self, threshold: float, *, above: bool) -> float:
        """Against the contrary of: the rate is above (below) the threshold. It agrees with the bounds."""
        test, counts = self._test(above), self.rate.counts
        if test is None:
            return 1.0
        if above:
            return max(test(count.least, count.n, threshold) for count in counts)
        return min(1.0, len(counts) * min(test(count.most, count.n, threshold) for count in counts))

    def rows_to_decide(self, threshold: float, level: float, *, above: bool) -> int | None:
        """Rows to draw at which that would be shown, if every rate and every class's share stay as they are.

        None if no number would, or if a rate lies within half a row of the threshold, so that not even its side is
        known.
        """
        test, counts = self._test(above), self.rate.counts
        if test is None:
            return None
        share = level if above else level / len(counts)
        found = []
        for count in counts:
            k = count.least if above else count.most
            beyond = k - threshold * count.n if above else threshold * count.n - k
            rows = None
            if beyond > 0.5:
                rows = rows_to_decide(lambda k, n: test(k, n, threshold), k, count.n, share, above=above)
            if rows is not None:
                found.append(-(-rows * self.rate.drawn // count.n))
            elif above:
                return None
        return (max if above else min)(found, default=None)

    def _test(self, above: bool) -> Test | None:
        return self._bounds.at_least if above else self._bounds.at_most


def bounded(rate: Rate, run: RunPart) -> Bounded:
    """The rate with the bounds that hold for the way in which the run took its rows."""
    if run.gate:
        return Bounded(rate, _sequence(run.planned))
    return Bounded(rate, _RESAMPLED if any(count.held for count in rate.counts) else _EXACT)
