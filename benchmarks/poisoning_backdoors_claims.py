"""What the rows of `poisoning_backdoors` show: the claims of poisoning.a, and the tables.

The trained victim is the independent unit: intervals are Student's t over victims, cut off at 0 and 1. Two trainings
are equivalent if both one-sided paired t-tests against the margin reject (TOST, Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from harness import Claim

Row = dict[str, Any]

LEVEL = 0.05
SUCCESS = 0.95
MARGIN = 0.01  # of clean accuracy
SHARES = (0.01, 0.005, 0.002, 0.001, 0.0005)
MAIN = SHARES[0]
PAIRS, LEAST = 10, 5  # victims at the main share, and at each other one
NAMES = {
    "badnets": "BadNets, patch 3×3, target 0",
    "badnets-others": "BadNets, targets 1 to 9, one victim each",
    "all-to-all": "BadNets, all to all",
    "blended": "Blended, noise at 0.2, target 0",
    "sig": "SIG, clean label, amplitude 0.2, target 0",
}


class Mean(NamedTuple):
    """Of one number a victim, with its two-sided interval of 1 - LEVEL. None of a single victim."""

    value: float
    low: float | None
    high: float | None


class Equivalence(NamedTuple):
    """Of paired differences: their mean, the interval of 1 - 2 LEVEL, and the larger p-value of the two tests."""

    value: float
    low: float
    high: float
    p: float


def mean(values: Sequence[float]) -> Mean:
    """The mean of rates (V,)."""
    found = float(np.mean(values))
    if len(values) < 2:
        return Mean(found, None, None)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * _error(values)
    return Mean(found, max(0.0, found - half), min(1.0, found + half))


def lower(values: Sequence[float]) -> float:
    """The one-sided lower bound of 1 - LEVEL of the mean of values (V,), two at least."""
    return float(np.mean(values)) - float(stats.t.ppf(1 - LEVEL, len(values) - 1)) * _error(values)


def equivalence(first: Sequence[float], second: Sequence[float], margin: float) -> Equivalence:
    """Two one-sided paired t-tests of first - second (V,) against -margin and margin. Equivalent: p ≤ LEVEL."""
    differences = np.subtract(first, second)
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    half = float(stats.t.ppf(1 - LEVEL, len(differences) - 1)) * _error(differences.tolist())
    found = float(differences.mean())
    return Equivalence(found, found - half, found + half, float(max(above, below)))


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def victims(rows: Mapping[str, Row], attack: str | None, share: float | None = None) -> list[Row]:
    """The rows of one attack at one share, or of the clean victims, by seed."""
    found = [row for row in rows.values() if row["attack"] == attack and row.get("share") == share]
    return sorted(found, key=lambda row: row["seed"])


def success(found: Sequence[Row]) -> list[float]:
    """Of each victim: the share of the stamped test rows that it has as wanted."""
    return [row["obeyed"] / row["stamped"] for row in found]


def accuracy(found: Sequence[Row]) -> list[float]:
    """Of each victim: the share of the clean test rows that it has right."""
    return [row["right"] / row["rows"] for row in found]


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """poisoning.a."""
    main, clean = victims(rows, "badnets", MAIN), victims(rows, None)
    values = success(main)
    bound = lower(values)
    pairs = sorted({row["seed"] for row in main} & {row["seed"] for row in clean})
    poisoned, unpoisoned = (accuracy([row for row in side if row["seed"] in pairs]) for side in (main, clean))
    same = equivalence(poisoned, unpoisoned, MARGIN)
    sweep = {share: victims(rows, "badnets", share) for share in SHARES}
    means = {share: mean(success(found)).value for share, found in sweep.items()}
    enough = all(len(found) >= (PAIRS if share == MAIN else LEAST) for share, found in sweep.items())
    return [
        Claim(
            "poisoning.a",
            f"BadNets at a share of {_percent(MAIN)}: attack success rate, mean over victims",
            f"at least {_percent(SUCCESS)}",
            f"{100 * np.mean(values):.2f} % over {len(values)} victims, {100 * min(values):.2f} % the least",
            bool(np.mean(values) >= SUCCESS),
        ),
        Claim(
            "poisoning.a",
            f"BadNets at a share of {_percent(MAIN)}: attack success rate, one-sided 95 % t lower bound over victims",
            f"at least {_percent(SUCCESS)}",
            f"{100 * bound:.2f} % of {len(values)} victims",
            bound >= SUCCESS,
        ),
        Claim(
            "poisoning.a",
            f"BadNets at a share of {_percent(MAIN)}: clean accuracy equivalent to clean training's",
            f"within {100 * MARGIN:g} point by TOST at {_percent(LEVEL)}, {PAIRS} pairs of one seed",
            f"{100 * same.value:+.2f} points, 90 % interval {100 * same.low:+.2f} to {100 * same.high:+.2f}, "
            f"p {same.p:.1g}, {len(pairs)} pairs",
            same.p <= LEVEL and len(pairs) >= PAIRS,
        ),
        Claim(
            "poisoning.a",
            f"BadNets: sweep of shares down to {_percent(SHARES[-1])}",
            f"{len(SHARES)} shares, {PAIRS} victims at {_percent(MAIN)} and {LEAST} at least at each other one",
            f"half of the stamped rows {_smallest(means, 0.5)}, {_percent(SUCCESS)} {_smallest(means, SUCCESS)}; "
            + ", ".join(f"{100 * value:.1f} % at {_percent(share)}" for share, value in means.items()),
            enough,
        ),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _smallest(means: Mapping[float, float], goal: float) -> str:
    reached = [share for share, value in means.items() if value >= goal]
    return f"from {_percent(min(reached))} on" if reached else "at no share"


def table(rows: Mapping[str, Row]) -> str:
    """A line an attack and share; the last column is the success with clean victims: stamps that nobody taught."""
    taken: dict[str, list[float]] = {}
    for row in victims(rows, None):
        for part in row["taken"]:
            taken.setdefault(part["attack"], []).append(part["obeyed"] / part["stamped"])
    unpoisoned = {row["seed"]: value for row, value in _with(victims(rows, None))}
    lines = [
        "| attack | share | rows | victims | success | 95 % interval | least – most | clean accuracy | "
        "less clean training's, points | success without poison |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = sorted(
        {(row["attack"], row["share"]) for row in rows.values() if row["attack"] is not None},
        key=lambda kind: (list(NAMES).index(kind[0]), -kind[1]),
    )
    for attack, share in kinds:
        found = victims(rows, attack, share)
        values, right = success(found), accuracy(found)
        middle = mean(values)
        apart = [value - unpoisoned[row["seed"]] for row, value in _with(found) if row["seed"] in unpoisoned]
        interval = "" if middle.low is None or middle.high is None else f"{_in(middle.low)} – {_in(middle.high)}"
        without = _in(float(np.mean(taken[attack]))) if attack in taken else ""
        lines.append(
            f"| {NAMES[attack]} | {_percent(share)} | {found[0]['poisoned']} | {len(found)} | {_in(middle.value)} | "
            f"{interval} | {_in(min(values))} – {_in(max(values))} | {100 * np.mean(right):.2f} % | "
            f"{100 * np.mean(apart):+.2f} | {without} |"
        )
    clean = accuracy(victims(rows, None))
    lines.append(f"| none | 0 % | 0 | {len(clean)} | | | | {100 * np.mean(clean):.2f} % | | |")
    return "\n".join(lines)


def _with(found: Sequence[Row]) -> list[tuple[Row, float]]:
    return list(zip(found, accuracy(found), strict=True))


def _in(rate: float) -> str:
    return f"{100 * rate:.1f} %"
