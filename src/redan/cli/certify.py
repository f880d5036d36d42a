"""`redan certify`: which rows of a threat model no attack can break, proven."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from redan.assessment.certificates import Certified, CertifiedLine, Subject
from redan.assessment.certifying import How
from redan.assessment.certifying import certify as run_certify
from redan.certification.smoothing import Smoothing
from redan.cli.progress import bars
from redan.cli.trust import TrustPickle
from redan.errors import BrokenOffError, SettingError
from redan.evidence.report import Verdict
from redan.evidence.requirement import Direction

_COLOR = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "bold yellow"}


def certify(
    threat_model: Annotated[
        Path,
        typer.Argument(metavar="THREAT_MODEL", help="The threat-model file (YAML, version 1).", show_default=False),
    ],
    method: Annotated[
        How, typer.Option(help="auto: exact for trees, bounds for torch modules; smoothing: any model.")
    ] = How.AUTO,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="In units of the box, as often as you like, instead of the attackers'.", show_default=False),
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Standard deviation of the noise, for smoothing.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(help="Noisy answers a row and radius at the most, for smoothing.")] = 10_000,
    alpha: Annotated[
        float, typer.Option(help="The chance at the most that a row's certificate is false, for smoothing.")
    ] = 0.001,
    patch: Annotated[
        list[int] | None,
        typer.Option(help="Side of a square patch in pixels, as often as you like; of images.", show_default=False),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of the rows drawn.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Cores to use, 0 for all; it changes no result.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead.")] = False,
    trust_pickle: TrustPickle = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    """Prove how many rows of THREAT_MODEL no attack can break, for each evasion attacker within linf or l2.

    A certified row is right, and stays right whatever the attacker does inside the set. A row without a certificate
    breaks, if the verifier is complete (trees); it may be robust all the same, if it is incomplete (all others).

    With smoothing, whose radii are L2, the smoothed model is certified, and with --patch the one that PatchCleanser
    defends: not the model that the file serves.

    If the file requires certified_accuracy, ends with exit code 0 (pass), 1 (fail) or 3 (not shown either way), and
    else with 0; with 2 if nothing can be proven of this model. After Ctrl-C the result is of the rows so far (130).

    Examples: `redan certify threat-model.yaml --rows 100`, `redan certify threat-model.yaml --radius 0.05`,
    `redan certify threat-model.yaml --method smoothing --sigma 0.25 --radius 0.25 --radius 0.5 --samples 1000 --json`
    """
    if sigma is not None and method is not How.SMOOTHING:
        raise SettingError(f"--sigma is the noise of smoothing, and the method is {method}; add --method smoothing")
    if sigma is None and method is How.SMOOTHING:
        raise SettingError("--method smoothing needs the noise that it adds; give --sigma 0.25, in units of the box")
    with bars(quiet=quiet) as draw:
        found = run_certify(
            threat_model,
            method=method,
            rows=rows,
            radii=radius or (),
            patches=patch or (),
            smoothing=None if sigma is None else Smoothing(sigma=sigma, draws=samples, alpha=alpha),
            workers=workers,
            trust_pickle=trust_pickle,
            watch=lambda name, now: draw(name, now, counts="rows certified or not"),
        )
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head): the verdict stands
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            Console(highlight=False).print(Group(*_shown(found)))
    if found.stopped == "interrupted":
        seen = found.lines[0].n if found.lines else 0
        raise BrokenOffError(f"interrupted after {seen:,} of {found.rows:,} rows; what is shown is of those")
    raise typer.Exit(found.exit_code)


def _shown(found: Certified) -> Iterator[RenderableType]:
    """The verdict, then what is certified, then a table for each norm, then what should be known of it."""
    verdict = found.verdict
    head = (f"{verdict.upper()}  ", _COLOR[verdict]) if verdict else ("", "")
    yield Text.assemble(head, f"{found.model}, {found.rows:,} rows")
    for ruling in found.requirements:
        sign = "≥" if ruling.direction is Direction.AT_LEAST else "≤"
        asked = f"certified_accuracy {sign} {ruling.threshold:g} against {ruling.against}"
        yield Padding(Text(f"{asked}: {ruling.verdict}, {'; '.join(ruling.reasons)}"), (0, 0, 0, 2))
    yield Text()
    yield Text(_subject(found))
    for _, lines in groupby(found.lines, key=lambda line: line.norm):
        yield Text()
        yield from _table(list(lines))
    if found.stopped:
        yield Text(f"\nstopped early ({found.stopped}): rows that were not reached never help")
    if found.notes:
        yield Text()
    for note in found.notes:
        yield Text(f"• {note}")


def _subject(found: Certified) -> str:
    """What the certificates are of."""
    seen = found.lines[0].n if found.lines else 0
    served = "" if found.served_right is None else f", which is right on {found.served_right:,} of {seen:,}"
    match found.subject:
        case Subject.SMOOTHED:
            return (
                f"Certified is the smoothed model (sigma {found.sigma:g}), NOT the model that the file serves{served}. "
                "The certificates hold where the smoothed one is served (redan.certification.smoothed_classifier)."
            )
        case Subject.DEFENDED:
            return (
                f"Certified is the model inside PatchCleanser, NOT the model that the file serves{served}. The "
                "certificates hold where that is served (redan.certification.patch_cleanser.defended)."
            )
    return "Certified is the model that the file serves."


def _table(lines: list[CertifiedLine]) -> Iterator[RenderableType]:
    first = lines[0]
    kind = "square patches of a side in pixels" if first.norm == "patch" else first.norm
    yield Text.assemble((kind, "bold"), f"  {', '.join(first.attackers)}" if first.attackers else "")
    weakest = next((line for line in lines if line.completeness == "incomplete"), first)
    sure = f", a row's certificate is false with chance {first.alpha:g} at the most" if first.alpha else ""
    yield Padding(Text(f"{weakest.verifier} (ISO/IEC 24029-2){sure}"), (0, 0, 0, 2))
    drawn = first.samples is not None
    percent = f"{100 * first.interval.confidence:g} %"
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("radius", "certified", percent, "clean", *(["samples"] if drawn else ["open"]), "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            f"{line.radius:.4g}",
            f"{line.k:,} of {line.n:,}",
            f"{100 * line.interval.low:.1f} to {100 * line.interval.high:.1f} %",
            f"{line.right:,} of {line.n:,}",
            f"{line.samples:,.0f}" if line.samples is not None else f"{line.open:,}",
            f"{line.seconds:,.1f}",
        )
    yield Padding(table, (0, 0, 0, 2))
