"""Assess two classifiers that ship with redan: the natural one must fail, the robust one must pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
EXPECTED = {"natural": 1, "robust": 0}  # exit codes: 1 is fail, 0 is pass


def main() -> int:
    """0 if both verdicts are as expected."""
    codes = {}
    for name in EXPECTED:
        sys.stdout.write(f"\n$ redan assess examples/fashion/{name}.yaml\n")
        sys.stdout.flush()
        codes[name] = subprocess.run(
            [sys.executable, "-m", "redan", "assess", str(HERE / f"{name}.yaml")], check=False
        ).returncode
        sys.stdout.write(f"exit code {codes[name]}\n")
    if codes == EXPECTED:
        return 0
    sys.stdout.write(f"unexpected: exit codes {codes}, expected {EXPECTED}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
