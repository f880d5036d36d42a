"""The signature is the requirement: mypy refuses an attack where it does not fit, and accepts it where it does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

HEADER = """
from dataclasses import dataclass
from typing import Any
import torch
from torch import Tensor, nn
import redan
from redan import APGD, FGSM, PGD, Cascade, L2, Linf, RandomNoise, Restarts, Square, SquareL2, Sweep, Untargeted
from redan.goals import Targeted
from redan.losses import cross_entropy, margin
from redan.perturbations.norms import Linf as LinfBall
from redan.protocols import Ball, Gradients, Labels, Scores
from redan.rows import Rows, take
"""

# name -> (the referee that is there, the rows, the body). The first word says what mypy has to do.
SNIPPETS = {
    "refused: PGD on labels": ("Labels[Tensor]", "Rows[Tensor, Linf]", "PGD()(referee, rows)"),
    "refused: PGD on scores": ("Scores[Tensor]", "Rows[Tensor, Linf]", "PGD()(referee, rows)"),
    "refused: Square on labels": ("Labels[Tensor]", "Rows[Tensor, Linf]", "Square()(referee, rows)"),
    "refused: Square on L2": ("Gradients[Tensor]", "Rows[Tensor, L2]", "Square()(referee, rows)"),
    "refused: SquareL2 on Linf": ("Gradients[Tensor]", "Rows[Tensor, Linf]", "SquareL2()(referee, rows)"),
    "refused: Square on any ball": ("Gradients[Tensor]", "Rows[Tensor, Ball]", "Square()(referee, rows)"),
    "refused: PGD on words": ("Gradients[list[str]]", "Rows[list[str], Any]", "PGD()(referee, rows)"),
    "refused: a cascade with Square on L2": (
        "Gradients[Tensor]",
        "Rows[Tensor, L2]",
        "Cascade((PGD(), Square()))(referee, rows)",
    ),
    "refused: a cascade with PGD on scores": (
        "Scores[Tensor]",
        "Rows[Tensor, Linf]",
        "Cascade((PGD(), Square()))(referee, rows)",
    ),
    "refused: restarts of PGD on scores": ("Scores[Tensor]", "Rows[Tensor, Linf]", "Restarts(PGD(), 3)(referee, rows)"),
    "refused: a sweep on labels": ("Labels[Tensor]", "Rows[Tensor, Linf]", "Sweep(APGD())(referee, rows)"),
    "refused: survivors in the wrong order": (
        "Gradients[Tensor]",
        "Rows[Tensor, Ball]",
        "x = rows.x0\n    x, rows = referee.survivors(rows, x)",
    ),
    "refused: a state forgotten": (
        "Gradients[Tensor]",
        "Rows[Tensor, Ball]",
        "x = rows.x0\n    rows, x = referee.survivors(rows, x, x)",
    ),
    "refused: gradients of a referee of scores": (
        "Scores[Tensor]",
        "Rows[Tensor, Ball]",
        "referee.gradient(rows.x0, rows, margin)",
    ),
    "accepted: PGD on gradients": ("Gradients[Tensor]", "Rows[Tensor, Linf]", "PGD()(referee, rows)"),
    "accepted: PGD on any ball": ("Gradients[Tensor]", "Rows[Tensor, Ball]", "PGD()(referee, rows)"),
    "accepted: Square on scores": ("Scores[Tensor]", "Rows[Tensor, Linf]", "Square()(referee, rows)"),
    "accepted: Square on gradients": ("Gradients[Tensor]", "Rows[Tensor, Linf]", "Square()(referee, rows)"),
    "accepted: noise on labels": ("Labels[Tensor]", "Rows[Tensor, L2]", "RandomNoise()(referee, rows)"),
    "accepted: a cascade on what all its parts need": (
        "Gradients[Tensor]",
        "Rows[Tensor, Linf]",
        "Cascade((PGD(), Square()))(referee, rows)",
    ),
    "accepted: composites of composites": (
        "Gradients[Tensor]",
        "Rows[Tensor, Linf]",
        "Cascade((Restarts(PGD(), 2), Sweep(APGD())))(referee, rows)",
    ),
    "accepted: survivors with any state": (
        "Gradients[Tensor]",
        "Rows[Tensor, Ball]",
        "x, words = rows.x0, ['a']\n    rows, x, words = referee.survivors(rows, x, words)\n    x.sum(), words.sort()",
    ),
    "accepted: aiming elsewhere": (
        "Gradients[Tensor]",
        "Rows[Tensor, Linf]",
        "PGD()(referee, rows.aim(Targeted(torch.zeros(3), torch.ones(3))))",
    ),
    "accepted: attack takes what is shipped": (
        "nn.Module",
        "Tensor",
        "redan.attack(referee, rows, rows, Cascade((FGSM(), Square())), within=LinfBall(0.1), goal=Untargeted())",
    ),
}


STAND_IN = {  # for torch, whose own files are two thirds of all that mypy would read
    "__init__.pyi": """
from typing import Any
from torch import nn as nn
class Tensor:
    def __getattr__(self, name: str) -> Any: ...
def zeros(*size: int) -> Tensor: ...
def ones(*size: int) -> Tensor: ...
def __getattr__(name: str) -> Any: ...
""",
    "nn.pyi": """
from typing import Any
class Module: ...
def __getattr__(name: str) -> Any: ...
""",
}
SETTINGS = """
[mypy]
strict = True
"""
ALONE = """
follow_imports = silent
[mypy-torch.*,numpy.*,scipy.*,pydantic.*,rich.*,typer.*,yaml.*,fsspec.*,safetensors.*,optype.*]
follow_imports = skip
ignore_missing_imports = True
[mypy-torch,torch.nn]
follow_imports = silent
"""


@pytest.fixture(scope="module", params=["stand-in", pytest.param("torch", marks=pytest.mark.slow)])
def complaints(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy --strict says about each snippet, from one run over all of them: beside torch, or a stand-in for it."""
    folder, alone = tmp_path_factory.mktemp("snippets"), request.param == "stand-in"
    settings, cache = folder / "mypy.ini", ROOT / ".mypy_cache" / f"snippets-{request.param}"
    settings.write_text(SETTINGS + ALONE * alone)
    stubs = folder / "stubs" / "torch"
    stubs.mkdir(parents=True)
    for name, content in STAND_IN.items():
        (stubs / name).write_text(content)
    source, starts = HEADER, []
    for number, (name, (referee, rows, body)) in enumerate(SNIPPETS.items()):
        starts.append((source.count("\n") + 1, name))
        source += f"\n\ndef snippet_{number}(referee: {referee}, rows: {rows}) -> None:\n    {body}\n"
    path = folder / "snippets.py"
    path.write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(cache), str(path)],
        cwd=ROOT / "src",
        env={**os.environ, "MYPYPATH": str(stubs.parent)} if alone else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, list[str]] = {name: [] for name in SNIPPETS}
    for line in done.stdout.splitlines():
        if match := re.match(r".*snippets\.py:(\d+): error: (.*)", line):
            found[max(start for start in starts if start[0] <= int(match[1]))[1]].append(match[2])
        else:
            assert ": error:" not in line, line
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SNIPPETS if name.startswith("refused")])
def test_refused(complaints: dict[str, list[str]], name: str) -> None:
    """For its types, and not for a slip in the snippet."""
    codes = {re.sub(r".*\[([a-z-]+)\]$", r"\1", error) for error in complaints[name]}

    assert codes
    assert codes <= {"arg-type", "assignment", "attr-defined", "misc", "type-var"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SNIPPETS if name.startswith("accepted")])
def test_accepted(complaints: dict[str, list[str]], name: str) -> None:
    assert complaints[name] == []


def test_the_package_is_typed() -> None:
    assert (ROOT / "src" / "redan" / "py.typed").exists()
