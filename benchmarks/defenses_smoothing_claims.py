"""What the rows of `defenses_smoothing` show: claims of defenses.d, and tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom, norm

from harness import Claim

Row = dict[str, Any]

ID = "defenses.d"
RADII = (0.25, 0.5, 1.0)
SHARE = 0.1
"""Of N, that the sequential test may ask in the mean."""
TRIED = {
    "samples": "most of α kept for the last draw; rows given up by a draw without replacement; a look each tenth more",
    "rows": "the same draws in the same order; α spent by the logarithm of the draws",
    "art": "noise from a stream a row, drawn 4 million numbers at a time",
}


def networks(rows: Mapping[str, Row]) -> list[Row]:
    """The rows of networks that ART certified too, one a σ and seed."""
    return [row for row in rows.values() if "art" in row]


def asked(rows: Mapping[str, Row]) -> list[Row]:
    """The rows of all networks."""
    return [row for row in rows.values() if "fixed" in row]


def right(row: Row, way: Row, radius: float) -> list[int]:
    """Rows certified at a radius with the right class. A proof of one radius has that radius."""
    parts = zip(way["prediction"], row["y"], way["radius"], strict=True)
    return [i for i, (told, label, far) in enumerate(parts) if told == label and far >= radius - 1e-9]


def mean(numbers: Sequence[float]) -> float:
    return statistics.fmean(numbers)


@cache
def lower_bounds(draws: int, alpha: float) -> NDArray[np.float64]:
    """Clopper and Pearson's lower bound of each number of hits."""
    hits = np.arange(draws + 1)
    return np.where(hits == 0, 0.0, beta.ppf(alpha, np.maximum(hits, 1), draws - hits + 1))


def spread(row: Row, radius: float) -> float:
    """The standard deviation of how many more rows a second run of fixed N would certify, by the draws alone.

    Each row's rate is taken to be the share of hits that its radius tells of.
    """
    draws, sigma = row["draws"], row["sigma"]
    bounds = lower_bounds(draws, row["alpha"])
    enough = int(np.searchsorted(bounds, norm.cdf(radius / sigma)))
    variance = 0.0
    for told, label, far in zip(row["fixed"]["prediction"], row["y"], row["fixed"]["radius"], strict=True):
        if told != label:
            continue
        hits = int(np.searchsorted(bounds, norm.cdf((far - 1e-6) / sigma)))  # radii are kept to 6 decimals
        chance = float(binom.sf(enough - 1, draws, hits / draws))
        variance += 2 * chance * (1 - chance)
    return math.sqrt(variance)


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """The sequential test against fixed N, both questions, coverage, and ART."""
    return [*sequential(rows), largest(rows), *coverage(rows), *beside(rows)]


def sequential(rows: Mapping[str, Row]) -> list[Claim]:
    """Each radius: rows certified by fixed N and by the test, and what it asked."""
    apart, shares, texts, samples = [], [], [], []
    for row in asked(rows):
        for radius in RADII:
            way = row["robust_at"][f"{radius:g}"]
            fixed, found = len(right(row, row["fixed"], radius)), len(right(row, way, radius))
            apart.append(abs(fixed - found))
            shares.append(mean(way["samples"]) / row["draws"])
            where = f"σ {row['sigma']:g} seed {row['seed']}, N {row['draws']:,}, r {radius:g}"
            texts.append(f"{where}: {found} and {fixed} of {row['rows']}")
            samples.append(f"{where}: {mean(way['samples']):,.0f}")
    few, same = max(shares) <= SHARE, max(apart) <= 1
    return [
        Claim(
            ID,
            "'robust at r?': rows certified by the sequential test, and by fixed N",
            "within one row",
            f"at most {max(apart)} apart; {'; '.join(texts)}",
            same,
            "" if same else TRIED["rows"],
        ),
        Claim(
            ID,
            "'robust at r?': mean samples a row, those that choose the class included",
            f"≤ N × {SHARE:g}",
            f"{min(shares):.1%} to {max(shares):.1%} of N; {'; '.join(samples)}",
            few,
            "" if few else TRIED["samples"],
        ),
    ]


def largest(rows: Mapping[str, Row]) -> Claim:
    """The largest radius, asked until little can be gained."""
    texts, lost = [], []
    for row in asked(rows):
        way = row["largest"]
        apart = [a - b for a, b in zip(row["fixed"]["radius"], way["radius"], strict=True)]
        lost.append(mean(apart))
        texts.append(
            f"σ {row['sigma']:g} seed {row['seed']}, N {row['draws']:,}: {mean(way['samples']) / row['draws']:.0%} of "
            f"N, radius {mean(way['radius']):.3f} and {mean(row['fixed']['radius']):.3f}"
        )
    tolerance = max(row["tolerance"] for row in asked(rows))
    met = max(lost) <= tolerance
    return Claim(
        ID,
        "'largest r': mean radius by the confidence sequence, stopped where little can be gained, and by fixed N",
        f"≤ {tolerance:g} smaller",
        "; ".join(texts),
        met,
        "" if met else "half of α for the last draw's own bound",
    )


def coverage(rows: Mapping[str, Row]) -> list[Claim]:
    """Errors of rows that may not be shown, exactly and in simulation."""
    found = [{**part, "most": row["most"]} for row in rows.values() if "most" in row for part in row["found"]]
    alpha = next(row["alpha"] for row in rows.values() if "most" in row)
    false = [part for part in found if not part["may"]]
    exact = max(max(part["exact"], part["exact_patient"]) for part in false)
    worst = max(false, key=lambda part: float(part["shown"]) / part["runs"])
    refuted = [part for part in false if binom.sf(part["shown"] - 1, part["runs"], alpha) < 0.001 / len(false)]
    runs = min(part["runs"] for part in false)
    whole = rows["linear"]
    beyond = next(part for part in whole["found"] if part["distance"] < whole["radius"])
    chance = float(binom.sf(beyond["shown"] - 1, beyond["runs"], whole["alpha"]))
    valid = exact <= alpha and not refuted and runs >= 100_000
    return [
        Claim(
            ID,
            f"chance that a row is certified that may not be, {len(false)} cells of true rate, radius and N: exactly "
            f"at the most, and simulated, {runs:,} rows a cell or more",
            f"≤ α = {alpha:g}",
            f"{exact:.6f}; at the most {worst['shown']:,} of {worst['runs']:,} = {worst['shown'] / worst['runs']:.6f} "
            f"(N {worst['most']:,}, {worst['kind']}), {len(refuted)} cells above α by more than chance",
            valid,
            "" if valid else "exact sums over the binomial walk, tails counted as errors",
        ),
        Claim(
            ID,
            f"`robust_at` itself, {beyond['runs']:,} rows of a linear model just inside of the radius asked about",
            f"shown falsely with a chance ≤ α = {whole['alpha']:g}",
            f"{beyond['shown']} = {beyond['shown'] / beyond['runs']:.6f}; as many or more happen by chance at α in "
            f"{chance:.0%} of all runs",
            chance >= 0.001,
            "" if chance >= 0.001 else "the rate that is beaten is rounded upward",
        ),
    ]


def beside(rows: Mapping[str, Row]) -> list[Claim]:
    """ART on the same networks and rows."""
    far, texts, samples, seconds = [], [], [], []
    for row in networks(rows):
        for radius in RADII:
            fixed, theirs = len(right(row, row["fixed"], radius)), len(right(row, row["art"], radius))
            sure = spread(row, radius)
            far.append(abs(fixed - theirs) / max(1 / 3, sure))
            texts.append(f"σ {row['sigma']:g} seed {row['seed']} r {radius:g}: {fixed} and {theirs} (± {sure:.1f})")
            way = row["robust_at"][f"{radius:g}"]
            samples.append(mean(row["art"]["samples"]) / mean(way["samples"]))
            seconds.append(row["art"]["cpu_seconds"] / way["cpu_seconds"])
    version = networks(rows)[0]["art"]["versions"]["adversarial-robustness-toolbox"]
    own = [row["art"]["cpu_seconds"] / row["fixed"]["cpu_seconds"] for row in networks(rows)]
    met = max(far) <= 3
    faster = min(seconds) > 1
    return [
        Claim(
            ID,
            f"rows certified by fixed N, and by ART {version} with the same network, rows, σ, N and α",
            "apart by no more than 3 standard deviations of the draws, 1 row at the least",
            f"at the most {max(far):.1f}; {'; '.join(texts)}",
            met,
            "" if met else TRIED["art"],
        ),
        Claim(
            ID,
            "ART's samples and CPU seconds over those of 'robust at r?', the same certificates",
            "> 1",
            f"samples {min(samples):.1f}× to {max(samples):.1f}×, seconds {min(seconds):.1f}× to {max(seconds):.1f}×; "
            f"ART's seconds over those of our fixed N {min(own):.2f}× to {max(own):.2f}×",
            faster,
            "" if faster else TRIED["art"],
        ),
    ]


# -- tables -----------------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """Each way by radius; errors by rate."""
    lines = [
        "Rows right and certified in L2, mean samples a row and CPU seconds of all rows. Fixed N and ART certify all "
        "radii at once; 'robust at r?' is asked anew at each; 'largest r' stops where 0.05 or less can be gained.",
        "",
        "| σ | seed | rows | N | way | r 0.25 | r 0.5 | r 1 | samples | CPU s |",
        "|---" * 10 + "|",
    ]
    for row in asked(rows):
        head = f"{row['sigma']:g} | {row['seed']} | {row['rows']} | {row['draws']:,}"
        ways = {"fixed N": row["fixed"], "largest r": row["largest"]} | ({"ART": row["art"]} if "art" in row else {})
        for name, way in ways.items():
            counts = " | ".join(str(len(right(row, way, radius))) for radius in RADII)
            lines.append(f"| {head} | {name} | {counts} | {mean(way['samples']):,.0f} | {way['cpu_seconds']:.1f} |")
        parts = [row["robust_at"][f"{radius:g}"] for radius in RADII]
        counts = " | ".join(str(len(right(row, way, radius))) for way, radius in zip(parts, RADII, strict=True))
        samples = ", ".join(f"{mean(way['samples']):,.0f}" for way in parts)
        seconds = ", ".join(f"{way['cpu_seconds']:.1f}" for way in parts)
        lines.append(f"| {head} | robust at r? | {counts} | {samples} | {seconds} |")
    lines += [
        "",
        "Chance of being shown, of rows of a true rate, with α = 0.001. A rate up to the beaten one may not be shown.",
        "",
        "| N | way | rate to beat | true rate | exact | nobody gives up | simulated | of |",
        "|---" * 8 + "|",
    ]
    for row in rows.values():
        for part in row["found"] if "most" in row else []:
            lines.append(
                f"| {row['most']:,} | {part['kind']} | {part['rate']:.4f} | {part['true']:.4f} | {part['exact']:.6f} | "
                f"{part['exact_patient']:.6f} | {part['shown']:,} | {part['runs']:,} |"
            )
    return "\n".join(lines)
