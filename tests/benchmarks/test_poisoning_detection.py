"""The detection part of the poisoning benchmark: its claims, computed again from the rows that are kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import harness
import poisoning_detection_claims as made

KEPT = harness.RESULTS / "cells" / "poisoning" / "detection"


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("detection")


def test_each_attack_and_detector_has_three_seeds(rows: dict[str, Any]) -> None:
    assert len({row["digest"] for row in rows.values()}) == 1
    assert len(made.attacks(rows)) == 7
    assert len(made.detectors(rows)) == 8
    assert all(sorted(row["seed"] for row in seeds) == [0, 1, 2] for seeds in made.attacks(rows).values())
    assert len(made.clean(rows)) == 3


def test_claims_bear_the_id_and_a_missed_one_says_what_was_tried(rows: dict[str, Any]) -> None:
    claims = made.claims(rows)
    assert len({claim.claim for claim in claims}) == len(claims)
    for claim in claims:
        assert claim.id == "poisoning.c"
        assert claim.goal
        assert claim.measured
        assert claim.met or claim.tried


def test_claims_follow_the_rows(rows: dict[str, Any]) -> None:
    def met(changed: dict[str, Any], begins: str) -> bool:
        return next(claim.met for claim in made.claims(changed) if claim.claim.startswith(begins))

    worse = json.loads(json.dumps(rows))
    for detector in worse["badnets.1"]["detectors"].values():
        detector["class"]["lost"] = 0.5  # one seed of three is enough to miss it
    assert not met(worse, "BadNets: clean rows lost")
    for row in worse.values():
        for detector in row.get("detectors", {}).values():
            detector["splits"]["class 0.1"] = [0.5, 0.01, 1.0]
    assert not met(worse, "q = 0.1: mean share")
    worse["badnets.0"]["cleanse"]["flagged"] = []
    assert not met(worse, "Neural Cleanse: networks with BadNets")
    for seed in range(3):
        worse[f"badnets.{seed}"]["repairs"]["removal"] |= {"asr": 0.9, "accuracy": 0.1}
    assert not met(worse, "BadNets: attack success after removal")
    assert not met(worse, "BadNets: accuracy that removal and training anew lose against the network of clean data")


def test_the_table_names_every_detector_and_attack(rows: dict[str, Any]) -> None:
    said = made.table(rows)
    assert all(name in said for name in [*made.detectors(rows), *made.attacks(rows)])
