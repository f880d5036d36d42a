"""Rows that would decide: beside a walk over every number of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redan.evidence.sample_size import rows_to_decide
from redan.evidence.sequences import sequence_p_at_least, sequence_p_at_most
from redan.evidence.statistics import p_at_least, p_at_most

MANY = settings(max_examples=200, deadline=None, derandomize=True)
FARTHEST = 3000
Test = Callable[[float, float, float], float]
TESTS: dict[str, tuple[Test, Test]] = {
    "fixed": (p_at_least, p_at_most),
    "gate": (partial(sequence_p_at_least, planned=500), partial(sequence_p_at_most, planned=500)),
}


@MANY
@given(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.floats(0.02, 0.98),
    st.sampled_from([0.2, 0.05, 0.001]),
    st.sampled_from(list(TESTS)),
    st.booleans(),
)
def test_it_is_the_first_number_of_rows_that_decides(
    count: tuple[int, int], threshold: float, level: float, kind: str, above: bool
) -> None:
    (k, n), test = count, TESTS[kind][not above]

    def decides(rows: int) -> bool:
        whole = k * rows // n if above else -(-k * rows // n)
        return test(whole, rows, threshold) <= level

    beyond = k - threshold * n if above else threshold * n - k
    if beyond <= 0.5:
        return  # the caller does not ask
    found = rows_to_decide(lambda k, n: test(k, n, threshold), k, n, level, above=above)
    first = next((rows for rows in range(n, FARTHEST) if decides(rows)), None)
    if first is None:
        assert found is None or found >= FARTHEST
    else:
        assert found == first


def test_by_hand() -> None:
    """Where all rows hold, 0.9ⁿ ≤ 0.05 from 29 rows on; a rate of the threshold or below it never shows more."""
    against = partial(lambda k, n, t: p_at_least(k, n, t), t=0.9)
    assert rows_to_decide(against, 5, 5, 0.05, above=True) == 29
    assert rows_to_decide(against, 40, 40, 0.05, above=True) == 40  # they do already
    assert rows_to_decide(against, 80, 100, 0.05, above=True) is None
    assert rows_to_decide(against, 9, 10, 0.05, above=True) is None


@pytest.mark.parametrize("above", [True, False])
def test_a_narrow_margin_needs_many_rows(above: bool) -> None:
    """By the normal law about 1.645² · 0.25 / 0.001² rows, for a margin of a thousandth."""
    test = partial(lambda k, n, t: (p_at_least if above else p_at_most)(k, n, t), t=0.499 if above else 0.501)
    found = rows_to_decide(test, 5000, 10_000, 0.05, above=above)
    assert found == pytest.approx(1.645**2 * 0.25 / 0.001**2, rel=0.01)
