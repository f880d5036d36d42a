"""The benchmark beside other ensembles called AutoAttack: what it says of runs that are made up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import repeats

import beside
import harness
import judge


def row(contestant: str, robust: list[int], cpu: float, passes: int, **more: Any) -> dict[str, Any]:
    return {"contestant": contestant, "model": "robust", "norm": "linf", "eps": 0.1, "rows": 64, "robust": robust,
            "outside": 0, "cpu_seconds": cpu, "repeats": [cpu], "forwards": passes, "backwards": passes,
            **more}  # fmt: skip


OURS = row("default", [1, 2, 9], 8, 320)
ROWS = [OURS, row("torchattacks", [1, 2, 3, 4], 4, 3200), row("art", [1, 2, 9], 160, 32000)]
STOPPED = {key: OURS[key] for key in ("model", "norm", "eps", "rows")} | {
    "contestant": "art",
    "stopped": "TypeError: no",
}
PICTURES = {"model": beside.PICTURES, "rows": beside.TWENTY}


def test_a_bout_counts_what_one_side_alone_breaks() -> None:
    torchattacks, art = beside.bouts(ROWS)
    assert (torchattacks.what, torchattacks.missed, torchattacks.extra) == (
        "robust linf, torchattacks' AutoAttack",
        [9],
        [3, 4],
    )
    assert (art.missed, art.extra) == ([], [])
    assert art.cheaper("cpu_seconds") == pytest.approx(20)
    assert torchattacks.cheaper("forwards", "backwards") == pytest.approx(10)


def test_only_the_same_model_in_the_same_set_is_set_beside() -> None:
    elsewhere = [row("torchattacks", [1], 1, 1, model="natural"), row("art", [1], 1, 1, norm="l2")]
    assert not list(beside.bouts([OURS, *elsewhere]))


def test_claims_hold_goals_against_what_was_measured() -> None:
    found = {claim.claim: claim for claim in beside.claims(ROWS)}
    assert {claim.id for claim in found.values()} == {"verdict.b"}
    assert found["robust linf, torchattacks' AutoAttack: robust rows of 64"].met
    assert not found["robust linf, torchattacks' AutoAttack: rows that it breaks and we do not"].met
    assert found["robust linf, torchattacks' AutoAttack: passes"].measured == "1/10.0"
    assert not found["robust linf, torchattacks' AutoAttack: CPU time"].met  # twice as much is not less
    assert all(claim.met for what, claim in found.items() if "ART's" in what)
    assert len(found) == 8


def test_a_missed_claim_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    what = "robust linf, torchattacks' AutoAttack: CPU time"
    monkeypatch.setitem(beside.TRIED, what, "fewer steps")
    found = {claim.claim: claim.tried for claim in beside.claims(ROWS)}
    assert found.pop(what) == "fewer steps"
    assert not any(found.values())


def test_a_peer_that_raises_stays_in_sight() -> None:
    (claim,) = beside.claims([OURS, STOPPED])
    assert not claim.met
    assert "TypeError: no" in claim.measured
    assert claim.tried
    assert "raises TypeError: no" in beside.table([OURS, STOPPED]).splitlines()[2]


def test_pictures_stand_beside_our_own_protocol_and_autoattack() -> None:
    rows = [row(name, [], 8, 40, **PICTURES) for name in (*beside.MODES, beside.REFERENCE)]
    assert [bout.what for bout in beside.bouts(rows)] == [
        "EfficientNet-Lite0 linf, our mode autoattack",
        "EfficientNet-Lite0 linf, AutoAttack",
    ]
    assert any(claim.claim.endswith("AutoAttack: robust rows of 20") and claim.met for claim in beside.claims(rows))


def test_every_run_stands_once_and_peers_do_not_wait_for_our_code(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = beside.runs()
    assert len(runs) == len({run.path for run in runs}) == 6 * 3 + 3
    before = [run.digest for run in runs]
    monkeypatch.setattr(harness, "sources", lambda _: "changed")
    stale = [run for run, digest in zip(runs, before, strict=True) if run.digest != digest]
    assert stale == [run for run in runs if run.ours]
    assert all(run.path.is_relative_to(beside.CACHE if run.ours else beside.KEPT) for run in runs)


def test_what_came_back_outside_is_told() -> None:
    yes = torch.tensor([True, True, False])
    found = judge.Judgement(yes, torch.tensor([False, True, False]), yes, 1 / 3)
    assert beside.told(found) == {"robust": [0], "outside": 1}


def test_short_runs_are_repeated() -> None:
    calls: list[int] = []
    _, spent = repeats.repeated(lambda: calls.append(1))
    assert len(calls) == len(spent) == repeats.REPEATS
    assert repeats.told([3.0, 1.0, 2.0]) == {"cpu_seconds": 2.0, "repeats": [3.0, 1.0, 2.0]}


def test_the_table_has_a_line_a_bout() -> None:
    lines = beside.table(ROWS).splitlines()
    assert len(lines) == 4
    assert "| robust | linf | torchattacks | 4 | 3 | 1 | 2 | 0 | 100 | 10 | 4.0 | 8.0 |" in lines[2]
