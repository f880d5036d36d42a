"""Poisoners of the registry: each is documented, builds for a scene, keeps to the budget and repeats itself by seed."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning.backdoor import AllToAll
from redan.poisoning.budget import Budget, Poisoned, held_to
from redan.poisoning.crafting import seeded
from redan.poisoning.scene import PoisonGoal, Scene
from redan.poisoning.triggers import Blend, Columns, Patch, Sinusoid, Trigger
from redan.protocols import settings
from redan.registry.features import Penultimate
from redan.registry.poisoners import POISONERS, WIDEST, PoisonerEntry, poisoner

every = pytest.mark.parametrize("each", POISONERS, ids=[each.name for each in POISONERS])
crafted = pytest.mark.parametrize("each", [e for e in POISONERS if e.trains], ids=lambda e: str(e.name))
relabeled = pytest.mark.parametrize("each", [e for e in POISONERS if e.labels], ids=lambda e: str(e.name))


def network(classes: int, width: int, seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, classes)).eval()


def fit(samples: Samples, seed: int) -> nn.Module:
    """A tiny network after a few steps."""
    classes = int(samples.y.max()) + 1
    model = network(classes, int(np.prod(samples.x.shape[1:])), seed)
    x, y = torch.tensor(samples.x), torch.tensor(samples.y.astype(np.int64))
    descent = torch.optim.SGD(model.parameters(), lr=0.5)
    model.train()
    for _ in range(10):
        descent.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        descent.step()
    return model.eval()


def rows(classes: int, shape: tuple[int, ...], count: int, seed: int) -> Samples:
    """Classes that a linear model tells apart, nearly."""
    draw = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centers = np.random.default_rng(9).random((classes, *shape))
    x = np.clip(0.5 * centers[y] + 0.25 + 0.25 * (draw.random((count, *shape)) - 0.5), 0, 1)
    return Samples(x.astype(np.float32), y, source=tuple("ab"[i // classes % 2] for i in range(count)))


def shown(each: PoisonerEntry) -> tuple[Samples, Scene]:
    """Rows that the poisoner is for, and a scene."""
    classes = 2 if each.name == "gradient-poisoning" else 3
    shape = (6,) if Columns in each.triggers else (1, 6, 6)
    clean, held_out = rows(classes, shape, 60, 1), rows(classes, shape, 30, 2)
    planted: dict[tuple[type, ...], Trigger] = {
        (): Patch(size=2),
        (Patch,): Patch(size=2),
        (Blend,): Blend(),
        (Columns,): Columns({1: 1.0}),
        (Sinusoid,): Sinusoid(),
    }
    scene = Scene(
        classes=classes,
        held_out=held_out,
        bounds=(0.0, 1.0),
        fit=fit,
        surrogates=(fit(clean, 3),),
    )
    match each.goal:
        case PoisonGoal.BACKDOOR:
            return clean, replace(scene, trigger=planted[each.triggers], target=1)
        case PoisonGoal.TARGETED_ROWS:
            return clean, replace(scene, rows=held_out.x[:1], label=1)
    return clean, scene


def made(each: PoisonerEntry, budget: Budget, seed: int = 5) -> tuple[Samples, Poisoned]:
    clean, scene = shown(each)
    return clean, each.make(scene)(clean, budget, seed=seed)


def test_names_are_unique() -> None:
    names = [each.name for each in POISONERS]
    assert len(set(names)) == len(names)
    for each in POISONERS:
        assert poisoner(each.name) is each


@every
def test_an_entry_is_complete(each: PoisonerEntry) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each.name)
    assert each.paper == "a baseline" or re.search(r"\b20\d\d, arXiv:\d{4}\.\d{4,5}$", each.paper)
    assert "AML.T0020" in each.techniques
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", technique) for technique in each.techniques)
    assert ("AML.T0018.000" in each.techniques) == (each.goal is PoisonGoal.BACKDOOR)
    assert each.goal is PoisonGoal.BACKDOOR or not each.triggers


@every
def test_an_entry_s_poisoner_is_documented_and_can_be_told(each: PoisonerEntry) -> None:
    _, scene = shown(each)
    built = each.make(scene)
    doc, module = inspect.getdoc(type(built)), inspect.getdoc(sys.modules[type(built).__module__])
    assert doc
    assert module
    told = settings(built)
    assert told.startswith(type(built).__name__)
    assert "0x" not in told, "settings name values, not addresses"


@every
@pytest.mark.parametrize("sources", [(), ("b",)], ids=["all", "one source"])
def test_an_entry_keeps_to_its_budget_and_repeats_itself(each: PoisonerEntry, sources: tuple[str, ...]) -> None:
    budget = Budget(share=0.1, may_change_labels=each.labels, sources=sources)
    clean, one = made(each, budget)
    _, again = made(each, budget)
    held_to(one, clean, budget)
    assert len(one.changed) == budget.rows(clean) == 6
    assert one.share == pytest.approx(0.1)
    assert np.array_equal(one.changed, again.changed)
    assert np.array_equal(one.samples.x, again.samples.x)
    assert np.array_equal(one.samples.y, again.samples.y)
    assert one.samples.x.dtype == clean.x.dtype
    assert 0 <= one.samples.x.min() <= one.samples.x.max() <= 1
    kept = one.changed[one.changed < len(clean)]
    if each.trains and each.goal is not PoisonGoal.BACKDOOR:
        assert np.abs(one.samples.x[kept] - clean.x[kept]).max() <= 16 / 255 + 1e-6
    relabeled = not np.array_equal(one.samples.y[kept], clean.y[kept]) or bool(one.added)
    assert relabeled == each.labels


@crafted
def test_what_crafts_rows_needs_a_box_and_a_surrogate(each: PoisonerEntry) -> None:
    _, scene = shown(each)
    with pytest.raises(SettingError, match="give system.inputs.bounds"):
        each.make(replace(scene, bounds=None))
    with pytest.raises(SettingError, match="system.training.call"):
        each.make(replace(scene, surrogates=(), fit=None))
    clean, scene = shown(each)
    near = each.make(replace(scene, radius=0.01))(clean, Budget(share=0.1), seed=0)
    if each.goal is not PoisonGoal.BACKDOOR:
        assert np.abs(near.samples.x - clean.x).max() <= 0.01 + 1e-6


@relabeled
def test_what_changes_labels_asks_for_it(each: PoisonerEntry) -> None:
    with pytest.raises(SettingError, match="may_change_labels"):
        made(each, Budget(share=0.1))


@every
def test_what_a_scene_lacks_is_told(each: PoisonerEntry) -> None:
    _, scene = shown(each)
    match each.goal:
        case PoisonGoal.BACKDOOR:
            with pytest.raises(SettingError, match="give a trigger and a target"):
                each.make(replace(scene, trigger=None))
            if not each.labels:
                with pytest.raises(SettingError, match="the goal is all-to-all"):
                    each.make(replace(scene, target=AllToAll(3)))
        case PoisonGoal.TARGETED_ROWS:
            with pytest.raises(SettingError, match="give rows and a class"):
                each.make(replace(scene, rows=np.empty(0)))


def test_limits_of_single_ones() -> None:
    _, scene = shown(poisoner("gradient-poisoning"))
    with pytest.raises(SettingError, match="is for two classes, and the model tells 3"):
        poisoner("gradient-poisoning").make(replace(scene, classes=3))
    wide = Samples(np.zeros((2, WIDEST + 1), dtype=np.float32), np.arange(2))
    with pytest.raises(SettingError, match=f"rows of {WIDEST} values at most"):
        poisoner("label-flip").make(replace(scene, held_out=wide))
    _, scene = shown(poisoner("feature-collision"))
    with pytest.raises(SettingError, match="for one chosen row, and the attacker has 2"):
        poisoner("feature-collision").make(replace(scene, rows=np.zeros((2, 1, 6, 6), dtype=np.float32)))


def test_the_untrained_network_is_not_the_surrogate() -> None:
    entry = poisoner("unlearnable-examples")
    _, scene = shown(entry)
    before = [p.detach().clone() for p in scene.surrogates[0].parameters()]
    built, again = entry.make(scene), entry.make(scene)
    new, same = ([*getattr(b, "surrogate").parameters()] for b in (built, again))  # noqa: B009
    assert all(torch.equal(a, b) for a, b in zip(before, scene.surrogates[0].parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(new, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before, new, strict=True))


def test_each_class_becomes_the_next() -> None:
    clean, found = made(poisoner("targeted-flips"), Budget(share=0.5, may_change_labels=True))
    at = found.changed
    assert np.array_equal(found.samples.y[at], (clean.y[at] + 1) % 3)
    assert set(clean.y[at]) == {0, 1, 2}


def test_features_have_a_gradient_and_leave_no_hook() -> None:
    model = network(3, 36)
    features = Penultimate(model)
    x = torch.rand(4, 1, 6, 6, requires_grad=True)
    torch.autograd.backward(features(x).sum())
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)
    assert features.width(np.zeros((1, 1, 6, 6))) == 8
    assert not any(part._forward_pre_hooks for part in model.modules())
    with pytest.raises(SettingError, match="no linear layer"):
        Penultimate(nn.Flatten())(x)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"there is no poisoner named 'badnet'; redan knows badnets, .*error-maxim"):
        poisoner("badnet")
