"""`redan assess`: run a threat model's attacks and answer pass, fail or inconclusive."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from redan.assessment import assess as run_assessment
from redan.assessment.assess import inspect
from redan.assessment.opening import check_parts
from redan.assessment.preflight import refuse
from redan.assessment.session import Stage
from redan.cli.progress import bars
from redan.cli.trust import TrustPickle
from redan.errors import BrokenOffError
from redan.oracle import Limits
from redan.report.terminal import show, show_preflight


def assess(
    threat_model: Annotated[
        Path,
        typer.Argument(metavar="THREAT_MODEL", help="The threat-model file (YAML, version 1).", show_default=False),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Folder or fsspec URL for the run folder, instead of run.out.", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="A run folder that was broken off: go on, and ask no finished row again.", show_default=False
        ),
    ] = None,
    preflight_only: Annotated[
        bool, typer.Option("--preflight-only", help="Only check the set-up: seconds, and nothing is attacked.")
    ] = False,
    gate: Annotated[
        bool | None,
        typer.Option(
            "--gate/--no-gate",
            help="Take rows in seeded order and stop as soon as every requirement is decided.",
            show_default=False,
        ),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop asking after so many seconds.", show_default=False)
    ] = None,
    max_queries: Annotated[
        int | None, typer.Option(min=0, help="Stop asking after so many queries in all.", show_default=False)
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="Stop asking before more US dollars are spent.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Cores to use, 0 for all; it changes no result.", show_default=False)
    ] = None,
    trust_pickle: TrustPickle = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the report.")] = False,
) -> None:
    """Attack the model that THREAT_MODEL names, and judge it by the file's requirements.

    Ends with exit code 0 (pass), 1 (fail), 3 (inconclusive: not shown either way), or 2 if the file, the model
    or the data cannot be used: then nothing was attacked.

    The run folder holds report.json, the log of every row, and the inputs that broke the model. Progress goes to
    stderr, the report to stdout. `redan plan` shows beforehand what will be tried. Rows that our own limits cut
    off are undecided and never help to pass; --resume goes on with them, as after Ctrl-C (exit code 130).

    Examples: `redan assess threat-model.yaml --preflight-only`, `redan assess threat-model.yaml`,
    `redan assess threat-model.yaml --gate --max-seconds 600 --out runs`
    """
    if preflight_only:
        ready = inspect(threat_model, trust_pickle=trust_pickle)
        show_preflight(check_parts(ready.findings, ready.built.notes), Console(highlight=False))
        refuse(ready.findings)
        return
    folder: str | None = resume
    with bars(quiet=quiet) as draw:

        def watch(stage: Stage) -> None:
            nonlocal folder
            folder = stage.folder
            name = stage.attacker if stage.doing is None else f"{stage.attacker}: {stage.doing}"
            draw(name, stage.progress, counts=stage.counts)

        try:
            report = run_assessment(
                threat_model,
                out=out,
                resume=resume,
                gate=gate,
                limits=Limits(max_seconds, max_queries, max_usd),
                workers=workers,
                trust_pickle=trust_pickle,
                watch=watch,
            )
        except KeyboardInterrupt:
            if folder is None:
                raise
            again = f"redan assess {threat_model} --resume {folder}{' --trust-pickle' if trust_pickle else ''}"
            raise BrokenOffError(f"interrupted; what was finished is kept, go on with: {again}") from None
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head): the verdict stands
        show(report, Console(highlight=False))
    raise typer.Exit(report.exit_code)
