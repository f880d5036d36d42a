"""`redan plan`: what an assessment would do, why, and what it would cost at the most."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from redan.assessment.build import added_attacks
from redan.assessment.certified import foreseen
from redan.assessment.forecast import Outlook, forecast
from redan.assessment.parts import plan_parts
from redan.cli.progress import bars, span
from redan.cli.trust import TrustPickle
from redan.report.terminal import show_plan
from redan.report.words import served
from redan.threat.file import read
from redan.threat.planner import Plan
from redan.threat.planner import plan as make_plan
from redan.threat.poisoners import trainings


def plan(
    threat_model: Annotated[
        Path,
        typer.Argument(metavar="THREAT_MODEL", help="The threat-model file (YAML, version 1).", show_default=False),
    ],
    pilot: Annotated[bool, typer.Option("--pilot", help="Try a few rows, and forecast what all will take.")] = False,
    trust_pickle: TrustPickle = False,
) -> None:
    """Show every technique that redan knows, chosen for an attacker of THREAT_MODEL or left out, and why.

    The cost is the exact worst case, as if no row broke; of poisoning it is how many models are trained, of extraction
    how many answers are bought. The model is neither built nor asked: only the file is read, and the attacks that
    `attacks.add` names. With --pilot the model is built, passes the preflight, and is attacked on 32 rows or a few
    more; nothing is written. `redan assess` then runs what is chosen.

    Examples: `redan plan threat-model.yaml`, `redan plan threat-model.yaml --pilot`
    """
    loaded = read(threat_model)
    steps = make_plan(loaded.model, added_attacks(loaded.model, loaded.folder))
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head)
        untested = {c.attacker.name: c.reason or "every attack was skipped" for c in steps.campaigns if not c.attacks}
        console = Console(highlight=False)
        if defenses := loaded.model.system.served_behind:
            console.print(Text(f"served: {served(defenses)}"))
        if beside := loaded.model.system.beside:
            console.print(Text(f"attacked too, to tell what that is worth: {', '.join(beside)}"), "")
        _show_poisoning(steps, console)
        _show_extraction(steps, loaded.model.extraction.copies, console)
        shown = {each.attacker.name for each in steps.poisonings} | {each.attacker.name for each in steps.extractions}
        parts = [part for part in plan_parts(steps) if part.attacker not in shown]
        show_plan(parts, loaded.model.statistics.rows, console, untested)
        for sentence in foreseen(loaded.model):
            console.print(Text(sentence))
    if pilot:
        with bars() as watch:
            outlook = forecast(threat_model, trust_pickle=trust_pickle, watch=watch)
        _tell(outlook)


def _show_poisoning(found: Plan, console: Console) -> None:
    """What each poisoning attacker uses and how many victims it takes; then the victims of all."""
    for each in found.poisonings:
        _show_chosen(found, each.attacker.name, "victims", sum(point.victims for point in each.points), console)
    if found.poisonings:
        clean, poisoned = trainings(found.poisonings)
        of = "the poisoning attacker" if len(found.poisonings) == 1 else "all poisoning attackers together"
        console.print(
            Text(
                f"{clean + poisoned:,} victims are trained: {clean:,} on clean rows for {of} and {poisoned:,} on "
                "poisoned ones; surrogates, detectors and repair come besides."
            )
        )
        console.print()


def _show_extraction(found: Plan, copies: int, console: Console) -> None:
    """What each extraction attacker uses and how many answers one copy takes at the most; then what all cost."""
    for each in found.extractions:
        _show_chosen(found, each.attacker.name, "answers", each.points[0], console)
        answers = copies * len(each.attacks) * each.points[0]
        money = f", {answers * each.price:,.2f} USD" if each.price else ""
        made = f"{copies * len(each.attacks):,} copies are made, of {answers:,} answers at the most{money}"
        used = "" if each.transfer is None else "; their use, and an attack without a copy, come besides"
        console.print(Text(f"{made}{used}."))
        console.print()


def _show_chosen(found: Plan, attacker: str, heading: str, count: int, console: Console) -> None:
    """One attacker's techniques, each with what it takes."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("chosen")
    table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold")
    for step in found.steps:
        if step.attacker == attacker:
            table.add_row(Text(step.attack), f"{count:,}", Text(step.reason))
    console.print(Text(attacker, style="bold"))
    console.print(Padding(table, (0, 0, 1, 2)))


def _tell(outlook: Outlook) -> None:
    """One line for each attacker, and one for the whole."""
    for each in outlook.attackers:
        money = "" if each.usd is None else f", {each.usd:,.2f} USD"
        spent = f"about {each.queries:,} queries, {each.passes:,} passes{money}, {span(each.seconds)}"
        typer.echo(f"{each.attacker}: {spent} (from {each.pilot:,} of {each.rows:,} rows)")
    for proof in outlook.proofs:
        typer.echo(f"{proof.attacker}, certified: {span(proof.seconds)} (from {proof.pilot:,} of {proof.rows:,} rows)")
    typer.echo(f"the whole assessment: about {span(outlook.seconds)} on this machine")
