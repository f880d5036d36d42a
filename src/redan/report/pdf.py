"""A report as PDF: the page, printed by a Chromium without a window."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from redan.errors import ReportError
from redan.evidence.report import Report
from redan.report import html
from redan.report.gallery import Gallery

__all__ = ["BROWSERS", "find_browser", "render"]

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
"""Where a Chromium is looked for, by name on the path or by its own."""

_SECONDS = 120.0


def find_browser(names: Iterable[str] = BROWSERS) -> str:
    """The first of these that is there. ReportError if none is."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise ReportError(
        "a PDF needs Chromium or Chrome, and none is on the path; "
        "install one, or write the report with --format html and print it from any browser."
    )


def render(report: Report, gallery: Gallery | None = None, *, browser: str | None = None) -> bytes:
    """Print the page on A4 paper.

    The dates inside are those of the run; the browser numbers its own parts, now and then otherwise. ReportError if
    there is no browser, or if it does not print.
    """
    browser = browser or find_browser()
    page = html.render(report, gallery)
    with tempfile.TemporaryDirectory(prefix="redan-pdf-") as folder:
        source, target = Path(folder, "report.html"), Path(folder, "report.pdf")
        source.write_text(page, encoding="utf-8")
        _print(browser, source, target)
        return _dated(target.read_bytes(), report.run.started)


def _print(browser: str, source: Path, target: Path) -> None:
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--no-pdf-header-footer",
        f"--user-data-dir={source.parent / 'profile'}",
        f"--print-to-pdf={target}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses root otherwise; the page is ours and runs no script
    try:
        ended = subprocess.run(  # noqa: S603
            [*command, source.as_uri()], capture_output=True, timeout=_SECONDS, check=False, text=True, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReportError(f"{browser} did not print the report ({error}); print the HTML page instead.") from error
    if ended.returncode != 0 or not target.is_file():
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ReportError(f"{browser} did not print the report ({said}); print the HTML page instead.")


def _dated(pdf: bytes, started: str) -> bytes:
    """The same PDF with the run's time in place of the printing's: of the same length, so all offsets stay true."""
    stamp = f"{datetime.fromisoformat(started):%Y%m%d%H%M%S}".encode("ascii")
    return re.sub(rb"(/(?:CreationDate|ModDate) \(D:)\d{14}", rb"\g<1>" + stamp, pdf)
