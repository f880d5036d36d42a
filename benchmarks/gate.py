"""Rows that a gate needs beside a fixed number of rows, and how often either is wrong (`make bench-gate`).

The fixed design is the cheapest there can be: it knows the true rate beforehand and takes the smallest number of rows
whose exact one-sided test at 5 % shows the right side of the threshold in 95 % of samples. The gate knows nothing; its
`planned` rows are those of the fixed design for 2 points, whatever the true margin is. Rates, quantiles and errors
are exact: a walk over (k, n) with absorbing states, not a simulation, but for fractional rows and the worst class.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

import harness
import redan
from redan.evidence.bounds import bounded
from redan.evidence.rates import Count, Rate
from redan.evidence.report import RunPart
from redan.evidence.sequences import sequence_p_at_least, sequence_p_at_most
from redan.evidence.statistics import interval, lower_bound, upper_bound

MEASURES = (
    "src/redan/evidence/bounds.py",
    "src/redan/evidence/rates.py",
    "src/redan/evidence/sequences.py",
    "src/redan/evidence/statistics.py",
    "benchmarks/gate.py",
)
ALPHA, POWER = 0.05, 0.95
THRESHOLDS, MARGINS = (0.6, 0.9), (0.02, 0.05, 0.1)
CHUNK = 64  # rows between two looks of `redan assess --gate`
LOOKS = {f"by looks every {CHUNK} rows": "median_in_chunks", "by a look at every row": "median"}
RUNS = 10_000
TRIED = (
    "at a rate of 1 every row holds, so no test at 5 % may pass before 0.9ⁿ ≤ 0.05, which is the fixed design's 29 "
    "rows: nothing can be saved. Steps of the log-odds that grow with the threshold brought 68 rows down to 52"
)

Counts = NDArray[np.int64]


def fixed_rows(threshold: float, rate: float) -> int:
    """The smallest n of which the exact test shows the side of `rate` with the power wanted."""
    n = 1
    while True:
        if rate > threshold:
            power = binom.sf(binom.isf(ALPHA, n, threshold), n, rate)
        else:
            power = binom.cdf(binom.ppf(ALPHA, n, threshold) - 1, n, rate)
        if power >= POWER:
            return n
        n += 1


def stops(threshold: float, planned: int, rows: int) -> tuple[Counts, Counts]:
    """For n = 1 … rows the fewest successes that pass (n + 1: none do) and the most that fail (−1)."""
    passes, fails, k, misses = np.empty(rows, np.int64), np.empty(rows, np.int64), 0, 0
    for n in range(1, rows + 1):
        while k <= n and sequence_p_at_least(k, n, threshold, planned=planned) > ALPHA:
            k += 1
        while misses <= n and sequence_p_at_most(n - misses, n, threshold, planned=planned) > ALPHA:
            misses += 1
        passes[n - 1], fails[n - 1] = k, n - misses
    return passes, fails


def walk(passes: Counts, fails: Counts, rate: float, every: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """The chance to pass, and to fail, at each n; looks after every so many rows."""
    rows = len(passes)
    alive = np.zeros(rows + 2)
    alive[0] = 1.0
    passed, failed = np.zeros(rows), np.zeros(rows)
    for n in range(1, rows + 1):
        alive[1 : n + 1] = alive[1 : n + 1] * (1 - rate) + alive[:n] * rate
        alive[0] *= 1 - rate
        if n % every == 0:
            passed[n - 1], failed[n - 1] = alive[passes[n - 1] : n + 1].sum(), alive[: fails[n - 1] + 1].sum()
            alive[passes[n - 1] : n + 1] = 0
            alive[: fails[n - 1] + 1] = 0
    return passed, failed


def quantile(chances: NDArray[Any], share: float) -> int | None:
    """The first n by which so large a share has stopped."""
    found = int(np.searchsorted(chances.cumsum(), share)) + 1
    return found if found <= len(chances) else None


def cells() -> list[dict[str, Any]]:
    """Rows needed, for each threshold, margin and side."""
    found = []
    for threshold in THRESHOLDS:
        for side in (1, -1):
            fixed = {margin: fixed_rows(threshold, min(1.0, threshold + side * margin)) for margin in MARGINS}
            planned = fixed[MARGINS[0]]
            passes, fails = stops(threshold, planned, 2 * planned)
            for margin in MARGINS:
                rate = round(threshold + side * margin, 10)
                right, wrong = walk(passes, fails, rate)[::side]
                chunks = np.add(*walk(passes, fails, rate, every=CHUNK))
                found.append(
                    {"kind": "rows", "threshold": threshold, "rate": rate, "margin": side * margin,
                     "planned": planned, "fixed": fixed[margin], "median": quantile(right + wrong, 0.5),
                     "quantile_90": quantile(right + wrong, 0.9), "median_in_chunks": quantile(chunks, 0.5),
                     "decided_in_planned": float((right + wrong)[:planned].sum()), "wrong": float(wrong.sum())}
                )  # fmt: skip
    return found


def gate_errors() -> list[dict[str, Any]]:
    """How often a gate of 1000 planned rows ever passes, or fails, a rate that is exactly the threshold."""
    found = []
    for threshold in (0.1, 0.5, *THRESHOLDS, 0.98):
        passes, fails = stops(threshold, 1000, 1000)
        none = np.full(1000, -1)
        passed, _ = walk(passes, none, threshold)
        _, failed = walk(np.arange(2, 1002), fails, threshold)
        for name, chances in (("pass", passed), ("fail", failed)):
            found.append({"kind": "error", "of": f"gate, {name}", "rate": threshold, "error": float(chances.sum())})
    return found


def fixed_errors() -> list[dict[str, Any]]:
    """How often Clopper–Pearson misses, over all counts of n rows."""
    found = []
    for n in (50, 1000):
        both, low, high = (np.empty((n + 1, 2)), np.empty(n + 1), np.empty(n + 1))
        for k in range(n + 1):
            shown = interval(k, n, 1 - ALPHA)
            both[k], low[k], high[k] = (shown.low, shown.high), lower_bound(k, n, ALPHA), upper_bound(k, n, ALPHA)
        for rate in (0.1, 0.5, *THRESHOLDS, 0.98):
            chance = binom.pmf(np.arange(n + 1), n, rate)
            for name, missed in (("two-sided", (rate < both[:, 0]) | (rate > both[:, 1])), ("lower", rate < low),
                                 ("upper", rate > high)):  # fmt: skip
                error = float(chance[missed].sum())
                found.append({"kind": "error", "of": f"Clopper–Pearson, {name}, n = {n}", "rate": rate, "error": error})
    return found


def fraction_errors(seed: int = 1) -> list[dict[str, Any]]:
    """How often a stochastic model's gate ever passes a mean at the threshold; rows in twentieths."""
    draw, found = np.random.default_rng(seed), []
    for rate in (0.5, *THRESHOLDS):
        rows = draw.random((RUNS, 1000)) < rate
        sums = (draw.binomial(20, np.where(rows, 0.95 + 0.05 * rate, 0.05 * rate)) / 20).cumsum(1)
        # The stops of whole successes are a hair late for fractions: look for the exact ones below them.
        passed = np.zeros(RUNS, dtype=bool)
        passes, _ = stops(rate, 1000, 1000)
        for n in range(1, 1001):
            low, high = passes[n - 1] - 1.0, float(passes[n - 1])
            for _ in range(12):
                k = (low + high) / 2
                low, high = (low, k) if sequence_p_at_least(min(k, n), n, rate, planned=1000) <= ALPHA else (k, high)
            passed |= sums[:, n - 1] >= high
        found.append({"kind": "error", "of": "gate, fractional rows", "rate": rate, "error": float(passed.mean())})
    return found


def class_errors(seed: int = 1) -> list[dict[str, Any]]:
    """How often the bounds of the worst of ten classes of a hundred rows are beyond its rate."""
    draw, found = np.random.default_rng(seed), []
    run = RunPart(
        id="", folder="", started="", seconds=0.0, mode="", seed=0, rows=1000, planned=1000, gate=False,
        confidence=1 - ALPHA, family="holm", reproducible=True, model_stochastic=False
    )  # fmt: skip
    for name, rates in (("equal", np.full(10, 0.6)), ("one low", np.array([0.5, *np.linspace(0.8, 0.96, 9)]))):
        low = high = 0
        for ks in draw.binomial(100, rates, size=(RUNS, 10)).tolist():
            rate = bounded(Rate(counts=tuple(Count(k=k, n=100) for k in ks), drawn=1000), run)
            low += rate.lower(ALPHA)[0] > rates.min()
            high += rate.upper(ALPHA)[0] < rates.min()
        for side, error in (("lower", low), ("upper", high)):
            of = f"worst class, {side}, {name}"
            found.append({"kind": "error", "of": of, "rate": float(rates.min()), "error": error / RUNS})
    return found


def claims(rows: list[dict[str, Any]]) -> list[harness.Claim]:
    """Every figure of evidence.c, from the rows."""
    found = []
    for row in rows:
        if row["kind"] == "rows":
            saved = {every: row["fixed"] - (row[key] or row["planned"]) for every, key in LOOKS.items()}
            told = ", ".join(f"{rows} ({100 * rows / row['fixed']:.0f} %) {every}" for every, rows in saved.items())
            met = all(rows > 0 for rows in saved.values())
            where = f"threshold {row['threshold']:g}, true rate {row['rate']:g}"
            claim = f"median rows that the gate saves of {row['fixed']} fixed ones, {where}"
            found.append(harness.Claim("evidence.c", claim, "> 0", told, met, "" if met else TRIED))
    errors = [row for row in rows if row["kind"] == "error"]
    for name in ("Clopper–Pearson", "gate, pass", "gate, fail", "gate, fractional", "worst class"):
        worst = max(row["error"] for row in errors if row["of"].startswith(name))
        exact = name in ("Clopper–Pearson", "gate, pass", "gate, fail")
        limit = ALPHA if exact else ALPHA + 3 * (ALPHA * (1 - ALPHA) / RUNS) ** 0.5
        goal = f"<= {ALPHA:.0%}" if exact else f"<= {ALPHA:.0%} and three standard errors of {RUNS} runs"
        found.append(
            harness.Claim("evidence.c", f"largest error of {name}", goal, f"{worst:.2%}", bool(worst <= limit))
        )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Rows needed, then errors, as Markdown."""
    lines = ["| threshold | true rate | fixed rows | gate, median | looks every 64 | gate, 90 % | planned | decided |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        if row["kind"] == "rows":
            late = row["quantile_90"] or f"> {2 * row['planned']}"
            lines.append(
                f"| {row['threshold']:g} | {row['rate']:g} | {row['fixed']} | {row['median']} "
                f"| {row['median_in_chunks']} | {late} | {row['planned']} | {row['decided_in_planned']:.1%} |"
            )
    lines += ["", "| at 5 % | rate | error |", "|---|---|---|"]
    lines += [f"| {row['of']} | {row['rate']:g} | {row['error']:.2%} |" for row in rows if row["kind"] == "error"]
    return "\n".join(lines)


def main() -> None:
    """Walk every cell, count the errors, write the results."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = [*cells(), *gate_errors(), *fixed_errors(), *fraction_errors(), *class_errors()]
    harness.write(
        "gate",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(redan=redan.__version__),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
