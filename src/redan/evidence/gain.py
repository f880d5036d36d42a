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

from redan.evidence.paired import Change, Comparison, compare

__all__ = ["MARGIN", "Gain", "Held", "gained"]

MARGIN = 0.05
"""A gain that is not worth having, as a share of the rows."""


class Gain(StrEnum):
    """What is shown of a defense by attacks that know it."""

    GAIN = "gain"
    """More rows hold than of the bare model, beyond noise, and by more than the margin for all that is known."""
    NO_GAIN = "no gain"
    """The gain, if there is any, is no larger than the margin."""
    NOT_SHOWN = "not shown"
    """These rows tell neither."""


class Held(NamedTuple):
    """What became of rows, one entry a row. held: right on every input. open: nobody knows, so `held` is False."""

    held: Sequence[bool]
    open: Sequence[bool]

    @property
    def most(self) -> list[bool]:
        """Rows that hold if every open one does."""
        return [held or undecided for held, undecided in zip(self.held, self.open, strict=True)]


def gained(bare: Held, served: Held, *, level: float = 0.05, margin: float = MARGIN) -> Gain:
    """Compare the same rows without a defense and with it. level: the chance of each wrong verdict.

    An open row counts for whichever side the verdict speaks against, so it can only take a verdict away.
    """
    least = _verdict(paired(bare.most, served.held), level, margin)
    most = _verdict(paired(bare.held, served.most), level, margin)
    return least if least is most else Gain.NOT_SHOWN


def paired(before: Sequence[bool], now: Sequence[bool]) -> Comparison:
    """The same rows twice, in one order."""
    return compare(enumerate(before), enumerate(now))


def _verdict(found: Comparison, level: float, margin: float) -> Gain:
    """What taking the defense away would lose is what it gains."""
    undone = Comparison(rows=found.rows, both=found.both, lost=found.won, won=found.lost)
    match undone.change(level, margin):
        case Change.NOT_WORSE:
            return Gain.NO_GAIN
        case Change.WORSE:
            return Gain.GAIN
    return Gain.NOT_SHOWN
