"""PDF: the page, printed; the same bytes again; one clear sentence where there is no browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redan.errors import ReportError
from redan.evidence.report import Report
from redan.report.gallery import Gallery
from redan.report.pdf import find_browser, render


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_page_is_printed_with_the_dates_of_the_run(chromium: str, everything: Report, gallery: Gallery) -> None:
    first = render(everything, gallery, browser=chromium)
    assert first.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", first)) >= 3
    assert first.count(b"/Subtype /Image") >= 3
    stamp = re.sub(r"\D", "", everything.run.started)[:14]
    assert f"/CreationDate (D:{stamp}".encode() in first
    assert set(re.findall(rb"/(?:CreationDate|ModDate) \(D:(\d{14})", first)) == {stamp.encode()}


def test_without_a_browser_the_remedy_is_named() -> None:
    with pytest.raises(ReportError, match=r"needs Chromium or Chrome.*install one, or .* --format html"):
        find_browser(("no-such-browser",))


@pytest.mark.parametrize(
    ("text", "said"),
    [("echo 'no display' >&2; exit 1", "no display"), ("exit 0", "it said nothing")],
)
def test_a_browser_that_does_not_print_is_an_error(tmp_path: Path, everything: Report, text: str, said: str) -> None:
    with pytest.raises(ReportError, match=f"did not print the report \\({said}\\); print the HTML page"):
        render(everything, browser=script(tmp_path / "browser", text))


def test_a_browser_that_cannot_be_run_is_an_error(tmp_path: Path, everything: Report) -> None:
    with pytest.raises(ReportError, match="did not print the report"):
        render(everything, browser=str(tmp_path / "nothing"))


def printing(text: str) -> str:
    """A script that writes a text where the PDF is wanted."""
    return f"""for a in "$@"; do case "$a" in --print-to-pdf=*) printf "%s" "{text}" > "${{a#*=}}";; esac; done"""


def test_half_a_file_of_a_browser_that_failed_is_an_error(tmp_path: Path, everything: Report) -> None:
    with pytest.raises(ReportError, match="did not print the report"):
        render(everything, browser=script(tmp_path / "browser", printing("%PDF-1.4 half") + "\nexit 1"))


def test_only_the_dates_are_changed(tmp_path: Path, everything: Report) -> None:
    fake = "%PDF-1.4 /CreationDate (D:20990101000000+00'00') /ModDate (D:20990101000000+00'00') tail"
    pdf = render(everything, browser=script(tmp_path / "browser", printing(fake)))
    stamp = re.sub(r"\D", "", everything.run.started)[:14]
    assert pdf.decode() == fake.replace("20990101000000", stamp)
