"""The benchmarks of self-distrust: what they say of results that are made up, and that a hand attack attacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import adaptive
import distrust
from redan.evidence.log import RowLine
from redan.samples import model
from redan.testing import VICTIMS


def row(model: str, after: float, **more: Any) -> dict[str, Any]:
    return {"model": model, "norm": "linf", "hand": 5.0, "threshold": 0.07, "first": 90.0, "raised": ["zero-gradients"],
            "retries": [{"name": "retraced-gradients", "attempted": 90, "broken": 88}], "after": after,
            "verdict": "inconclusive", **more}  # fmt: skip


HONEST = row("natural", 2, hand=None, raised=[], retries=[], verdict="pass")


def test_claims_hold_goals_against_what_was_measured() -> None:
    rows = [row("quantized", 12), row("jpeg", 13), row("zeroed", 3), row("louder", 4), HONEST]
    found = {claim.claim: claim.met for claim in distrust.claims(rows)}
    assert found["quantized linf: above its own attack"]
    assert not found["jpeg linf: above its own attack"]  # 8 of 256 rows are more than 3 points
    assert found["zeroed linf: rows apart from the natural network's"]
    assert not found["louder linf: rows apart from the natural network's"]
    assert found["natural linf, honest: indicators raised"]
    assert found["jpeg linf: verdict, five points too much required"]
    passed = distrust.claims([row("jpeg", 90, verdict="pass"), HONEST | {"raised": ["zero-gradients"]}])
    assert [claim.met for claim in passed] == [False, False, False]


def test_the_table_has_a_line_an_assessment() -> None:
    lines = distrust.table([row("quantized", 2), HONEST]).splitlines()
    assert len(lines) == 4
    assert "retraced-gradients (88)" in lines[2]
    assert "nothing | nothing" in lines[3]


def test_what_stood_at_first_is_told_without_retries() -> None:
    said: dict[str, Any] = {
        "attacker": "anyone", "row": 0, "id": "0", "index": 0, "y": 0, "answered": True, "right": True, "by": None,
        "failed": None, "reason": None, "distance": None, "near": None, "before": 0, "after": 0, "eight_bit": None,
        "spent": {}, "blind": 0, "input": "0" * 64, "saved": None,
    }  # fmt: skip
    fates = (("robust", 0.25, True), ("broken", 0.9, True), ("robust", 0.0, False), ("error", 0.0, True))
    lines = [RowLine(**said | {"status": status, "share": share, "right": right}) for status, share, right in fates]
    later = RowLine(**said | {"status": "broken", "share": 1.0, "retry": "black-box"})
    assert distrust.stood([*lines, later]) == pytest.approx(0.75 + 0.1)


def test_every_victim_has_an_attack_of_its_own() -> None:
    assert set(adaptive.HANDS) == {victim.name for victim in VICTIMS} | set(adaptive.TRAINED)


def test_a_hand_written_attack_stays_in_its_ball_and_breaks_rows() -> None:
    found = adaptive.attacked("quantized", rows=16, steps=30, queries=20)
    assert found["robust"] <= 4 < found["clean"]
    served, _ = adaptive.victim("zeroed")
    x = torch.rand(4, 1, 28, 28)
    best = adaptive.Best(served, x, served(x).argmax(1), stochastic=False)
    adaptive.climb(adaptive.HANDS["zeroed"], model("natural"), best, 0, 20)
    assert (best.x - x).abs().max() <= adaptive.EPS + 1e-6
    assert bool(((best.x >= 0) & (best.x <= 1)).all())
