"""The backdoors of the poisoning benchmark: its claims follow from the kept rows, and its stamps are the paper's."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import poisoning_backdoors as bench
import poisoning_backdoors_claims as told
from redan.data.samples import Samples
from redan.poisoning.backdoor import Backdoor
from redan.poisoning.budget import Budget
from redan.poisoning.triggers import Patch
from redan.samples import fashion_mnist

TRAINING_ROWS, TEST_ROWS = 60_000, 10_000


@pytest.fixture(scope="module")
def rows(kept: Callable[[str], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return kept("backdoors")


def made_up(success: float, accuracy: float, *, pairs: int = 10) -> dict[str, dict[str, Any]]:
    """Victims whose success and accuracy are so much on average, beside clean ones that have 9 of 10 right."""
    rows: dict[str, dict[str, Any]] = {}
    for seed in range(pairs):
        wiggle = 5 * (-1) ** seed
        rows[f"clean-{seed}"] = {"attack": None, "seed": seed, "right": 9000 - wiggle, "rows": TEST_ROWS, "taken": []}
        for share in told.SHARES:
            rows[f"badnets-{share}-{seed}"] = {
                "attack": "badnets", "share": share, "seed": seed, "poisoned": 1, "relabeled": 1,
                "right": round(accuracy * TEST_ROWS) + wiggle, "rows": TEST_ROWS,
                "obeyed": round(success * 9000) + wiggle, "stamped": 9000,
            }  # fmt: skip
    return rows


def test_claims_follow_from_the_kept_rows(rows: dict[str, dict[str, Any]]) -> None:
    claims = bench.claims(rows)
    assert len(claims) == 4
    for claim in claims:
        assert claim.id == "poisoning.a"
        assert claim.met or claim.tried, f"missed without a word on what was tried: {claim}"
        assert isinstance(claim.met, bool)
    main = np.array([rows[f"badnets-1-{seed}"]["obeyed"] / 9000 for seed in range(10)])
    clean, poisoned = (
        np.array([rows[f"{kind}-{seed}"]["right"] / TEST_ROWS for seed in range(10)]) for kind in ("clean", "badnets-1")
    )
    assert claims[0].met == (main.mean() >= 0.95)
    assert claims[1].met == (main.mean() - 1.8331 * main.std(ddof=1) / 10**0.5 >= 0.95)  # t of 9 degrees, one-sided
    apart = poisoned - clean
    assert claims[2].met == (abs(apart.mean()) + 1.8331 * apart.std(ddof=1) / 10**0.5 <= 0.01)


def test_every_kept_victim_was_made_within_its_budget(rows: dict[str, dict[str, Any]]) -> None:
    assert set(rows) <= {cell.name for cell in bench.cells()}
    for name, row in rows.items():
        assert row["rows"] == TEST_ROWS
        if row["attack"] is None:
            continue
        assert name == f"{row['attack']}-{100 * row['share']:g}-{row['seed']}"
        assert row["poisoned"] == round(row["share"] * TRAINING_ROWS)
        assert row["relabeled"] == (0 if row["attack"] == "sig" else row["poisoned"])
        assert row["stamped"] == (9_000 if row["target"] is not None else TEST_ROWS)
        assert 0 <= row["obeyed"] <= row["stamped"]
    lines = bench.table(rows).splitlines()
    kinds = {(row["attack"], row.get("share")) for row in rows.values()}
    assert len(lines) == 2 + len(kinds)  # clean training is one of them
    assert len({line.count("|") for line in lines}) == 1


def test_cells_are_named_once_and_can_be_sent_to_a_process() -> None:
    cells = bench.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        work, arguments = pickle.loads(pickle.dumps((cell.work, dict(cell.arguments))))  # noqa: S301  # our own bytes
        assert work is cell.work
        assert arguments["seed"] == cell.arguments["seed"]
    assert [sum(c.name.startswith(f"badnets-{share}-") for c in cells) for share in (1, 0.5, 0.2, 0.1, 0.05)] == [
        10, 8, 8, 8, 8,
    ]  # fmt: skip


def test_goals_are_held_against_what_was_measured() -> None:
    assert [claim.met for claim in told.claims(made_up(0.99, 0.899))] == [True, True, True, True]
    assert [claim.met for claim in told.claims(made_up(0.9, 0.885))] == [False, False, False, True]
    close = [claim.met for claim in told.claims(made_up(0.9501, 0.915, pairs=4))]
    assert close == [True, False, False, False]  # the bound is below, accuracy rose too far, victims are too few
    sweep = told.claims(made_up(0.6, 0.9))[3].measured
    assert sweep.startswith("half of the stamped rows from 0.05 % on, 95 % at no share; 60.0 % at 1 %")


@pytest.mark.parametrize("shift", [-0.012, -0.0099, -0.006, 0.0, 0.006, 0.0099, 0.012])
def test_equivalence_is_the_interval_inside_the_margin(shift: float) -> None:
    draw = np.random.default_rng(3)
    clean = draw.normal(0.88, 0.002, 10)
    poisoned = clean + shift + draw.normal(0, 0.002, 10)
    found = told.equivalence(poisoned.tolist(), clean.tolist(), 0.01)
    assert (found.p <= told.LEVEL) == (found.low >= -0.01 and found.high <= 0.01)
    assert (found.p <= told.LEVEL) == (abs(shift) <= 0.006)
    assert found.low < found.value < found.high


def test_intervals_are_students() -> None:
    values = [0.2, 0.4, 0.6]
    found = told.mean(values)
    assert found.value == pytest.approx(0.4)
    assert found.low == 0.0  # cut off
    assert found.high == pytest.approx(0.4 + 4.30265 * 0.2 / 3**0.5, abs=1e-5)
    assert told.lower([0.9, 0.95, 1.0]) == pytest.approx(0.95 - 2.91999 * 0.05 / 3**0.5, abs=1e-6)
    assert told.mean([0.5]) == (0.5, None, None)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_badnets_stamps_what_three_lines_of_numpy_stamp(seed: int) -> None:
    x, y = fashion_mnist("train")
    made = bench.BADNETS(Samples(x, y), Budget(share=0.01, may_change_labels=True), seed=seed)
    pixels, labels = x.copy(), y.copy()
    at = np.random.default_rng(seed).choice(np.where(y != 0)[0], len(y) // 100, replace=False)
    pixels[at, :, 25:28, 25:28], labels[at] = 1.0, 0
    assert made.samples.x.tobytes() == pixels.tobytes()
    assert made.samples.y.tobytes() == labels.tobytes()
    assert made.changed.tolist() == sorted(at)


def test_badnets_victims_are_what_numpy_stamps() -> None:
    x, y = fashion_mnist("test")
    found = Backdoor(trigger=Patch(size=3), target=0).victims(x, y)
    pixels = x[y != 0].copy()
    pixels[:, :, 25:28, 25:28] = 1.0
    assert found.x.tobytes() == pixels.tobytes()
    assert (found.wanted == 0).all()
    assert len(found.rows) == (y != 0).sum()
