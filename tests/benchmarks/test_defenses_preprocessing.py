"""Transformed inputs: the claims follow from the rows, and the kept rows are whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import defenses_preprocessing as bench
import defenses_preprocessing_claims as told
import harness

Rows = dict[str, dict[str, Any]]
KEPT = harness.RESULTS / "cells" / "defenses" / "preprocessing"


def beside(both: int, lost: int, won: int) -> dict[str, int]:
    return {"both": both, "lost": lost, "won": won, "held": both + won}


def setting(adaptive: dict[str, int], bare: int = 10) -> dict[str, Any]:
    return {
        "rows": 150,
        "clean": 125,
        "refused": 8,
        "bare": bare,
        "own": adaptive["held"],
        "nearest": beside(bare, 0, 90),
        "naive": beside(bare, 0, 20),
        "adaptive": adaptive,
    }


def made(name: str, adaptive: dict[str, int]) -> Rows:
    """Rows in which one defense is left with so many, and the others with none."""
    whole = (*told.BROKEN, *told.OTHERS)
    return {
        f"{each}-{seed}": {
            "clean_bare": 126,
            "settings": {radius: setting(adaptive if each == name else beside(8, 2, 0)) for radius in told.RADII},
        }
        for each in whole
        for seed in told.SEEDS
    }


def of(rows: Rows, name: str) -> harness.Claim:
    (found,) = [claim for claim in bench.claims(rows) if claim.claim.startswith({**told.BROKEN, **told.OTHERS}[name])]
    return found


def test_claims_are_whole() -> None:
    claims = bench.claims(made("jpeg", beside(10, 0, 30)))
    assert {claim.id for claim in claims} == {"defenses.c"}
    assert len(claims) == len(told.BROKEN) + len(told.OTHERS) + 1
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)
    assert [claim.met for claim in claims].count(False) == 1
    assert all(claim.met or claim.tried for claim in claims)


def test_a_gain_that_stays_is_a_claim_that_is_missed() -> None:
    rows = made("jpeg", beside(10, 0, 30))
    assert not of(rows, "jpeg").met
    assert "gain +60.0 before, +20.0 (" in of(rows, "jpeg").measured
    assert of(rows, "jpeg").measured.endswith("after: gain")
    assert of(rows, "bit-depth").met
    assert "bare 6.7%, naive 66.7%, adaptive 5.3%" in of(rows, "bit-depth").measured
    assert of(rows, "bit-depth").measured.endswith("no gain")


def test_a_defense_that_was_not_broken_in_print_may_gain() -> None:
    found = of(made("median", beside(10, 0, 30)), "median")
    assert found.met
    assert found.measured.endswith("after: gain")


def test_what_few_rows_do_not_show_is_not_met() -> None:
    found = of(made("thermometer", beside(5, 5, 8)), "thermometer")
    assert not found.met
    assert found.measured.endswith("not shown")


def test_no_gain_to_lose_is_no_claim() -> None:
    rows = made("jpeg", beside(8, 2, 0))
    for seed in told.SEEDS:
        rows[f"jpeg-{seed}"]["settings"]["l2-3.5"]["nearest"] = beside(10, 0, 0)
    assert not of(rows, "jpeg").met


def test_an_interval_holds_the_gain() -> None:
    found = told.pooled([setting(beside(10, 0, 30))] * 3, "adaptive")
    low, high = found.interval
    assert found.gain == pytest.approx(0.2)
    assert low < found.gain < high
    assert high - low < 0.12


def test_tables_hold_every_defense_at_every_radius() -> None:
    text = bench.table(made("jpeg", beside(10, 0, 30)))
    for name in (*told.BROKEN, *told.OTHERS):
        for words in told.RADII.values():
            assert f"| {name} | {words} | " in text


def test_cells_are_well_formed() -> None:
    cells = bench.cells()
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) == 3 * (len(told.BROKEN) + len(told.OTHERS))
    assert {name.rsplit("-", 1)[0] for name in names} == {*told.BROKEN, *told.OTHERS}
    assert tuple(each.name for each in bench.SETTINGS) == tuple(told.RADII)
    assert bench.SEEDS == told.SEEDS


def test_rows_are_counted_beside_each_other() -> None:
    bare, served = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, True])
    assert bench.beside(bare, served) == {"both": 1, "lost": 1, "won": 2, "held": 3}


def test_kept_rows_add_up() -> None:
    kept = {path.stem: json.loads(path.read_text()) for path in KEPT.glob("*.json")}
    assert set(kept) == {cell.name for cell in bench.cells()}
    for row in kept.values():
        assert row["cpu_seconds"] > 0
        for found in row["settings"].values():
            adaptive = found["adaptive"]
            assert adaptive["both"] + adaptive["won"] == adaptive["held"] <= found["naive"]["held"] <= found["clean"]
            assert adaptive["both"] + adaptive["lost"] == found["bare"] <= row["clean_bare"]
            assert found["clean"] <= found["rows"] == bench.ROWS
