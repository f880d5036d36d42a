"""The documents' code runs, as it stands there."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import redan.testing
from redan.assessment.retries import RETRIES

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(name: str) -> list[str]:
    """The Python of a document, one string a block."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def own_attack() -> dict[str, Any]:
    """The names that docs/own-attack.md leaves behind, and what it printed."""
    names: dict[str, Any] = {"__name__": "own_attack"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for block in blocks("own-attack.md"):
            exec(compile(block, "docs/own-attack.md", "exec", dont_inherit=True), names)  # noqa: S102  # our own document
    names["said"] = said.getvalue()
    return names


def test_own_attack_runs_and_breaks_rows(own_attack: dict[str, Any]) -> None:
    broken = re.fullmatch(r"(\d+) of 64 rows are broken\n", own_attack["said"])

    assert broken is not None
    assert int(broken[1]) == int(own_attack["result"].success.sum())
    assert int(broken[1]) > 30


def test_own_attack_is_at_most_25_lines() -> None:
    """Of code: imports, blank lines and the docstring apart."""
    block = blocks("own-attack.md")[0]
    lines = [line for line in block.splitlines() if line.strip()]
    code = [line for line in lines if not re.match(r"\s*(import|from|\"\"\")", line)]

    assert len(code) <= 18
    assert len(lines) <= 25


def test_own_attack_is_no_weaker_than_what_it_refines(own_attack: dict[str, Any]) -> None:
    """With decay 0 it is BIM, to the byte."""
    attack, samples = redan.attack, redan.samples
    images, labels = samples.fashion_mnist()
    model, within = samples.model("robust"), redan.Linf(0.1)
    plain, bim = (
        attack(model, images[:32], labels[:32], one, within=within)
        for one in (own_attack["MomentumFGSM"](decay=0.0), redan.BIM(steps=10))
    )

    assert (plain.adversarial == bim.adversarial).all()


def test_own_attack_conforms(own_attack: dict[str, Any]) -> None:
    report = redan.testing.check_attack(own_attack["MomentumFGSM"](steps=5), reach=1.1)

    assert report.attack == "MomentumFGSM"
    assert report.sets == ("Linf", "L2")


def test_what_self_distrust_shows_is_so() -> None:
    (block,) = blocks("self-distrust.md")
    exec(compile(block, "docs/self-distrust.md", "exec", dont_inherit=True), {"__name__": "self_distrust"})  # noqa: S102  # our own document


def test_self_distrust_names_every_indicator_and_retry() -> None:
    text = (DOCS / "self-distrust.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ([a-z-]+) \|", text.split("## Measured")[0], re.MULTILINE)
    indicators = {name for retry in RETRIES for name in retry.calls if " " not in name}
    assert len(told) == len(set(told)) == 23
    assert set(told) == {"indicator", "retry"} | indicators | {retry.name for retry in RETRIES}
