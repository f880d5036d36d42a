"""The README's picture: the top of the page that the demo's natural model gets (`docs/report.png`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import redan
from redan.cli.app import run
from redan.report.pdf import find_browser

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1100, 1180


def main() -> None:
    """Assess the demo's natural model, render its page, take its picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = redan.assess(ROOT / "examples/fashion/natural.yaml", out=folder)
        page = Path(folder) / "page.html"
        run(["report", report.run.folder, "--format", "html", "--to", str(page)])
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        seen = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        seen.goto(page.as_uri())
        seen.screenshot(path=str(ROOT / "docs" / "report.png"))
        browser.close()


if __name__ == "__main__":
    main()
