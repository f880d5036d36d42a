"""`redan plan`: what an assessment would do, why, and what it would cost at the most."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from redan.assessment.build import added_attacks
from redan.assessment.forecast import Outlook, forecast
from redan.assessment.parts import plan_parts
from redan.cli.progress import bars, span
from redan.cli.trust import TrustPickle
from redan.report.terminal import show_plan
from redan.threat.file import read
from redan.threat.planner import plan as make_plan


def plan(
    threat_model: Annotated[Path, typer.Argument(help="The threat-model file (YAML, version 1).", show_default=False)],
    pilot: Annotated[bool, typer.Option("--pilot", help="Try a few rows, and forecast what all will take.")] = False,
    trust_pickle: TrustPickle = False,
) -> None:
    """Show every technique that redan knows, chosen for an attacker of THREAT_MODEL or left out, and why.

    The cost is the exact worst case, as if no row broke. The model is neither built nor asked: only the file is
    read, and the attacks that `attacks.add` names. With --pilot the model is built, passes the preflight, and is
    attacked on 32 rows or a few more; nothing is written. `redan assess` then runs what is chosen.

    Examples: `redan plan threat-model.yaml`, `redan plan threat-model.yaml --pilot`
    """
    loaded = read(threat_model)
    steps = make_plan(loaded.model, added_attacks(loaded.model, loaded.folder))
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head)
        untested = {c.attacker.name: c.reason or "every attack was skipped" for c in steps.campaigns if not c.attacks}
        show_plan(plan_parts(steps), loaded.model.statistics.rows, Console(highlight=False), untested)
    if pilot:
        with bars() as watch:
            outlook = forecast(threat_model, trust_pickle=trust_pickle, watch=watch)
        _tell(outlook)


def _tell(outlook: Outlook) -> None:
    """One line for each attacker, and one for the whole."""
    for each in outlook.attackers:
        money = "" if each.usd is None else f", {each.usd:,.2f} USD"
        typer.echo(
            f"{each.attacker}: about {each.queries:,} queries, {each.passes:,} passes{money}, "
            f"{span(each.seconds)} (from {each.pilot:,} of {each.rows:,} rows)"
        )
    typer.echo(f"the whole assessment: about {span(outlook.seconds)} on this machine")
