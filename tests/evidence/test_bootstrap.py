"""Bootstrap bounds of a mean of rows: against the normal law, symmetric, monotone, the same at each call."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from redan.errors import SettingError
from redan.evidence.bootstrap import bootstrap_bounds

histograms = st.lists(st.integers(0, 30), min_size=2, max_size=21).filter(lambda bins: sum(bins) > 0)
FEW = settings(max_examples=40, deadline=None, derandomize=True)


def mean(histogram: list[int]) -> float:
    steps = len(histogram) - 1
    return sum(i * count for i, count in enumerate(histogram)) / steps / sum(histogram)


@pytest.mark.parametrize(
    ("histogram", "expected"),
    [
        ([0, 10], (0.05**0.1, 1.0)),
        ([10, 0], (0.0, 1 - 0.05**0.1)),
        ([0, 7, 0], (0.5 * 0.05 ** (1 / 7), 1 - 0.5 * 0.05 ** (1 / 7))),
    ],
)
def test_rows_that_all_agree_are_still_only_so_many(histogram: list[int], expected: tuple[float, float]) -> None:
    assert bootstrap_bounds(histogram, 0.05) == pytest.approx(expected)


def test_of_no_row_nothing_is_known() -> None:
    assert bootstrap_bounds([0, 0, 0], 0.05) == (0.0, 1.0)


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.025])
def test_many_rows_follow_the_normal_law(alpha: float) -> None:
    rows = [400, 100, 200, 0, 300]
    low, high = bootstrap_bounds(rows, alpha)
    values = np.repeat(np.linspace(0, 1, 5), rows)
    reach = {0.1: 1.2816, 0.05: 1.6449, 0.025: 1.96}[alpha] * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert high == pytest.approx(values.mean() + reach, abs=0.1 * reach)


def test_coverage_is_near_what_it_says() -> None:
    """Of 400 samples of 60 rows the lower bound at 10 % lies above the true mean 24 to 72 times (four deviations)."""
    draw = np.random.default_rng(3)
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    truth = float(shares @ np.linspace(0, 1, 4))
    above = sum(bootstrap_bounds(draw.multinomial(60, shares).tolist(), 0.1)[0] > truth for _ in range(400))
    assert 16 <= above <= 72


@FEW
@given(histograms, st.sampled_from([0.2, 0.05, 0.01]))
def test_bounds_hold_the_mean_and_lie_in_the_box(histogram: list[int], alpha: float) -> None:
    low, high = bootstrap_bounds(histogram, alpha)
    assert 0 <= low <= high <= 1
    assert low - 1e-9 <= mean(histogram) <= high + 1e-9


@FEW
@given(histograms)
def test_surer_bounds_are_wider(histogram: list[int]) -> None:
    wide, narrow = bootstrap_bounds(histogram, 0.01), bootstrap_bounds(histogram, 0.2)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


@FEW
@given(histograms, st.integers(1, 40))
def test_more_rows_at_the_top_raise_both_bounds(histogram: list[int], more: int) -> None:
    assume(histogram[0] >= 1)
    more = min(more, histogram[0])
    raised = [histogram[0] - more, *histogram[1:-1], histogram[-1] + more]
    slack = 3 * 0.5 / math.sqrt(sum(histogram)) * 0.05  # of drawing again
    before, after = bootstrap_bounds(histogram, 0.05), bootstrap_bounds(raised, 0.05)
    assert after[0] >= before[0] - slack
    assert after[1] >= before[1] - slack


def test_the_same_rows_get_the_same_bounds_and_a_seed_changes_them_little() -> None:
    rows = [3, 5, 7, 11]
    assert bootstrap_bounds(rows, 0.05) == bootstrap_bounds(rows, 0.05)
    assert bootstrap_bounds(rows, 0.05, seed=1) == pytest.approx(bootstrap_bounds(rows, 0.05), abs=0.03)


@pytest.mark.parametrize("histogram", [[], [5], [3, -1]])
def test_no_histogram_is_refused(histogram: list[int]) -> None:
    with pytest.raises(SettingError, match="histogram needs two bins at least and no negative count"):
        bootstrap_bounds(histogram, 0.05)
