"""The forecast: exact where the pilot saw all, near the truth where it did not, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import redan
from redan.assessment.forecast import _all_rows, _scattered, _spread, forecast
from redan.errors import PreflightError, RedanError

Write = Callable[..., Path]


@pytest.mark.parametrize("count", [0, 1, 3, 31, 32, 33, 100, 256, 10_000])
@pytest.mark.parametrize("most", [4, 8, 32])
def test_a_pilot_spans_all_ranks(count: int, most: int) -> None:
    ranks = _spread(count, most)
    assert len(ranks) == len(set(ranks.tolist())) <= most
    assert len(ranks) >= min(count, most) * 0.6
    assert set(ranks.tolist()) <= set(range(count))
    if count:
        assert {0, count - 1} <= set(ranks.tolist())
    rest = _scattered(count, ranks)
    assert sorted([*ranks.tolist(), *rest.tolist()]) == list(range(count))


def test_rows_between_are_interpolated_by_rank_and_rows_wrong_already_cost_nothing() -> None:
    ranked = np.array([5, 2, 0, 3, 1])  # row 4 is wrong on its clean input
    spent = [torch.tensor([[8, 80], [0, 0]]), torch.tensor([[4, 10]])]
    whole = _all_rows(spent, np.array([0, 4, 2]), ranked, 6)
    assert whole[[5, 2, 0, 3, 1], 0].tolist() == [8, 6, 4, 2, 0]
    assert whole[[5, 2, 0, 3, 1], 1].tolist() == [80, 45, 10, 5, 0]
    assert whole[4].tolist() == [0, 0]


def test_nobody_to_attack_costs_nothing() -> None:
    assert _all_rows([torch.zeros(0, 2)], np.array([], dtype=int), np.array([], dtype=int), 3).sum() == 0


def passes(report: redan.Report) -> tuple[int, int]:
    attacks = [attack for part in report.attackers for attack in part.attacks]
    return sum(a.queries for a in attacks), sum(a.forwards + a.backwards for a in attacks)


@pytest.mark.parametrize("weak", [0, 3, 28])
def test_a_forecast_is_near_what_the_assessment_takes(shop: Write, tmp_path: Path, weak: int) -> None:
    path = shop(weak=weak, attacks__mode="default")
    outlook = forecast(path)
    assert not (tmp_path / "runs").exists()
    (told,) = outlook.attackers
    queries, whole = passes(redan.assess(path))
    assert 0.5 * queries <= told.queries <= 2 * queries
    assert 0.5 * whole <= told.passes <= 2 * whole
    assert outlook.seconds > told.seconds > 0
    assert told.usd is None


def test_a_pilot_of_all_rows_is_exact(shop: Write) -> None:
    path = shop(weak=32)  # they break at once: the pilot may go on to the last
    (told,) = forecast(path).attackers
    assert (told.queries, told.passes) == passes(redan.assess(path))


def test_surrogates_passes_are_no_queries(shop: Write) -> None:
    lent = [{"factory": "{shop}:build", "arguments": {"kind": "Pairs"}}]
    path = shop(weak=0, attackers__0__knowledge="surrogate", attackers__0__surrogates=lent)
    (told,) = forecast(path).attackers
    assert (told.queries, told.passes) == passes(redan.assess(path)) == (32, 32 * 21)


def test_money(shop: Write) -> None:
    priced = {"attackers__0__knowledge": "scores"}
    capability = {"queries_per_row": 40, "usd_per_1000_queries": 2.0}
    (told,) = forecast(shop(**priced, attackers__0__capability=capability)).attackers
    assert told.usd == pytest.approx(told.queries * 0.002)
    assert told.queries > 0


def test_what_assess_refuses_is_refused(shop: Write) -> None:
    with pytest.raises(PreflightError):
        forecast(shop(system__expect={"clean_accuracy": 0.1, "within": 0.01}))
    with pytest.raises(RedanError):
        forecast("gone.yaml")
