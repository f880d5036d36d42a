"""What a defense is worth: the rows that hold with it, beside those that hold without it.

A gain is shown against the attacks that were tried; no attack proves that none does better.

>>> held, lost, closed = [True] * 40, [False] * 40, [False] * 40
>>> gained(Held(lost, closed), Held(held, closed)), gained(Held(lost, closed), Held(lost, closed), margin=0.1)
(<Gain.GAIN: 'gain'>, <Gain.NO_GAIN: 'no gain'>)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from redan.evidence.paired import Comparison, compare

__all__ = ["MARGIN", "Bounds", "Gain", "Held", "bounds", "gained", "paired"]

MARGIN = 0.05
"""A gain that is not worth having, as a share of the rows."""


class Gain(StrEnum):
    """What is shown of a defense by attacks that know it."""

    GAIN = "gain"
    """More rows hold than of the bare model, beyond noise, and for all that is known by more than the margin."""
    NO_GAIN = "no gain"
    """The gain, if there is any, is no larger than the margin."""
    NOT_SHOWN = "not shown"
    """These rows tell neither."""


class Bounds(NamedTuple):
    """Of a gain, as a share of the rows; each is missed with the chance that was asked for, whatever the truth is."""

    low: float
    high: float


class Held(NamedTuple):
    """What became of rows, one entry a row. held: right on every input. open: nobody knows, so `held` is False."""

    held: Sequence[bool]
    open: Sequence[bool]

    @property
    def most(self) -> list[bool]:
        """Rows that hold if every open one does."""
        return [held or undecided for held, undecided in zip(self.held, self.open, strict=True)]


def bounds(bare: Sequence[bool], served: Sequence[bool], level: float) -> Bounds:
    """Bounds of the gain, each missed with chance `level` at the most: rows won and lost each have an exact one.

    They hold without a condition, so they are wider than McNemar's test is sharp (`Comparison.most_lost`).
    """
    return Bounds(-paired(bare, served).most_lost(level), paired(served, bare).most_lost(level))


def gained(bare: Held, served: Held, *, level: float = 0.05, margin: float = MARGIN) -> Gain:
    """Compare the same rows without a defense and with it. level: the chance of each wrong verdict.

    An open row counts for whichever side the verdict speaks against, so it can only take a verdict away.
    """
    least = _verdict(bounds(bare.most, served.held, level), margin)
    most = _verdict(bounds(bare.held, served.most, level), margin)
    return least if least is most else Gain.NOT_SHOWN


def paired(before: Sequence[bool], now: Sequence[bool]) -> Comparison:
    """The same rows twice, in one order."""
    return compare(enumerate(before), enumerate(now))


def _verdict(found: Bounds, margin: float) -> Gain:
    if found.high <= margin:
        return Gain.NO_GAIN
    return Gain.GAIN if found.low > 0 else Gain.NOT_SHOWN
