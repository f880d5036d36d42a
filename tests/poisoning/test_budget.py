"""A poisoner is held to its budget, whatever it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from redan.data.samples import Samples
from redan.errors import SetError, SettingError
from redan.poisoning.budget import Budget, Poisoned, held_to

CLEAN = Samples(
    np.random.default_rng(0).random((40, 3)), np.arange(40) % 4, source=tuple("ab"[i % 2] for i in range(40))
)


def poisoned(at: list[int], *, label: bool = False, listed: list[int] | None = None, extra: int = 0) -> Poisoned:
    x, y = CLEAN.x.copy(), CLEAN.y.copy()
    x[at] += 1
    if label:
        y[at] = (y[at] + 1) % 4
    x, y = np.concatenate([x, x[:extra]]), np.concatenate([y, y[:extra]])
    told = sorted(at if listed is None else listed) + list(range(40, 40 + extra))
    return Poisoned(samples=replace(CLEAN, x=x, y=y), changed=np.array(told, dtype=np.int64), added=extra)


def test_what_keeps_to_the_budget_is_let_through() -> None:
    held_to(poisoned([1, 5]), CLEAN, Budget(share=0.05))
    held_to(poisoned([1, 5], label=True), CLEAN, Budget(share=0.05, may_change_labels=True))
    held_to(poisoned([1], extra=1), CLEAN, Budget(share=0.05))
    held_to(poisoned([0, 2]), CLEAN, Budget(share=0.05, sources=("a",)))
    assert poisoned([39]).share == 1 / 40  # the last row was changed, and none was added
    assert poisoned([1], extra=1).share == 2 / 40


@pytest.mark.parametrize(
    ("made", "budget", "message"),
    [
        (poisoned([1, 2, 3]), Budget(share=0.05), "overspent"),
        (poisoned([1, 2], listed=[1]), Budget(share=0.05), "not listed is not as it was"),
        (poisoned([1], label=True), Budget(share=0.05), "a label was changed"),
        (poisoned([1]), Budget(share=0.05, sources=("a",)), "another supplier"),
        (poisoned([1], listed=[1, 1]), Budget(share=0.1), "once each"),
        (replace(poisoned([], extra=2), changed=np.array([40])), Budget(share=0.1), "added that are not listed"),
        (replace(poisoned([], extra=2), added=1), Budget(share=0.1), "2 rows were added, and the poisoner says 1"),
    ],
)
def test_what_does_not_is_refused(made: Poisoned, budget: Budget, message: str) -> None:
    with pytest.raises(SetError, match=message):
        held_to(made, CLEAN, budget)


def test_rows_of_a_budget() -> None:
    assert [Budget(share=share).rows(CLEAN) for share in (0.01, 0.025, 0.1, 1.0)] == [0, 1, 4, 40]
    assert Budget(share=0.1, sources=("b",)).controlled(CLEAN).tolist() == list(range(1, 40, 2))
    with pytest.raises(SettingError, match="have none"):
        Budget(share=0.1, sources=("b",)).controlled(replace(CLEAN, source=None))
    for share in (0.0, -0.1, 1.1):
        with pytest.raises(SettingError, match="above 0"):
            Budget(share=share)
