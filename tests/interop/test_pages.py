"""The pages in docs/coming-from: each program runs as it stands there, and the three of a page agree."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from redan.protocols import Access, needs

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "coming-from").glob("*.md"))
LIBRARIES = {"art", "foolbox", "cleverhans", "torchattacks"}


def blocks(page: Path, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return found


def test_there_is_a_page_a_library() -> None:
    assert {page.stem for page in PAGES} == LIBRARIES


@pytest.mark.extras
@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # Foolbox, of SciPy
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_program_runs_and_they_agree(page: Path) -> None:
    """PGD with one budget, in four ways: robust accuracies within 2 of 64 rows of each other."""
    names: dict[str, Any] = {"__name__": page.stem}
    said = io.StringIO()
    programs = blocks(page, "python")
    with contextlib.redirect_stdout(said):
        for program in programs:
            exec(compile(program, str(page), "exec", dont_inherit=True), names)  # noqa: S102  # our own page
    found = [float(number) for number in re.findall(r"robust accuracy (0\.\d+)", said.getvalue())]
    assert len(programs) == len(found) == 4
    assert max(found) - min(found) <= 2 / 64 + 1e-3, found
    assert 0.5 < found[1] < 0.9
    assert int(names["judged"].queries.max()) > 20


@pytest.mark.extras
@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_name_for_a_threat_model_is_an_attack(page: Path) -> None:
    from redan.integrations import art, cleverhans, foolbox, torchattacks

    modules: dict[str, Any] = {"art": art, "cleverhans": cleverhans, "foolbox": foolbox, "torchattacks": torchattacks}
    added = [name for text in blocks(page, "yaml") for name in yaml.safe_load(text)["attacks"]["add"]]
    assert len(added) == 2
    for name in added:
        module, _, attack = name.partition(":")
        assert module == f"redan.integrations.{page.stem}"
        assert needs(getattr(modules[page.stem], attack)).access in Access


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_is_about_a_screen(page: Path) -> None:
    text = page.read_text("utf-8")
    code = [line for program in blocks(page, "python") for line in ast.unparse(ast.parse(program)).splitlines()]
    assert len(code) <= 45
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 122
