"""The Python of docs/hardening.md runs as it stands there, and the page names every method."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from redan.assessment.recipes import EXPLAINED, Method

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "hardening.md").read_text(encoding="utf-8")


def test_the_code_runs_and_the_model_holds_better() -> None:
    names: dict[str, Any] = {"__name__": "hardening_page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/hardening.md", "exec", dont_inherit=True), names)  # noqa: S102  # our own document
    assert len(names["found"].epochs) == 2
    assert not names["model"].training


def test_every_method_is_explained() -> None:
    assert set(EXPLAINED) == set(Method)
    assert max(map(len, EXPLAINED.values())) <= 68
    for method in Method:
        assert re.search(rf"^\| `{method}` \|", PAGE, re.MULTILINE)
