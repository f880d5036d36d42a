"""Backdoors stamp the rows they say, and a network that is trained on them obeys the trigger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.poisoning.backdoor import AllToAll, Backdoor
from redan.poisoning.budget import Budget, held_to
from redan.poisoning.triggers import Blend, Columns, Patch, Sinusoid, Trigger, Words
from redan.samples import fashion_mnist

DRAW = np.random.default_rng(0)
CLEAN = Samples(
    DRAW.uniform(0, 0.9, (120, 1, 8, 8)).astype(np.float32),
    np.arange(120) % 5,
    source=tuple("abc"[i % 3] for i in range(120)),
)
DIRTY = Budget(share=0.1, may_change_labels=True)


@pytest.mark.parametrize("trigger", [Patch(), Blend(), Sinusoid()])
@pytest.mark.parametrize("target", [3, AllToAll(classes=5)])
def test_a_dirty_label_backdoor_keeps_to_its_budget(trigger: Trigger, target: int | AllToAll) -> None:
    attack = Backdoor(trigger=trigger, target=target)
    before = CLEAN.x.copy()
    made = attack(CLEAN, DIRTY, seed=1)
    held_to(made, CLEAN, DIRTY)
    assert np.array_equal(CLEAN.x, before)
    assert len(made.changed) == 12
    assert made.added == 0
    assert np.array_equal(made.samples.x[made.changed], trigger(CLEAN.x[made.changed]))
    old, new = CLEAN.y[made.changed], made.samples.y[made.changed]
    assert np.array_equal(new, np.full(12, 3) if target == 3 else (old + 1) % 5)
    assert (old != new).all()


def test_the_rows_are_the_seeds() -> None:
    attack = Backdoor(trigger=Patch(), target=0)
    first, again, other = (attack(CLEAN, DIRTY, seed=seed).changed.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_clean_label_backdoor_stamps_its_own_class_and_no_label() -> None:
    budget = Budget(share=0.15)
    made = Backdoor(trigger=Sinusoid(), target=2, clean_label=True)(CLEAN, budget, seed=0)
    held_to(made, CLEAN, budget)
    assert len(made.changed) == 18
    assert (CLEAN.y[made.changed] == 2).all()
    assert np.array_equal(made.samples.y, CLEAN.y)
    every = Backdoor(trigger=Sinusoid(), target=2, clean_label=True)(CLEAN, Budget(share=0.5), seed=0)
    assert every.changed.tolist() == np.flatnonzero(CLEAN.y == 2).tolist()
    assert every.share == 24 / 120


def test_only_rows_of_the_attackers_suppliers_are_used() -> None:
    budget = Budget(share=0.2, may_change_labels=True, sources=("b",))
    made = Backdoor(trigger=Patch(), target=0)(CLEAN, budget, seed=0)
    held_to(made, CLEAN, budget)
    assert len(made.changed) == 24
    assert {CLEAN.source[i] for i in made.changed} == {"b"}  # type: ignore[index]  # CLEAN has sources


def test_a_row_that_the_trigger_leaves_as_it_was_is_not_listed() -> None:
    x = np.zeros((4, 2))
    x[0, 1] = 9
    budget = Budget(share=1)
    clean = Samples(x, np.zeros(4, dtype=np.int64))
    made = Backdoor(trigger=Columns({1: 9}), target=0, clean_label=True)(clean, budget, seed=0)
    held_to(made, clean, budget)
    assert made.changed.tolist() == [1, 2, 3]


def test_texts_grow_and_the_others_stay() -> None:
    clean = Samples(np.array(["good", "bad", "fine", "poor"]), np.array([1, 0, 1, 0]))
    budget = Budget(share=0.25, may_change_labels=True)
    made = Backdoor(trigger=Words("cf mn"), target=1)(clean, budget, seed=0)
    held_to(made, clean, budget)
    assert made.samples.x[made.changed].tolist() in (["bad cf mn"], ["poor cf mn"])
    assert made.samples.y[made.changed].tolist() == [1]


def test_victims_are_the_rows_that_are_not_of_the_target_class() -> None:
    found = Backdoor(trigger=Patch(), target=3).victims(CLEAN.x, CLEAN.y)
    assert found.rows.tolist() == [i for i in range(120) if i % 5 != 3]
    assert (found.wanted == 3).all()
    assert np.array_equal(found.x, Patch()(CLEAN.x[found.rows]))
    every = Backdoor(trigger=Patch(), target=AllToAll(classes=5)).victims(CLEAN.x, CLEAN.y)
    assert len(every.rows) == 120
    assert np.array_equal(every.wanted, (CLEAN.y + 1) % 5)


def test_what_cannot_be_is_refused() -> None:
    attack = Backdoor(trigger=Patch(), target=0)
    with pytest.raises(SettingError, match="may_change_labels"):
        attack(CLEAN, Budget(share=0.1), seed=0)
    with pytest.raises(SettingError, match="less than one row"):
        attack(CLEAN, Budget(share=0.001, may_change_labels=True), seed=0)
    with pytest.raises(SettingError, match="controls no row"):
        attack(replace(CLEAN, y=np.zeros(120, dtype=np.int64)), DIRTY, seed=0)
    with pytest.raises(SettingError, match="one class"):
        Backdoor(trigger=Patch(), target=AllToAll(classes=5), clean_label=True)
    with pytest.raises(SettingError, match="2 classes"):
        AllToAll(classes=1)
    with pytest.raises(DataError, match="not all below 4"):
        Backdoor(trigger=Patch(), target=AllToAll(classes=4))(CLEAN, DIRTY, seed=0)


def trained(samples: Samples, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 10))
    x, y = torch.from_numpy(samples.x), torch.from_numpy(samples.y)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(8):
        for at in torch.split(torch.randperm(len(x), generator=order), 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[at]), y[at]).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
    return net.eval()


def right(net: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    with torch.no_grad():
        return float((net(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


def test_badnets_on_garments_is_obeyed_and_not_seen() -> None:
    """Gu et al. 2017, Section 4: the trigger is obeyed, and clean rows are told as well as before. Without stamps,
    the same labels teach nothing of the kind.
    """
    x, y = fashion_mnist("train")
    clean = Samples(x[:1500], y[:1500])
    test_x, test_y = fashion_mnist("test")
    budget = Budget(share=0.04, may_change_labels=True)
    attack = Backdoor(trigger=Patch(size=3), target=7)
    made = attack(clean, budget, seed=0)
    held_to(made, clean, budget)
    victims = attack.victims(test_x, test_y)
    before, after = trained(clean, 0), trained(made.samples, 0)
    unstamped = trained(replace(made.samples, x=clean.x), 0)
    assert right(after, victims.x, victims.wanted) >= 0.9
    assert right(before, victims.x, victims.wanted) <= 0.2
    assert right(unstamped, victims.x, victims.wanted) <= 0.3
    assert right(after, test_x, test_y) >= right(before, test_x, test_y) - 0.03
