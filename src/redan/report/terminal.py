"""A report and a plan as a terminal shows them: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from redan.evidence.report import AttackerPart, PlanPart, Report, RequirementPart, Verdict

_COLOR = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "bold yellow"}


def _table(*headings: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i in right else "left", overflow="fold")
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _count(part: RequirementPart) -> str:
    return "–" if part.k is None else f"{part.k} of {part.n}"


def _interval(part: RequirementPart) -> str:
    return "–" if part.interval is None else f"{100 * part.interval.low:.1f} to {100 * part.interval.high:.1f} %"


def requirements(report: Report) -> RenderableType:
    """Each requirement with its count, exact interval and verdict."""
    table = _table("requirement", "against", "value", "rows", "95 % interval", "verdict", right=(2, 3))
    table.columns[4].header = f"{report.run.confidence:.0%} interval"
    for part in report.requirements:
        asked = f"{part.metric} {'≥' if part.direction == 'at_least' else '≤'} {part.threshold:g}"
        verdict = Text(str(part.verdict), style=_COLOR[part.verdict])
        value = _percent(part.value) if part.metric.is_rate else "–"
        table.add_row(asked, part.against or "", value, _count(part), _interval(part), verdict)
    return table


def attacker(part: AttackerPart) -> RenderableType:
    """How far one attacker got, attack by attack, and what it cost them."""
    title = Text.assemble((part.name, "bold"), f"  {part.kind}, {part.change or ''}, knowledge: {part.knowledge}")
    if part.counts is None:
        return Text.assemble((part.name, "bold"), f"  {part.kind}: {part.reason}")
    c = part.counts
    said = f"{c.right} of {c.drawn} rows right on the clean input; {c.broken} broken, {c.robust} robust"
    open_rows = [f"{n} {word}" for n, word in ((c.errors, "errors"), (c.undecided, "undecided")) if n]
    lines: list[RenderableType] = [title, Text("  " + ", ".join([said, *open_rows]))]
    table = _table("attack", "shown", "broken", "queries", "passes", "CPU s", right=(1, 2, 3, 4, 5))
    for a in part.attacks:
        passes = f"{a.forwards + a.backwards:,}"
        name = a.name if a.status == "done" else f"{a.name} ({a.status})"
        table.add_row(name, f"{a.attempted:,}", f"{a.broken:,}", f"{a.queries:,}", passes, f"{a.seconds:.1f}")
    lines.append(Padding(table, (0, 0, 0, 2)))
    lines += [Text(f"  ! {d.name}: {d.detail}", style="yellow") for d in part.diagnosis]
    return Group(*lines)


def _noted(report: Report) -> Iterable[RenderableType]:
    for check in report.preflight:
        if check.status != "pass":
            yield Text(f"! preflight {check.check}: {check.detail}; {check.remedy}", style="yellow")
    for error in report.errors:
        yield Text(f"! {error.rows} rows could not be judged: {error.reason} (first: {error.first})", style="yellow")
    for name in report.skipped:
        yield Text(f"! skipped on request: {name}", style="yellow")
    for hit in report.limits_hit:
        yield Text(f"! our own limit of {hit} ended the run; rows cut off are undecided", style="yellow")


def show(report: Report, console: Console) -> None:
    """Print a report: verdict, requirements, attackers, what to be careful about, and where the evidence is."""
    console.print()
    console.print(
        Text.assemble((report.verdict.upper(), _COLOR[report.verdict]), f"  {report.system}, {report.run.rows} rows")
    )
    if report.requirements:
        console.print(Padding(requirements(report), (1, 0, 0, 0)))
    for part in report.attackers:
        console.print(Padding(attacker(part), (1, 0, 0, 0)))
    notes = list(_noted(report))
    if notes:
        console.print(Padding(Group(*notes), (1, 0, 0, 0)))
    if report.verdict is not Verdict.PASS:
        console.print()
        for reason in report.reasons:
            console.print(Text(f"• {reason}"))
    console.print()
    console.print(Text(f"report: {report.run.folder}/report.json", style="dim"), soft_wrap=True)


def show_plan(parts: Iterable[PlanPart], rows: int, console: Console) -> None:
    """Print a plan: every technique for every attacker, with its reason and its worst-case cost."""
    table = _table("attacker", "technique", "", "why", "queries/row", "passes, at most", right=(4, 5))
    total = 0
    for part in parts:
        chosen = part.status == "chosen"
        passes = (part.forwards or 0) + (part.backwards or 0) if chosen else 0
        total += passes * rows
        style = "" if chosen else "dim"
        table.add_row(
            part.attacker,
            part.attack,
            Text(part.status, style="green" if chosen else "yellow" if part.status == "not built" else "dim"),
            part.reason,
            f"{part.queries:,}" if part.queries else "",
            f"{passes * rows:,}" if passes else "",
            style=style,
        )
    console.print(table)
    console.print(
        f"\n{rows:,} rows, at most {total:,} passes (forward and backward) if nothing breaks; "
        "a broken row costs nothing more."
    )
