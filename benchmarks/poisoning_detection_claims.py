"""What the rows of `poisoning_detection` say: the claims, and the tables that stand beside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness import Claim

Row = dict[str, Any]
Rows = Mapping[str, Row]

ID = "poisoning.c"
BLIND = 0.6  # a detector whose mean area under the curve is below this is blind to an attack
FEW = 0.05  # it finds next to nothing where less of the poison than this is above 1 % of the clean rows
LEVELS = (0.05, 0.1, 0.2)
REPAIRS = ("removal", "fine-pruning", "unlearning")


def attacks(rows: Rows) -> dict[str, list[Row]]:
    """The rows of each attack, a seed each."""
    found: dict[str, list[Row]] = {}
    for row in rows.values():
        if row["attack"] is not None:
            found.setdefault(row["attack"], []).append(row)
    return found


def clean(rows: Rows) -> list[Row]:
    """The rows of the networks of clean data."""
    return [row for row in rows.values() if row["attack"] is None]


def detectors(rows: Rows) -> list[str]:
    """Their names, in the order of the rows."""
    return list(next(iter(attacks(rows).values()))[0]["detectors"])


def over(seeds: Iterable[Row], detector: str, way: str, figure: str) -> list[float]:
    """One figure of a detector, a seed each."""
    return [row["detectors"][detector][way][figure] for row in seeds]


def lost(rows: Rows, seeds: Sequence[Row], repair: str, against: str) -> list[float]:
    """Percentage points of accuracy that a repair cost, a seed each, against the network of clean data or the victim.

    A removal that found nothing leaves the victim as it is.
    """
    untouched = {row["seed"]: row["accuracy"] for row in clean(rows)}
    return [
        100
        * (
            (untouched[row["seed"]] if against == "clean" else row["accuracy"])
            - row["repairs"][repair].get("accuracy", row["accuracy"])
        )
        for row in seeds
    ]


def success(seeds: Iterable[Row], repair: str) -> list[float]:
    """The attack's success after a repair, a seed each; the victim's where a removal found nothing."""
    return [row["repairs"][repair].get("asr", row["asr"]) for row in seeds]


def false_discoveries(cells: Sequence[Row], detector: str, way: str, q: float) -> tuple[float, float, float]:
    """Mean share of false discoveries over the draws of trusted rows, its standard error, and mean power.

    Draws are independent on each network, and networks are given: the error is of the draws alone.
    """
    found = [row["detectors"][detector]["splits"] for row in cells]
    draws = [split[f"{way} {q}"] for split in found]
    error = math.sqrt(sum(d[1] ** 2 / s["count"] for d, s in zip(draws, found, strict=True))) / len(draws)
    return statistics.fmean(d[0] for d in draws), error, statistics.fmean(d[2] for d in draws)


def everything(rows: Rows, way: str, q: float) -> tuple[float, float, float]:
    """The same over all attacks and detectors. Detectors share the draws of a network, so their errors are added as if
    they went together."""
    cells, names = [row for seeds in attacks(rows).values() for row in seeds], detectors(rows)
    each = [false_discoveries(cells, name, way, q) for name in names]
    mean, error, power = (statistics.fmean(values) for values in zip(*each, strict=True))
    return mean, error, power


def blind(rows: Rows, detector: str, way: str = "class") -> list[str]:
    """The attacks that a detector is blind to."""
    return [
        attack for attack, seeds in attacks(rows).items() if statistics.fmean(over(seeds, detector, way, "auc")) < BLIND
    ]


def idle(rows: Rows, detector: str, way: str = "class") -> list[str]:
    """The attacks of which a detector ranks next to nothing above 1 % of the clean rows, whatever its curve."""
    return [
        attack for attack, seeds in attacks(rows).items() if statistics.fmean(over(seeds, detector, way, "tpr")) < FEW
    ]


def claims(rows: Rows) -> list[Claim]:
    """What is claimed, from the rows."""
    return [*_whole(rows), *_found(rows), *_repaired(rows), *_rates(rows), *_cleansed(rows)]


def _claim(claim: str, goal: str, measured: str, met: bool, tried: str = "") -> Claim:
    return Claim(ID, claim, goal, measured, met, "" if met else tried)


def _whole(rows: Rows) -> list[Claim]:
    names, by = detectors(rows), attacks(rows)
    whole = [len(seeds) for seeds in by.values() if all(list(row["detectors"]) == names for row in seeds)]
    dark = {name: blind(rows, name) for name in names}
    return [
        _claim(
            "area under the curve, rate of true positives at 1 % false ones and clean rows lost: attacks × detectors × "
            "seeds",
            "7 × 8 × 3",
            f"{len(whole)} × {len(names)} × {min(whole, default=0)}",
            len(whole) >= 7 and len(names) >= 8 and min(whole) >= 3,
            "cells were left out",
        ),
        _claim(
            f"attacks that each detector is blind to (mean area under the curve below {BLIND}) are named",
            f"{len(names)} detectors",
            "; ".join(f"{name}: {', '.join(found) or 'none'}" for name, found in dark.items()),
            len(dark) == len(names),
        ),
        _claim(
            f"attacks of which each detector finds less than {FEW:.0%} above 1 % of the clean rows are named",
            f"{len(names)} detectors",
            "; ".join(f"{name}: {', '.join(idle(rows, name)) or 'none'}" for name in names),
            len(dark) == len(names),
        ),
    ]


def _found(rows: Rows) -> list[Claim]:
    seeds = attacks(rows)["badnets"]
    worst = {name: max(over(seeds, name, "class", "lost")) for name in detectors(rows)}
    best = min(worst, key=lambda name: worst[name])
    called = {name: [row["detectors"][name]["class"]["at 0.1"] for row in seeds] for name in detectors(rows)}
    surest = max(called, key=lambda name: min(found[1] for found in called[name]))
    recall, gone = min(found[1] for found in called[surest]), max(found[2] for found in called[surest])
    return [
        _claim(
            "BadNets: clean rows lost by the best detector where it finds 99 % of the poison, worst of 3 seeds",
            "≤ 2 %",
            f"{worst[best]:.2%} ({best})",
            worst[best] <= 0.02,
            "ranks by class and over all rows; features of the penultimate layer; eight detectors",
        ),
        _claim(
            "BadNets: poison found, and clean rows lost, by the best detector at q = 0.1, with no look at the truth, "
            "worst of 3 seeds",
            "≥ 99 % and ≤ 2 %",
            f"{recall:.1%} and {gone:.2%} ({surest})",
            recall >= 0.99 and gone <= 0.02,
            "p-values by class and over all rows; q of 0.05, 0.1 and 0.2; eight detectors",
        ),
    ]


def _repaired(rows: Rows) -> list[Claim]:
    made = []
    seeds = attacks(rows)["badnets"]
    after = success(seeds, "removal")
    tried = (
        "removal by each detector alone; fine-pruning at rates of 0.05 to 0.2, falls of 0.04 and 0.1, 10 and 20 "
        "epochs; unlearning at rates of 0.001 to 0.02 (with a seed that the table does not report)"
    )
    by = sorted({row["repairs"]["removal"]["by"] for row in seeds})
    made.append(
        _claim(
            f"BadNets: attack success after removal and training anew ({', '.join(by)}: most rows called poison at "
            "q = 0.1), mean of 3 seeds",
            "≤ 5 %",
            f"{statistics.fmean(after):.1%} (worst {max(after):.1%}; before {_mean(row['asr'] for row in seeds):.1%})",
            statistics.fmean(after) <= 0.05,
            tried,
        )
    )
    for against, said in (("clean", "network of clean data"), ("victim", "poisoned network")):
        gone = lost(rows, seeds, "removal", against)
        made.append(
            _claim(
                f"BadNets: accuracy that removal and training anew lose against the {said}, mean of 3 seeds",
                "< 1 point",
                f"{statistics.fmean(gone):.2f} points (worst {max(gone):.2f})",
                statistics.fmean(gone) < 1,
                tried,
            )
        )
    planted = {attack: some for attack, some in attacks(rows).items() if "asr" in some[0]}
    for repair in REPAIRS:
        good = [
            attack
            for attack, some in planted.items()
            if statistics.fmean(success(some, repair)) <= 0.05
            and statistics.fmean(lost(rows, some, repair, "clean")) < 1
        ]
        left = [
            f"{attack} {_mean(success(some, repair)):.1%}" for attack, some in planted.items() if attack not in good
        ]
        made.append(
            _claim(
                f"backdoors that {repair} brings to 5 % of attack success, with less than 1 point of accuracy lost "
                "against the network of clean data, mean of 3 seeds",
                f"{len(planted)} of {len(planted)}",
                f"{len(good)} of {len(planted)} ({', '.join(good) or 'none'}; left: {', '.join(left) or 'none'})",
                len(good) == len(planted),
                tried,
            )
        )
    return made


def _rates(rows: Rows) -> list[Claim]:
    by, names = attacks(rows), detectors(rows)
    networks = sum(map(len, by.values()))
    count = next(iter(by.values()))[0]["detectors"][names[0]]["splits"]["count"]
    made = []
    for q in LEVELS:
        mean, error, power = everything(rows, "class", q)
        pairs = {(a, n): false_discoveries(seeds, n, "class", q) for a, seeds in by.items() for n in names}
        awake = [found[0] for found in pairs.values() if found[2] >= 0.1]
        made.append(
            _claim(
                f"q = {q}: mean share of false discoveries, over {count} draws of the trusted rows on each of "
                f"{networks} networks by {len(names)} detectors (unit: a draw on a network)",
                f"≤ {q} + 2 standard errors",
                f"{mean:.4f} (standard error {error:.4f}; mean power {power:.2f}; of the {len(awake)} pairs of "
                f"attack and detector with power of 0.1 or more, {_mean(awake or [0.0]):.4f})",
                mean <= q + 2 * error,
                "p-values by class and over all rows",
            )
        )
        above = [f"{a} by {n} {m:.3f}" for (a, n), (m, e, _) in pairs.items() if m > q + 2 * e]
        highest = max(pairs, key=lambda pair: pairs[pair][0])
        made.append(
            _claim(
                f"q = {q}: pairs of attack and detector whose mean share of false discoveries is above q + 2 standard "
                "errors",
                f"0 of {len(pairs)}",
                f"{len(above)} of {len(pairs)} ({'; '.join(above) + '; ' if above else ''}highest "
                f"{pairs[highest][0]:.3f}, {highest[0]} by {highest[1]})",
                not above,
                "more draws; p-values over all rows; Benjamini-Yekutieli holds for any dependence and finds less",
            )
        )
        fixed = {name: [v for some in by.values() for v in over_at(some, name, 0, q)] for name in names}
        errors = {name: statistics.stdev(v) / math.sqrt(len(v)) for name, v in fixed.items()}
        worst = max(names, key=lambda name: _mean(fixed[name]) - 2 * errors[name])
        made.append(
            _claim(
                f"q = {q}: mean share of false discoveries with the rows that were trusted from the start, by the "
                f"worst of {len(names)} detectors (unit: one of {networks} networks)",
                f"≤ {q} + 2 standard errors",
                f"{_mean(fixed[worst]):.4f} ({worst}; standard error {errors[worst]:.4f})",
                _mean(fixed[worst]) <= q + 2 * errors[worst],
                "p-values by class and over all rows",
            )
        )
    return made


def _cleansed(rows: Rows) -> list[Claim]:
    hit = [0 in row["cleanse"]["flagged"] for row in attacks(rows)["badnets"]]
    extra = sum(len(set(row["cleanse"]["flagged"]) - {0}) for row in attacks(rows)["badnets"])
    false = [row["cleanse"]["flagged"] for row in clean(rows)]
    said = "; ".join(", ".join(map(str, flagged)) or "none" for flagged in false)
    return [
        _claim(
            "Neural Cleanse: networks with BadNets whose target class is flagged",
            f"{len(hit)} of {len(hit)}",
            f"{sum(hit)} of {len(hit)} ({extra} other classes flagged)",
            all(hit),
            "200 and 300 steps a class",
        ),
        _claim(
            "Neural Cleanse: networks of clean data on which a class is flagged",
            f"0 of {len(false)}",
            f"{sum(map(bool, false))} of {len(false)} (classes: {said})",
            not any(false),
            "200 steps a class; the paper's threshold of 2. Of ten sizes of one normal distribution the smallest is so "
            "far out in one network of five, and the deviation of ten is rough: with other roundings in training the "
            "same three networks had 1.93 at the most. A higher threshold is no way out: BadNets' target has 2.24 "
            "in one network",
        ),
    ]


def table(rows: Rows) -> str:
    """The tables, in Markdown."""
    by, names = attacks(rows), detectors(rows)
    parts = [
        "Attacks: 5 % of a supplier's rows (clean labels: half of the target class). Mean of 3 seeds (worst).\n\n"
        + _grid(
            ["attack", "poison", "accuracy", "attack success", "success on a clean network"],
            [
                [
                    name,
                    " / ".join(str(row["payload"]) for row in seeds),
                    f"{_mean(row['accuracy'] for row in seeds):.1%}",
                    "–" if "asr" not in seeds[0] else _share(row["asr"] for row in seeds),
                    "–" if "asr" not in seeds[0] else _share(row["asr"][name] for row in clean(rows)),
                ]
                for name, seeds in by.items()
            ],
        )
    ]
    figures: list[tuple[str, str, str, Callable[[list[float]], str]]] = [
        ("Area under the curve, ranks by class", "class", "auc", lambda v: f"{_mean(v):.3f} ({min(v):.3f})"),
        ("Poison above 1 % of the clean rows, ranks by class", "class", "tpr", lambda v: _low(v)),
        ("Clean rows lost where 99 % of the poison is found, ranks by class", "class", "lost", lambda v: _share(v)),
        ("Area under the curve, bare numbers", "all", "auc", lambda v: f"{_mean(v):.3f} ({min(v):.3f})"),
        ("Poison above 1 % of the clean rows, bare numbers", "all", "tpr", lambda v: _low(v)),
        ("Clean rows lost where 99 % of the poison is found, bare numbers", "all", "lost", lambda v: _share(v)),
    ]
    for title, way, figure, shown in figures:
        body = [[name, *(shown(over(seeds, name, way, figure)) for seeds in by.values())] for name in names]
        parts.append(f"{title}. Mean of 3 seeds (worst).\n\n" + _grid(["detector", *by], body))
    body = [
        [
            name,
            *(
                f"{_mean(over_at(seeds, name, 1)):.0%}, {_mean(over_at(seeds, name, 2)):.2%}, "
                f"{_mean(over_at(seeds, name, 0)):.2f}"
                for seeds in by.values()
            ),
        ]
        for name in names
    ]
    parts.append(
        "At q = 0.1, by class, with the rows that were trusted from the start: poison found, clean rows lost, share of "
        "false discoveries. Mean of 3 seeds.\n\n" + _grid(["detector", *by], body)
    )
    parts.append(
        f"Where each is blind: the mean area under the curve is below {BLIND}, or less than {FEW:.0%} of the poison is "
        "above 1 % of the clean rows. Ranks by class, and bare numbers.\n\n"
        + _grid(
            ["detector", "area, by class", "top, by class", "area, bare", "top, bare"],
            [
                [
                    name,
                    *(
                        ", ".join(ask(rows, name, way)) or "nowhere"
                        for way in ("class", "all")
                        for ask in (blind, idle)
                    ),
                ]
                for name in names
            ],
        )
    )
    body = []
    for way, said in (("class", "by class"), ("all", "over all rows")):
        for name in [*names, ""]:
            cells = [row for seeds in by.values() for row in seeds]
            each = [false_discoveries(cells, name, way, q) if name else everything(rows, way, q) for q in LEVELS]
            body.append(
                [said, name or "all", *(f"{mean:.4f} ± {error:.4f}, {power:.2f}" for mean, error, power in each)]
            )
    parts.append(
        "Share of false discoveries ± standard error over draws of the trusted rows, and power; over all attacks.\n\n"
        + _grid(["p-values", "detector", *(f"q = {q}" for q in LEVELS)], body)
    )
    body = []
    for attack, seeds in by.items():
        for repair in REPAIRS:
            if repair not in seeds[0]["repairs"]:
                continue
            how = [row["repairs"][repair] for row in seeds]
            removed = " / ".join(
                f"{one['right']} of {one['removed']}{', ' + one['by'] if 'by' in one else ''}"
                if "removed" in one
                else "–"
                for one in how
            )
            body.append(
                [
                    attack,
                    repair,
                    removed,
                    "–" if "asr" not in seeds[0] else _share(row["asr"] for row in seeds),
                    "–" if "asr" not in seeds[0] else _share(success(seeds, repair)),
                    *(_points(lost(rows, seeds, repair, against)) for against in ("clean", "victim")),
                ]
            )
    parts.append(
        "Repair. Removal: training anew without what the detector that calls most rows poison at q = 0.1 calls so. "
        "Unlearning: of the 1 % that loss isolation ranks first. Fine-pruning: with the trusted rows. Mean of 3 seeds "
        "(worst); points of accuracy lost against the network of clean data, and against the victim.\n\n"
        + _grid(["attack", "repair", "poison of rows taken", "success before", "after", "lost", "lost (victim)"], body)
    )
    body = [
        [
            kind,
            str(row["seed"]),
            ", ".join(map(str, row["cleanse"]["flagged"])) or "none",
            _anomaly(row["cleanse"]["anomaly"][0]),
            _anomaly(max(v for v in row["cleanse"]["anomaly"] if v is not None)),
        ]
        for kind, some in (("badnets", by["badnets"]), ("clean", clean(rows)))
        for row in some
    ]
    parts.append(
        "Neural Cleanse (flagged: an anomaly above 2).\n\n"
        + _grid(["network", "seed", "flagged", "anomaly of the target 0", "largest anomaly"], body)
    )
    return "\n\n".join(parts) + "\n"


def over_at(seeds: Iterable[Row], detector: str, which: int, q: float = 0.1) -> list[float]:
    """What is found at q, by class: 0 the share of false discoveries, 1 of poison found, 2 of clean rows lost."""
    return [row["detectors"][detector]["class"][f"at {q}"][which] for row in seeds]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _share(values: Iterable[float]) -> str:
    """Mean and worst, where less is better."""
    listed = list(values)
    return f"{_mean(listed):.1%} ({max(listed):.1%})"


def _low(values: Iterable[float]) -> str:
    """Mean and worst, where more is better."""
    listed = list(values)
    return f"{_mean(listed):.1%} ({min(listed):.1%})"


def _points(values: Sequence[float]) -> str:
    return f"{_mean(values):.2f} ({max(values):.2f})"


def _anomaly(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
