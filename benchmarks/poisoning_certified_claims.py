"""What the rows of `poisoning_certified` show: claims of poisoning.e, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import Claim

Row = dict[str, Any]

VOTES = {
    "dpa": "DPA, 50 parts",
    "finite": "Finite Aggregation, 50 parts, 2 copies",
    "ss-dpa": "SS-DPA, 50 parts, labels only",
}


def brute(rows: Mapping[str, Row]) -> list[Row]:
    """The rows of brute force."""
    return [row for name, row in rows.items() if name.startswith("brute-")]


def attacked(rows: Mapping[str, Row]) -> list[Row]:
    """The rows of votes under attack."""
    return [row for name, row in rows.items() if name.startswith("attacked-")]


def claims(rows: Mapping[str, Row]) -> list[Claim]:
    """Three claims: by brute force, of the quick votes that it rests on, and by attack."""
    tiny, votes = brute(rows), attacked(rows)
    broken, disagree = sum(row["broken"] for row in tiny), sum(row["votes that disagree"] for row in tiny)
    sets = sum(row["training sets"] for row in tiny)
    wide = [one for row in votes for one in row["wide"] if one["spent"]]
    aimed = [one for row in votes for one in row["aimed"]]
    answers = sum(one["certified"] for one in wide) + sum(one["runs within"] for one in aimed)
    lost = sum(one["broken"] for one in (*wide, *aimed))
    apart = sum(row["answers that disagree"] for row in votes)
    return [
        Claim(
            "poisoning.e",
            f"brute force: every training set within {changes(tiny)} changes of {sum(row['sets'] for row in tiny)} "
            f"tiny ones, {len({row['plan'] for row in tiny})} plans; answers that change within their certified radius",
            "0",
            f"{broken} of {sum(row['checked'] for row in tiny):,} certified answers on {sets:,} training sets",
            broken == 0 and disagree == 0,
            "" if broken == 0 and disagree == 0 else f"votes that disagree with those of `certify`: {disagree}",
        ),
        Claim(
            "poisoning.e",
            f"attacks on votes over 4,000 digits: answers certified for the changes that were made and changed all the "
            f"same, {len({one['attack'] for one in (*wide, *aimed)})} attacks, {len(votes)} plans",
            "0",
            f"{lost} of {answers:,} certified answers in {len(wide) + sum(one['runs within'] for one in aimed)} runs",
            lost == 0 and apart == 0,
            "" if lost == 0 and apart == 0 else f"answers that disagree with those of `certify`: {apart}",
        ),
    ]


def changes(tiny: list[Row]) -> int:
    return max(int(row["most"]) for row in tiny)


# -- tables ------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Row]) -> str:
    """By brute force; certified accuracy; attacks on all answers; attacks on single ones."""
    return "\n\n".join(
        (
            brute_table(brute(rows)),
            certified_table(attacked(rows)),
            wide_table(attacked(rows)),
            aimed_table(attacked(rows)),
        )
    )


def brute_table(tiny: list[Row]) -> str:
    lines = [
        f"Every training set within {changes(tiny)} changes of tiny ones; answers are to every place of the grid. "
        "Tight: one change more than the radius, of rows on the grid, does change the answer.",
        "",
        "| plan | rows on a grid of | training sets | certified answers | changed | radius 1 | radius 2 | tight |",
        "|---" * 8 + "|",
    ]
    for row in tiny:
        tight = f"{row['tight']} of {row['tightness known']}"
        reached = [f"{row[f'radius {n} or more']} of {row['answers']}" for n in (1, 2)]
        lines.append(
            f"| {row['plan']} | {row['grid']} | {row['training sets']:,} | {row['checked']:,} | {row['broken']} | "
            f"{' | '.join(reached)} | {tight} |"
        )
    return "\n".join(lines)


def certified_table(votes: list[Row]) -> str:
    units = [str(unit) for unit in votes[0]["certified"]]
    lines = [
        "Votes on 4,000 digits, ridge regression on each part: accuracy on 1,000 others, and certified accuracy after "
        "so many changes of the training set; then stamped rows that are not answered with the attacker's class, and "
        "certified so. One model on all rows: accuracy "
        f"{votes[0]['plain']['accuracy']:.1%}.",
        "",
        "| plan | models | of rows | right, or not the target | median radius | "
        + " | ".join(f"certified at {unit}" for unit in units)
        + " |",
        "|---" * (5 + len(units)) + "|",
    ]
    for row in votes:
        parts = (
            ("test", row["clean"]["accuracy"], f"{row['median radius']:.0f}", "certified"),
            ("stamped", 1 - row["clean"]["success"], "", "certified stamped"),
        )
        for kind, rate, median, key in parts:
            told = " | ".join(f"{share:.1%}" for share in row[key].values())
            lines.append(f"| {VOTES[row['vote']]} | {row['models']} | {kind} | {rate:.1%} | {median} | {told} |")
    return "\n".join(lines)


def wide_table(votes: list[Row]) -> str:
    lines = [
        "Attacks on all answers. Of 1,000 test rows and those stamped with the trigger: answers certified for the "
        "changes made, and how many of them changed; accuracy and the backdoor's success, vote and one model. A "
        "row whose numbers change is two changes.",
        "",
        "| plan | attack | changes | certified | changed | changed, certified or not | vote | one model |",
        "|---" * 8 + "|",
    ]
    for row in votes:
        lines += [
            f"| {VOTES[row['vote']]} | {one['attack']} | {one['spent']} | {one['certified']} | {one['broken']} | "
            f"{one['changed']} | {rates(one['vote'])} | {rates(one['plain'])} |"
            for one in row["wide"]
            if one["spent"]
        ]
    return "\n".join(lines)


def rates(found: Row) -> str:
    return f"{found['accuracy']:.1%} / {found['success']:.1%}"


def aimed_table(votes: list[Row]) -> str:
    lines = [
        "Attacks on single answers: answers changed with as many changes as they are certified for (the radius), with "
        "one more, and with twice as many; and how often one model on all rows was brought to the attacker's answer.",
        "",
        "| plan | attack | at the radius | one more | twice as many | one model, at the radius | twice as many |",
        "|---" * 7 + "|",
    ]
    for row in votes:
        for one in row["aimed"]:
            told = [
                f"{one['broken']} of {one['runs within']}",
                *(share(one["changed beyond"][key]) for key in ("one more", "twice as many")),
                *(share(one["plain"][key]) for key in ("within", "twice as many")),
            ]
            lines.append(f"| {VOTES[row['vote']]} | {one['attack']} | {' | '.join(told)} |")
    return "\n".join(lines)


def share(found: list[int]) -> str:
    return f"{found[0]} of {found[1]}"
