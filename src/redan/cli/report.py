"""`redan report`: a run's report from its evidence, in any form, and the comparison with an earlier run."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from redan.errors import ReportError
from redan.evidence.comparison import compared
from redan.evidence.folder import RunFolder
from redan.evidence.pictures import load_pictures
from redan.evidence.report import Report
from redan.evidence.summary import summary
from redan.report import html, junit, markdown, pdf, sarif
from redan.report.gallery import Gallery, gallery_of
from redan.report.terminal import show, show_comparison


class Form(StrEnum):
    """What a report is shown as."""

    TERMINAL = "terminal"
    HTML = "html"
    PDF = "pdf"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    SARIF = "sarif"
    JSON = "json"


_VIEWS: dict[Form, Callable[[Report, Gallery], str | bytes]] = {
    Form.HTML: html.render,
    Form.PDF: pdf.render,
    Form.MARKDOWN: lambda report, _: markdown.render(report),
    Form.JUNIT: lambda report, _: junit.render(report),
    Form.SARIF: lambda report, _: sarif.render(report),
    Form.JSON: lambda report, _: report.model_dump_json(indent=2) + "\n",
}


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run folder, or its fsspec URL.", show_default=False)],
    form: Annotated[Form, typer.Option("--format", help="What to show it as.")] = Form.TERMINAL,
    to: Annotated[
        Path | None, typer.Option(help="File to write, instead of the standard output.", show_default=False)
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Run folder of an earlier release: fail if this is worse beyond noise.", show_default=False),
    ] = None,
) -> None:
    """Compute the report of RUN from its log, also of a run that was broken off, and show it.

    The exit code is the verdict's: 0 pass, 1 fail, 3 inconclusive. With --compare the same rows of both runs are
    compared pairwise (McNemar's exact test, Holm over the attackers): a model that is worse than the baseline
    beyond noise fails, whatever its own verdict; the run passes only if it does by itself too.

    For people: terminal, html (one page that needs no network), pdf (needs Chromium). For a pull request: markdown.
    For machines: junit, sarif (2.1.0), json (report.json).

    Examples: `redan report runs/ID`, `redan report runs/ID --format html --to page.html`,
    `redan report runs/ID --compare runs/ID --format markdown`
    """
    folder = RunFolder.open(run)
    found = summary(folder.lines())
    made = found.report(run)
    code = made.exit_code
    if form is Form.TERMINAL and to is None:
        with suppress(BrokenPipeError, SystemExit):
            show(made, Console(highlight=False))
    else:
        _write(
            _content(made, form, gallery_of(made, load_pictures(folder), found.head.ids, found.head.labels)), to, form
        )
    if compare is not None:
        against = compared(summary(RunFolder.open(compare).lines()), found)
        with suppress(BrokenPipeError, SystemExit):
            show_comparison(against, Console(highlight=False, stderr=form is not Form.TERMINAL))
        code = 1 if any(part.worse for part in against) else code
    raise typer.Exit(code)


def _content(made: Report, form: Form, gallery: Gallery) -> bytes:
    if form is Form.TERMINAL:
        text = io.StringIO()
        show(made, Console(file=text, highlight=False, width=80))
        return text.getvalue().encode()
    shown = _VIEWS[form](made, gallery)
    return shown if isinstance(shown, bytes) else shown.encode()


def _write(content: bytes, to: Path | None, form: Form) -> None:
    if to is None:
        if form is Form.PDF and sys.stdout.isatty():
            raise ReportError("a PDF is nothing to print on a terminal; name a file with --to")
        with suppress(BrokenPipeError):
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        return
    try:
        to.write_bytes(content)
    except OSError as error:
        raise ReportError(f"{to} cannot be written ({error.strerror}); choose another file with --to") from error
