"""A report and a plan as a terminal shows them: the verdict first, then what it rests on.

Everything fits in 80 columns: names and sentences wrap between words, numbers never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from redan.evidence.comparison import Compared
from redan.evidence.paired import Change
from redan.evidence.report import AttackerPart, CheckPart, CurvePart, PlanPart, Report, RequirementPart, Verdict
from redan.evidence.requirement import Direction
from redan.report import (
    defended_words,
    detector_words,
    extraction_tables,
    extraction_words,
    poison_tables,
    poison_words,
    transfer_words,
    words,
)
from redan.report.certified_words import headline as proofs
from redan.report.means import Table as Figures

_COLOR = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "bold yellow"}
_NONE = "–"


def _table(headings: Sequence[str], *, wide: int = 0, right: Sequence[int] = (), widths: Sequence[int] = ()) -> Table:
    """A table without lines; the column `wide` wraps, all others stay whole."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), show_header=any(headings))
    for i, heading in enumerate(headings):
        table.add_column(
            heading,
            justify="right" if i in right else "left",
            no_wrap=i != wide,
            overflow="fold",
            min_width=widths[i] if i < len(widths) and i != wide else None,
        )
    return table


def _indented(what: RenderableType) -> RenderableType:
    return Padding(what, (0, 0, 0, 2))


def _listed(mark: str, sentences: Iterable[str], style: str = "") -> RenderableType:
    """Sentences with a mark before each, wrapped beside it."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        table.add_row(mark, Text(sentence), style=style)
    return table


def _threshold(value: float) -> str:
    """Two places, or all that the threat model gives."""
    return max(f"{value:.2f}", f"{value:.10g}", key=len)


def _asked(part: RequirementPart) -> str:
    """A requirement as one writes it; it breaks, if it must, before the sign."""
    sign = "≥" if part.direction is Direction.AT_LEAST else "≤"
    return f"{part.metric} {sign}\N{NO-BREAK SPACE}{_threshold(part.threshold)}"


def _cells(part: RequirementPart) -> tuple[str, ...]:
    at = part.interval
    return (
        _asked(part),
        words.percent(part.value) if part.metric.is_rate else _NONE,
        _counted(part),
        _NONE if at is None else f"{100 * at.low:.1f} to {100 * at.high:.1f} %",
    )


def _counted(part: RequirementPart) -> str:
    """k of n rows, or how many victims or copies a mean is of."""
    if part.n is None:
        return _NONE
    return f"{part.n:,} {words.counted(part)}" if part.k is None else f"{part.k:,} of {part.n:,}"


def requirements(report: Report) -> RenderableType:
    """Each requirement with its count, interval and verdict, those against an attacker below the name."""
    headings = ("requirement", "value", "rows", f"{100 * report.run.confidence:g} % interval")
    cells = [_cells(part) for part in report.requirements]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    attackers = dict.fromkeys(part.against for part in report.requirements if part.against is not None)
    told: list[RenderableType] = []
    for name in (None, *attackers):  # first what no attacker is needed for, below the headings
        columns = ("",) * 5 if name else (headings[0].ljust(widths[0]), *headings[1:], "verdict")
        table = _table(columns, right=(1, 2, 3), widths=(*widths, 12))
        for part, texts in zip(report.requirements, cells, strict=True):
            if part.against == name:
                verdict = Text(str(part.verdict), style=_COLOR[part.verdict])
                table.add_row(Text(texts[0].ljust(widths[0])), *texts[1:], verdict)
        if name:
            told.append(Text(f"against {name}:"))
        told.append(table)
    return Group(*told)


def attacker(report: Report, part: AttackerPart) -> RenderableType:
    """How far one attacker got, attack by attack, and what it cost them."""
    if (poison := part.poisoning) is not None:
        told, left = poison_words.headline(report, part, poison), poison_words.left_out(poison)
        return _of_models(part, poison.goal, told, poison_tables.tables(poison), left, poison.notes)
    if (copied := part.extraction) is not None:
        told, left = extraction_words.headline(copied), extraction_words.left_out(copied)
        return _of_models(part, copied.goal, told, extraction_tables.tables(copied), left, copied.notes)
    if part.counts is None:
        return Text.assemble((part.name, "bold"), f"  {part.kind}, {part.status}: {part.reason}")
    about = [part.kind, part.change, f"knowledge: {part.knowledge}"]
    title = Text.assemble((part.name, "bold"), "  " + ", ".join(word for word in about if word))
    c = part.counts
    said = f"{c.right:,} of {c.drawn:,} rows right on the clean input: {c.broken:,} broken, {c.robust:,} robust"
    rest = ((c.errors, "errors"), (c.undecided, "undecided"), (c.missing, "never reached"))
    open_rows = [f"{n:,} {word}" for n, word in rest if n]
    lines: list[RenderableType] = [title, _indented(Text(", ".join([said, *open_rows])))]
    if part.success_8bit is not None and c.broken:
        lines.append(_indented(Text(f"{part.success_8bit:,} of {c.broken:,} stay broken when rounded to 8 bits")))
    if part.curve:
        lines.append(_indented(_curve(part.curve)))
    if part.certified is not None:
        lines += [_indented(Text(words.sentence(said))) for said in proofs(part.certified)]
    table = _table(("attack", "shown", "broken", "queries", "passes", "CPU s"), right=(1, 2, 3, 4, 5))
    for a in part.attacks:
        passes = f"{a.forwards + a.backwards:,}"
        name = a.name if a.status == "done" else f"{a.name} ({a.status})"
        table.add_row(Text(name), f"{a.attempted:,}", f"{a.broken:,}", f"{a.queries:,}", passes, f"{a.seconds:.1f}")
    lines.append(_indented(table))
    for beside in part.defended:
        lines += [_indented(Text(words.sentence(said))) for said in defended_words.headline(beside)]
    if part.transfers is not None:
        lines += [_indented(Text(words.sentence(said))) for said in transfer_words.headline(part.transfers)]
    if doubts := words.doubts(part):
        lines.append(_indented(_listed("!", (f"{d.name}: {d.detail}" for d in doubts), "yellow")))
    if retried := words.retried(part):
        lines.append(_indented(_listed("↻", (f"tried again, {retry}" for retry in retried))))
    if examined := words.examined(part):
        lines.append(_indented(Text(examined)))
    return Group(*lines)


def _of_models(
    part: AttackerPart,
    goal: str,
    headline: Iterable[str],
    tables: Iterable[Figures],
    left: Sequence[str],
    notes: Sequence[str],
) -> RenderableType:
    """What trained models showed of an attacker: victims of one who changes training rows, copies of one who copies.

    left: what was not done to its end, and why.
    """
    lines: list[RenderableType] = [Text.assemble((part.name, "bold"), f"  {part.kind}, {goal}")]
    lines += [_indented(Text(words.sentence(said))) for said in headline]
    for each in tables:
        table = _table(each.heads, right=range(1, len(each.heads)))
        for name, *figures in each.rows:
            table.add_row(Text(name), *map(Text, figures))
        lines.append(_indented(table))
    if left:
        lines.append(_indented(_listed("–", left, "dim")))
    if careful := [*(f"{d.name}: {d.detail}" for d in words.doubts(part)), *notes]:
        lines.append(_indented(_listed("!", careful, "yellow")))
    return Group(*lines)


def _curve(curve: Sequence[CurvePart]) -> RenderableType:
    """Robust rows at a quarter, half, three quarters and all of the radius."""
    points = [curve[i * (len(curve) - 1) // 4] for i in range(1, 5)]
    said = ", ".join(f"{point.robust:,} at {point.radius:.3g}" for point in points)
    return Text(f"at most so many rows are robust at smaller radii: {said}")


def _noted(report: Report) -> Iterable[str]:
    yield from words.cautions(report)
    yield from (f"data: {check.detail}" for check in report.preflight if check.check == "data")


def show(report: Report, console: Console) -> None:
    """Print a report: verdict, requirements, attackers, what to be careful about, and where the evidence is."""
    told: list[RenderableType] = [
        Text.assemble((report.verdict.upper(), _COLOR[report.verdict]), f"  {report.system}, {report.run.rows:,} rows")
    ]
    if report.defenses:
        told.append(Text(f"served, and attacked: {words.served(report.defenses)}"))
    if report.detector is not None:
        told.append(Text(words.sentence(detector_words.refusals(report.detector, report.run.confidence))))
    if report.verdict is not Verdict.PASS:
        told.append(_listed("•", report.reasons))
    if report.requirements:
        told.append(requirements(report))
    told += [attacker(report, part) for part in report.attackers]
    notes = list(_noted(report))
    if notes:
        told.append(_listed("!", notes, "yellow"))
    if report.shows_not:
        told.append(Group(Text("not shown:", style="dim"), _indented(_listed("–", report.shows_not, "dim"))))
    for part in told:
        console.print()
        console.print(part)
    console.print()
    console.print(Text(f"report: {report.run.folder}/report.json", style="dim"), soft_wrap=True)


def show_preflight(checks: Sequence[CheckPart], console: Console) -> None:
    """Print what each check found, and the remedy where it fired."""
    table = _table(("check", "status", "found"), wide=2)
    for check in checks:
        style = "green" if check.status == "pass" else "bold red" if check.status == "refuse" else "yellow"
        found = check.detail if check.status == "pass" else "; ".join(filter(None, (check.detail, check.remedy)))
        table.add_row(Text(check.check), Text(check.status, style=style), Text(found))
    console.print(table)


def show_comparison(parts: Sequence[Compared], console: Console) -> None:
    """Print each metric beside the baseline's: which rows were lost and won, and whether that is beyond noise."""
    headings = ("beside the baseline", "before", "now", "lost", "won", "p-value", "verdict")
    table = _table(headings, right=(1, 2, 3, 4, 5))
    for part in parts:
        rows = part.rows
        held = [f"{100 * count / rows.rows:.1f} %" for count in (rows.both + rows.lost, rows.both + rows.won)]
        name = part.metric if part.against is None else f"{part.metric}, {part.against}"
        style = "bold red" if part.worse else "green" if part.change is Change.NOT_WORSE else "yellow"
        word = Text("no worse beyond noise" if part.change is Change.INCONCLUSIVE else str(part.change), style=style)
        table.add_row(Text(name), *held, f"{rows.lost:,}", f"{rows.won:,}", f"{part.p_value:.3g}", word)
    console.print()
    console.print(table)
    for part in parts:
        left = {
            "could not be judged in one of them": part.unjudged,
            "are only in the baseline": part.only_before,
            "are only in this run": part.only_now,
        }
        said = "".join(f"; {count:,} {how}" for how, count in left.items() if count)
        if said:
            console.print(f"! {part.metric}: {part.rows.rows:,} rows were compared{said}", style="yellow")


def _chosen(parts: Sequence[PlanPart], rows: int) -> RenderableType:
    priced = any(part.usd is not None for part in parts)
    headings = ("chosen", "queries a row", "passes, at most", *(("USD, at most",) if priced else ()), "why")
    table = _table(headings, wide=len(headings) - 1, right=(1, 2, 3) if priced else (1, 2))
    for part in parts:
        passes = _passes(part, rows)
        cells = ["unknown" if part.queries is None else f"{part.queries:,}"]
        cells.append("unknown" if passes is None else f"{passes:,}")
        if priced:
            cells.append("unknown" if part.usd is None else f"{part.usd * rows:,.2f}")
        table.add_row(Text(part.attack), *cells, Text(part.reason))
    return table


def _left_out(status: str, parts: Sequence[PlanPart]) -> RenderableType:
    """The techniques of one status, those of the same reason together."""
    table = _table((status, "why"), widths=(24,))
    table.columns[0].ratio, table.columns[1].ratio = 2, 3
    for column in table.columns:
        column.no_wrap = False
    reasons = dict.fromkeys(part.reason for part in parts)
    for reason in reasons:
        names = ", ".join(part.attack for part in parts if part.reason == reason)
        table.add_row(Text(names), Text(reason))
    return table


def _passes(part: PlanPart, rows: int) -> int | None:
    """Forward and backward passes over all rows; None where the attack does not say."""
    return None if part.queries is None else ((part.forwards or 0) + (part.backwards or 0)) * rows


def show_plan(
    parts: Sequence[PlanPart], rows: int, console: Console, untested: Mapping[str, str] | None = None
) -> None:
    """Print a plan: what each attacker uses and its worst-case cost, then every other technique with its reason.

    untested: attackers who use nothing, and why.
    """
    chosen = [part for part in parts if part.status == "chosen"]
    for name, steps in groupby(chosen, key=lambda part: part.attacker):
        console.print(Text(name or "", style="bold"))
        console.print(_indented(_chosen(list(steps), rows)), "")
    for name, reason in (untested or {}).items():
        console.print(Text.assemble((name, "bold"), (f"  nothing is chosen: {reason}", "yellow")), "")
    for status in dict.fromkeys(part.status for part in parts if part.status != "chosen"):
        console.print(_left_out(status, [part for part in parts if part.status == status]), "")
    total = sum(_passes(part, rows) or 0 for part in chosen)
    silent = [part.attack for part in chosen if part.queries is None]
    more = f", and those of {', '.join(silent)}, which does not say its cost" if silent else ""
    usd = sum((part.usd or 0) * rows for part in chosen)
    money = f" and {usd:,.2f} USD" if usd else ""
    console.print(
        Text(
            f"{rows:,} rows: at most {total:,} passes (forward and backward){money} if nothing breaks{more}; "
            "a broken row costs nothing more."
        )
    )
