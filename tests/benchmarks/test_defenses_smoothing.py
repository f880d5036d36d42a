"""Smoothing: the claims follow from the rows, met and missed, and coverage is what the exact sums say."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import defenses_smoothing as bench
import defenses_smoothing_claims as told
from redan.certification.sequential import error, sequential_test, walk

Rows = dict[str, dict[str, Any]]


def way(prediction: list[int], radius: list[float], samples: int, seconds: float) -> dict[str, Any]:
    return {"prediction": prediction, "radius": radius, "samples": [samples] * len(radius), "cpu_seconds": seconds}


@pytest.fixture
def rows() -> Rows:
    """Four rows: three right, one abstained; radii 1.2, 0.6 and 0.3."""
    prediction, radius, y = [1, 2, 3, -1], [1.2, 0.6, 0.3, 0.0], [1, 2, 3, 4]
    fixed = way(prediction, radius, 10_100, 10.0)
    robust = {
        f"{r:g}": way(
            [p if far >= r else -1 for p, far in zip(prediction, radius, strict=True)],
            [r if far >= r else 0.0 for far in radius], 700, 1.0,
        )
        for r in told.RADII
    }  # fmt: skip
    art = {**way(prediction, radius, 10_100, 15.0), "versions": {"adversarial-robustness-toolbox": "1"}}
    network = {"sigma": 0.5, "seed": 0, "rows": 4, "draws": 10_000, "alpha": 0.001, "tolerance": 0.05, "y": y,
               "fixed": fixed, "robust_at": robust, "largest": way(prediction, radius, 4_000, 5.0),
               "art": art}  # fmt: skip
    part = {"kind": "robust_at", "rate": 0.8, "true": 0.8, "may": False, "runs": 400_000, "exact": 0.00098,
            "exact_patient": 0.00099, "shown": 390}  # fmt: skip
    linear = {"sigma": 0.5, "radius": 0.25, "draws": 1000, "alpha": 0.001,
              "found": [{"distance": 0.24, "runs": 100_000, "shown": 98, "samples": 600.0}]}  # fmt: skip
    return {
        "network-0.5-0": network,
        "errors-10000": {"most": 10_000, "alpha": 0.001, "found": [part]},
        "linear": linear,
    }


def test_what_holds_is_met(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"defenses.d"}
    assert [claim.met for claim in claims] == [True] * len(claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (lambda r: r["network-0.5-0"]["robust_at"]["0.25"].update(prediction=[-1, -1, 3, -1]), 0),
        (lambda r: r["network-0.5-0"]["robust_at"]["1"].update(samples=[2_000] * 4), 1),
        (lambda r: r["network-0.5-0"]["largest"].update(radius=[0.9, 0.5, 0.2, 0.0]), 2),
        (lambda r: r["errors-10000"]["found"][0].update(exact_patient=0.0011), 3),
        (lambda r: r["errors-10000"]["found"][0].update(shown=520), 3),
        (lambda r: r["errors-10000"]["found"][0].update(runs=50_000, shown=40), 3),
        (lambda r: r["linear"]["found"][0].update(shown=160), 4),
        (lambda r: r["network-0.5-0"]["art"].update(prediction=[-1] * 4), 5),
        (lambda r: r["network-0.5-0"]["art"].update(cpu_seconds=0.5), 6),
    ],
    ids=["rows", "samples", "radius", "exact", "simulated", "few runs", "linear", "art", "seconds"],
)
def test_what_does_not_is_missed(rows: Rows, change: Any, missed: int) -> None:
    changed = copy.deepcopy(rows)
    change(changed)
    claims = bench.claims(changed)
    assert [at for at, claim in enumerate(claims) if not claim.met] == [missed]
    assert claims[missed].tried


def test_cells_have_names_of_their_own() -> None:
    cells = bench.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(callable(cell.work) for cell in cells)
    assert sum(cell.name.startswith("network-0.5") for cell in cells) == 3


def test_simulated_rows_err_as_often_as_the_sums_say() -> None:
    test = sequential_test(0.8, 400, 0.05)
    draw = np.random.default_rng(0)
    count = bench.shown(test, 0.8, 20_000, draw, patient=True)
    assert abs(count / 20_000 - error(test)) < 0.006
    assert bench.shown(test, 0.9, 20_000, draw) / 20_000 == pytest.approx(walk(test, 0.9).shown, abs=0.015)


def test_a_bound_that_is_too_large_is_counted() -> None:
    above = bench.too_large(0.8, 1_000)
    assert 0 < walk(above, 0.8, patient=True).shown <= bench.ALPHA
    assert walk(above, 0.7, patient=True).shown < walk(above, 0.8, patient=True).shown


def test_a_row_at_the_edge_may_come_out_either_way(rows: Rows) -> None:
    network = rows["network-0.5-0"]
    assert 0 <= told.spread(network, 0.25) < 0.5
    network["fixed"]["radius"] = [1.2, 0.6, 0.5, 0.0]
    assert told.spread(network, 0.5) == pytest.approx(2**0.5 / 2, abs=0.05)


def test_the_table_names_every_way(rows: Rows) -> None:
    text = bench.table(rows)
    assert all(f"| {name} | " in text for name in ("fixed N", "largest r", "robust at r?", "ART"))
