"""What the rows of `defenses_served` show: claims of defenses.c on ensembles and detectors, and their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from defenses_preprocessing_claims import SEEDS, pooled, share
from harness import Claim
from redan.evidence.gain import MARGIN

Row = dict[str, Any]

ENSEMBLES = {
    "averaged": "three networks, mean probability",
    "voting": "three networks, votes",
    "adp": "three networks trained to differ (ADP, Pang et al. 2019), mean probability",
}
DETECTORS = {
    "nearest-rows": "distance from the 10th nearest training row (Sun et al. 2022)",
    "mahalanobis": "Mahalanobis distance in three layers (Lee et al. 2018)",
}
RADII = {"linf-0.05": "L∞ 0.05", "linf-0.1": "L∞ 0.1", "linf-0.2": "L∞ 0.2"}


def of(rows: Mapping[str, Row], name: str, radius: str) -> list[Row]:
    """One ensemble or detector at one radius, a row a seed."""
    cell = "ensembles" if name in ENSEMBLES else "detectors"
    return [rows[f"{cell}-{seed}"]["served"][name]["settings"][radius] for seed in SEEDS]


def carried(found: Sequence[Row], kind: str) -> float:
    """Of rows that both have right, inputs that break the second."""
    return sum(int(row[kind][0]) for row in found) / sum(int(row[kind][1]) for row in found)


def told(found: Sequence[Row], radius: str) -> str:
    """Bare, naive and adaptive, and the gain after."""
    after = pooled(found, "adaptive")
    return (
        f"{RADII[radius]}: bare {share(found, 'bare'):.1%}, naive {share(found, 'naive', 'held'):.1%}, adaptive "
        f"{share(found, 'adaptive', 'held'):.1%}, gain {after}: {after.verdict}"
    )


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """Each ensemble and each detector; and what carries over with ADP and without."""
    return [
        *(ensemble(rows, name) for name in ENSEMBLES),
        diversity(rows),
        *(detector(rows, name) for name in DETECTORS),
    ]


def ensemble(rows: Mapping[str, Row], name: str) -> Claim:
    """An ensemble attacked as a whole."""
    return Claim(
        "defenses.c",
        f"{ENSEMBLES[name]}, attacked as a whole: rows that hold, beside one network alone; gain in points; inputs of "
        "one member that break another",
        "told",
        "; ".join(
            f"{told(of(rows, name, radius), radius)}, {carried(of(rows, name, radius), 'between'):.0%} carried over"
            for radius in RADII
        ),
        True,
    )


def diversity(rows: Mapping[str, Row]) -> Claim:
    """Pang et al.: inputs carry over worse between members that were trained to differ."""
    rates = {radius: [carried(of(rows, name, radius), "between") for name in ("averaged", "adp")] for radius in RADII}
    met = all(adp < plain for plain, adp in rates.values())
    return Claim(
        "defenses.c",
        "inputs carry over worse between members that were trained to differ (ADP) than between others",
        "less at every radius, as Pang et al. 2019 report",
        "; ".join(f"{RADII[radius]}: {adp:.0%} of {plain:.0%}" for radius, (plain, adp) in rates.items()),
        met,
        "" if met else "the authors' alpha 2 and beta 0.5",
    )


def detector(rows: Mapping[str, Row], name: str) -> Claim:
    """A detector under the joint attack, which must not leave more rows where more may be changed."""
    refused = share(of(rows, name, "linf-0.1"), "refused")
    left = [share(of(rows, name, radius), "adaptive", "held") for radius in RADII]
    met = left == sorted(left, reverse=True)
    return Claim(
        "defenses.c",
        f"{DETECTORS[name]}, at 5 % false positives (measured {refused:.1%}): rows that hold, of the bare network, and "
        "with it against the naive and the joint attack; gain in points",
        "told; a larger radius leaves no more rows than a smaller one",
        "; ".join(told(of(rows, name, radius), radius) for radius in RADII),
        met,
        ""
        if met
        else "what holds at the larger radius alone is the joint attack's weakness, and no gain: its steps are "
        "shares of the radius. Balanced and orthogonal steps, sums with three weights, three classes in turn",
    )


# -- tables ------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """Ensembles, then detectors."""
    count = sum(int(row["rows"]) for row in of(rows, "averaged", "linf-0.1"))
    lines = [
        f"Rows that hold, of {count} (three seeds, each on rows of its own). Adaptive: attacked as a whole, and shown "
        "what was found against the network alone and each member. Carried over: of rows that both have right, inputs "
        f"made on one that break the other. Gains in points, with 95 % intervals; margin {100 * MARGIN:g} points.",
        "",
        "| ensemble | change | clean | one alone | naive | adaptive | gain | verdict | member to member "
        "| member to whole | whole on itself |",
        "|---" * 11 + "|",
    ]
    for name in ENSEMBLES:
        for radius in RADII:
            found = of(rows, name, radius)
            over = [f"{carried(found, kind):.0%}" for kind in ("between", "to_whole", "on_itself")]
            lines.append(f"| {' | '.join([*held(name, radius, found), *over])} |")
    lines += [
        "",
        "Detectors at 5 % false positives. Joint: attacked with the detector, and shown what was found against the "
        "bare network. Where more rows hold than at a smaller radius, the attack is too weak, and its verdict void.",
        "",
        "| detector | change | clean and accepted | bare | naive | joint | gain | verdict | clean refused |",
        "|---" * 9 + "|",
    ]
    for name in DETECTORS:
        for radius in RADII:
            found = of(rows, name, radius)
            refused = f"{share(found, 'refused'):.1%}"
            lines.append(f"| {' | '.join([*held(name, radius, found), refused])} |")
    return "\n".join(lines)


def held(name: str, radius: str, found: Sequence[Row]) -> list[str]:
    """The columns that both tables have."""
    after = pooled(found, "adaptive")
    counts = [share(found, *path) for path in (("clean",), ("bare",), ("naive", "held"), ("adaptive", "held"))]
    return [name, RADII[radius], *(f"{each:.1%}" for each in counts), str(after), str(after.verdict)]
