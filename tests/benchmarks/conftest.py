"""Rows that benchmarks keep, for the tests of what is claimed of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import harness


@pytest.fixture(scope="session")
def kept() -> Callable[[str], dict[str, dict[str, Any]]]:
    """The rows of a part of the poisoning benchmark by cell, whatever code they were measured under."""

    def rows(part: str) -> dict[str, dict[str, Any]]:
        found = {}
        for path in sorted((harness.RESULTS / "cells" / "poisoning" / part).glob("*.json")):
            row = harness.cached(path, json.loads(path.read_text())["digest"])
            assert row is not None
            found[path.stem] = row
        return found

    return rows


@pytest.fixture(scope="session")
def kept_extraction() -> Callable[[str], dict[str, dict[str, Any]]]:
    """The rows of a part of the extraction benchmark by cell, whatever code they were measured under."""

    def rows(part: str) -> dict[str, dict[str, Any]]:
        paths = sorted((harness.RESULTS / "cells" / "extraction" / part).glob("*.json"))
        return {path.stem: json.loads(path.read_text()) for path in paths}

    return rows
