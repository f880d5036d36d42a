"""`redan report`: a run's report from its evidence, and the comparison with an earlier run."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from redan.evidence.comparison import compared
from redan.evidence.folder import RunFolder
from redan.evidence.summary import summary
from redan.report.terminal import show, show_comparison


def report(
    run: Annotated[str, typer.Argument(help="The run folder, or its fsspec URL.", show_default=False)],
    compare: Annotated[
        str | None,
        typer.Option(
            help="Run folder of an earlier release: fail if this one is worse beyond noise.", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print report.json instead.")] = False,
) -> None:
    """Compute the report of RUN from its log, also of a run that was broken off, and print it.

    The exit code is the verdict's: 0 pass, 1 fail, 3 inconclusive. With --compare the same rows of both runs are
    compared pairwise (McNemar's exact test, Holm over the attackers): a model that is worse than the baseline
    beyond noise fails, whatever its own verdict; the run passes only if it does by itself too.
    """
    found = summary(RunFolder.open(run).lines())
    made = found.report(run)
    code = made.exit_code
    with suppress(BrokenPipeError, SystemExit):
        if json:
            sys.stdout.write(made.model_dump_json(indent=2) + "\n")
        else:
            show(made, Console(highlight=False))
    if compare is not None:
        against = compared(summary(RunFolder.open(compare).lines()), found)
        with suppress(BrokenPipeError, SystemExit):
            show_comparison(against, Console(highlight=False, stderr=json))
        code = 1 if any(part.worse for part in against) else code
    raise typer.Exit(code)
