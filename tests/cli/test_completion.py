"""Completion in a real bash: what a person who presses Tab is offered."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from redan.threat.presets import presets

SCRIPT = """
eval "$(redan --show-completion)"
offered() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    $(complete -p redan | sed 's/.*-F \\([^ ]*\\) .*/\\1/') redan
    echo "${COMPREPLY[@]}"
}
offered redan ""
offered redan init --pre
offered redan init --preset ""
"""


def test_bash_completes_verbs_options_and_values(tmp_path: Path) -> None:
    command = tmp_path / "redan"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m redan "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    verbs, option, values = (line.split() for line in done.stdout.splitlines())
    assert {"init", "plan", "assess", "report", "replay"} <= set(verbs)
    assert option == ["--preset"]
    assert values == [each.name for each in presets()]
