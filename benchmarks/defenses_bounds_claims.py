"""What the rows of `defenses_bounds` show: claims of defenses.e, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness import Claim, ratio

Row = dict[str, Any]

ID = "defenses.e"
SLACK = 1e-6
"""Share of a bound that rounding may take: redan's regions are as wide as the referee allows, a few ulps wider."""
LEAST = 0.6
METHODS = 3
TRIED = {
    "looser": "the adaptive lower line; interval and linear bounds of each layer, whichever says more",
    "faster": "all numbers of an image in one pass, each with its window; batch normalization multiplied into its "
    "convolution; one product for many channels at few positions, and for many rows side by side; windows through max "
    "pools; numbers that cannot be above 0 left out from below. Left is the transposed "
    "convolution in float64, which holds for rounding where float32 would not",
    "trained": "ε a little above the one that is proven, the initialization and regularizers of Shi et al. 2021",
}


def named(rows: Mapping[str, Row], beginning: str) -> list[Row]:
    """The rows of the cells whose name begins so."""
    return [row for name, row in rows.items() if name.startswith(f"{beginning}-")]


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """Soundness, auto_LiRPA, and training."""
    return [*sound(rows), *beside(rows), trained(rows)]


def sound(rows: Mapping[str, Row]) -> list[Claim]:
    """Against exact margins, random points and attacks that keep trying."""
    exact = [part for row in named(rows, "exact") for part in row["found"]]
    room = min(min(part["exact"], part["grid"]) - part["lower"] for part in exact)
    apart = max(part["exact"] - part["grid"] for part in exact)
    nets = sum(row["nets"] for row in named(rows, "exact"))
    drawn = [part for row in named(rows, "random") for part in row["found"]]
    near = min(min(part["room"]) for part in drawn)
    points = sum(part["tried"] for part in drawn[::METHODS])
    tries = attacks(rows)
    count = sum(sum(row["tries"].values()) for row in tries)
    broken = sum(len(row["broken"]) for row in tries)
    rooms = [row["room"] for row in tries if row["room"] is not None]
    return [
        Claim(
            ID,
            f"least exact margin (a linear program a pattern of ReLUs, and a grid of 101 × 101) less the bound, "
            f"{nets} tiny networks, {len(exact)} bounds by IBP, CROWN-IBP and CROWN",
            "≥ 0",
            f"{room:.3g}; a grid's least margin is never below the exact one by more than {max(0.0, apart):.1g}",
            room >= 0 and apart <= 1e-9,
            "" if room >= 0 and apart <= 1e-9 else "rounding of every layer counted",
        ),
        Claim(
            ID,
            f"least margin of random points, corners and descent less the bound, {len(drawn)} bounds of "
            f"{sum(row['nets'] for row in named(rows, 'random'))} random networks in L∞ and L2",
            "≥ 0",
            f"{near:.3g}, {points:,} points",
            near >= 0,
            "" if near >= 0 else "rounding of every layer counted",
        ),
        Claim(
            ID,
            f"attacks inside certified balls that won ({', '.join(tries[0]['tries'])}, with new seeds each time)",
            "0",
            f"{broken} of {count:,} tries, {sum(row['passes'] for row in tries):,} passes; least of the margin met "
            f"less its bound {min(rooms):.3g}",
            not broken and count > 0 and min(rooms) >= 0,
            "" if not broken and count > 0 and min(rooms) >= 0 else "rounding of every layer counted",
        ),
    ]


def attacks(rows: Mapping[str, Row]) -> list[Row]:
    """All tries, of networks trained by intervals too."""
    return [*named(rows, "attacked"), *(row["attacked"] for row in named(rows, "trained"))]


def gaps(row: Row, kind: str) -> list[float]:
    """Ours less theirs, relative to its size, of every difference of scores."""
    both = row["tight"][kind]
    return [
        (mine - other) / max(1.0, abs(other))
        for ours, theirs in zip(both["ours"], both["theirs"], strict=True)
        for mine, other in zip(ours, theirs, strict=True)
    ]


def beside(rows: Mapping[str, Row]) -> list[Claim]:
    """No looser in float64, what rounding costs in float32, and CPU seconds in pairs."""
    found = named(rows, "beside")
    version = found[0]["versions"]
    name = f"auto_LiRPA {version['auto_LiRPA']} on torch {version['torch']}"
    exact = {(where(row), kind): gaps(row, kind) for row in found for kind in row["tight"] if "float64" in kind}
    least = min(min(part) for part in exact.values())
    single = {where(row): min(gaps(row, "CROWN-float32")) for row in found if "CROWN-float32" in row["tight"]}
    refused = [f"{where(row)} {kind}: {why}" for row in found for kind, why in row["refused"].items()]
    times = {where(row): ratio(row["seconds"]["ours"], row["seconds"]["theirs"]) for row in found}
    per_row = {
        where(row): tuple(statistics.median(row["seconds"][side]) / row["rows"] for side in ("ours", "theirs"))
        for row in found
    }
    faster = all(value < 1 for value in times.values())
    return [
        Claim(
            ID,
            f"bounds of networks in float64, IBP and CROWN, ours less those of {name}, relative, at the least",
            f"≥ -{SLACK:g}",
            f"{least:.1e} of {sum(map(len, exact.values())):,} bounds; at the most "
            + ", ".join(f"{max(part):.1e} ({kind} {at})" for (at, kind), part in exact.items())
            + (f"; refused: {'; '.join(refused)}" if refused else ""),
            least >= -SLACK,
            "" if least >= -SLACK else TRIED["looser"],
        ),
        Claim(
            ID,
            "the same of networks in float32, where ours hold for the model's rounding and theirs leave it out",
            "told",
            ", ".join(f"{value:.1e} ({at})" for at, value in single.items()),
            True,
        ),
        Claim(
            ID,
            "CPU seconds of CROWN over those of auto_LiRPA, paired, the median; each network in float32, one thread",
            "< 1",
            ", ".join(
                f"{at}: {value:.2f} ({per_row[at][0]:.3f} and {per_row[at][1]:.3f} s a row)"
                for at, value in times.items()
            ),
            faster,
            "" if faster else TRIED["faster"],
        ),
    ]


def where(row: Row) -> str:
    return f"{row['form']} ε {row['eps']:g}"


def trained(rows: Mapping[str, Row]) -> Claim:
    """Networks trained by intervals."""
    found = named(rows, "trained")
    shares = [row["certified"] / row["rows"] for row in found]
    clean = [row["clean"] / row["rows"] for row in found]
    stood = [row["pgd"] / row["pgd_rows"] for row in found]
    return Claim(
        ID,
        f"a CNN trained by intervals on Fashion-MNIST, ε = {found[0]['eps']:g}, {len(found)} seeds: certified; clean "
        "and under PGD (40 steps, 2 restarts)",
        f"≥ {LEAST:.0%}",
        f"{spans(shares)}; {spans(clean)} and {spans(stood)}; "
        f"{statistics.median(row['training_seconds'] for row in found):.0f} CPU s of training",
        min(shares) >= LEAST,
        "" if min(shares) >= LEAST else TRIED["trained"],
    )


def spans(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.1%}" for share in shares)


# -- tables -----------------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """Beside auto_LiRPA; trained by intervals; tries."""
    lines = [
        "CROWN and IBP beside auto_LiRPA on the same networks and rows: differences of bounds (ours less theirs, "
        "relative) and CPU seconds a row.",
        "",
        "| network | ε | rows | IBP float64 | CROWN float64 | CROWN float32 | CPU s ours | CPU s theirs | ratio |",
        "|---" * 9 + "|",
    ]
    for row in named(rows, "beside"):
        parts = [
            f"{min(gaps(row, kind)):.1e} to {max(gaps(row, kind)):.1e}" if kind in row["tight"] else "it refuses"
            for kind in ("IBP-float64", "CROWN-float64", "CROWN-float32")
        ]
        seconds = [statistics.median(row["seconds"][side]) / row["rows"] for side in ("ours", "theirs")]
        told = " | ".join([*parts, *(f"{value:.3f}" for value in seconds)])
        speed = ratio(row["seconds"]["ours"], row["seconds"]["theirs"])
        lines.append(f"| {row['form']} | {row['eps']:g} | {row['rows']} | {told} | {speed:.2f} |")
    lines += [
        "",
        "Trained by intervals, 60,000 rows.",
        "",
        "| seed | epochs | training CPU s | rows | clean | certified | of them by intervals | PGD |",
        "|---" * 8 + "|",
    ]
    lines += [
        f"| {row['seed']} | {row['epochs']} | {row['training_seconds']:.0f} | {row['rows']:,} | "
        f"{row['clean'] / row['rows']:.1%} | {row['certified'] / row['rows']:.1%} | "
        f"{row['by_intervals'] / row['rows']:.1%} | {row['pgd'] / row['pgd_rows']:.1%} of {row['pgd_rows']} |"
        for row in named(rows, "trained")
    ]
    lines += [
        "",
        "Attacks inside certified balls.",
        "",
        "| network | ε | rows | certified | tries | passes | won | least over the bound |",
        "|---" * 8 + "|",
    ]
    for name, row in rows.items():
        tried = row if name.startswith("attacked-") else row.get("attacked")
        if tried:
            room = "" if tried["room"] is None else f"{tried['room']:.3g}"
            lines.append(
                f"| {name} | {tried['eps']:g} | {tried['rows']} | {tried['certified']} "
                f"| {sum(tried['tries'].values())} | {tried['passes']:,} | {len(tried['broken'])} | {room} |"
            )
    return "\n".join(lines)
