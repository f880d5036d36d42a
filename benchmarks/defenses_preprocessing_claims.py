"""What the rows of `defenses_preprocessing` show: claims of defenses.c, and the table of all radii.

Rows of the three seeds are pooled: each network has rows of its own, so that no row comes twice. A gain is the share of
rows that hold with the defense less that without it, on the same rows, with an exact 95 % interval of the difference;
the verdict is `redan.evidence.gain`'s, with a margin of 5 points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness import Claim
from redan.evidence.gain import MARGIN, Gain, Held, gained
from redan.evidence.paired import Comparison

Row = dict[str, Any]

SEEDS = (0, 1, 2)
BROKEN = {
    "bit-depth": "3 bits (Xu et al. 2018, Guo et al. 2018)",
    "jpeg": "JPEG, quality 75 (Dziugaite et al. 2016, Guo et al. 2018)",
    "total-variation": "total variation of a random half of the pixels (Guo et al. 2018)",
    "resize-pad": "random resizing and padding (Xie et al. 2018)",
    "thermometer": "thermometers of 16 levels, trained (Buckman et al. 2018)",
}
"""Broken by Athalye et al. 2018, arXiv:1802.00420."""
OTHERS = {
    "median": "median over 2 x 2 pixels (Xu et al. 2018)",
    "non-local-means": "non-local means 11-3-4 (Xu et al. 2018)",
    "feature-squeezing": "feature squeezing, 1 bit and a median, 5 % false positives (Xu et al. 2018)",
}
RADII = {"linf-0.1": "L∞ 0.1", "linf-0.2": "L∞ 0.2", "l2-1.5": "L2 1.5", "l2-3.5": "L2 3.5"}
SMALL, LARGE = ("linf-0.1", "l2-1.5"), ("linf-0.2", "l2-3.5")
NAIVE = ("nearest", "naive")
_LEVEL = 0.025  # of each end of an interval


class Pooled(NamedTuple):
    """Rows of all seeds, without a defense and with it. compared: before, then with it."""

    compared: Comparison

    @property
    def verdict(self) -> Gain:
        found = self.compared
        before = [True] * (found.both + found.lost) + [False] * (found.rows - found.both - found.lost)
        rest = found.rows - found.both - found.lost - found.won
        now = [True] * found.both + [False] * found.lost + [True] * found.won + [False] * rest
        known = [False] * found.rows
        return gained(Held(before, known), Held(now, known))

    @property
    def gain(self) -> float:
        return (self.compared.won - self.compared.lost) / self.compared.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Of the gain: each end is missed with a chance of 2.5 % at the most."""
        found = self.compared
        undone = Comparison(rows=found.rows, both=found.both, lost=found.won, won=found.lost)
        return -found.most_lost(_LEVEL), undone.most_lost(_LEVEL)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def of(rows: Mapping[str, Row], name: str, radius: str) -> list[Row]:
    """One defense at one radius, a row a seed."""
    return [rows[f"{name}-{seed}"]["settings"][radius] for seed in SEEDS]


def pooled(found: Sequence[Row], attack: str) -> Pooled:
    """What all seeds show of an attack."""
    rows, both, lost, won = (
        sum(int(row["rows"]) for row in found),
        *(sum(int(row[attack][kind]) for row in found) for kind in ("both", "lost", "won")),
    )
    return Pooled(Comparison(rows=rows, both=both, lost=lost, won=won))


def share(found: Sequence[Row], *path: str) -> float:
    """A count of rows, pooled, as a share."""
    total = 0
    for row in found:
        value: Any = row
        for key in path:
            value = value[key]
        total += int(value)
    return total / sum(int(row["rows"]) for row in found)


def told(found: Sequence[Row], radius: str) -> str:
    """Bare, naive and adaptive, and the gain before and after."""
    before = max(share(found, attack, "held") for attack in NAIVE if attack in found[0])
    bare, after = share(found, "bare"), pooled(found, "adaptive")
    return (
        f"{RADII[radius]}: bare {bare:.1%}, naive {before:.1%}, adaptive {share(found, 'adaptive', 'held'):.1%}, gain "
        f"{100 * (before - bare):+.1f} before, {after} after: {after.verdict}"
    )


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """No gain for what was broken in print; the rest as it is; and both at radii that leave the bare network some."""
    return [
        *(broken(rows, name) for name in BROKEN),
        *(shown(rows, name) for name in OTHERS),
        small(rows),
    ]


def broken(rows: Mapping[str, Row], name: str) -> Claim:
    """One that Athalye et al. broke: a gain before, and none after."""
    found = {radius: of(rows, name, radius) for radius in LARGE}
    before = all(pooled(each, "nearest").verdict is Gain.GAIN for each in found.values())
    after = all(pooled(each, "adaptive").verdict is Gain.NO_GAIN for each in found.values())
    met = before and after
    return Claim(
        "defenses.c",
        f"{BROKEN[name]}, broken by Athalye et al. 2018: rows that hold, of the bare network, and behind it against "
        "the naive and the adaptive attack; gain in points before and after",
        f"a gain before; after, no gain (margin {100 * MARGIN:g} points), in L∞ and L2",
        "; ".join(told(each, radius) for radius, each in found.items()),
        met,
        "" if met else "more draws a gradient, more steps, targeted losses, inputs found against the bare network",
    )


def shown(rows: Mapping[str, Row], name: str) -> Claim:
    """One that was not among them."""
    return Claim(
        "defenses.c",
        f"{OTHERS[name]}: rows that hold, of the bare network, and with it against the naive and the adaptive attack; "
        "gain in points before and after",
        "told",
        "; ".join(told(of(rows, name, radius), radius) for radius in LARGE),
        True,
    )


def small(rows: Mapping[str, Row]) -> Claim:
    """Every defense at the small radii, where an attack that is a little weaker than the best one shows."""
    parts = []
    for radius in SMALL:
        bare = share(of(rows, "bit-depth", radius), "bare")
        gains = []
        for name in (*BROKEN, *OTHERS):
            after = pooled(of(rows, name, radius), "adaptive")
            gains.append(f"{name} {after}, {after.verdict}")
        parts.append(f"{RADII[radius]}, bare {bare:.1%}: {'; '.join(gains)}")
    return Claim(
        "defenses.c",
        "gain in points against the adaptive attack at radii that leave some rows to the bare network",
        "told",
        ". ".join(parts),
        True,
    )


# -- table -------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """Every defense at every radius."""
    count = sum(int(row["rows"]) for row in of(rows, "bit-depth", LARGE[0]))
    lines = [
        f"Rows that hold, of {count} (three networks, each on rows of its own). Naive: shown the nearest wrong inputs "
        "of the bare network, or those that a strong attack finds first. Adaptive: attacked as served, and shown all "
        f"of these. Gains in points, with 95 % intervals; no gain: {100 * MARGIN:g} points at the most.",
        "",
        "| defense | change | clean | bare | naive, nearest | naive, first | adaptive | gain before | gain after "
        "| verdict |",
        "|---" * 10 + "|",
    ]
    for name in (*BROKEN, *OTHERS):
        for radius, words in RADII.items():
            found = of(rows, name, radius)
            bare, naive = share(found, "bare"), [share(found, attack, "held") for attack in NAIVE]
            after = pooled(found, "adaptive")
            cells = [
                name,
                words,
                f"{share(found, 'clean'):.1%}",
                f"{bare:.1%}",
                *(f"{each:.1%}" for each in naive),
                f"{share(found, 'adaptive', 'held'):.1%}",
                f"{100 * (max(naive) - bare):+.1f}",
                str(after),
                str(after.verdict),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    refused = share(of(rows, "feature-squeezing", LARGE[0]), "refused")
    lines += [
        "",
        f"Feature squeezing refused {refused:.1%} of the clean rows. Total variation drops a random half of the pixels "
        "and what was changed in them: where the change is small it may hold rows that the bare network loses.",
    ]
    return "\n".join(lines)
