"""`redan plan`: what an assessment would do, why, and what it would cost at the most."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from redan.assessment.build import added_attacks
from redan.assessment.parts import plan_parts
from redan.report.terminal import show_plan
from redan.threat.file import read
from redan.threat.planner import plan as make_plan


def plan(
    threat_model: Annotated[Path, typer.Argument(help="The threat-model file (YAML, version 1).", show_default=False)],
) -> None:
    """Show every technique that redan knows, chosen for an attacker of THREAT_MODEL or left out, and why.

    The cost is the exact worst case, as if no row broke. The model is neither built nor asked: only the file is
    read, and the attacks that `attacks.add` names. `redan assess` then runs what is chosen.
    """
    loaded = read(threat_model)
    steps = make_plan(loaded.model, added_attacks(loaded.model, loaded.folder))
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head)
        untested = {c.attacker.name: c.reason or "every attack was skipped" for c in steps.campaigns if not c.attacks}
        show_plan(plan_parts(steps), loaded.model.statistics.rows, Console(highlight=False), untested)
