"""`redan replay`: check a run folder again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from redan.assessment.replay import replay as run_replay
from redan.cli.trust import TrustPickle

_SHOWN = 10  # differences


def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run folder, or its fsspec URL.", show_default=False)],
    threat_model: Annotated[
        str,
        typer.Argument(metavar="THREAT_MODEL", help="The threat-model file that it was made of.", show_default=False),
    ],
    trust_pickle: TrustPickle = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    """Ask the model again about the saved inputs of RUN, and recompute its report from its log.

    Checks that every saved input has the bytes that were logged and meets the same fate, that model, data, rows
    and threat model are what they were, and that report.json follows from the log. Of poisoning attackers the
    victims' saved answers are counted again; where training is declared deterministic, the first victim of each is
    trained again. Of extraction attackers the copies' answers are counted again, and the first copy of each
    extractor is made again. Certified rows are proven again. The run folder is not trusted: the model comes from
    THREAT_MODEL.

    Exit code 0: everything agrees. 1: something does not. 3: no input was kept, so nothing could be asked again.

    Examples: `redan replay runs/ID threat-model.yaml`
    """
    console = Console(highlight=False)
    error = Console(stderr=True)
    with Progress(console=error, disable=quiet or not error.is_terminal, transient=True) as progress:
        bar = progress.add_task("rows", total=None)
        found = run_replay(
            run,
            threat_model,
            trust_pickle=trust_pickle,
            watch=lambda seen, of: progress.update(bar, completed=seen, total=of),
        )
    style = {0: "bold green", 1: "bold red", 3: "bold yellow"}[found.exit_code]
    word = {0: "AGREES", 1: "DIFFERS", 3: "NOTHING TO REPLAY"}[found.exit_code]
    looked = ((found.victims, "victims"), (found.copies, "copies"), (found.proofs, "proofs"))
    models = [f"{n:,} {what}" for n, what in looked if n]
    again = f", {' and '.join(models)} looked at again" if models else ""
    console.print(
        Text.assemble(
            (word, style), f"  {found.rows:,} rows, {found.kept:,} inputs kept, {found.agreed:,} agree{again}"
        )
    )
    for sentence in found.differences[:_SHOWN]:
        console.print(Text(f"• {sentence}"), soft_wrap=True)
    if len(found.differences) > _SHOWN:
        console.print(f"• and {len(found.differences) - _SHOWN:,} more")
    raise typer.Exit(found.exit_code)
