"""Ensembles and detectors: the claims follow from the rows, and the kept rows are whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import defenses_preprocessing as alone
import defenses_served as bench
import defenses_served_claims as told
import harness
from redan.ensembles import Transfers

Rows = dict[str, dict[str, Any]]
KEPT = harness.RESULTS / "cells" / "defenses" / "served"


def made(adp: int, won: int = 0) -> Rows:
    """Rows in which so many of 100 inputs carry over with ADP, and 40 without; a defense wins so many."""
    adaptive = {"both": 10, "lost": 2, "won": won, "held": 10 + won}
    common = {"rows": 150, "clean": 120, "bare": 12, "own": 12, "naive": {"held": 60}, "adaptive": adaptive}
    ways = ("between", "to_whole", "on_itself")
    over = {name: [adp if name == "adp" else 40, 100] for name in told.ENSEMBLES}
    served = {name: common | dict.fromkeys(ways, over[name]) for name in told.ENSEMBLES}
    refusing = dict.fromkeys(told.DETECTORS, common | {"refused": 7, "nearest": adaptive})
    return {
        f"{cell}-{seed}": {
            "clean_bare": 125,
            "served": {name: {"settings": dict.fromkeys(told.RADII, each)} for name, each in found.items()},
        }
        for cell, found in (("ensembles", served), ("detectors", refusing))
        for seed in alone.SEEDS
    }


def test_claims_are_whole() -> None:
    claims = bench.claims(made(20))
    assert {claim.id for claim in claims} == {"defenses.c"}
    assert len(claims) == len(told.ENSEMBLES) + 1 + len(told.DETECTORS)
    assert all(claim.met and claim.claim and claim.goal and claim.measured for claim in claims)


def test_diversity_must_lower_what_carries_over() -> None:
    met, missed = told.diversity(made(20)), told.diversity(made(45))
    assert (met.met, missed.met) == (True, False)
    assert missed.tried
    assert "L∞ 0.1: 20% of 40%" in met.measured


def test_gains_are_told_as_they_are() -> None:
    for won, words in ((0, "no gain"), (40, "gain")):
        rows = made(20, won)
        for claim in (told.ensemble(rows, "voting"), told.detector(rows, "mahalanobis")):
            assert f": {words}" in claim.measured
    assert "naive 40.0%" in told.detector(made(20), "nearest-rows").measured


def test_a_joint_attack_that_is_weaker_at_a_larger_radius_is_missed() -> None:
    rows = made(20)
    for seed in alone.SEEDS:
        settings = rows[f"detectors-{seed}"]["served"]["mahalanobis"]["settings"]
        more = {"both": 10, "lost": 2, "won": 30, "held": 40}
        settings["linf-0.2"] = settings["linf-0.2"] | {"adaptive": more}
    found = told.detector(rows, "mahalanobis")
    assert not found.met
    assert "weakness" in found.tried
    assert told.detector(rows, "nearest-rows").met


def test_tables_hold_everything_at_every_radius() -> None:
    text = bench.table(made(20))
    for name in (*told.ENSEMBLES, *told.DETECTORS):
        for words in told.RADII.values():
            assert f"| {name} | {words} | " in text


def test_cells_are_well_formed() -> None:
    names = [cell.name for cell in bench.cells()]
    assert len(set(names)) == len(names)
    assert set(names) == set(made(20))
    assert tuple(each.name for each in bench.SETTINGS) == tuple(told.RADII)


def test_only_rows_that_both_have_right_are_carried_over() -> None:
    right = torch.tensor([[True, True, True], [True, True, False]])
    broken = torch.tensor([True, False, True]).expand(2, 2, 3)
    found = Transfers(names=("a", "b"), right=right, broken=broken, judged=torch.ones(2, 2, 3, dtype=torch.bool))
    assert bench.carried_over(found, [(0, 1)]) == [1, 2]
    assert bench.carried_over(found, [(0, 1), (0, 0)]) == [3, 5]


def test_kept_rows_add_up() -> None:
    kept = {path.stem: json.loads(path.read_text()) for path in KEPT.glob("*.json")}
    assert set(kept) == {cell.name for cell in bench.cells()}
    for row in kept.values():
        assert row["cpu_seconds"] > 0
        for found in (each for served in row["served"].values() for each in served["settings"].values()):
            adaptive = found["adaptive"]
            assert adaptive["both"] + adaptive["won"] == adaptive["held"] <= found["naive"]["held"] <= found["clean"]
            assert adaptive["both"] + adaptive["lost"] == found["bare"] <= row["clean_bare"]
            for way in ("between", "to_whole", "on_itself"):
                hit, shown = found.get(way, (0, 0))
                assert hit <= shown
