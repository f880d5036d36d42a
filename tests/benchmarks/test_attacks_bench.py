"""The attacks' benchmark: its table can be run, its measures are right on cases made by hand, claims can be missed."""

from __future__ import annotations

import inspect
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import arena
import worker

import attacks_claims
import attacks_ours
import attacks_run
import harness
import judge_spatial
from attacks_cells import CONTESTS, DEGREES, FITTED, LENT, PEERS, PIXELS, Contest
from attacks_run import OURS, Cell, Shot, chosen
from optimality import chance, envelope, median, median_ratio, optimality
from redan.evasion.cascade import Sweep
from redan.protocols import cost

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
INF = math.inf


# -- the table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: contest.name)
def test_settings_fit_their_adapters(contest: Contest) -> None:
    assert set(contest.peers) <= set(PEERS)
    for function, settings in contest.peers.values():
        assert 1 <= len(settings) <= 5
        for setting in settings:
            inspect.signature(arena.ATTACKS[function]).bind(None, **setting)
            assert json.loads(json.dumps(setting)) == setting


def test_contests_are_named_once_and_ours_stand_among_them() -> None:
    names = [contest.name for contest in CONTESTS]
    assert len(set(names)) == len(names)
    assert set(attacks_ours.OURS) | set(attacks_ours.FITTED) <= set(names)
    assert set(attacks_ours.FITTED) == {contest.name for contest in CONTESTS if contest.fitted}


@pytest.mark.parametrize("contest", [c for c in CONTESTS if c.name in attacks_ours.OURS], ids=lambda c: c.name)
def test_ours_stay_in_the_budget(contest: Contest) -> None:
    candidates = attacks_ours.OURS[contest.name]
    assert 1 <= len(candidates) <= 5
    for attack in candidates:
        if isinstance(attack, Sweep):  # its parts go toward one class: a backward pass for each forward one
            inner = cost(attack.attack, 2)
            most = 1 + attack.targets * sum(inner or ())
        else:
            most = sum(cost(attack, 10) or ())
        assert 0 < most <= attacks_run.OVER * contest.passes


def test_rows_that_are_fitted_on_are_neither_reported_nor_tuned_on() -> None:
    ranges = [range(first, first + count) for first, count in (FITTED, attacks_run.REPORTED, attacks_run.TUNING)]
    assert len(set().union(*ranges)) == sum(map(len, ranges))
    assert max(map(max, ranges)) < 1000


# -- spatial, universal, transfer ------------------------------------------------------------------------------


SPATIAL = next(c for c in CONTESTS if c.norm == "spatial")
UNIVERSAL = next(c for c in CONTESTS if c.fitted and c.norm == "linf")
TRANSFER = next(c for c in CONTESTS if c.lent)
RANGE = torch.tensor([DEGREES, PIXELS, PIXELS], dtype=torch.float64)


def _pictures(count: int) -> torch.Tensor:
    return worker.load_rows(count)[0].double()


def _by_splines(x0: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    made = [
        ndimage.rotate(ndimage.shift(image[0].numpy(), [-down, -across]), turn, reshape=False)
        for image, (turn, down, across) in zip(x0.float(), parameters.tolist(), strict=True)
    ]
    return torch.from_numpy(np.stack(made)).clamp(0, 1)[:, None].double()


@pytest.mark.slow
def test_a_turn_and_a_shift_are_found_however_they_are_drawn() -> None:
    x0 = _pictures(16)
    shares = 2 * torch.rand(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    shares[:4] = torch.tensor([[0.2, 0, 0], [0, 1, -1], [-1, 0.5, 0.5], [0, 0, 0]])  # pixel on pixel, and the corners
    drawn = shares * RANGE
    seen = judge_spatial.bilinear(judge_spatial.turned(x0, drawn).float().double(), x0, RANGE)
    assert float(seen.off.max()) < 1e-5
    torch.testing.assert_close(seen.parameters, drawn, atol=1e-3, rtol=0)

    whole = torch.cat([drawn[:, :1], drawn[:, 1:].round()], 1)
    x = _by_splines(x0, whole)
    near = judge_spatial.bilinear(x, x0, RANGE)
    assert int((near.off > judge_spatial.TOLERANCE).sum()) > 10, "another drawing"
    seen = judge_spatial.spline(x, x0, RANGE, near)
    assert float(seen.off.max()) < judge_spatial.TOLERANCE


def test_ours_is_drawn_as_the_judge_draws() -> None:
    x0 = _pictures(12)
    ours: Any = attacks_ours.within(SPATIAL, 0)
    grid = ours.grid(x0)[17::22][:12]
    torch.testing.assert_close(ours.transformed(x0, grid), judge_spatial.turned(x0, grid * RANGE), atol=1e-9, rtol=0)


class _Suspicious(torch.nn.Module):
    """Takes whatever differs from the clean pictures, which have class 0, for class 1."""

    def __init__(self, x0: torch.Tensor) -> None:
        super().__init__()
        self.clean = x0.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        differs = (torch.cdist(x.flatten(1), self.clean).amin(1) > 1e-6).to(x.dtype)
        return torch.stack([1 - differs, differs], 1)


def test_only_turns_and_shifts_inside_the_range_break() -> None:
    x0 = _pictures(6).float()
    drawn = torch.tensor([[5.0, 1, -1], [13, 0, 0], [0, 0, 3], [5, 1, 1], [0, 0, 0], [-10, 2, 2]], dtype=torch.float64)
    x = judge_spatial.turned(x0.double(), drawn).float()
    x[3, 0, 14, 14] = 1 - x[3, 0, 14, 14].round()  # besides, a pixel
    model = _Suspicious(x0).eval()
    broken, size = judge_spatial.judge(model, x0, torch.zeros(6).long(), x, degrees=DEGREES, pixels=PIXELS)
    assert broken.tolist() == [True, False, False, False, False, True]
    assert size[broken].tolist() == pytest.approx([0.5, 1.0], abs=1e-3)
    assert size[~broken].isinf().all()
    swapped = judge_spatial.judge(model, x0, torch.zeros(6).long(), x.flip(0), degrees=DEGREES, pixels=PIXELS)[0]
    assert not swapped.any(), "a turn of another picture"


def test_our_grids_stay_in_the_range_and_break_by_the_judge() -> None:
    index = list(attacks_run.right_rows("natural", "tuning"))[:16]
    for candidate, attack in enumerate(attacks_ours.OURS[SPATIAL.name]):
        points = attacks_ours.within(SPATIAL, candidate).grid(torch.zeros(1, 1, 28, 28))  # type: ignore[attr-defined]
        assert points.abs().max() <= 1
        assert getattr(attack, "queries", None) == len(points)
    made = attacks_ours.run(SPATIAL, 3, "natural", index, 0)
    broken, size = attacks_run.judged(SPATIAL, "natural", index, made.x_adv)
    answers = worker.load_model("natural")(made.x_adv).argmax(1)
    assert broken == (answers != worker.load_rows(1000)[1][torch.tensor(index)]).tolist()
    assert sum(broken) > 8
    assert all(0 < far <= 1.001 for far, bit in zip(size, broken, strict=True) if bit)


def test_passes_of_a_fit_are_spread_over_the_fitted_rows() -> None:
    assert attacks_run.spread(UNIVERSAL, range(52)) == 500
    assert attacks_run.spread(TRANSFER, range(52)) == 52
    index = list(attacks_run.right_rows("natural", "tuning"))[:4]
    contest = next(c for c in CONTESTS if c.name == "universal-pgd-linf")
    fitted = 32  # no fewer than are asked together on any machine
    made = attacks_ours.run(contest._replace(fitted=(FITTED[0], fitted)), 0, "natural", index, 0)
    assert 30 * fitted <= made.backwards <= 30 * fitted + 2 * (fitted + 32)  # two looks at cheaper gradients
    change = made.x_adv - worker.load_rows(1000)[0][torch.tensor(index)]
    assert float(change.abs().max()) <= 0.1 + 1e-6


def test_a_transfer_climbs_on_the_lent_model_alone() -> None:
    assert all(victim != lent for victim, lent in LENT.items())
    index = list(attacks_run.right_rows("robust", "tuning"))[:32]
    made = attacks_ours.run(TRANSFER, 0, "robust", index, 0)
    broken = attacks_run.judged(TRANSFER, "robust", index, made.x_adv)[0]
    y = worker.load_rows(1000)[1][torch.tensor(index)]
    assert 20 * len(index) <= made.backwards <= 20 * len(index) + 2 * 32  # a look at the model's cheaper gradients
    assert broken == (worker.load_model("robust")(made.x_adv).argmax(1) != y).tolist()
    cell = Cell(contest=TRANSFER, contestant="torchattacks", model="robust")
    other = Cell(
        contest=TRANSFER._replace(lent=LENT | {"robust": "residual"}), contestant="torchattacks", model="robust"
    )
    assert cell.digest != other.digest
    row = _row(TRANSFER, OURS, [1.0], 40.0) | {"seen": "residual"}
    assert "| natural, found on residual |" in attacks_claims.table([row])


def test_the_arena_hands_over_other_rows_to_fit_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def still(task: Any) -> torch.Tensor:
        seen.append(task)
        made: torch.Tensor = task.x
        return made

    monkeypatch.setitem(arena.ATTACKS, "still", still)
    request = {"attack": "still", "setting": {}, "model": "natural", "norm": "linf", "eps": 0.1, "index": [0, 2],
               "seed": 0, "passes": 9.0, "seconds": 9.0, "out": str(tmp_path / "out.safetensors")}  # fmt: skip
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    arena.serve(request)
    arena.serve(request | {"fitted": [256, 5]})
    x, y = worker.load_rows(5, 256)
    assert seen[0].fitted is None
    assert torch.equal(seen[1].fitted[0], x)
    assert torch.equal(seen[1].fitted[1], y)


# -- the measures ------------------------------------------------------------------------------------------


def test_optimality_of_the_envelope_of_a_failure_and_between() -> None:
    near, far = [1.0, 2.0, 4.0], [2.0, 1.0, INF]
    best = envelope([near, far])
    assert best == [1.0, 1.0, 4.0]
    assert optimality(best, best) == 1.0
    assert optimality([INF] * 3, best) == 0.0
    assert optimality(near, best) == pytest.approx((3 + 2) / (3 + 3))  # areas up to 4, where nobody is left
    assert optimality([3.0, 9.0, 4.0], best) == pytest.approx(1 / 6)  # 9 counts as 4


def test_rows_that_nobody_broke_change_no_optimality() -> None:
    assert optimality([1.0, 3.0, INF], [1.0, 2.0, INF]) == optimality([1.0, 3.0], [1.0, 2.0])


def test_median_has_failures_at_infinity() -> None:
    assert median([1.0, 2.0, INF]) == 2.0
    assert median([1.0, INF, INF]) == INF


def test_chance_is_the_exact_sign_test() -> None:
    assert chance([False] * 5 + [True], [True] * 6) == pytest.approx(1 / 32)
    assert chance([True, False], [False, True]) == pytest.approx(0.75)
    assert chance([True] * 4, [False] * 4) == 1.0


def test_median_ratio_of_equals_and_of_a_clear_loser() -> None:
    near = [1 + row / 100 for row in range(100)]
    assert median_ratio(near, near) == (1.0, 1.0, 1.0)
    ratio, low, high = median_ratio([1.2 * row for row in near], near)
    assert ratio == pytest.approx(1.2)
    assert 1 < low <= ratio <= high
    assert median_ratio([INF] * 100, near)[1] == INF
    assert median_ratio(near, [INF] * 100)[2] == 0.0


# -- the choice of settings, and the cache -----------------------------------------------------------------


def _shot(passes: float, broken: int, far: float = 1.0) -> Shot:
    bits = [row < broken for row in range(4)]
    return Shot(passes, 0.1, bits, [far * (row + 1) if bit else INF for row, bit in enumerate(bits)], torch.zeros(4, 1))


def _contest(norm: str, eps: float) -> Contest:
    return next(c for c in CONTESTS if c.norm == norm and c.nearest == math.isinf(eps) and len(c.peers) > 1)


def test_the_chosen_setting_is_the_strongest_in_the_budget() -> None:
    inside, near = _contest("linf", 0.1), _contest("l2", INF)
    over = 2.0 * inside.passes
    assert chosen(inside, [_shot(1, 2), _shot(1, 3), _shot(over, 4), "ended"]) == 1
    assert chosen(near, [_shot(1, 4, 2.0), _shot(1, 4, 1.0), _shot(2.0 * near.passes, 4, 0.5)]) == 1
    assert chosen(inside, [_shot(2 * over, 4), _shot(over, 1), "ended"]) == 1
    assert chosen(inside, ["ended", "ended"]) is None


def test_a_cell_is_read_back_until_its_settings_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks_run, "CACHE", tmp_path)
    contest = _contest("l2", INF)
    peer = next(iter(contest.peers))
    cell = Cell(contest=contest, contestant=peer, model="natural")
    assert attacks_run.cached(cell) is None
    harness.keep(cell.path, {"digest": cell.digest, "distance": [1.0, INF]})
    found = attacks_run.cached(cell)
    assert found is not None
    assert found["distance"] == [1.0, INF]
    function, settings = contest.peers[peer]
    changed = contest._replace(peers={peer: (function, settings[1:])})
    assert attacks_run.cached(Cell(contest=changed, contestant=peer, model="natural")) is None


def test_passes_are_counted_and_an_endless_attack_is_ended() -> None:
    counted = worker.Counted(torch.nn.Linear(3, 2).eval().requires_grad_(False), most=9)
    for _ in range(3):
        x = torch.rand(2, 3, requires_grad=True)
        torch.autograd.grad(counted(x).sum(), x)
    assert (counted.forwards, counted.backwards) == (6, 6)
    with pytest.raises(worker.TooManyPasses):
        counted(torch.rand(2, 3))


# -- the claims --------------------------------------------------------------------------------------------


def _row(contest: Contest, contestant: str, far: list[float], passes: float) -> dict[str, Any]:
    cell = {"attack": contest.attack, "norm": contest.norm, "eps": contest.eps, "budget": contest.passes}
    run = {"contestant": contestant, "model": "natural", "passes": passes, "cpu_seconds": 1.0}
    return attacks_claims.compact(cell | run | {"digest": "", "broken": [d < INF for d in far], "distance": far})


def _claims(ours: list[float], theirs: list[float], spent: float = 1.0, passes: float = 100.0) -> dict[str, bool]:
    contest = next(c for c in CONTESTS if c.name == "cw-l2")
    rows = [_row(contest, OURS, ours, 100.0), _row(contest, "adv_lib", theirs, passes)]
    time = {"kind": "time", "attack": "cw", "norm": "l2", "model": "natural", "peer": "adv_lib",
            "ours_cpu_seconds": [spent], "peer_cpu_seconds": [1.0], "ours_passes": 100.0,
            "peer_passes": passes}  # fmt: skip
    return {f"{claim.id} {claim.claim}": claim.met for claim in attacks_claims.claims([*rows, time])}


NEAR = [1 + row / 100 for row in range(60)]


def test_an_equal_meets_every_claim() -> None:
    found = _claims(NEAR, NEAR)
    assert {name.split()[0] for name in found} == {"whitebox.b", "whitebox.c", "whitebox.d"}
    assert all(found.values())


@pytest.mark.parametrize(
    ("ours", "spent", "missed"),
    [
        ([*NEAR[:50], *[INF] * 10], 1.0, {"success"}),
        ([1.2 * d for d in NEAR], 1.0, {"median", "optimality"}),
        (NEAR, 1.2, {"CPU"}),
        ([INF] * 60, 1.0, {"success", "median", "optimality"}),
    ],
    ids=["misses-rows", "farther", "slower", "does-nothing"],
)
def test_a_loser_misses_its_claims(ours: list[float], spent: float, missed: set[str]) -> None:
    found = _claims(ours, NEAR, spent)
    for kind in missed:
        assert not any(met for name, met in found.items() if kind in name)


def test_a_peer_over_its_budget_beats_nobody() -> None:
    assert _claims([1.2 * d for d in NEAR], NEAR, passes=1e6) == {
        name: met for name, met in _claims([1.2 * d for d in NEAR], NEAR, passes=1e6).items() if "CPU" in name
    }


def test_the_table_says_what_is_not_supported() -> None:
    contest = _contest("linf", 0.1)
    row = {"attack": contest.attack, "norm": "linf", "eps": 0.1, "budget": 3, "contestant": "art", "model": "robust",
           "stopped": "KeyError: 23"}  # fmt: skip
    assert "not supported: KeyError: 23" in attacks_claims.table([row])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_peer_is_counted_and_judged_as_we_are(tmp_path: Path) -> None:
    """Foolbox's DDN, 100 steps: 100 forward and 100 backward passes a row; our distances are at most 5 % longer."""
    subprocess.run(["bash", str(BENCHMARKS / "peers" / "install.sh")], check=True, capture_output=True)
    contest = next(c for c in CONTESTS if c.name == "ddn-l2")
    index = list(attacks_run.right_rows("natural", "tuning"))
    out = tmp_path / "out.safetensors"
    request = {"attack": "ddn_foolbox", "setting": {"steps": 100, "start": 1.0, "gamma": 0.05}, "model": "natural",
               "norm": "l2", "eps": INF, "index": index, "seed": 0, "passes": 1e9, "seconds": 60,
               "out": str(out)}  # fmt: skip
    command = [str(harness.PEERS_PYTHON), str(BENCHMARKS / "peers" / "arena.py")]
    told = subprocess.run(command, input=json.dumps(request) + "\n", capture_output=True, text=True, check=True)
    answer = json.loads(told.stdout)
    assert (answer["forwards"], answer["backwards"]) == (100 * len(index), 100 * len(index))
    broken, far = attacks_run.judged(contest, "natural", index, load_file(out)["x_adv"])
    assert all(broken)
    made = attacks_ours.run(contest, 0, "natural", index, 0)
    assert 201 * len(index) <= made.forwards + made.backwards <= 204 * len(index)
    ours = attacks_run.judged(contest, "natural", index, made.x_adv)[1]
    assert median(ours) <= 1.05 * median(far)
    clean = worker.load_rows(1000)[0][torch.tensor(index)]
    assert median(attacks_run.judged(contest, "natural", index, clean)[1]) == INF  # who does nothing has no distance
