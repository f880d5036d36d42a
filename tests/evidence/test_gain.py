"""What a defense is worth, row by row."""

from __future__ import annotations

import pytest

from redan.evidence.gain import Gain, Held, gained

ROWS = 200


def side(held: int, undecided: int = 0) -> Held:
    """The first rows hold, the ones after them are open."""
    return Held([row < held for row in range(ROWS)], [held <= row < held + undecided for row in range(ROWS)])


@pytest.mark.parametrize(
    ("bare", "served", "verdict"),
    [
        (side(10), side(150), Gain.GAIN),
        (side(100), side(100), Gain.NO_GAIN),
        (side(150), side(10), Gain.NO_GAIN),
        (side(100), side(106), Gain.NOT_SHOWN),
        (side(100), side(112), Gain.GAIN),
    ],
)
def test_rows_that_hold_with_and_without_it(bare: Held, served: Held, verdict: Gain) -> None:
    assert gained(bare, served) is verdict


def test_open_rows_only_take_a_verdict_away() -> None:
    assert gained(side(10, 140), side(150)) is Gain.NOT_SHOWN
    assert gained(side(10), side(10, 140)) is Gain.NOT_SHOWN
    assert gained(side(100), side(100, 60)) is Gain.NOT_SHOWN
    assert gained(side(10, 20), side(150)) is Gain.GAIN


def test_a_larger_margin_makes_more_of_it_no_gain() -> None:
    assert gained(side(100), side(106), margin=0.2) is Gain.NO_GAIN
