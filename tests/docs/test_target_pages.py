"""docs/targets: the table of what runs where is what happens, cell by cell, and its program runs."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest

pytestmark = pytest.mark.extras

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "targets" / "README.md"


def test_every_cell_of_the_table_is_what_happens(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from tools import target_matrix

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit and the exporter of small graphs
        found = list(target_matrix.cells(tmp_path))
    text = PAGE.read_text(encoding="utf-8")

    assert target_matrix.page(text, target_matrix.table(found)) == text, "run tools/target_matrix.py with the extras"
    refused = {cell.refused for cell in found if cell.refused}
    assert all(re.search(r"; \w+", sentence) for sentence in refused)  # cause; remedy
    assert len({cell.kind for cell in found}) == 16
    assert {cell.attack for cell in found if cell.refused is None} == {cell.attack for cell in found}


def test_the_program_runs() -> None:
    programs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(programs) == 1
    exec(compile(programs[0], str(PAGE), "exec"), {})  # noqa: S102  # our own document
