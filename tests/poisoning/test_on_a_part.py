"""Rows that are made on a part of the training set and added to all of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning.budget import Budget, Poisoned, held_to
from redan.poisoning.gradient_poisoning import GradientPoisoning
from redan.poisoning.insertion import Insertion
from redan.poisoning.label_flips import RandomFlips
from redan.poisoning.linear_learners import ridge
from redan.poisoning.on_a_part import OnAPart

DRAW = np.random.default_rng(0)
Y = np.arange(200) % 2
CLEAN = Samples(
    np.clip(0.5 + 0.1 * (2 * Y - 1)[:, None] + 0.1 * DRAW.standard_normal((200, 3)), 0, 1).astype(np.float32),
    Y,
    ids=tuple(f"added-{i}" for i in range(200)),  # as a second attacker finds them
    source=tuple("abcd"[i // 2 % 4] for i in range(200)),
)
COUNTED = Budget(share=0.1, may_change_labels=True, sources=("c",))


@dataclass
class Watched:
    """Gradient poisoning, and what it was given."""

    seen: list[tuple[Samples, Budget]] = field(default_factory=list)

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        self.seen.append((samples, budget))
        by = GradientPoisoning(learner=ridge(), validation=CLEAN, attacked=1, steps=2)
        return by(samples, budget, seed=seed)


def test_a_part_is_seen_and_all_of_the_budget_is_spent() -> None:
    watched = Watched()
    made = OnAPart(poisoner=watched, rows=40, made=4)(CLEAN, COUNTED, seed=1)
    held_to(made, CLEAN, COUNTED)
    ((part, budget),) = watched.seen
    assert len(part) == 40
    assert budget.rows(part) == 4
    assert (part.source or ()).count("c") >= 20
    assert made.added == 20
    assert made.share == pytest.approx(0.1)
    added = made.samples.x[200:]
    assert len(np.unique(added, axis=0)) <= 4
    assert np.array_equal(added[:4], added[4:8])
    assert set((made.samples.source or ())[200:]) == {"c"}
    assert len(set(made.samples.ids or ())) == 220


def test_the_same_for_the_same_seed_and_another_part_for_another() -> None:
    by = OnAPart(poisoner=Watched(), rows=40, made=4)
    one, again, other = (by(CLEAN, COUNTED, seed=seed).samples.x for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_small_set_is_seen_whole() -> None:
    plain = Samples(CLEAN.x[:30], CLEAN.y[:30])
    budget = Budget(share=0.1, may_change_labels=True)
    by = Insertion(targets=plain.x[:1], label=1)
    found, whole = OnAPart(poisoner=by)(plain, budget, seed=0), by(plain, budget, seed=0)
    assert np.array_equal(found.samples.x, whole.samples.x)
    assert found.samples.ids is found.samples.source is None


def test_what_changes_rows_is_refused() -> None:
    with pytest.raises(SettingError, match="only a poisoner that adds rows"):
        OnAPart(poisoner=RandomFlips())(CLEAN, COUNTED, seed=0)
    with pytest.raises(SettingError, match="2 rows at least"):
        OnAPart(poisoner=RandomFlips(), rows=1)
