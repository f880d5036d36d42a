"""Each verb's help fits a terminal, and every example in it runs as it stands there."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import redan
from redan.cli.app import app, run

Write = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
VERBS = sorted(vars(get_command(app))["commands"])
FROM_NOTHING = {"init", "list"}
"""Verbs that need no threat model."""


def examples(verb: str, capsys: Captured) -> Iterator[str]:
    """The command lines that a verb's help shows."""
    assert run([verb, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for paragraph in out.split("\n\n"):
        if re.match(r"\s*Examples?:", paragraph):
            yield from re.findall(r"`(redan [^`]+)`", " ".join(paragraph.split()))


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_runs(
    shop: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    """In a folder with threat-model.yaml and, as runs/ID, a run of it; those of init and list in an empty one."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    shown = list(examples(verb, capsys))
    assert shown
    folder = tmp_path / "empty" if verb in FROM_NOTHING else tmp_path
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    if any("runs/ID" in line for line in shown):
        run(["assess", str(shop(system__data__train={"path": "rows.npz"}))])
        (made,) = (tmp_path / "runs").iterdir()
        made.rename(tmp_path / "runs" / "ID")
    elif verb not in FROM_NOTHING:
        shop(system__data__train={"path": "rows.npz"})
    for line in shown:
        capsys.readouterr()
        code = run(shlex.split(line)[1:])
        out, err = capsys.readouterr()
        assert code in ((0, 1, 3) if verb in {"assess", "report"} else (0,)), (line, err)
        assert out or "--to" in line, line


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_fits_80_columns(capsys: Captured, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: redan {verb} ")


def test_the_help_of_all_lists_every_verb(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} +[A-Z].*\.$", out, re.MULTILINE) for verb in VERBS)


def test_the_version_is_told(capsys: Captured) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"redan {redan.__version__}\n"


@pytest.mark.parametrize("words", ["redan ", "redan --help", "redan --version"])
def test_what_needs_no_model_does_not_wait_for_torch(words: str) -> None:
    """Help, version and the completion of a verb."""
    program = f"""
import sys
from redan.cli.app import run
try:
    run({words.split()[1:]})
except SystemExit:
    print("completed")
assert "typer" in sys.modules
assert not {{"torch", "numpy", "scipy"}} & set(sys.modules)
"""
    completing = {"_REDAN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
    environment = {**os.environ, **(completing if words == "redan " else {})}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert ("assess" in done.stdout) == (words != "redan --version")
    assert ("completed" in done.stdout) == (words == "redan ")


def test_options_of_a_verb_are_completed() -> None:
    environment = {
        **os.environ,
        "_REDAN_COMPLETE": "complete_bash",
        "COMP_WORDS": "redan assess --res",
        "COMP_CWORD": "2",
    }
    program = [sys.executable, "-c", "from redan.cli.app import run; run()"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--resume"]
