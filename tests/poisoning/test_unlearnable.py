"""Error-minimizing and error-maximizing rows: which way the loss goes, and what is kept."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.perturbations.norms import Linf
from redan.poisoning.budget import Budget, Poisoner, held_to
from redan.poisoning.crafting import seeded
from redan.poisoning.unlearnable import Descent, ErrorMaximizing, ErrorMinimizing

DRAW = np.random.default_rng(0)
SOURCE = tuple("ab"[i % 2] for i in range(60))
CLEAN = Samples(DRAW.random((60, 8)).astype(np.float32), np.arange(60) % 3, source=SOURCE)


def network(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)).eval()


MODEL = network()
POISONERS: dict[str, Poisoner] = {
    "minimizing": ErrorMinimizing(surrogate=MODEL, rounds=2, batches=2, steps=3, radius=0.1, batch=16),
    "maximizing": ErrorMaximizing(surrogate=MODEL, steps=3, radius=0.1, batch=16),
    "untargeted": ErrorMaximizing(surrogate=MODEL, steps=3, radius=0.1, shift=None),
}


@pytest.mark.parametrize("name", POISONERS)
def test_each_keeps_its_budget_its_radius_and_its_seed(name: str) -> None:
    poisoner, budget = POISONERS[name], Budget(share=0.3, sources=("b",))
    weights, state = copy.deepcopy(MODEL.state_dict()), torch.random.get_rng_state()
    made = poisoner(CLEAN, budget, seed=1)
    held_to(made, CLEAN, budget)
    assert len(made.changed) == 18
    assert np.abs(made.samples.x - CLEAN.x).max() <= 0.1 + 1e-6
    assert made.samples.x.min() >= 0
    assert made.samples.x.max() <= 1
    assert np.array_equal(poisoner(CLEAN, budget, seed=1).samples.x, made.samples.x)
    assert not np.array_equal(poisoner(CLEAN, budget, seed=2).samples.x, made.samples.x)
    assert not MODEL.training
    assert all(torch.equal(part, weights[key]) for key, part in MODEL.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_loss_goes_the_way_that_the_name_says() -> None:
    def loss(x: np.ndarray, shift: int = 0) -> float:
        with torch.no_grad():
            y = (torch.tensor(CLEAN.y) + shift) % 3
            return float(nn.functional.cross_entropy(MODEL(torch.tensor(x)), y))

    def made(shift: int | None) -> np.ndarray:
        poisoner = ErrorMaximizing(surrogate=MODEL, steps=20, radius=0.3, shift=shift)
        return poisoner(CLEAN, Budget(share=1.0), seed=0).samples.x

    assert loss(made(None)) > loss(CLEAN.x)
    assert loss(made(1), 1) < loss(CLEAN.x, 1)
    assert loss(made(2), 2) < loss(CLEAN.x, 2)
    assert loss(made(1), 1) < loss(made(2), 1)


def test_a_descent_on_a_linear_score_ends_at_the_corner_of_box_and_radius() -> None:
    """A linear score falls along the sign of its weights: every coordinate ends at its edge."""
    linear = nn.Linear(8, 2, bias=False)
    x = torch.tensor(CLEAN.x[:5])
    lower = Descent(within=Linf(0.25), steps=20, rate=0.1, batch=2)
    found = lower(linear, x, x, torch.zeros(5, dtype=torch.int64), lambda z, y: z[:, 1] - z[:, 0])
    sign = (linear.weight[1] - linear.weight[0]).detach().sign()
    torch.testing.assert_close(found, (x - 0.25 * sign).clamp(0, 1))


def test_minimizing_leaves_its_own_network_nothing_to_learn() -> None:
    """The rows are answered right by a network that saw little more than their noise: it stops early."""
    labels = Samples(CLEAN.x, DRAW.permutation(CLEAN.y))  # labels that say nothing of the rows
    poisoner = ErrorMinimizing(surrogate=MODEL, rounds=40, batches=4, radius=0.5, batch=20)
    made = poisoner(labels, Budget(share=1.0), seed=0)
    held_to(made, labels, Budget(share=1.0))
    victim = network(5).train()
    descent = torch.optim.Adam(victim.parameters(), lr=0.02)
    x, y = torch.tensor(made.samples.x), torch.tensor(labels.y)
    with seeded(0):
        for _ in range(60):
            descent.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(victim(x), y))
            descent.step()
    with torch.no_grad():
        assert float((victim.eval()(x).argmax(1) == y).float().mean()) > 0.95


def test_what_goes_wrong_is_said() -> None:
    with pytest.raises(SettingError, match="leads back"):
        ErrorMaximizing(surrogate=MODEL, shift=3)(CLEAN, Budget(share=0.5), seed=0)
    with pytest.raises(SettingError, match="radius"):
        ErrorMinimizing(surrogate=MODEL, radius=0)
    with pytest.raises(SettingError, match="rounds must be above 0"):
        ErrorMinimizing(surrogate=MODEL, rounds=0)
    with pytest.raises(SettingError, match="less than one row"):
        ErrorMaximizing(surrogate=MODEL)(CLEAN, Budget(share=0.001), seed=0)
