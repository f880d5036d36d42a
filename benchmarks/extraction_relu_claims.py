"""What the rows of `extraction_relu` show: claims of extraction.c, and the units that no input shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness import Claim

Row = dict[str, Any]

SAME = 1e-6
KINDS = ("drawn-784-64-1", "drawn-20-64-10", "blind-20-64-10", "trained-784-64-1")


def of(rows: Mapping[str, Row], kind: str) -> list[Row]:
    """The networks of a kind."""
    return [row for name, row in rows.items() if name.startswith(f"{kind}-")]


def worst(found: Sequence[Row], judged: str) -> float:
    """The largest difference of any network's outputs."""
    return max(float(row["difference"][judged]) for row in found)


def answers(found: Sequence[Row]) -> str:
    """Answers bought, as a power of 2 too."""
    paid = [row["paid"] for row in found]
    middle = statistics.median(paid)
    return f"{middle:,.0f} ({min(paid):,} to {max(paid):,}), 2^{math.log2(middle):.1f}"


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """Each kind of network on random inputs, then what no random input shows."""
    return [*(same(kind, of(rows, kind)) for kind in KINDS), unreachable(of(rows, "blind-20-64-10")), pushed(rows)]


def same(kind: str, found: Sequence[Row]) -> Claim:
    """Outputs on rows of the box."""
    judged = ["uniform", "corners", *(["images"] if "images" in found[0]["difference"] else [])]
    met = worst(found, "uniform") <= SAME
    return Claim(
        "extraction.c",
        f"{kind.replace('-', ' ', 1)}, {len(found)} seeds: largest difference of a raw output on 100,000 random inputs",
        f"≤ {SAME:g}",
        ", ".join(f"{worst(found, name):.0e} on {name}" for name in judged) + f"; {answers(found)} answers",
        met,
        "" if met else "refinement of all parameters by least squares, shorter steps, more answers",
    )


def unreachable(found: Sequence[Row]) -> Claim:
    """Units that have no kink in the box."""
    true = {len(row["always_on"]) + len(row["always_off"]) for row in found}
    told = [row["unreachable"] for row in found]
    listed = all(row["units"] == row["kinks"] == row["found"] for row in found)
    return Claim(
        "extraction.c",
        f"64 units, of which 4 are on and 4 off all over the box, {len(found)} networks: units found, and the others "
        "listed",
        "every unit with a kink in the box is found, the others are listed by number",
        f"{min(row['found'] for row in found)} to {max(row['found'] for row in found)} found, {min(true)} listed; the "
        f"copy itself says that at least {min(told)} more is on",
        listed,
        "" if listed else "lines through the box, its corners, and corners that push known units far",
    )


def pushed(rows: Mapping[str, Row]) -> Claim:
    """Corners that push true units furthest, which the attacker does not know."""
    found = of(rows, "trained-784-64-1")
    missed = [len(row["missed"]) for row in found]
    met = not any(missed)
    return Claim(
        "extraction.c",
        f"trained 784-64-1, {len(found)} seeds: units with a kink in the box that were not found, and the largest "
        "difference at the corners that push true units furthest",
        f"none, ≤ {SAME:g}",
        f"{', '.join(map(str, missed))} of 64; {worst(found, 'pushed'):.1g}, where outputs spread by "
        f"{statistics.mean(row['spread'] for row in found):.1f}; beyond their kinks lie "
        f"{max((share for row in found for share in row['missed'].values()), default=0):.3%} of random inputs"
        if not met
        else f"none; {worst(found, 'pushed'):.0e}",
        met,
        ""
        if met
        else "1,000 probes in all: in the box, at its corners, at corners of long runs, and at corners that "
        "push known units far; with probes=20_000 the first network's units were all found, for 88,988 answers",
    )


# -- tables ------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """Each kind; the units that no input shows."""
    lines = [
        "Largest difference of a raw output from the network's, of all seeds. `pushed`: the two corners of the box "
        "that push each true unit furthest. Carlini et al. 2020 tell in their abstract of 4,000 parameters at 2^18.5 "
        "answers and 100,000 at 2^21.5, of deeper networks too.",
        "",
        "| network | seeds | parameters | answers | 100,000 uniform | 10,000 corners | pushed | images | units found "
        "of those with a kink | signs known |",
        "|---" * 10 + "|",
    ]
    for kind in KINDS:
        found = of(rows, kind)
        told = [
            str(len(found)),
            f"{found[0]['parameters']:,}",
            answers(found),
            *(f"{worst(found, name):.0e}" for name in ("uniform", "corners", "pushed")),
            f"{worst(found, 'images'):.0e}" if "images" in found[0]["difference"] else "",
            f"{sum(row['found'] for row in found)} of {sum(row['kinks'] for row in found)}",
            str(sum(row["signed"] for row in found)),
        ]
        lines.append(f"| {kind.replace('-', ' ', 1)} | {' | '.join(told)} |")
    lines += [
        "",
        "Units that a copy lacks, by their number in the network. Missed units have a kink in the box that no probe "
        "reached; the share is that of 100,000 uniform rows beyond it.",
        "",
        "| network | seed | on all over the box | off all over the box | missed (share of rows) |",
        "|---" * 5 + "|",
    ]
    for kind in KINDS:
        for row in of(rows, kind):
            if row["always_on"] or row["always_off"] or row["missed"]:
                missed = ", ".join(f"{unit} ({part:g})" for unit, part in row["missed"].items())
                ends = [", ".join(map(str, row[name])) for name in ("always_on", "always_off")]
                lines.append(f"| {kind.replace('-', ' ', 1)} | {row['seed']} | {' | '.join([*ends, missed])} |")
    return "\n".join(lines)
