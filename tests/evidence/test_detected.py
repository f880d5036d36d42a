"""How many clean rows a detector refuses, from what they were answered."""

from __future__ import annotations

import pytest

from redan.evidence.detected import DetectorHead, Refusals, over_rate
from redan.evidence.statistics import interval

HEAD = DetectorHead(name="mahalanobis(magnitude=0)", rate=0.05, threshold=2.0, rows=200, fit=1000)


def refusals(refused: int, rows: int) -> Refusals:
    found = Refusals(HEAD, rows, 3)
    for row in range(rows):
        found.see(row, 3 if row < refused else row % 3)
    return found


def test_the_answer_after_the_last_class_is_a_refusal() -> None:
    part = refusals(2, 40).part(40, 0.95)
    exact = interval(2, 40, 0.95)
    assert (part.refused, part.rows, part.low, part.high) == (2, 40, exact.low, exact.high)
    assert (part.false_positive_rate, part.calibrated_on, part.fit_to, part.measured) == (0.05, 200, 1000, 0.05)


@pytest.mark.parametrize(("refused", "exceeded"), [(0, False), (5, False), (6, True), (40, True)])
def test_it_exceeds_its_rate_where_the_exact_bound_says_so(refused: int, exceeded: bool) -> None:
    part = refusals(refused, 40).part(40, 0.95)
    assert part.exceeded is exceeded is (interval(refused, 40, 0.95).low > 0.05)
    assert f"refuses {refused} of 40 clean rows" in over_rate(part)


def test_rows_without_an_answer_are_not_counted_and_the_last_answer_counts() -> None:
    found = Refusals(HEAD, 4, 3)
    found.see(0, None)
    found.see(1, 3)
    found.see(1, 0)
    found.see(2, 3)
    part = found.part(4, 0.95)
    assert (part.refused, part.rows) == (1, 2)
    assert found.part(2, 0.95).refused == 0  # of the first rows alone


def test_of_no_row_nothing_is_known() -> None:
    part = Refusals(HEAD, 4, 3).part(4, 0.95)
    assert (part.rows, part.low, part.high, part.exceeded, part.measured) == (0, 0.0, 1.0, False, 0.0)
