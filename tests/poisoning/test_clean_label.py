"""Clean-label poisons against answers that are known: linear models, gradients by hand, sets that must be kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redan.data.samples import Samples
from redan.errors import DataError, SetError, SettingError, TargetError, TrainingModeError
from redan.perturbations.norms import Linf
from redan.poisoning.budget import Budget, Poisoner, held_to
from redan.poisoning.crafting import box, floats, put, seeded, trained
from redan.poisoning.feature_collision import FeatureCollision
from redan.poisoning.gradient_matching import GradientMatching
from redan.poisoning.label_consistent import CornerPatch, Corners, LabelConsistent
from redan.poisoning.matching import (
    Aim,
    Shifts,
    by_gradient_norm,
    gradient_norms,
    loss_gradient,
    misalignment,
    objective,
    weights,
)
from redan.poisoning.sleeper_agent import SleeperAgent

DRAW = np.random.default_rng(0)
CLEAN = Samples(
    DRAW.random((60, 1, 6, 6)).astype(np.float32), np.arange(60) % 3, source=tuple("ab"[i // 3 % 2] for i in range(60))
)
TARGET = DRAW.random((1, 1, 6, 6)).astype(np.float32)


def network(seed: int = 0, width: int = 5) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.Tanh(), nn.Linear(width, 3)).eval()


def fit(samples: Samples, seed: int) -> nn.Module:
    return network(seed)


def ones(x: Any) -> Any:
    stamped = x.copy()
    stamped[..., -1, -1] = 1
    return stamped


def away(x: Tensor, y: Tensor) -> Tensor:
    return Linf(0.1).project(x - 0.1, x)


POISONERS: dict[str, Callable[..., Poisoner]] = {
    "matching": lambda label=1: GradientMatching(
        targets=TARGET, label=label, surrogates=(network(), fit), steps=4, restarts=2, augment=Shifts(pixels=1)
    ),
    "sleeper": lambda label=1: SleeperAgent(trigger=ones, label=label, fit=fit, steps=4, retrainings=1, shown=8),
    "collision": lambda label=1: FeatureCollision(target=TARGET[0], label=label, features=network(), steps=4),
    "consistent": lambda label=1: LabelConsistent(label=label, perturb=away, radius=0.1),
}


@pytest.mark.parametrize("name", POISONERS)
def test_each_keeps_its_budget_its_sources_and_its_seed(name: str) -> None:
    poisoner, budget = POISONERS[name](), Budget(share=0.1, sources=("b",))
    before = CLEAN.x.copy()
    state = torch.random.get_rng_state()
    made = poisoner(CLEAN, budget, seed=3)
    held_to(made, CLEAN, budget)
    assert len(made.changed) == 6
    assert made.samples.x.dtype == np.float32
    assert (CLEAN.y[made.changed] == 1).all()
    assert np.array_equal(CLEAN.x, before)
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(poisoner(CLEAN, budget, seed=3).samples.x, made.samples.x)
    assert not np.array_equal(poisoner(CLEAN, budget, seed=4).samples.x, made.samples.x)
    wide = replace(CLEAN, x=CLEAN.x.astype(np.float64))
    held_to(poisoner(wide, budget, seed=3), wide, budget)


@pytest.mark.parametrize("name", POISONERS)
def test_each_says_when_it_has_no_row(name: str) -> None:
    poisoner = POISONERS[name]
    with pytest.raises(SettingError, match="controls no row"):
        poisoner(7)(CLEAN, Budget(share=0.1), seed=0)
    with pytest.raises(SettingError, match="less than one row"):
        poisoner()(CLEAN, Budget(share=0.01), seed=0)
    with pytest.raises(DataError, match="uint8"):
        poisoner()(replace(CLEAN, x=(255 * CLEAN.x).astype(np.uint8)), Budget(share=0.1), seed=0)
    with pytest.raises(DataError, match="outside the bounds"):
        poisoner()(replace(CLEAN, x=2 * CLEAN.x), Budget(share=0.1), seed=0)


def test_the_objective_is_one_minus_the_cosine_by_hand() -> None:
    """A linear model without offset: the gradient of a row is (p - e_y) xᵀ, so the cosine is a product of two."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3, bias=False)).eval()
    x, t = torch.from_numpy(CLEAN.x[:1]), torch.from_numpy(TARGET)
    y, wanted = torch.tensor([2]), torch.tensor([1])
    p, q = (model(a).softmax(1)[0].detach() for a in (x, t))
    p[2] -= 1
    q[1] -= 1
    by_hand = 1 - torch.cosine_similarity(p, q, dim=0) * torch.cosine_similarity(x.flatten(), t.flatten(), dim=0)
    aim = Aim(model, loss_gradient(model, t, wanted))
    assert objective([aim], x, y, batch=4)[0] == pytest.approx(float(by_hand), abs=1e-6)
    assert objective([aim], t, wanted, batch=4)[0] == pytest.approx(0, abs=1e-6)


def test_the_slope_is_autograds_for_any_batch_and_for_ensembles() -> None:
    models = [network(1), network(2, width=7)]
    t, wanted = torch.from_numpy(TARGET), torch.tensor([1])
    aims = [Aim(model, loss_gradient(model, t, wanted)) for model in models]
    x, y = torch.from_numpy(CLEAN.x[:7]).requires_grad_(), torch.from_numpy(CLEAN.y[:7])
    values = []
    for model, aim in zip(models, aims, strict=True):
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum")
        ours = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        flat, goal = (torch.cat([part.flatten() for part in parts]) for parts in (ours, aim.gradient))
        values.append(1 - torch.cosine_similarity(flat, goal, dim=0))
    mean = torch.stack(values).mean()
    slope = torch.autograd.grad(mean, x)[0]
    for batch in (2, 7, 100):
        value, found = objective(aims, x.detach(), y, batch=batch)
        assert value == pytest.approx(mean.item(), abs=1e-6)
        torch.testing.assert_close(found, slope, atol=1e-6, rtol=1e-4)


def test_misalignment_is_of_directions() -> None:
    a = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    assert float(misalignment(a, [5 * part for part in a])) == pytest.approx(0, abs=1e-6)
    assert float(misalignment(a, [-part for part in a])) == pytest.approx(2, abs=1e-6)


def test_matching_lowers_the_objective_within_the_radius_and_more_with_more_restarts() -> None:
    model = network()
    aim = Aim(model, loss_gradient(model, torch.from_numpy(TARGET), torch.tensor([1])))

    def value(radius: float, restarts: int) -> float:
        poisoner = GradientMatching(
            targets=TARGET, label=1, surrogates=(model,), radius=radius, steps=30, restarts=restarts
        )
        made = poisoner(CLEAN, Budget(share=0.1), seed=0)
        held_to(made, CLEAN, Budget(share=0.1))
        assert float(np.abs(made.samples.x - CLEAN.x).max()) <= radius + 1e-6
        assert float(made.samples.x.min()) >= 0
        assert float(made.samples.x.max()) <= 1
        rows = torch.from_numpy(made.samples.x[made.changed]), torch.from_numpy(made.samples.y[made.changed])
        return objective([aim], *rows, batch=9)[0]

    small, large, best = value(1e-4, 1), value(0.3, 1), value(0.3, 4)
    assert large < 0.5 * small
    assert best <= large


def test_rows_are_picked_by_the_norm_of_their_own_gradient() -> None:
    model = network()
    x, y = torch.from_numpy(CLEAN.x[:9]), torch.from_numpy(CLEAN.y[:9])
    by_hand = []
    for i in range(9):
        parts = torch.autograd.grad(nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), weights(model))
        by_hand.append(float(torch.cat([part.flatten() for part in parts]).norm()))
    assert gradient_norms(model, x, y).tolist() == pytest.approx(by_hand, rel=1e-5)
    picked = by_gradient_norm(model, x, y, 3, np.random.default_rng(0))
    assert picked.tolist() == sorted(np.argsort(by_hand)[-3:].tolist())


def test_a_surrogate_is_retrained_on_the_poison_so_far() -> None:
    seen: list[tuple[bool, int]] = []

    def watched(samples: Samples, seed: int) -> nn.Module:
        seen.append((np.array_equal(samples.x, CLEAN.x), seed))
        assert np.array_equal(samples.y, CLEAN.y)
        return network(seed)

    SleeperAgent(trigger=ones, label=0, fit=watched, steps=6, retrainings=2)(CLEAN, Budget(share=0.1), seed=0)
    assert [clean for clean, _ in seen] == [True, False, False]
    assert len({seed for _, seed in seen}) == 3


def test_feature_collision_reaches_the_closed_form_of_identity_features() -> None:
    """Eq. 1 with f(x) = x has its minimum at (t + β·b) / (1 + β)."""
    base, target = torch.from_numpy(CLEAN.x[:4]), torch.from_numpy(TARGET)
    for beta in (0.0, 0.5, 3.0):
        poisoner = FeatureCollision(target=TARGET[0], label=1, features=nn.Identity(), beta=beta, steps=60)
        found = poisoner.collide(base, target, box(math.inf, (0.0, 1.0)))
        torch.testing.assert_close(found, (target + beta * base) / (1 + beta), atol=1e-3, rtol=0)


@pytest.mark.parametrize("radius", [math.inf, 0.2])
def test_feature_collision_brings_features_near_within_its_set(radius: float) -> None:
    features = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    poisoner = FeatureCollision(target=TARGET[0], label=1, features=features, radius=radius, beta=0.01, opacity=0.0)
    made = poisoner(CLEAN, Budget(share=0.1), seed=0)
    held_to(made, CLEAN, Budget(share=0.1))
    goal = features(torch.from_numpy(TARGET))
    with torch.no_grad():
        before, after = (features(torch.from_numpy(x[made.changed])) - goal for x in (CLEAN.x, made.samples.x))
    assert float(after.square().sum()) < 0.1 * float(before.square().sum())
    assert float(np.abs(made.samples.x - CLEAN.x).max()) <= min(radius, 1) + 1e-6


def test_a_watermark_is_the_target_mixed_in() -> None:
    poisoner = FeatureCollision(
        target=TARGET[0], label=1, features=nn.Identity(), opacity=0.3, radius=1e-6, beta=1.0, steps=1
    )
    made = poisoner(CLEAN, Budget(share=0.1), seed=0)
    held_to(made, CLEAN, Budget(share=0.1))
    mixed = 0.3 * TARGET + 0.7 * CLEAN.x[made.changed]
    np.testing.assert_allclose(made.samples.x[made.changed], mixed, atol=1e-5)


def test_a_corner_patch_is_added_cut_and_mirrored() -> None:
    x = np.full((2, 1, 8, 8), 0.1, dtype=np.float32)
    four = CornerPatch(amplitude=0.25)(x)
    assert four.dtype == np.float32
    assert np.array_equal(four, four[..., ::-1])
    assert np.array_equal(four, four[..., ::-1, :])
    np.testing.assert_allclose(four[0, 0, -3:, -3:], [[0, 0, 0.35], [0, 0.35, 0], [0.35, 0, 0.35]], atol=1e-6)
    assert (four != x).sum() == 2 * 4 * 9
    one = CornerPatch(amplitude=1.0, corners=Corners.ONE)(x)
    assert (one != x).sum() == 2 * 9
    assert set(one[..., -3:, -3:].flatten().tolist()) == {0.0, 1.0}
    assert (x == np.float32(0.1)).all()


def test_label_consistent_perturbs_and_then_stamps() -> None:
    patch = CornerPatch(amplitude=0.5, corners=Corners.ONE)
    made = LabelConsistent(label=1, perturb=away, trigger=patch, radius=0.1)(CLEAN, Budget(share=0.1), seed=0)
    held_to(made, CLEAN, Budget(share=0.1))
    expected = patch(np.clip(CLEAN.x[made.changed] - np.float32(0.1), 0, 1))
    np.testing.assert_allclose(made.samples.x[made.changed], expected, atol=1e-6)


def test_what_goes_wrong_is_said() -> None:
    budget = Budget(share=0.1)
    with pytest.raises(SetError, match="left the radius 0.1"):
        LabelConsistent(label=1, perturb=lambda x, y: 1 - x, radius=0.1)(CLEAN, budget, seed=0)
    with pytest.raises(DataError, match="keep the shape"):
        LabelConsistent(label=1, perturb=lambda x, y: x[:1])(CLEAN, budget, seed=0)
    with pytest.raises(TrainingModeError):
        trained(network().train(), CLEAN, 0)
    with pytest.raises(TargetError, match="gave int"):
        trained(lambda samples, seed: 3, CLEAN, 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(TargetError, match="no parameter"):
        loss_gradient(nn.Flatten(), torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(DataError, match="shape"):
        FeatureCollision(target=TARGET[0, 0, 0], label=1, features=network())(CLEAN, budget, seed=0)
    with pytest.raises(DataError, match="does not fit"):
        CornerPatch()(np.zeros((2, 5, 5)))
    with pytest.raises(SettingError, match="leave them out"):
        Shifts()(torch.zeros(2, 5), torch.Generator())
    with pytest.raises(SettingError, match="radius"):
        GradientMatching(targets=TARGET, label=1, surrogates=(fit,), radius=0)
    with pytest.raises(SettingError, match="at least one of each"):
        GradientMatching(targets=TARGET, label=1, surrogates=())
    with pytest.raises(SettingError, match="steps must be above 0"):
        SleeperAgent(trigger=ones, label=1, fit=fit, steps=0)
    with pytest.raises(SettingError, match="no target class"):
        SleeperAgent(trigger=ones, label=1, fit=fit, source=1)
    with pytest.raises(SettingError, match="source class 9"):
        SleeperAgent(trigger=ones, label=1, fit=fit, source=9)(CLEAN, budget, seed=0)
    with pytest.raises(SettingError, match="opacity"):
        FeatureCollision(target=TARGET[0], label=1, features=network(), opacity=1.0)
    with pytest.raises(SettingError, match="amplitude"):
        CornerPatch(amplitude=0)
    with pytest.raises(SettingError, match="one length"):
        CornerPatch(pattern=((0, 1), (1,)))


def test_rows_that_did_not_change_are_not_listed() -> None:
    within = box(0.1, (0.0, 1.0))
    at = np.array([5, 2, 9])
    rows = floats(CLEAN.x[at], within)
    rows[1] = (rows[1] + 0.05).clamp(0, 1)
    made = put(CLEAN, at, rows, within=within)
    assert made.changed.tolist() == [2]
    held_to(made, CLEAN, Budget(share=0.02))


def test_shifts_move_by_whole_pixels_and_mirror() -> None:
    x = torch.zeros(200, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    moved = Shifts(pixels=2)(x, torch.Generator().manual_seed(0))
    middle = moved.flatten(1).argmax(1)
    reach = torch.stack([(middle // 9 - 4).abs(), (middle % 9 - 4).abs()])
    assert int(reach.max()) == 2
    assert float(moved.flatten(1).sum(1).sub(1).abs().max()) < 1e-5
    ramp = torch.arange(9.0).expand(50, 1, 9, 9)
    mirrored = Shifts(pixels=0, mirror=True)(ramp, torch.Generator().manual_seed(0))
    kinds = {bool(torch.allclose(row, ramp[0].flip(-1), atol=1e-5)) for row in mirrored}
    assert kinds == {True, False}
