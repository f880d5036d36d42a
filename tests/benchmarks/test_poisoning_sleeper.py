"""The second round of Sleeper Agent: its claim from the kept cells, at half the level."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import poisoning_clean_label as first
import poisoning_sleeper as part


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("sleeper")


def test_every_pair_but_the_tuned_ones_is_tried_once_with_seeds_of_its_own(rows: dict[str, dict[str, Any]]) -> None:
    assert {(row["source"], row["label"]) for row in rows.values()} == set(part.PAIRS)
    assert not set(part.PAIRS) & set(first.TUNED)
    seeds = [seed for row in rows.values() for seed in row["seeds"]]
    assert len(set(seeds)) == len(seeds) == 36
    assert min(seeds) > 4999  # no victim of the first round


def test_the_claim_follows_from_the_rows(rows: dict[str, dict[str, Any]]) -> None:
    (claim,) = part.claims(rows)
    assert claim.id == "poisoning.b"
    assert claim.met or claim.tried
    weak = {
        name: {**row, "obeyed": {**row["obeyed"], "poisoned": row["obeyed"]["clean"]}} for name, row in rows.items()
    }
    (lost,) = part.claims(weak)
    assert not lost.met
    assert part.table(rows).count("→") == len(rows) + 1
