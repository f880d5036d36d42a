"""Certified accuracy of a file: counts beside closed forms, trees beside another way, verdicts that no doubt passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import redan
from redan.assessment.assess import inspect
from redan.assessment.certificates import Subject
from redan.assessment.certifying import How, certify
from redan.assessment.provers import Bounds
from redan.certification.smoothing import Smoothing
from redan.errors import NotCertifiableError, SettingError
from redan.evidence.report import Verdict
from redan.evidence.statistics import lower_bound, upper_bound
from redan.perturbations.norms import Linf

Write = Callable[..., Path]
DUAL = {"linf": 4.0, "l2": 2.0}
"""‖w_y − w_k‖ of the shop's linear model in the dual norm: four numbers of ±1."""


def margins(folder: Path) -> NDArray[np.float64]:
    """By how much the right class of each row leads."""
    with np.load(folder / "rows.npz") as rows:
        x, y = rows["x"].astype(np.float64), rows["y"]
    z = x[:, :6].reshape(len(x), 3, 2).sum(2)
    own = z[np.arange(len(y)), y]
    z[np.arange(len(y)), y] = -np.inf
    found: NDArray[np.float64] = own - z.max(1)
    return found


# -- closed forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_has_the_count_of_its_margins(shop: Write, norm: str) -> None:
    """The margin over the dual norm is the distance; no ball leaves the box."""
    path = shop(weak=9, attackers__0__change={norm: 0.05})
    distance = np.sort(margins(path.parent) / DUAL[norm])
    radii = [float((distance[i] + distance[i + 1]) / 2) for i in (0, 3, 7, 8)]
    found = certify(path, radii=radii, workers=1)
    assert [line.k for line in found.lines] == [31, 28, 24, 23]
    assert [line.open for line in found.lines] == [1, 4, 8, 9]
    for line in found.lines:
        assert (line.norm, line.n, line.right, line.subject) == (norm, 32, 32, Subject.SERVED)
        assert (line.completeness, line.certainty, line.samples) == ("incomplete", "deterministic", None)
        ends = lower_bound(line.k, 32, 0.025), upper_bound(line.k, 32, 0.025)
        assert (line.interval.low, line.interval.high) == pytest.approx(ends)
    assert (found.verdict, found.exit_code, found.stopped) == (None, 0, None)


def test_the_attackers_own_radii_are_the_default(shop: Write) -> None:
    other = {"name": "someone", "kind": "evasion", "why": "too", "goal": "untargeted", "knowledge": "gradients"}
    path = shop(weak=9, attackers__1={**other, "change": {"l2": 0.2}})
    linf, l2 = certify(path, workers=1).lines
    assert (linf.norm, linf.radius, linf.covers, linf.k) == ("linf", 0.1, ["anyone"], 23)
    assert (l2.norm, l2.radius, l2.covers, l2.k) == ("l2", 0.2, ["someone"], 23)


def test_rows_that_are_wrong_are_broken_at_any_radius(shop: Write) -> None:
    path = shop(weak=0)
    with np.load(path.parent / "rows.npz") as rows:
        x, y = rows["x"], rows["y"].copy()
    y[:5] = (y[:5] + 1) % 3
    np.savez(path.parent / "rows.npz", x=x, y=y)
    (line,) = certify(path, workers=1).lines
    assert (line.k, line.right, line.open) == (27, 27, 0)


def test_no_number_depends_on_cores_and_rows_are_the_first(shop: Write) -> None:
    path = shop(weak=9)
    one, two = (certify(path, workers=n, rows=20) for n in (1, 2))
    assert [(a.k, a.n, a.open) for a in one.lines] == [(a.k, a.n, a.open) for a in two.lines]
    x, y = (inspect(path).built.x[:20], inspect(path).built.y[:20])
    module = nn.Linear(7, 3, bias=False).eval()
    module.weight.data = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0]])
    assert one.lines[0].k == int(redan.certified(module, x, y, within=Linf(0.1)).certified.sum())


# -- smoothing -------------------------------------------------------------------------------------------


def test_smoothing_says_that_another_model_is_certified(shop: Write) -> None:
    path = shop(weak=8, requirements__0={"metric": "certified_accuracy", "at_least": 0.1})
    noise = Smoothing(sigma=0.25, draws=2_000)
    found = certify(path, method=How.SMOOTHING, smoothing=noise, radii=[0.25], workers=1)
    (line,) = found.lines
    assert line.k == 24  # margins of 1 and more are distances of 0.5; those of the weak are 0.15 at the most
    assert (line.norm, line.subject, line.covers, found.served_right) == ("l2", Subject.SMOOTHED, [], 32)
    assert line.certainty == "probabilistic"
    assert line.samples is not None
    assert found.exit_code == 3
    assert "nothing was certified that holds all" in found.requirements[0].reasons[0]


def test_the_ball_around_a_cube_holds_it(shop: Write) -> None:
    path = shop(attackers__0__change={"linf": 0.05}, requirements__0={"metric": "certified_accuracy", "at_least": 0.1})
    noise = Smoothing(sigma=0.25, draws=2_000)
    found = certify(path, method=How.SMOOTHING, smoothing=noise, workers=1)
    (line,) = found.lines
    assert line.radius == pytest.approx(0.05 * math.sqrt(7))
    assert line.covers == ["anyone"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "the smoothed model was certified, and the file serves" in found.requirements[0].reasons[0]


def test_a_radius_that_no_row_can_have_is_told(shop: Write) -> None:
    noise = Smoothing(sigma=0.1, draws=100)
    found = certify(shop(), method=How.SMOOTHING, smoothing=noise, radii=[0.9], workers=1)
    assert found.lines[0].k == 0
    (note,) = found.notes
    assert note.startswith("no row can have the radius 0.9: sigma 0.1 and 100 samples show 0.15")


# -- trees -----------------------------------------------------------------------------------------------


@pytest.mark.extras
def test_a_file_of_trees_is_certified_exactly(shop: Write, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    for inputs in ({"kind": "tensor", "shape": [7], "bounds": [0, 1]}, {"kind": "table"}):
        path = shop(
            weak=12,
            system__model={"trees": "model.json"},
            system__output="probabilities",
            system__inputs=inputs,
            attackers__0__knowledge="scores",
            attackers__0__change={"linf": 0.05},
            requirements__0={"metric": "certified_accuracy", "at_least": 0.99},
        )
        with np.load(tmp_path / "rows.npz") as rows:
            x, y = rows["x"], rows["y"]
        fit = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, xgboost.DMatrix(x, y), 5)
        fit.save_model(tmp_path / "model.json")
        found = certify(path, radii=[0.01, 0.05, 0.3], workers=1)
        assert [line.completeness for line in found.lines] == ["complete"] * 3
        ks = [line.k for line in found.lines]
        assert ks == sorted(ks, reverse=True)
        assert ks[0] > ks[2]
        built = inspect(path).built
        for line in found.lines:
            broken = redan.attack(
                built.target, built.x, built.y, attack=redan.Square(queries=200), within=Linf(line.radius), workers=1
            )
            assert line.k + int(broken.success.sum()) <= 32


# -- limits, and what is refused -------------------------------------------------------------------------


def test_limits_end_it_and_say_so(shop: Write) -> None:
    found = certify(shop(limits={"queries": 20}, requirements__0__metric="certified_accuracy"), workers=1)
    assert (found.stopped, found.lines[0].n, found.rows) == ("limits.queries", 16, 32)
    assert found.verdict is Verdict.INCONCLUSIVE


def test_money_is_kept_to(shop: Write) -> None:
    path = shop(
        limits={"usd": 1.0},
        attackers__0__knowledge="scores",
        attackers__0__capability={"usd_per_1000_queries": 50.0},  # 20 answers
    )
    found = certify(path, workers=1)
    assert (found.stopped, found.lines[0].n) == ("limits.usd", 16)


def test_an_interrupt_keeps_the_rows_before(shop: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    whole = Bounds.__call__

    def stops(self: Bounds, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(Bounds, "__call__", stops)
    found = certify(shop(weak=0), workers=1)
    assert (found.stopped, found.lines[0].n, found.lines[0].k) == ("interrupted", 16, 16)


def test_it_tells_how_far_it_is(shop: Write) -> None:
    told: list[tuple[str, float, int]] = []
    certify(shop(), workers=1, watch=lambda name, now: told.append((name, now.share, now.settled)))
    assert told == [("anyone", n / 32, n) for n in (8, 16, 24, 32)]


def test_what_does_not_go_together_is_refused(shop: Write) -> None:
    path = shop()
    for settings, words in (
        ({"method": How.SMOOTHING}, "smoothing needs a sigma"),
        ({"smoothing": Smoothing(sigma=0.5)}, "smoothing needs a sigma"),
        ({"radii": [0.0]}, "finite and above 0"),
        ({"patches": [3], "radii": [0.1]}, "give patches alone"),
        ({"rows": 0}, "rows are 1 or more"),
    ):
        with pytest.raises(SettingError, match=words):
            certify(path, **settings)
    with pytest.raises(NotCertifiableError, match="patches are of images"):
        certify(path, patches=[3])
    with pytest.raises(NotCertifiableError, match="for trees"):
        certify(path, method=How.EXACT)
