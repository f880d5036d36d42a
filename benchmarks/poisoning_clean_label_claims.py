"""What the rows of `poisoning_clean_label` show: the claims of poisoning.b, and the tables.

The independent unit is the target or the trial, not the victim: victims of one poison are alike. Counts are compared by
Fisher's exact test, one-sided; rates of the same trials by Wilcoxon's exact signed-rank test, one-sided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from harness import Claim

Row = dict[str, Any]

LEVEL = 0.01
VICTIMS = 2
"""So many of a target's victims have to answer the wanted class for the target to count."""
HALF = 0.5
"""The attack success rate, mean over a trial's victims, from which the trial counts."""
TRIED = {
    "sleeper agent": "Before the trials, on one subset that they do not use, one victim a pair. (1) 3 % of the rows, a "
    "checkerboard of 6 pixels, 200 steps, 100 triggered rows shown: 0.52 beside 0.16 for shirt to pullover at radius "
    "0.2; at radius 0.25, 0.20 beside 0.05 for dress to coat and 0.06 beside 0.02 for boot to sneaker. (2) 5 %, 8 "
    "pixels, 150 steps, 300 rows shown, radius 0.2: 0.97 beside 0.05 for dress to coat, 0.03 beside 0.02 for boot to "
    "sneaker; this is what the trials ran with, on pairs of tops and dresses. (3) The same at radius 0.3: 0.96 and "
    "0.07, no better. The trials were not run again with other settings, nor were any added after their result."
}
"""For an attack that missed: what was tried."""
NAMES = {"label-consistent": "label-consistent", "sleeper agent": "Sleeper Agent"}


class Against(NamedTuple):
    """Successes of an attack and of what stands beside it, each of n, and Fisher's one-sided p-value."""

    ours: int
    theirs: int
    n: int
    p: float


def fisher(ours: int, theirs: int, n: int) -> Against:
    """Whether an attack with `ours` successes of n beats one with `theirs` of n."""
    test = stats.fisher_exact(np.array([[ours, n - ours], [theirs, n - theirs]]), alternative="greater")
    return Against(ours, theirs, n, float(test.pvalue))


def targets(rows: Mapping[str, Row]) -> list[Row]:
    """All targets of gradient matching."""
    return [target for row in _of(rows, "gradient matching") for target in row["targets"]]


def by_target(rows: Mapping[str, Row]) -> Against:
    """Targets whose victims answer the wanted class, poisoned against clean."""
    found = targets(rows)
    ours, theirs = (sum(_hits(target, side) >= VICTIMS for target in found) for side in ("poisoned", "clean"))
    return fisher(ours, theirs, len(found))


def by_victim(rows: Mapping[str, Row]) -> Against:
    """Victims that answer the wanted class, as if they were independent."""
    found = targets(rows)
    ours, theirs = (sum(_hits(target, side) for target in found) for side in ("poisoned", "clean"))
    return fisher(ours, theirs, sum(len(target["poisoned"]) for target in found))


def rates(rows: Mapping[str, Row], attack: str, side: str) -> list[float]:
    """Of each trial of an attack: the success rate after training on one side, mean over its victims."""
    return [float(np.mean(row["obeyed"][side])) / row["shown"] for row in _of(rows, attack)]


def by_trial(rows: Mapping[str, Row], attack: str, beside: str) -> Against:
    """Trials with a success rate of `HALF` at least, against what stands beside."""
    ours, theirs = (sum(rate >= HALF for rate in rates(rows, attack, side)) for side in ("poisoned", beside))
    return fisher(ours, theirs, len(_of(rows, attack)))


def paired(rows: Mapping[str, Row], attack: str, beside: str) -> float:
    """One-sided p-value that the success rates of the same trials are no higher than beside (Wilcoxon)."""
    differences = np.subtract(rates(rows, attack, "poisoned"), rates(rows, attack, beside))
    return float(stats.wilcoxon(differences, alternative="greater").pvalue) if differences.any() else 1.0


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """poisoning.b."""
    return [_matching(rows), _trials(rows, "label-consistent", "inserted"), _trials(rows, "sleeper agent", "clean")]


def _matching(rows: Mapping[str, Row]) -> Claim:
    found, victims = by_target(rows), by_victim(rows)
    share = _of(rows, "gradient matching")[0]["settings"]["share"]
    return Claim(
        "poisoning.b",
        f"gradient matching at {100 * share:g} % of 4,000 rows: targets that {VICTIMS} of 4 victims at least take for "
        "the wanted class, beside the same rows unperturbed",
        f"more, Fisher's exact test one-sided p < {LEVEL:g}",
        f"{found.ours} of {found.n} beside {found.theirs} of {found.n}, p {found.p:.2g}; victims {victims.ours} of "
        f"{victims.n} beside {victims.theirs}, p {victims.p:.2g} as if they were independent",
        found.p < LEVEL,
        "" if found.p < LEVEL else TRIED.get("gradient matching", ""),
    )


def _trials(rows: Mapping[str, Row], attack: str, beside: str) -> Claim:
    found, p = by_trial(rows, attack, beside), paired(rows, attack, beside)
    ours, theirs = (float(np.mean(rates(rows, attack, side))) for side in ("poisoned", beside))
    share = _of(rows, attack)[0]["settings"]["share"]
    more = ""
    if attack == "sleeper agent":
        shown = rates(rows, attack, "visible")
        seen = sum(rate >= HALF for rate in shown)
        more = f"; with the visible trigger {seen} of {found.n}, mean rate {np.mean(shown):.3f}"
    return Claim(
        "poisoning.b",
        f"{NAMES[attack]} at {100 * share:g} % of 4,000 rows: trials with an attack success rate of {HALF:g} at least, "
        "beside "
        + {"inserted": "the same rows with the trigger and unperturbed", "clean": "the same rows unperturbed"}[beside],
        f"more, Fisher's exact test one-sided p < {LEVEL:g}",
        f"{found.ours} of {found.n} beside {found.theirs} of {found.n}, p {found.p:.2g}; mean rate {ours:.3f} beside "
        f"{theirs:.3f}, paired p {p:.2g}{more}",
        found.p < LEVEL,
        "" if found.p < LEVEL else TRIED.get(attack, ""),
    )


def _of(rows: Mapping[str, Row], attack: str) -> list[Row]:
    return [row for row in rows.values() if row["attack"] == attack]


def _hits(target: Row, side: str) -> int:
    return sum(answer == target["wanted"] for answer in target[side])


def table(rows: Mapping[str, Row]) -> str:
    """Two tables: targets of gradient matching, and trials of the two backdoors."""
    return "\n".join([*_target_lines(rows), "", *_trial_lines(rows)])


def _target_lines(rows: Mapping[str, Row]) -> Iterator[str]:
    found, first = targets(rows), _of(rows, "gradient matching")[0]
    settings = first["settings"]
    yield (
        f"Gradient matching, share {settings['share']:g}, radius {settings['radius']:g}, {settings['steps']} steps, "
        f"{settings['surrogates']} surrogates; targets drawn by seed {settings['drawn_by']} among test rows whose "
        f"second class has a probability from {settings['border'][0]:g} to {settings['border'][1]:g}. Accuracy "
        f"{_mean(a for target in found for a in target['accuracy'])} poisoned, "
        f"{_mean(a for row in _of(rows, 'gradient matching') for a in row['accuracy'])} clean."
    )
    yield ""
    yield "| | poisoned | unperturbed | of | Fisher p, one-sided |"
    yield "|---|---|---|---|---|"
    for name, against in ((f"targets, {VICTIMS} of 4 victims", by_target(rows)), ("victims", by_victim(rows))):
        yield f"| {name} | {against.ours} | {against.theirs} | {against.n} | {against.p:.2g} |"
    yield ""
    yield "| second class's probability | targets | poisoned | unperturbed |"
    yield "|---|---|---|---|"
    low, high = settings["border"]
    for start, end in ((low, 0.1), (0.1, 0.15), (0.15, high)):
        part = [target for target in found if start <= target["chance"] < end or target["chance"] == end == high]
        ours, theirs = (sum(_hits(target, side) >= VICTIMS for target in part) for side in ("poisoned", "clean"))
        yield f"| {start:g} to {end:g} | {len(part)} | {ours} | {theirs} |"


def _trial_lines(rows: Mapping[str, Row]) -> Iterator[str]:
    for attack, besides in (("label-consistent", ("inserted", "clean")), ("sleeper agent", ("clean", "visible"))):
        found, sides = _of(rows, attack), ("poisoned", *besides)
        settings = ", ".join(f"{name} {value:.3g}" for name, value in found[0]["settings"].items())
        accuracies = ", ".join(f"{_mean(a for row in found for a in row['accuracy'][s])} {s}" for s in sides)
        yield f"{NAMES[attack]}: {settings}. Attack success rate, mean over victims. Accuracy {accuracies}."
        yield ""
        yield f"| trial | rows | {' | '.join(sides)} |"
        yield "|---|---|" + "---|" * len(sides)
        each = [rates(rows, attack, side) for side in sides]
        for i, row in enumerate(found):
            name = f"{row['source']} → {row['label']}" if "source" in row else f"→ {row['label']}"
            yield f"| {name} | {row['changed']} | {_cells(side[i] for side in each)} |"
        yield f"| mean | | {_cells(float(np.mean(side)) for side in each)} |"
        yield ""
        for side in besides:
            against = by_trial(rows, attack, side)
            yield (
                f"Against {side}: {against.ours} of {against.n} trials beside {against.theirs}, Fisher p "
                f"{against.p:.2g}; paired p {paired(rows, attack, side):.2g}."
            )
        yield ""


def _cells(values: Iterator[float] | Sequence[float]) -> str:
    return " | ".join(f"{value:.3f}" for value in values)


def _mean(values: Iterator[float]) -> str:
    return f"{100 * float(np.mean(list(values))):.1f} %"
