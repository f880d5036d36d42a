"""Where marks lie along the axes of the pictures of attackers who poison or copy: numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redan.evidence.base import MeanPart
from redan.report.plots import Tick

__all__ = [
    "BOTTOM",
    "HEIGHT",
    "LEFT",
    "NARROW",
    "RIGHT",
    "TOP",
    "WIDTH",
    "Mark",
    "Threshold",
    "Track",
    "apart",
    "free",
    "height",
    "log_axis",
    "mark",
    "points",
    "rate",
    "rates",
    "short",
    "spread",
]

WIDTH, HEIGHT = 440, 262
LEFT, RIGHT, TOP, BOTTOM = 48, 424, 16, 210
NARROW = 322  # where the plot ends if names stand beside it
LABELS = 44  # between two labels of an axis
LETTERS = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mean with the ends of its interval, and each victim or copy beside it."""

    x: float
    y: float
    low: float
    high: float
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One attack over the shares or budgets that it was tried at."""

    name: str
    strongest: bool
    line: str
    """Points of the line."""
    marks: tuple[Mark, ...]
    label: Tick | None
    """Its name, and at which height it stands; None where there is no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A requirement's threshold: its height, and at which end its label has room."""

    at: float
    label: str
    right: bool


def log_axis(low: float, high: float, right: float) -> Callable[[float], float]:
    """From a value to its place; one value alone stands in the middle."""
    start, end = LEFT + 24.0, right - 20.0

    def across(at: float) -> float:
        if not high > low:
            return round((start + end) / 2, 2)
        return round(start + math.log(at / low) / math.log(high / low) * (end - start), 2)

    return across


def mark(x: float, mean: MeanPart, height: Callable[[float], float]) -> Mark:
    """Victims or copies stand to the left of the mean, in three files, so that those of like rates are seen.

    Of victims that are hit or not the mean says all.
    """
    each = mean.each if mean.rows > 1 else ()
    dots = tuple((round(x - 8 - 4 * (i % 3), 2), height(rate)) for i, rate in enumerate(each))
    return Mark(x=x, y=height(mean.value), low=height(mean.low), high=height(mean.high), dots=dots)


def spread(heights: Sequence[float]) -> list[float | None]:
    """Heights for labels, in the order of their marks, with room for a line of text each."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: dict[int, float] = {}
    above = TOP - 10.0
    for i in order:
        above = placed[i] = max(heights[i], above + 13)
    over = max(0.0, above - BOTTOM)
    return [placed[i] - over for i in range(len(heights))]


def free(height: float, line: Sequence[tuple[float, float]]) -> bool:
    """Whether the line is farther from a height at its right end, the first, than at its left."""
    return abs(line[0][1] - height) >= abs(line[-1][1] - height)


def short(name: str) -> str:
    """A name that has room beside a plot."""
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def apart(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """The ticks that have room for their labels: both ends first."""
    kept: list[Tick] = []
    for tick in (*ticks[-1:], *ticks[:1], *ticks[1:-1]):
        if all(abs(tick.at - other.at) >= LABELS for other in kept):
            kept.append(tick)
    return tuple(sorted(kept, key=lambda tick: tick.at))


def rates(between: tuple[float, float]) -> list[float]:
    """Round rates from one to another, six at the most."""
    low, high = between
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.25) if (high - low) / s <= 5.001)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 4) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def rate(value: float) -> str:
    """A rate as an axis has it."""
    return f"{100 * value:.6g}\N{NO-BREAK SPACE}%"


def height(rate: float) -> float:
    """Of a rate, where the axis goes from 0 to 1."""
    return round(BOTTOM - rate * (BOTTOM - TOP), 2)


def points(pairs: Sequence[tuple[float, float]]) -> str:
    """Points of a line as SVG has them."""
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)
