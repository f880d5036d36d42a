"""What the rows of `extraction_trees` show: claims of extraction.b, and curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness import Claim

Row = dict[str, Any]

PAPER = 1150
"""Answers that Tramèr et al. 2016 bought top-down for a tree of 26 leaves on German credit; 1,722 bottom-up."""
FACTOR, PRECISION = 1.2, 0.01
APIS = {
    "confidence": "top-down, class and confidence, features told",
    "unfielded": "top-down, class and confidence",
    "unique": "top-down, numbers of nodes, features told",
    "complete": "bottom-up, class and confidence",
    "distinct": "bottom-up, numbers of leaves",
}
SIZES = (10, 26, 50, 100, 150, 200)


def through(row: Row, api: str) -> list[Row]:
    """The trees that were stolen through an API."""
    return [found for found in row["found"] if found["api"] == api]


def whole(found: Sequence[Row]) -> int:
    """Trees of which every leaf was recovered."""
    return sum(tree["recovered"] == tree["reachable"] for tree in found)


def share(found: Sequence[Row]) -> float:
    """Of all leaves that were recovered."""
    return sum(int(tree["recovered"]) for tree in found) / sum(int(tree["reachable"]) for tree in found)


def span(numbers: Sequence[float]) -> str:
    """The middle, with the ends."""
    return f"{statistics.median(numbers):,.0f} ({min(numbers):,.0f} to {max(numbers):,.0f})"


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """The paper's tree, the curve of sizes, and plain probabilities."""
    found = through(rows["german-26"], "confidence")
    fine = through(rows["german-26-fine"], "confidence")
    paid = [tree["paid"] for tree in found]
    worst = max(tree["threshold"] for tree in found)
    met = max(paid) <= FACTOR * PAPER and worst <= PRECISION and whole(found) == len(found)
    sizes = {size: through(rows[f"leaves-{size}"], "unique") for size in SIZES}
    every = all(whole(trees) == len(trees) for trees in sizes.values())
    told = {size: share(through(rows[f"leaves-{size}"], "confidence")) for size in SIZES}
    return [
        Claim(
            "extraction.b",
            f"trees of 26 leaves on German credit, top-down, class, confidence and features told, {len(found)} trees: "
            "answers, thresholds off by at most, trees recovered whole",
            f"≤ {FACTOR:g} × {PAPER:,} = {FACTOR * PAPER:,.0f} answers, ≤ {PRECISION}, all",
            f"{span(paid)} answers, {worst:.3f}, {whole(found)} of {len(found)}; at the paper's ε = "
            f"{rows['german-26-fine']['precision']:g}: {span([tree['paid'] for tree in fine])}, "
            f"{whole(fine)} of {len(fine)}",
            met,
            "" if met else "features that matter little varied together, thresholds by bisection",
        ),
        Claim(
            "extraction.b",
            "answers against leaves, top-down, nodes told apart: every leaf recovered",
            "a curve to about 200 leaves, all recovered",
            "; ".join(f"{size} leaves {span([tree['paid'] for tree in trees])}" for size, trees in sizes.items())
            + "; by class and confidence alone, where many leaves look the same, recovered "
            + ", ".join(f"{part:.1%}" for part in told.values()),
            every,
            "" if every else "boxes that hold another leaf's point are cut and looked at again",
        ),
        plain(rows),
    ]


def plain(rows: Mapping[str, Row]) -> Claim:
    """Scikit-learn's probabilities."""
    parts = []
    for size in (10, 26, 50):
        for starts in (1, 1000):
            row = rows[f"plain-{size}-{starts}"]
            parts.append(
                f"{size} leaves, {starts} start{'s' if starts > 1 else ''}: {share(row['found']):.0%} for "
                f"{span([tree['paid'] for tree in row['found']])}"
            )
    return Claim(
        "extraction.b",
        "plain scikit-learn probabilities, bottom-up, 3 trees a size: share of leaves recovered, and answers",
        "told as a curve",
        "; ".join(parts),
        True,
    )


# -- tables ------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """Each API; queries by leaves; the curve of plain probabilities."""
    lines = [
        "Trees of 26 leaves on German credit, medians (lowest to highest); agreement of the worst tree. Tramèr et al. "
        "2016: one tree of 26 leaves with 25 identities at ε = 0.001, 1,150 answers top-down and 1,722 bottom-up.",
        "",
        "| API | ε | trees | identities | answers | recovered whole | leaves recovered | thresholds off by | uniform "
        "rows | data |",
        "|---" * 10 + "|",
    ]
    for name in ("german-26", "german-26-fine"):
        for api, text in APIS.items():
            found = through(rows[name], api)
            told = [
                f"{rows[name]['precision']:g}",
                str(len(found)),
                span([tree["identities"] for tree in found]),
                span([tree["paid"] for tree in found]),
                str(whole(found)),
                f"{share(found):.1%}",
                far(found),
                *(f"{min(tree['agreement'][rows] for tree in found):.2%}" for rows in ("uniform", "data")),
            ]
            lines.append(f"| {text} | {' | '.join(told)} |")
    lines += [
        "",
        "Answers by leaves, ε = 0.01, 5 trees a size, with the share of leaves recovered.",
        "",
        "| leaves | identities | top-down, class and confidence | recovered | top-down, numbers of nodes | recovered "
        "| bottom-up, numbers of leaves | recovered |",
        "|---" * 8 + "|",
    ]
    for size in SIZES:
        told = [span([tree["identities"] for tree in through(rows[f"leaves-{size}"], "confidence")])]
        for api in ("confidence", "unique", "distinct"):
            found = through(rows[f"leaves-{size}"], api)
            told += [span([tree["paid"] for tree in found]), f"{share(found):.1%}"]
        lines.append(f"| {size} | {' | '.join(told)} |")
    steps = rows["plain-26-1"]["budgets"]
    lines += [
        "",
        "Plain probabilities, bottom-up, ε = 0.01, 3 trees a size: share of leaves recovered by answers. Leaves of one "
        "class alone look the same, and hide each other; more starts find some of them. A row of data is nearly always "
        "answered as the tree does long before all leaves are known.",
        "",
        f"| leaves | identities | starts | {' | '.join(map(str, steps))} | data | uniform rows |",
        "|---" * (5 + len(steps)) + "|",
    ]
    for size in (10, 26, 50):
        for starts in (1, 1000):
            found = rows[f"plain-{size}-{starts}"]["found"]
            total = sum(tree["reachable"] for tree in found)
            curve = [f"{sum(tree['curve'][at] for tree in found) / total:.0%}" for at in range(len(steps))]
            ends = [f"{min(tree['agreement'][rows] for tree in found):.1%}" for rows in ("data", "uniform")]
            same = span([tree["identities"] for tree in found])
            lines.append(f"| {size} | {same} | {starts:,} | {' | '.join([*curve, *ends])} |")
    return "\n".join(lines)


def far(found: Sequence[Row]) -> str:
    """How far thresholds are off at the most."""
    known = [tree["threshold"] for tree in found if tree["threshold"] is not None]
    return f"{max(known):.4f}" if len(known) == len(found) else "some not found"
