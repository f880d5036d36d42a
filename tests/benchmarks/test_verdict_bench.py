"""The verdict benchmark: what it says of runs that are made up, and the data set that nothing was tuned on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import verdict
import verdict_cells


def run(contestant: str, robust: list[int], cpu: float, passes: int, seed: int = 0, model: str = "robust") -> Any:
    return {"contestant": contestant, "model": model, "norm": "linf", "eps": 0.1, "seed": seed, "robust": robust,
            "cpu_seconds": cpu, "forwards": passes, "backwards": passes}  # fmt: skip


ROWS = [
    run("default", [1, 2, 9], 8, 100),
    run("autoattack", [1, 2, 3, 4], 200, 3000, 0),
    run("autoattack", [1, 2, 3, 5], 300, 5000, 1),
]


def test_a_bout_counts_what_one_side_alone_breaks() -> None:
    (bout,) = verdict.bouts(ROWS)
    assert (bout.mode, bout.where, bout.best) == ("default", "robust linf", 4)
    assert (bout.missed, bout.extra) == ([9], [3])
    assert bout.cheaper("cpu_seconds") == pytest.approx(25)  # than the cheapest seed
    assert bout.cheaper("forwards", "backwards") == pytest.approx(30)


def test_claims_hold_goals_against_what_was_measured() -> None:
    found = {claim.claim: claim for claim in verdict.claims(ROWS)}
    assert found["default, robust linf: robust rows of 1,000"].met
    assert not found["default, robust linf: rows that every seed of AutoAttack breaks and we do not"].met
    assert found["default: CPU time, geometric mean over unmasked models"].measured == "1/25.00"
    assert found["default: CPU time, geometric mean over unmasked models"].met
    assert found["default: passes, geometric mean over unmasked models"].met
    assert not any("masked)" in claim for claim in found)
    masked = verdict.claims([row | {"model": "winners"} for row in ROWS])
    assert any(claim.claim == "default: CPU time, winners linf (masked)" and claim.met for claim in masked)
    assert not any("unmasked" in claim.claim for claim in masked)


def test_every_cell_is_a_model_in_a_set() -> None:
    assert len(verdict_cells.CELLS) == len(set(verdict_cells.CELLS)) == 16
    for cell in verdict_cells.CELLS:
        assert cell.eps > 0
        if cell.model != verdict_cells.HELD_OUT:
            x, y = cell.rows()
            assert (len(x), len(y)) == (1000, 1000)
            assert not any(part.training for part in cell.module().modules())


def test_the_table_has_a_line_a_bout() -> None:
    assert len(verdict.table(ROWS).splitlines()) == 3
    assert "1/30.0" in verdict.table(ROWS)
