"""What `defenses_training` shows: every claim and table follows from its rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import defenses_training as bench
import harness
import parts  # first: it sets the number of threads
from redan.evidence.statistics import interval

Rows = Mapping[str, parts.Row]
MINUTES = 15
"""The longest training."""
POINTS = 0.05
"""How far the fast method may stay behind PGD-AT."""


class Race(NamedTuple):
    """One figure of the races. ours: a key of `bench.OURS`, whose half is the one that is claimed."""

    form: str
    ours: str
    goal: float


RACES = (
    Race("cnn", "pgd-7", 2.8),
    Race("residual", "pgd-7", 2.2),
    Race("cnn", "fgsm-rs", 9.0),
    Race("residual", "fgsm-rs", 7.0),
)
NAMES = {
    "plain": "ordinary training",
    "fgsm-at": "FGSM-AT (α 0.5)",
    "fgsm-rs": "FGSM-RS",
    "pgd-at": "PGD-AT (10 steps)",
    "trades": "TRADES (β 6)",
    "awp": "AWP (PGD-10, γ 0.01)",
}
SIDES = {
    "madry": "ART, Madry, PGD-7",
    "fbf": "ART, FBF",
    "pgd-7": "redan, PGD-7",
    "pgd-7, half": "redan, PGD-7, half",
    "fgsm-rs": "redan, FGSM-RS",
    "fgsm-rs, half": "redan, FGSM-RS, half",
}
TRIED = (
    "Tried: one folding of batch normalization an attack (kept: 7 % of a residual pass), the attack in bfloat16 (kept: "
    "a fifth of a pass of the CNN, a quarter of the residual network's), no stack traces while seeding (kept), fused "
    "Adam (kept before), channels last on the CNN (no gain), a pass traced into plain operations (5 %, left out), "
    "batches cut in two or four for the attack (slower)."
)


def claims(rows: Rows) -> list[harness.Claim]:
    """All that is claimed of adversarial training."""
    return [_short(rows), _holding(rows), _fast(rows), _equal(rows), *(_race(rows, race) for race in RACES)]


def trained(rows: Rows, method: str) -> list[parts.Row]:
    """A method's rows, a seed each."""
    return [rows[f"{method}-{seed}"] for seed in bench.SEEDS]


def ratios(rows: Rows, form: str, side: str) -> float:
    """How many times as long ART's Madry trainer takes: the median of the repeats."""
    seconds = rows[f"speed-{form}"]["seconds"]
    return harness.ratio(seconds["madry"], seconds[side])


def _short(rows: Rows) -> harness.Claim:
    longest = {name: max(row["seconds"] for row in trained(rows, name)) for name in bench.METHODS if name != "plain"}
    worst = max(longest, key=longest.__getitem__)
    return harness.Claim(
        "defenses.a",
        f"five methods train Fashion-MNIST's CNN in Linf, ε {bench.EPSILON}, within {MINUTES} minutes each (one "
        f"thread, {bench.ROWS:,} rows, {bench.EPOCHS} epochs, {len(bench.SEEDS)} seeds)",
        f"<= {MINUTES} minutes",
        f"{longest[worst] / 60:.1f} CPU minutes at the most ({NAMES[worst]})",
        longest[worst] <= 60 * MINUTES,
        "" if longest[worst] <= 60 * MINUTES else "fewer rows and epochs",
    )


def _holding(rows: Rows) -> harness.Claim:
    highest = max(row["high"] for row in trained(rows, "plain"))
    told = {name: [row["low"] for row in trained(rows, name)] for name in bench.METHODS if name != "plain"}
    met = all(min(lows) > highest for lows in told.values())
    said = "; ".join(f"{NAMES[name]} {_shares(trained(rows, name))}" for name in bench.METHODS)
    return harness.Claim(
        "defenses.a",
        "each method's robust accuracy in the cascade is above that of ordinary training, in every seed",
        "its exact 95 % interval above ordinary training's",
        f"robust, by seed: {said}",
        met,
        "" if met else "all five methods and no others; the longest trainings that the time allows",
    )


def _fast(rows: Rows) -> harness.Claim:
    fast, slow = (sum(row["k"] for row in trained(rows, name)) for name in ("fgsm-rs", "pgd-at"))
    total = sum(row["n"] for row in trained(rows, "fgsm-rs"))
    behind = (slow - fast) / total
    return harness.Claim(
        "defenses.a",
        "FGSM-RS reaches nearly the robust accuracy of PGD-AT at the same epochs",
        f"at most {100 * POINTS:.0f} points behind",
        f"{100 * fast / total:.1f} % and {100 * slow / total:.1f} % of {total} rows: {100 * behind:.1f} points behind",
        behind <= POINTS,
        "" if behind <= POINTS else "the step of 1.25 radii that the paper gives; the watch rang at no collapse",
    )


def _equal(rows: Rows) -> harness.Claim:
    pairs = [rows[f"equal-{seed}"]["sides"] for seed in bench.SEEDS]
    met = all(pair["pgd-7, half"]["high"] >= pair["madry"]["low"] for pair in pairs)
    said = "; ".join(
        f"{SIDES[side]} {_shares(found)}, {_median([row['seconds'] for row in found]):.0f} s"
        for side in ("madry", "pgd-7, half", "fgsm-rs, half")
        for found in [[pair[side] for pair in pairs]]
    )
    return harness.Claim(
        "defenses.a",
        "PGD-7 in redan, its attack in bfloat16, is as robust as ART's Madry trainer after the same training (same "
        "first weights, rows, batch, epochs, optimizer, schedule)",
        "not below ART's exact 95 % interval with its own, in each seed",
        f"robust, by seed, and CPU seconds: {said}",
        met,
        "" if met else "bfloat16 and float32 for the attack",
    )


def _race(rows: Rows, race: Race) -> harness.Claim:
    half, whole = (ratios(rows, race.form, side) for side in (f"{race.ours}, half", race.ours))
    art = f"; ART's own FBF {ratios(rows, race.form, 'fbf'):.2f}x" if race.ours == "fgsm-rs" else ""
    met = half >= race.goal
    return harness.Claim(
        "defenses.a",
        f"an epoch of {SIDES[f'{race.ours}, half']}, over one of ART's Madry trainer (PGD-7), {race.form}, CPU seconds",
        f">= {race.goal:g}x faster",
        f"{half:.2f}x (the attack in float32, as ART's: {whole:.2f}x{art})",
        met,
        "" if met else TRIED,
    )


def _shares(found: Sequence[parts.Row]) -> str:
    return ", ".join(
        f"{100 * row['k'] / row['n']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" for row in found
    )


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def table(rows: Rows) -> str:
    """Accuracies by method, the same training on both sides, and the races."""
    lines = [
        f"{bench.ROWS:,} rows, {bench.EPOCHS} epochs, {bench.TESTED} test rows; % with exact 95 % intervals; "
        "robust: mode default",
        "",
        "| method | seed | clean | robust | CPU s | alarms |",
        "|---|---|---|---|---|---|",
        *(_line(NAMES[name], row["seed"], row) for name in bench.METHODS for row in trained(rows, name)),
    ]
    for seed in bench.SEEDS:
        sides = rows[f"equal-{seed}"]["sides"]
        lines += [_line(f"{SIDES[side]} (same training)", seed, row) for side, row in sides.items()]
    lines += [
        "",
        "| an epoch | network | CPU s of 60,000 rows | x ART Madry | passes forward, back |",
        "|---|---|---|---|---|",
    ]
    for form in bench.TIMED:
        row = rows[f"speed-{form}"]
        for side, seconds in row["seconds"].items():
            passes = row["passes"][side]
            lines.append(
                f"| {SIDES[side]} | {form} | {_median(seconds) * 60_000 / row['rows']:.0f} "
                f"| {ratios(rows, form, side):.2f} | {passes['forwards']:g}, {passes['backwards']:g} |"
            )
    return "\n".join(lines)


def _line(name: str, seed: int, row: parts.Row) -> str:
    clean = interval(row["clean"], row["n"])
    return (
        f"| {name} | {seed} | {100 * row['clean'] / row['n']:.1f} [{100 * clean.low:.1f}, {100 * clean.high:.1f}] "
        f"| {_shares([row])} | {row['seconds']:.0f} | {len(row['alarms'])} |"
    )
