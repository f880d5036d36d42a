"""Adaptive diversity promoting: the formula by hand, what breaks it, and what training by it does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from redan.ensembles import ADP, Combine, Members, between, entropy, log_diversity, together
from redan.ensembles.combine import mean_probabilities
from redan.errors import DataError, SettingError
from redan.evasion.apgd import APGD
from redan.hardening import Batch, Loss, Shuffled, Training, harden
from redan.perturbations.norms import Linf
from redan.samples import fashion_mnist

Floats = NDArray[np.float64]


def drawn(members: int = 3, rows: int = 4, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members, rows, classes, generator=draw, dtype=torch.float64)
    return logits, torch.randint(classes, (rows,), generator=draw)


def literal(logits: Tensor, y: Tensor) -> tuple[Floats, Floats, Floats]:
    """Cross-entropies summed, entropies and log determinants (N,) each, row by row as the definitions read."""
    own, spread, volume = [], [], []
    for row, label in enumerate(y.tolist()):
        p = np.exp(logits[:, row].numpy())
        p /= p.sum(1, keepdims=True)
        own.append(-np.log(p[:, label]).sum())
        mean = p.mean(0)
        spread.append(-(mean * np.log(mean)).sum())
        wrong = np.delete(p, label, axis=1)
        columns = (wrong / np.linalg.norm(wrong, axis=1, keepdims=True)).T
        volume.append(np.log(np.linalg.det(columns.T @ columns + 1e-6 * np.eye(len(p)))))
    return np.array(own), np.array(spread), np.array(volume)


@given(st.integers(1, 4), st.integers(5, 8), st.integers(0, 99))
def test_it_is_the_formula_by_hand(members: int, classes: int, seed: int) -> None:
    logits, y = drawn(members, 3, classes, seed)
    own, spread, volume = literal(logits, y)
    assert np.allclose(entropy(logits), spread)
    assert np.allclose(log_diversity(logits, y), volume)
    assert np.allclose(ADP(alpha=1.5, beta=0.25)(logits, y), own - 1.5 * spread - 0.25 * volume)


def test_without_a_regularizer_it_is_the_sum_of_cross_entropies() -> None:
    logits, y = drawn()
    assert np.allclose(ADP(alpha=0, beta=0)(logits, y), literal(logits, y)[0])


def test_members_that_think_alike_span_nothing() -> None:
    """G is all ones: eigenvalues M, and M - 1 times 0, each with the offset."""
    logits, y = drawn(1)
    alike = logits.expand(3, -1, -1)
    expected = math.log(3 + 1e-6) + 2 * math.log(1e-6)
    assert log_diversity(alike, y).tolist() == pytest.approx([expected] * 4)
    assert log_diversity(alike.float(), y).tolist() == pytest.approx([expected] * 4, rel=1e-5)


def test_members_that_think_of_other_wrong_classes_span_a_cube() -> None:
    logits = torch.full((3, 1, 4), -200.0, dtype=torch.float64)
    for member in range(3):
        logits[member, 0, member + 1] = 0
    y = torch.tensor([0])
    assert log_diversity(logits, y).item() == pytest.approx(3e-6)
    assert log_diversity(logits[:, :, [1, 2, 3, 0]], torch.tensor([3])).item() == pytest.approx(3e-6)
    assert log_diversity(logits, torch.tensor([1])).item() < 0  # there two are said to think of one class


def test_the_right_class_is_left_out() -> None:
    """How likely the right class is, and of which member, changes nothing; nor does a constant added to all logits."""
    logits, y = drawn()
    moved = logits.clone()
    moved[:, torch.arange(4), y] += torch.tensor([[100.0], [-3.0], [7.0]])
    moved += torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(log_diversity(moved, y), log_diversity(logits, y))


def test_a_right_class_with_all_the_probability_leaves_a_number_and_a_slope() -> None:
    """In 32-bit numbers the wrong classes' probabilities are 0, and their length cannot be divided by."""
    logits, y = drawn()
    sure = logits.float()
    sure[:, torch.arange(4), y] = 300
    assert (sure.softmax(-1).sum(-1) - sure.softmax(-1).amax(-1)).abs().max() == 0
    sure.requires_grad_()
    loss = ADP()(sure, y)
    (slope,) = torch.autograd.grad(loss.sum(), sure)
    assert loss.isfinite().all()
    assert slope.isfinite().all()
    assert torch.allclose(log_diversity(sure, y), log_diversity(logits, y).float(), atol=1e-4)


def test_slopes_are_those_of_finite_differences() -> None:
    logits, y = drawn()
    assert torch.autograd.gradcheck(lambda z: ADP()(z, y), logits.requires_grad_())


def spanned(rows: Tensor) -> Tensor:
    volume: Tensor = torch.linalg.slogdet(rows @ rows.mT + 1e-6 * torch.eye(rows.shape[1])).logabsdet
    return volume


def right_too(logits: Tensor, y: Tensor) -> Tensor:
    unit = functional.normalize(logits.softmax(-1).transpose(0, 1), dim=-1)
    return spanned(unit)


def not_scaled(logits: Tensor, y: Tensor) -> Tensor:
    keep = functional.one_hot(y, logits.shape[-1]) == 0
    wrong = torch.stack([p[keep].reshape(len(y), -1) for p in logits.softmax(-1)], 1)
    return spanned(wrong)


def regularized(
    volume: Callable[[Tensor, Tensor], Tensor] = log_diversity, alpha: float = 2.0, beta: float = 0.5
) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return ADP(alpha=0, beta=0)(logits, y) - alpha * entropy(logits) - beta * volume(logits, y)

    return loss


@pytest.mark.parametrize(
    ("loss", "right"),
    [
        (ADP(), True),
        (regularized(), True),
        (regularized(alpha=-2.0), False),
        (regularized(beta=-0.5), False),
        (regularized(right_too), False),
        (regularized(not_scaled), False),
        (lambda z, y: regularized()(z, (y + 1) % z.shape[-1]), False),
        (lambda z, y: ADP()(z, y) / len(z), False),
    ],
    ids=["ours", "in parts", "entropy up", "diversity up", "right class too", "not scaled", "other labels", "mean"],
)
def test_mutants_are_not_the_formula(loss: Callable[[Tensor, Tensor], Tensor], right: bool) -> None:
    logits, y = drawn()
    own, spread, volume = literal(logits, y)
    assert np.allclose(loss(logits, y), own - 2 * spread - 0.5 * volume) == right


def test_a_step_down_brings_members_apart_and_entropy_up() -> None:
    for alpha, beta, measure in ((0.0, 1.0, log_diversity), (1.0, 0.0, lambda z, _: entropy(z))):
        logits, y = drawn()
        logits.requires_grad_()
        loss, plain = ADP(alpha=alpha, beta=beta), ADP(alpha=0, beta=0)
        (slope,) = torch.autograd.grad((loss(logits, y) - plain(logits, y)).sum(), logits)
        with torch.no_grad():
            assert (measure(logits - 1e-3 * slope, y) > measure(logits, y)).all()


def test_no_rows_and_one_row() -> None:
    logits, y = drawn()
    assert ADP()(logits[:, :0], y[:0]).shape == (0,)
    assert torch.allclose(ADP()(logits[:, :1], y[:1]), ADP()(logits, y)[:1])


def test_what_cannot_be_is_refused() -> None:
    logits, y = drawn(3, 4, 3)
    with pytest.raises(SettingError, match="3 members cannot differ in all of 2 wrong classes"):
        log_diversity(logits, y)
    with pytest.raises(DataError, match=r"labels are \(4, 3\) for 4 rows"):
        log_diversity(logits, functional.one_hot(y, 3))
    for bad in (-1.0, math.nan):
        with pytest.raises(SettingError, match="alpha must be 0 or more"):
            ADP(alpha=bad)
        with pytest.raises(SettingError, match="beta must be 0 or more"):
            ADP(beta=bad)


class Several:
    """Members trained together: the mean of a loss of all their logits."""

    def __init__(self, loss: ADP) -> None:
        self.loss = loss

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        assert isinstance(model, Members)
        logits = model.each(batch.x)
        return Loss(self.loss(logits, batch.y).mean(), clean=mean_probabilities(logits).argmax(1) == batch.y)


@pytest.mark.slow
def test_members_trained_apart_pass_less_on_and_are_no_harder_to_attack() -> None:
    """Pang et al.: inputs carry over worse. Tramèr et al. 2020: the whole, attacked as such, gains little."""
    x, y = (torch.from_numpy(rows) for rows in fashion_mnist("train"))
    seen, labels = (torch.from_numpy(rows[:200]) for rows in fashion_mnist())
    own, passed, standing = [], [], []
    for loss in (ADP(alpha=0, beta=0), ADP()):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            members = Members(
                [nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)) for _ in range(3)]
            )
        harden(members, Shuffled(x, y, batch=100), Training(objective=Several(loss), epochs=12))
        members.eval()
        ensemble = together(list(members.members))
        found = between(ensemble, seen, labels, APGD(steps=20), within=Linf(0.02), workers=1)
        rates = {(i, j): found.rate(i, j) for i in range(3) for j in range(3)}
        shares = {cell: rate.k / rate.n for cell, rate in rates.items()}
        own.append(sum(shares[i, i] for i in range(3)) / 3)
        passed.append(sum(share for (i, j), share in shares.items() if i != j) / 6)
        standing.append(found.standing(-1).k)
    assert passed[1] < 0.85 * passed[0]
    assert passed[1] / own[1] < 0.7 * passed[0] / own[0]
    assert own[1] >= own[0]
    assert standing[1] - standing[0] < 20


def test_the_loop_of_hardening_trains_members_apart() -> None:
    x, y = (torch.from_numpy(rows[:400]) for rows in fashion_mnist("train"))
    diversity, accuracy = [], []
    for loss in (ADP(alpha=0, beta=0), ADP()):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            members = Members([nn.Sequential(nn.Flatten(), nn.Linear(784, 10)) for _ in range(3)])
        done = harden(members, Shuffled(x, y, batch=100), Training(objective=Several(loss), epochs=4))
        members.eval()
        with torch.no_grad():
            diversity.append(float(log_diversity(members.each(x), y).mean()))
        served = together(list(members.members), Combine.PROBABILITIES)
        accuracy.append(float((served(x).argmax(1) == y).float().mean()))
        assert done.epochs[-1].loss < done.epochs[0].loss
    assert diversity[1] > diversity[0] + 1
    assert min(accuracy) > 0.5
