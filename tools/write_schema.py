"""Writes the JSON Schema of `report.json` beside the code that makes reports; `--check` only says if it is stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from redan.evidence import report

PATH = Path(report.__file__).with_name("report.schema.json")


def text() -> str:
    """The schema as it is published."""
    return json.dumps(report.schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str], path: Path = PATH) -> int:
    """0 if the file is written, or with `--check` as it should be; 1 if it is stale; 2 for other arguments."""
    if list(arguments) not in ([], ["--check"]):
        print(f"write_schema takes --check or nothing, got {' '.join(arguments)}", file=sys.stderr)
        return 2
    if not arguments:
        path.write_text(text(), encoding="utf-8")
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text():
        return 0
    print(f"{path} is stale; run tools/write_schema.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
