"""`redan` and `python -m redan`."""

from __future__ import annotations

import sys

from redan.cli.app import run
from redan.runners.memory import keep_freed_memory


def main() -> None:
    """Run the command line and leave with its exit code."""
    keep_freed_memory()
    sys.exit(run())


if __name__ == "__main__":
    main()
