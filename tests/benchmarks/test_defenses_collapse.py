"""Catastrophic overfitting: what is claimed follows from the rows, where it holds and where it does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import defenses_collapse as bench
import defenses_collapse_claims as judged
from redan.hardening import FGSM, PGD_10, Validation, Watch

Rows = dict[str, dict[str, Any]]
HELD = [(0.3, 0.25), (0.5, 0.1), (0.7, 0.02), (0.7, 0.02)]
"""Held-out images after each epoch, by FGSM and by PGD: a collapse in the second."""


def _row(robust: int, *, alarm: int | None = None, epochs: list[tuple[float, float]] | None = None) -> dict[str, Any]:
    alarms = [] if alarm is None else [{"step": alarm, "weak": 0.5, "strong": 0.1, "restored": None, "remedy": None}]
    held = epochs or [(0.3, 0.25)] * 4
    return {"seed": 0, "batches": 50, "seconds": 9.0, "epochs": held, "alarms": alarms, "n": 1000, "clean": 700,
            "robust": robust, "errors": 0}  # fmt: skip


def _rows() -> Rows:
    rows: Rows = {}
    for seed in bench.SEEDS:
        rows[f"fgsm-{seed}"] = _row(20, alarm=80, epochs=HELD)
        rows[f"remedy-{seed}"] = _row(380, alarm=80)
        rows[f"pgd-{seed}"] = _row(400)
    return rows


def test_cells_are_named_once_and_can_be_made() -> None:
    cells = bench.cells()
    assert [cell.name for cell in cells] == list(dict.fromkeys(cell.name for cell in cells))
    assert {cell.name for cell in cells} == set(_rows())
    assert all(cell.work.__module__ == "defenses_collapse" for cell in cells)
    assert set(judged.NAMES) == set(bench.WAYS)


def test_claims_hold_where_the_rows_say_so() -> None:
    claims = bench.claims(_rows())
    assert [claim.met for claim in claims] == [True] * 4
    assert {claim.id for claim in claims} == {"defenses.b"}
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"fgsm-0": _row(150), "fgsm-1": _row(150)}, 0),  # two that did not collapse
        ({"fgsm-0": _row(20, alarm=151, epochs=HELD)}, 1),  # an alarm in the second epoch after it
        ({"fgsm-0": _row(20, epochs=HELD)}, 1),  # none at all
        ({"pgd-3": _row(400, alarm=80)}, 2),  # one too many
        ({f"remedy-{seed}": _row(360, alarm=80) for seed in bench.SEEDS}, 3),
    ],
)
def test_each_claim_can_be_missed(changed: Rows, missed: int) -> None:
    claims = bench.claims(_rows() | changed)
    assert [number for number, claim in enumerate(claims) if not claim.met] == [missed]
    assert claims[missed].tried


def test_a_collapse_is_dated_by_held_out_images() -> None:
    assert judged.fell(_row(20, epochs=HELD)) == 2
    assert judged.fell(_row(20)) is None
    assert judged.in_time(_row(20, alarm=150, epochs=HELD))
    assert not judged.in_time(_row(20, alarm=150))


def test_the_table_has_a_line_a_training() -> None:
    text = bench.table(_rows())
    assert text.count("80 of") == 2 * len(bench.SEEDS)
    assert text.count("| PGD-10 |") == len(bench.SEEDS)


def test_every_epoch_is_taken_for_the_best_so_far() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    weak, strong = (Validation(x=x, y=y, within=bench.WITHIN, inner=inner) for inner in (FGSM, PGD_10))
    followed = bench.Followed(weak, strong)
    scores = [followed(model, 0).robust for _ in range(3)]
    assert scores == sorted(set(scores))
    assert followed.found[0] == followed.found[2]


def test_only_the_remedied_training_has_remedies() -> None:
    assert {way: bool(watch.remedies) for way, (_, watch) in bench.WAYS.items()} == {
        "fgsm": False,
        "remedy": True,
        "pgd": False,
    }
    assert all(watch == Watch(every=bench.EVERY, remedies=watch.remedies) for _, watch in bench.WAYS.values())
