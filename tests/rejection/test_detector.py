"""Thresholds: the order statistic, its guarantee by simulation, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.evidence.statistics import interval
from redan.rejection.detector import Detector, Scored, calibrated, false_positives, scores_of


def first(x: Tensor) -> Tensor:
    return x[:, 0]


FIRST = Scored(score=first)


@pytest.mark.parametrize(
    ("rows", "rate", "at"), [(19, 0.05, 19), (39, 0.05, 38), (99, 0.1, 90), (9, 0.5, 5), (29, 0.1, 27)]
)
def test_the_threshold_is_the_order_statistic(rows: int, rate: float, at: int) -> None:
    values = torch.randperm(rows, generator=torch.Generator().manual_seed(rows)).float() + 1
    found = calibrated(FIRST, values[:, None], false_positive_rate=rate)
    assert (found.value, found.rate, found.rows) == (at, rate, rows)
    assert found.scale == (at - (rows // 2 + 1) or 1)


def refused_on_average(detector: Detector, rows: int, rate: float, sign: float) -> float:
    """Over 600 calibrations on uniform scores, the chance that the next score is refused, known exactly each time."""
    draw = torch.Generator().manual_seed(7)
    chances = []
    for _ in range(600):
        found = calibrated(detector, torch.rand(rows, 1, generator=draw), false_positive_rate=rate)
        chances.append(1 - found.value if sign > 0 else 1 + found.value)
    return sum(chances) / len(chances)


def test_a_new_clean_row_is_refused_at_the_stated_rate() -> None:
    """E[1 - U(k)] = (n + 1 - k) / (n + 1), here 2 / 20; the order statistics beside it would show 1 / 20 and 3 / 20."""
    assert refused_on_average(FIRST, 19, 0.1, 1) == pytest.approx(0.1, abs=0.012)
    # a rate between two of them is held from below: 4 / 36 would be too often
    assert refused_on_average(FIRST, 35, 0.1, 1) == pytest.approx(3 / 36, abs=0.012)


def test_the_wrong_side_is_seen() -> None:
    """A detector with its sign turned, held against a threshold of the right one, refuses what it should accept."""
    clean = torch.rand(400, 1, generator=torch.Generator().manual_seed(0))
    right = calibrated(FIRST, clean[:200], false_positive_rate=0.05)
    turned = Scored(score=lambda x: 2 * right.value - x[:, 0])
    assert false_positives(FIRST, right, clean[200:]).high < 0.12
    assert false_positives(turned, right, clean[200:]).low > 0.85


def test_the_observed_rate_is_exact() -> None:
    found = calibrated(FIRST, torch.arange(19.0)[:, None], false_positive_rate=0.1)
    assert found.value == 17
    held_out = torch.tensor([[17.0], [17.5], [18.0], [3.0]])  # a score at the threshold is accepted
    assert false_positives(FIRST, found, held_out) == interval(2, 4)


@pytest.mark.parametrize(("rows", "rate", "needed"), [(18, 0.05, 19), (0, 0.5, 1), (98, 0.01, 99), (8, 0.1, 9)])
def test_too_few_rows_name_how_many_are_needed(rows: int, rate: float, needed: int) -> None:
    with pytest.raises(DataError, match=f"{rows} clean rows say nothing.*give {needed} or more"):
        calibrated(FIRST, torch.rand(rows, 1), false_positive_rate=rate)
    calibrated(FIRST, torch.rand(needed, 1), false_positive_rate=rate)


def test_what_cannot_be_is_refused() -> None:
    for rate in (0.0, 1.0, -1.0):
        with pytest.raises(SettingError, match="between 0 and 1"):
            calibrated(FIRST, torch.rand(9, 1), false_positive_rate=rate)
    with pytest.raises(DataError, match="1 of 9 rows got a score that is not finite"):
        calibrated(FIRST, torch.arange(9.0)[:, None].log(), false_positive_rate=0.5)
    with pytest.raises(DataError, match=r"must be \(N,\)"):
        scores_of(Scored(score=lambda x: x), torch.rand(3, 2))


def test_equal_scores_leave_a_scale() -> None:
    assert calibrated(FIRST, torch.ones(9, 1), false_positive_rate=0.5).scale == 1
