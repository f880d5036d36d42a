"""Whose rows were poisoned."""

from __future__ import annotations

import numpy as np
import pytest

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning.backdoor import Backdoor
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.insertion import Insertion
from redan.poisoning.sources import OfSource, by_source
from redan.poisoning.triggers import Columns

ROWS = Samples(np.zeros((20, 3)), np.arange(20) % 2, source=tuple("honest" if i < 12 else "other" for i in range(20)))


def test_all_changed_rows_are_somebodys() -> None:
    budget = Budget(share=0.2, may_change_labels=True, sources=("other",))
    made = Backdoor(trigger=Columns({0: 1.0}), target=1)(ROWS, budget, seed=0)
    found = by_source(made)
    assert found == {"honest": OfSource(0, 12), "other": OfSource(len(made.changed), 8)}
    assert found["other"].share == len(made.changed) / 8
    assert sum(each.changed for each in found.values()) == round(made.share * len(ROWS))


def test_added_rows_count_among_their_suppliers() -> None:
    budget = Budget(share=0.1, may_change_labels=True, sources=("other",))
    made = Insertion(targets=np.ones((1, 3)), label=1)(ROWS, budget, seed=0)
    assert by_source(made)["other"] == OfSource(2, 10)


def test_rows_without_a_source_are_refused() -> None:
    nameless = Samples(ROWS.x, ROWS.y)
    with pytest.raises(SettingError, match=r"data\.train\.source"):
        by_source(Poisoned(samples=nameless, changed=np.array([0])))
