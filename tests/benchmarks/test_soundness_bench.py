"""The soundness benchmark: what it says of rows that are made up, and whether its trying can find what is wrong."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import harness
import judge
import redan
import soundness

CELL = {"model": "robust", "norm": "linf", "eps": 0.02}


def bounds(method: str, certified: list[int], **more: Any) -> Any:
    return {"kind": "bounds", **CELL, "method": method, "rows": 4, "right": 3, "certified": certified,
            "cpu_seconds": 1.0, **more}  # fmt: skip


def tries(**more: Any) -> Any:
    spent = [{"attack": "straight", "turns": 2.0, "trials": 4.0, "passes": 80.0, "cpu_seconds": 599.0, "broken": 0.0,
              "outside": 0.0},
             {"attack": "fmn", "turns": 1.0, "trials": 2.0, "passes": 20.0, "cpu_seconds": 2.0, "broken": 0.0,
              "outside": 0.0}]  # fmt: skip
    return {"kind": "tries", **CELL, "certified": 2, "index": [2, 0], "broken": [], "lower": [0.5, 1.0],
            "clean": [1.5, 5.0], "met": [0.75, 2.0], "spent": spent, **more}  # fmt: skip


REFUSED = {"kind": "refused", **CELL, "model": "winners", "error": "NotCertifiableError", "reason": "no bounds"}
BOUNDS = [bounds("IBP", []), bounds("CROWN_IBP", [2]), bounds("CROWN", [0, 2])]
ROWS: list[Any] = [*BOUNDS, REFUSED, tries()]

BROKEN = "rows broken inside a certified ball"
SECONDS = "CPU seconds of trying"
LEAST = "least of the margin met minus the certified bound of it"
ATTACKED = "models in sets with certified rows, attacked in every way"
OUTSIDE = "points of attacks outside the ball, which count for nothing"
TIGHTER = "rows certified by a method and not by a tighter one"
WITHOUT = "models refused for want of bounds"


def said(rows: list[Any]) -> dict[str, harness.Claim]:
    return {claim.claim: claim for claim in soundness.claims(rows)}


def test_all_claims_are_met_where_nothing_is_wrong() -> None:
    found = said(ROWS)

    assert {claim.id for claim in found.values()} == {"verdict.e"}
    assert all(claim.met for claim in found.values())
    assert found[LEAST].measured == "0.25"
    assert found[SECONDS].measured == "601.0"
    assert found[ATTACKED].measured == found[ATTACKED].goal == "1"


def spending(**more: float) -> Any:
    first, second = tries()["spent"]
    return tries(spent=[first, second | more])


WRONG: dict[str, tuple[str, list[Any]]] = {
    "a row breaks": (BROKEN, [*BOUNDS, REFUSED, tries(broken=[2])]),
    "nothing was attacked": (BROKEN, [*BOUNDS, REFUSED]),
    "nothing was met": (LEAST, [*BOUNDS, REFUSED]),
    "a bound is undercut, and no row breaks": (LEAST, [*BOUNDS, REFUSED, tries(met=[0.75, 0.99])]),
    "the time was short": (SECONDS, [*BOUNDS, REFUSED, spending(cpu_seconds=0.5)]),
    "an attack had no turn": (ATTACKED, [*BOUNDS, REFUSED, spending(trials=0)]),
    "certified rows stand unattacked": (ATTACKED, [*ROWS, bounds("CROWN", [1], eps=0.05)]),
    "an attack left the ball": (OUTSIDE, [*BOUNDS, REFUSED, spending(outside=1)]),
    "a tighter method certifies less": (TIGHTER, [bounds("IBP", [1]), *BOUNDS[1:], REFUSED, tries()]),
    "it certifies as many, and others": (TIGHTER, [bounds("CROWN_IBP", [3]), BOUNDS[2], REFUSED, tries()]),
    "a model that has no bounds got some": (WITHOUT, [*BOUNDS, tries()]),
    "another model is refused too": (WITHOUT, [*ROWS, REFUSED | {"model": "residual"}]),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_each_claim_can_fail(name: str) -> None:
    claim, rows = WRONG[name]

    assert not said(rows)[claim].met


def test_what_is_missed_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(soundness.TRIED, BROKEN, "an idea")

    assert said([*BOUNDS, REFUSED, tries(broken=[2])])[BROKEN].tried == "an idea"
    assert said(ROWS)[BROKEN].tried == ""


def test_the_table_has_a_line_a_cell_a_model_refused_and_an_attack() -> None:
    told = soundness.table(ROWS)

    assert "| robust | linf | 0.02 | 4 | 3 | 0.0% | 25.0% | 50.0% | 1.0 | 1.0 | 1.0 |" in told
    assert "| winners |  |  | refused: NotCertifiableError |" in told
    assert "| robust | linf | 0.02 | 2 | 2 | 6 | 100 | 601.0 | 0 | 0.25 | 75% |" in told
    assert "| straight | 4 | 80 | 599.0 | 0 |" in told
    columns = [block.splitlines() for block in told.split("\n\n")]
    assert all(len({line.count("|") for line in block}) == 1 for block in columns)


def test_every_checkpoint_has_every_cell() -> None:
    shipped = {name.removeprefix("fashion_").removesuffix(".safetensors") for name in redan.samples.DIGESTS}

    assert set(soundness.MODELS) == shipped - {"mnist.npz"} | {soundness.REFUSED}
    assert len(soundness.CELLS) == len(set(soundness.CELLS)) == len(soundness.MODELS) * 7
    for norm in soundness.RADII:
        assert {"straight", "fast-cascade", "square"} <= set(
            soundness.suite(soundness.Cell(model="robust", norm=norm, eps=0.1))
        )


# -- whether the trying finds what is there ---------------------------------------------------------------------------


@pytest.fixture
def linear() -> nn.Module:
    """Four classes of 36 pixels; everywhere in the middle of the box its worst point is known."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval().requires_grad_(False)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0)])
def test_the_straight_descent_meets_the_least_margin_of_a_linear_model(
    linear: nn.Module, norm: judge.Norm, dual: float, seed: int
) -> None:
    """min over j of (z_y - z_j) - ε ‖w_y - w_j‖ in the dual norm."""
    x = 0.4 + 0.2 * torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    scores, weight = linear(x).double(), linear[1].weight.double()  # type: ignore[index]  # a Sequential has layers
    y = scores.argmax(1)
    exact = torch.stack([
        min(scores[i, k] - scores[i, j] - 0.1 * torch.linalg.vector_norm(weight[k] - weight[j], ord=dual)
            for j in range(4) if j != k)
        for i, k in enumerate(y.tolist())
    ])  # fmt: skip
    found = soundness.straight(linear, x, y, norm=norm, eps=0.1, seed=seed)

    met = soundness.margins(linear, found.x, y)
    assert met.tolist() == pytest.approx(exact.tolist(), abs=2e-5)
    assert bool((judge.distances(x, found.x, norm=norm) <= 0.1 + 1e-6).all())
    assert found.passes == 5 * 3 * (2 * soundness.STEPS + 1)


def test_the_straight_descent_stays_in_the_box(linear: nn.Module) -> None:
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)).round()
    found = soundness.straight(linear, x, torch.tensor([0, 1, 2]), norm="l2", eps=1.0, seed=1)

    assert bool(((found.x >= 0) & (found.x <= 1)).all())


def test_no_number_is_below_any_bound() -> None:
    model = nn.Linear(1, 2)
    model.weight.data.fill_(torch.nan)

    assert soundness.margins(model, torch.ones(1, 1), torch.tensor([0])).tolist() == [-torch.inf]


@pytest.fixture
def only_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(cell: soundness.Cell) -> Any:
        def run(x: torch.Tensor, y: torch.Tensor, seed: int) -> soundness.Found:
            return soundness.straight(
                soundness.module(cell.model), x, y, norm=cell.norm, eps=cell.eps, seed=seed, steps=10
            )

        return {"straight": run}

    monkeypatch.setattr(soundness, "suite", one)


@pytest.mark.usefixtures("only_straight")
def test_a_false_certificate_is_told_from_a_true_one() -> None:
    """At 0.3 no row of the robust model stands; a bound above the clean margin is undercut at once."""
    wide = soundness.Cell(model="robust", norm="linf", eps=0.3)
    row = soundness.attempt(wide, {0: 0.01, 1: 1e3}, 0.0)
    assert row["index"] == [0, 1]  # the least certain first
    assert set(row["broken"]) == {0, 1}
    assert soundness.least([row]) < -1e3
    found = said([bounds("CROWN", [0, 1], eps=0.3), row])
    assert not found[BROKEN].met
    assert not found[LEAST].met

    narrow = soundness.Cell(model="robust", norm="linf", eps=1e-6)
    row = soundness.attempt(narrow, {1: 1e-6}, 0.0)
    assert not row["broken"]
    assert soundness.least([row]) > 0


def test_time_goes_on_with_other_rows_and_then_other_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to try takes the next rows, and the first again with another seed; the one with least time is next."""
    asked: list[tuple[str, int, int]] = []

    def way(name: str) -> Any:
        def run(x: torch.Tensor, y: torch.Tensor, seed: int) -> soundness.Found:
            asked.append((name, int(y), seed))
            return soundness.Found(x, 3)

        return run

    monkeypatch.setattr(soundness, "suite", lambda cell: {"a": way("a"), "b": way("b")})
    monkeypatch.setattr(soundness, "TURN", 1)
    monkeypatch.setattr(time, "process_time", iter(range(1000)).__next__)  # each run takes a second
    cell = soundness.Cell(model="robust", norm="l2", eps=0.1)
    row = soundness.attempt(cell, {0: 0.2, 1: 0.1}, 6.0)

    near, far = (int(soundness.sample_rows()[1][i]) for i in (1, 0))
    assert asked == [(name, label, seed) for label, seed in ((near, 0), (far, 0), (near, 1)) for name in "ab"]
    assert [(part["turns"], part["trials"], part["passes"], part["cpu_seconds"]) for part in row["spent"]] == [
        (3, 3, 9, 3)
    ] * 2
    assert row["met"] == pytest.approx(row["clean"], abs=1e-5)
    asked.clear()
    soundness.attempt(cell, {0: 0.2}, 0.0)
    assert [name for name, _, _ in asked] == ["a", "b"]  # none is left out


def test_bounds_are_kept_apart_from_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of attacks makes attacks stale, and no bounds."""
    monkeypatch.setattr(soundness, "CACHE", tmp_path)
    monkeypatch.setattr(soundness, "ROWS", 2)
    cell = soundness.Cell(model="robust", norm="linf", eps=0.01)
    monkeypatch.setattr(soundness, "CELLS", (cell, soundness.Cell(model="winners", norm="linf", eps=0.01)))
    soundness.measure(0.0, only_bounds=True)
    rows, missing = soundness.gathered(1.0)
    assert missing == 1  # the attacks on the robust model
    assert [row["kind"] for row in rows] == ["bounds"] * 3 + ["refused"]
    harness.keep(cell.path("tries"), {"digest": cell.attempt(1.0), **tries(eps=0.01)})
    assert soundness.gathered(1.0)[1] == 0
    assert soundness.gathered(2.0)[1] == 1  # another budget

    monkeypatch.setattr(soundness, "STEPS", 7)
    assert soundness.gathered(1.0)[1] == 1
    assert cell.bounded() is not None
    monkeypatch.setattr(soundness, "PROOF", ("src/redan/losses.py",))
    assert cell.bounded() is None
