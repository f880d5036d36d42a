"""Losses of certified training: their schedule, their parts, and that a small network learns by them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.certification import certified
from redan.certification.certified_training import CertifiedTraining, certified_loss, initialize, regularizer
from redan.certification.steps import Interval
from redan.certification.trainable import Relaxation, worst_logits
from redan.errors import SettingError
from redan.perturbations.norms import Linf
from redan.samples.models import ResidualBlock


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of points in the unit square, 0.35 from each other."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=draw)
    middle = torch.tensor([[0.25, 0.25], [0.75, 0.3], [0.5, 0.75]])[y]
    return (middle + 0.12 * (2 * torch.rand(count, 2, generator=draw) - 1)).clamp(0, 1), y


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
        )


def test_the_warm_up() -> None:
    training = CertifiedTraining(radius=0.1, warm_up=(0.2, 0.6))

    assert [training.share(p) for p in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert CertifiedTraining(radius=0.1, warm_up=(0.5, 0.5)).share(0.5) == 1.0


@pytest.mark.parametrize(
    "wrong", [{"radius": -1.0}, {"radius": 0.1, "warm_up": (0.5, 0.2)}, {"radius": 0.1, "clean": 2.0}]
)
def test_settings_that_do_not_fit(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        CertifiedTraining(**wrong)  # type: ignore[arg-type]


@torch.no_grad()
def test_the_loss_by_its_parts() -> None:
    module, (x, y) = network().eval(), blobs(20, 0)
    clean = functional.cross_entropy(module(x), y)
    half = worst_logits(module, x, y, (x - 0.05).clamp_min(0), (x + 0.05).clamp_max(1)).gaps
    full = worst_logits(module, x, y, (x - 0.1).clamp_min(0), (x + 0.1).clamp_max(1)).gaps
    shi = CertifiedTraining(radius=0.1, regularization=0.0, warm_up=(0.2, 0.6))
    gowal = CertifiedTraining(radius=0.1, regularization=0.0, warm_up=(0.2, 0.6), clean=0.5)

    for training, progress, expected in (
        (shi, 0.1, clean),
        (shi, 0.4, functional.cross_entropy(half, y)),
        (shi, 1.0, functional.cross_entropy(full, y)),
        (gowal, 0.4, 0.75 * clean + 0.25 * functional.cross_entropy(half, y)),
        (gowal, 1.0, 0.5 * clean + 0.5 * functional.cross_entropy(full, y)),
    ):
        assert float(certified_loss(module, x, y, progress, training)) == pytest.approx(float(expected), rel=1e-5)


@torch.no_grad()
def test_crown_ibp_ends_as_ibp() -> None:
    module, (x, y) = network().eval(), blobs(20, 0)
    both = [CertifiedTraining(radius=0.1, regularization=0.0, warm_up=(0.2, 0.6), relaxation=one) for one in Relaxation]
    middle = [float(certified_loss(module, x, y, 0.3, training)) for training in both]
    end = [float(certified_loss(module, x, y, 0.9, training)) for training in both]

    assert middle[1] < middle[0]
    assert end[0] == end[1]


def test_the_regularizer_by_hand() -> None:
    """One layer four times as wide as the input: (0.5 - 0.25) / 0.5. One with a share of 1 : 4 in mean."""
    given = Interval(torch.zeros(1, 4), torch.ones(1, 4))
    wide = Interval(torch.full((1, 4), -2.0), torch.full((1, 4), 2.0))
    assert float(regularizer(given, [wide], 0.5)) == pytest.approx(0.5)

    middle = torch.tensor([[4.0, -1.0, 0.0, 0.0]])
    layer = Interval(middle - 0.5, middle + 0.5)
    spread = (middle - middle.mean()).square()[0]
    balance = 0.5 - 0.25 + max(0.0, 0.5 - float(spread[1] / spread[0]))
    assert float(regularizer(given, [layer], 0.5)) == pytest.approx(balance / 0.5)
    assert float(regularizer(given, [], 0.5)) == 0.0


def test_the_regularizers_gradient_is_finite() -> None:
    module = network()
    x, y = blobs(30, 1)
    loss = certified_loss(module, x, y, 0.1, CertifiedTraining(radius=0.1, warm_up=(0.0, 1.0)))
    slopes = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True)

    assert all(bool(slope.isfinite().all()) for slope in slopes)


@torch.no_grad()
def test_an_initialized_network_keeps_the_width_of_intervals() -> None:
    """Where torch's own start narrows or widens it by orders of magnitude over ten layers."""
    layers: list[nn.Module] = []
    for _ in range(9):
        layers += [nn.Linear(200, 200, bias=False), nn.ReLU()]
    first, final = nn.Linear(200, 200, bias=False), nn.Linear(200, 2)
    module = nn.Sequential(first, nn.ReLU(), *layers, final)
    last = final.weight.detach().clone()
    x, y = torch.zeros(4, 200), torch.zeros(4, dtype=torch.long)

    def growth() -> float:
        bent = worst_logits(module, x, y, x - 0.1, x + 0.1).bent
        return float((bent[-1].high - bent[-1].low).mean() / (bent[0].high - bent[0].low).mean())

    wide = growth()
    initialize(module, torch.Generator().manual_seed(0))

    assert wide > 50
    assert 0.5 < growth() < 2
    assert torch.equal(final.weight, last)
    assert float(first.weight.std()) == pytest.approx(math.sqrt(2 * math.pi) / 200, rel=0.02)


@torch.no_grad()
def test_layers_behind_a_sum_start_with_half() -> None:
    module = nn.Sequential(ResidualBlock(8, 8, 1), ResidualBlock(8, 8, 1), nn.Flatten(), nn.Linear(128, 2))
    initialize(module, torch.Generator().manual_seed(0))
    stds = [float(part.weight.std()) for part in module.modules() if isinstance(part, nn.Conv2d)]
    usual = math.sqrt(2 * math.pi) / 72

    assert stds == pytest.approx([usual, usual, usual / 2, usual], rel=0.15)


@pytest.mark.parametrize("relaxation", [pytest.param(Relaxation.INTERVALS, marks=pytest.mark.slow), Relaxation.LINES])
def test_a_small_network_learns_what_can_be_proven(relaxation: Relaxation) -> None:
    module, (x, y), draw = network(), blobs(300, 2), torch.Generator().manual_seed(0)
    initialize(module, draw)
    training = CertifiedTraining(radius=0.05, warm_up=(0.05, 0.5), relaxation=relaxation)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for step in range(60):
        rows = torch.randint(300, (64,), generator=draw)
        loss = certified_loss(module, x[rows], y[rows], step / 60, training)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    test, labels = blobs(60, 3)

    assert float(certified(module.eval(), test, labels, within=Linf(0.05), workers=1).certified.float().mean()) > 0.8
