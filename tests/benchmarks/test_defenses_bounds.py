"""Bounds: the claims follow from the rows, met and missed, and the exact margin is what a grid finds."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import defenses_bounds as bench
import defenses_nets
from redan.certification import certified
from redan.perturbations.norms import Linf
from redan.samples import model

Rows = dict[str, dict[str, Any]]
KINDS = ("IBP-float64", "CROWN-float64", "CROWN-float32")


@pytest.fixture
def rows() -> Rows:
    tries = {"eps": 0.1, "rows": 4, "certified": 2, "tries": {"apgd": 4, "square": 4}, "passes": 900, "outside": 0,
             "broken": [], "room": 0.02}  # fmt: skip
    one = {"ours": [[1.0, 2.0]], "theirs": [[1.0, 1.9]]}
    return {
        "exact-0": {"nets": 1, "found": [{"method": "IBP", "eps": 0.1, "exact": 0.3, "grid": 0.31, "lower": 0.2}]},
        "random-0": {"nets": 1, "found": [{"method": name, "norm": "L2", "eps": 0.1, "room": [0.1, 0.2], "tried": 50}
                                          for name in ("IBP", "CROWN_IBP", "CROWN")]},
        "beside-plain-0.02": {"form": "plain", "eps": 0.02, "rows": 1, "refused": {},
                              "tight": {kind: copy.deepcopy(one) for kind in KINDS},
                              "seconds": {"ours": [1.0, 1.1], "theirs": [2.0, 2.0]},
                              "versions": {"auto_LiRPA": "1", "torch": "2"}},
        "attacked-plain": {"form": "plain", **tries},
        "trained-0": {"seed": 0, "eps": 0.1, "epochs": 2, "rows": 100, "clean": 80, "certified": 65, "by_intervals": 64,
                      "pgd_rows": 50, "pgd": 34, "training_seconds": 50.0, "attacked": dict(tries)},
    }  # fmt: skip


def test_what_holds_is_met(rows: Rows) -> None:
    claims = bench.claims(rows)
    assert {claim.id for claim in claims} == {"defenses.e"}
    assert [claim.met for claim in claims] == [True] * 7
    assert all(claim.claim and claim.goal and claim.measured for claim in claims)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (lambda r: r["exact-0"]["found"][0].update(lower=0.305), 0),
        (lambda r: r["random-0"]["found"][2].update(room=[0.1, -1e-9]), 1),
        (lambda r: r["attacked-plain"].update(broken=[3]), 2),
        (lambda r: r["trained-0"]["attacked"].update(room=-0.001), 2),
        (lambda r: r["beside-plain-0.02"]["tight"]["CROWN-float64"].update(ours=[[0.99, 2.0]]), 3),
        (lambda r: r["beside-plain-0.02"]["seconds"].update(ours=[2.1, 2.2]), 5),
        (lambda r: r["trained-0"].update(certified=59), 6),
    ],
    ids=["exact", "random", "broken", "margin", "looser", "slower", "few certified"],
)
def test_what_does_not_is_missed(rows: Rows, change: Any, missed: int) -> None:
    change(rows)
    claims = bench.claims(rows)
    assert [at for at, claim in enumerate(claims) if not claim.met] == [missed]
    assert claims[missed].tried


def test_a_network_that_the_peer_refuses_is_told(rows: Rows) -> None:
    row = rows["beside-plain-0.02"]
    del row["tight"]["CROWN-float64"]
    row["refused"] = {"CROWN-float64": "RuntimeError: no"}
    assert "RuntimeError: no" in bench.claims(rows)[3].measured
    assert "it refuses" in bench.table(rows)


def test_cells_have_names_of_their_own() -> None:
    cells = bench.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(callable(cell.work) for cell in cells)
    assert sum(cell.name.startswith("trained-") for cell in cells) == 3


def test_the_exact_margin_is_no_more_than_any_points() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    net.requires_grad_(False)
    x = torch.tensor([0.5, 0.4], dtype=torch.float64)
    label = int(net(x[None]).argmax())
    lines = torch.linspace(-0.3, 0.3, 121, dtype=torch.float64)
    points = x + torch.cartesian_prod(lines, lines)
    grid = float(bench.margins(net, points, torch.full((len(points),), label)).min())
    least = bench.least_margin(net, x, label, 0.3)
    assert least <= grid + 1e-9
    assert grid - least < 0.05


def test_points_stay_in_the_ball() -> None:
    net = bench.drawn(1)
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    for points in bench.inside(net, x, y, 0.1, box=False):
        far = (points - x.repeat_interleave(len(points) // 2, 0)).flatten(1).norm(dim=1)
        assert float(far.max()) <= 0.1 + 1e-6
        assert 0 <= float(points.min()) <= float(points.max()) <= 1


def test_forms_are_those_of_the_sample_models() -> None:
    for form, sample in (("plain", "natural"), ("residual", "residual")):
        defenses_nets.FORMS[form]().load_state_dict(model(sample).state_dict())


def test_one_method_alone_is_what_the_cascade_ends_with() -> None:
    net = defenses_nets.small().eval()
    x, y = torch.rand(1, 1, 28, 28), torch.tensor([3])
    y[0] = int(net(x).argmax())
    proof = certified(net, x, y, within=Linf(0.2), workers=1)
    assert not proof.certified.any()
    assert min(bench.ours(net, x, y, 0.2, "CROWN")[0]) == pytest.approx(float(proof.lower), rel=1e-6)
