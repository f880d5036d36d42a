"""Adversarial training beside ART's: what is claimed follows from the rows, where it holds and where it does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import defenses_training as bench
import defenses_training_claims as told
from redan.evidence.statistics import interval

Rows = dict[str, dict[str, Any]]


def _judged(robust: int, seconds: float) -> dict[str, Any]:
    shares = interval(robust, 1000)
    return {"n": 1000, "clean": 800, "k": robust, "low": shares.low, "high": shares.high, "seconds": seconds,
            "alarms": [], "errors": 0, "undecided": 0}  # fmt: skip


def _rows(*, robust: dict[str, int], seconds: float, ours: int, theirs: int, faster: dict[str, float]) -> Rows:
    rows: Rows = {}
    for seed in bench.SEEDS:
        for method in bench.METHODS:
            rows[f"{method}-{seed}"] = {"method": method, "seed": seed, **_judged(robust[method], seconds)}
        sides = {"pgd-7, half": _judged(ours, 20), "fgsm-rs, half": _judged(ours, 6), "madry": _judged(theirs, 60)}
        rows[f"equal-{seed}"] = {"seed": seed, "sides": sides}
    passes = {"forwards": 8, "backwards": 8}
    for form in bench.TIMED:
        spent = {"madry": [9.0, 10.0, 11.0], "fbf": [1.0, 1.0, 1.0]} | {
            side: [9.0 / faster[side], 10.0 / faster[side], 11.0 / faster[side]] for side in bench.OURS
        }
        rows[f"speed-{form}"] = {"rows": 1000, "seconds": spent, "passes": dict.fromkeys(spent, passes)}
    return rows


GOOD = _rows(
    robust={"plain": 3, "fgsm-at": 550, "fgsm-rs": 580, "pgd-at": 600, "trades": 610, "awp": 590},
    seconds=60,
    ours=600,
    theirs=610,
    faster={"pgd-7": 2.5, "pgd-7, half": 3.0, "fgsm-rs": 8.0, "fgsm-rs, half": 9.5},
)
BAD = _rows(
    robust={"plain": 580, "fgsm-at": 550, "fgsm-rs": 500, "pgd-at": 600, "trades": 610, "awp": 590},
    seconds=1000,
    ours=500,
    theirs=610,
    faster={"pgd-7": 1.5, "pgd-7, half": 2.0, "fgsm-rs": 4.0, "fgsm-rs, half": 6.5},
)


def test_cells_are_named_once_and_can_be_made() -> None:
    cells = bench.cells()
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) == len(bench.METHODS) * 3 + 3 + 2
    assert set(names) == set(GOOD)
    assert all(cell.work.__module__ == "defenses_training" for cell in cells)
    assert set(told.NAMES) == set(bench.METHODS)
    assert set(told.SIDES) == {*bench.THEIRS, *bench.OURS}


@pytest.mark.parametrize(("rows", "met"), [(GOOD, True), (BAD, False)])
def test_claims_follow_from_the_rows(rows: Rows, met: bool) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"defenses.a"}
    assert len({claim.claim for claim in claims}) == len(claims) == 8
    assert all(claim.met is met for claim in claims)
    assert all(claim.met or claim.tried for claim in claims)
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


def test_a_race_is_the_median_of_pairs() -> None:
    rows = {"speed-cnn": {"seconds": {"madry": [8.0, 10.0, 30.0], "pgd-7": [4.0, 2.0, 10.0]}}}
    assert told.ratios(rows, "cnn", "pgd-7") == 3.0


def test_one_seed_below_is_a_miss() -> None:
    rows = GOOD | {"equal-1": {"seed": 1, "sides": {**GOOD["equal-1"]["sides"], "pgd-7, half": _judged(500, 20)}}}
    missed = [claim for claim in bench.claims(rows) if not claim.met]
    assert len(missed) == 1
    assert "as robust as ART's" in missed[0].claim


def test_tables_hold_every_row() -> None:
    text = bench.table(GOOD)
    assert text.count("| redan, PGD-7, half (same training) |") == 3
    assert text.count("| TRADES (β 6) |") == 3
    assert text.count("| 8, 8 |") == 2 * len(told.SIDES)


def test_steps_ask_the_network_as_often_as_is_said() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(4, 1, 28, 28), torch.arange(4)
    assert bench.asked("cnn", "pgd-7", x, y) == {"forwards": 8.0, "backwards": 8.0}
    assert bench.asked("cnn", "fgsm-rs", x, y) == {"forwards": 2.0, "backwards": 2.0}
