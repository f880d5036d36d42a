"""Completion in a real bash: what a person who presses Tab is offered."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from redan.threat.presets import presets

SCRIPT = """
eval "$(redan --show-completion)"
offered() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    $(complete -p redan | sed 's/.*-F \\([^ ]*\\) .*/\\1/') redan
    echo "${COMPREPLY[@]}"
}
"""


def offered(tmp_path: Path, *words: str) -> list[list[str]]:
    """What bash offers for each of some lines, from one shell."""
    command = tmp_path / "redan"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m redan "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = SCRIPT + "".join(f"offered redan {each}\n" for each in words)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_bash_completes_values(tmp_path: Path) -> None:
    assert offered(tmp_path, 'init --preset ""') == [[each.name for each in presets()]]


@pytest.mark.slow
def test_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    verbs, option = offered(tmp_path, '""', "init --pre")
    assert {"init", "plan", "assess", "report", "replay"} <= set(verbs)
    assert option == ["--preset"]
