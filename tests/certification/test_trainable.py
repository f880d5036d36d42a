"""Bounds to train by: no sample exceeds them, they are those that prove, and gradients of them are right."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from redan.certification import graph, passes, trainable
from redan.certification.region import Region
from redan.certification.rounding import Rounding
from redan.certification.steps import Affine, Interval, Sum
from redan.certification.trainable import Relaxation, Worst, worst_logits
from redan.errors import NotCertifiableError
from redan.samples.models import ResidualBlock
from redan.targets import from_torch

NETS = {
    "dense": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 6),
        nn.BatchNorm1d(6),
        nn.LeakyReLU(0.1),
        nn.Linear(6, 3),
    ),
    "residual": lambda: nn.Sequential(ResidualBlock(2, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)),
    "pools": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.MaxPool2d(2), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 3)
    ),
}
ONE = {one: ((one, 1.0),) for one in Relaxation}


def scene(kind: str, seed: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with running statistics of its own, five rows and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = NETS[kind]().to(dtype)
        x, y = torch.rand(5, 2, 4, 4, dtype=dtype), torch.randint(3, (5,))
        for _ in range(3):
            module.train()(torch.rand(8, 2, 4, 4, dtype=dtype))
    return module.eval(), x, y


def gaps(z: Tensor, y: Tensor) -> Tensor:
    return z - z.gather(1, y[:, None])


kinds, seeds, radii = st.sampled_from(list(NETS)), st.integers(0, 2**20), st.sampled_from([0.0, 0.02, 0.1, 0.5])


def exceeded(kind: str, seed: int, radius: float, relaxation: Relaxation) -> bool:
    """Whether a corner or an inner point of the box has a larger gap than the bound."""
    module, x, y = scene(kind, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        worst = worst_logits(module, x, y, x - radius, x + radius, ONE[relaxation])
        noise = 2 * torch.rand(60, *x.shape, generator=draw, dtype=x.dtype) - 1
        noise[::2] = noise[::2].sign()
        found = torch.stack([gaps(module(x + radius * one), y) for one in noise]).amax(0)
    return bool((found > worst.gaps + 1e-9).any())


@settings(max_examples=25)
@given(kinds, seeds, radii, st.sampled_from(list(Relaxation)))
def test_no_point_of_the_box_exceeds_a_bound(kind: str, seed: int, radius: float, relaxation: Relaxation) -> None:
    assert not exceeded(kind, seed, radius, relaxation)


@pytest.mark.parametrize("kind", list(NETS))
def test_lines_are_those_that_prove(kind: str) -> None:
    """CROWN-IBP of a batch against the bounds that `certified` uses, row by row, rounding aside."""
    module, x, y = scene(kind, 1)
    steps = graph.steps_of(from_torch(module), x.shape[1:])
    with torch.no_grad():
        found = worst_logits(module, x, y, x - 0.05, x + 0.05, ONE[Relaxation.LINES]).gaps
        for i, row in enumerate(torch.split(x, 1)):
            around = Region(Interval(row - 0.05, row + 0.05), row, 0.05, 1.0)
            bounds = passes.intervals(steps, around, Rounding(torch.float64))
            a = torch.eye(3, dtype=torch.float64)[y[i]] - torch.eye(3, dtype=torch.float64)
            proven = -passes.lower(bounds, len(steps) - 1, a)
            assert found[i].tolist() == pytest.approx(proven.tolist(), abs=1e-9)


@pytest.mark.parametrize("relaxation", list(Relaxation))
def test_a_linear_module_is_bounded_exactly(relaxation: Relaxation) -> None:
    """The gap of j is z_j - z_y + ε ‖w_j - w_y‖₁, only because the last layer is taken with the difference."""
    module = nn.Linear(6, 4).double()
    x, y = torch.rand(3, 6, dtype=torch.float64), torch.tensor([0, 2, 3])
    found = worst_logits(module, x, y, x - 0.1, x + 0.1, ONE[relaxation]).gaps
    weight = module.weight
    exact = gaps(module(x), y) + 0.1 * (weight[None] - weight[y][:, None]).abs().sum(2)

    assert torch.allclose(found, exact)


@pytest.mark.parametrize("relaxation", list(Relaxation))
@pytest.mark.parametrize("kind", list(NETS))
def test_rows_do_not_matter_to_each_other(kind: str, relaxation: Relaxation) -> None:
    module, x, y = scene(kind, 2)
    whole = worst_logits(module, x, y, x - 0.05, x + 0.05, ONE[relaxation]).gaps
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = worst_logits(module, x[one], y[one], x[one] - 0.05, x[one] + 0.05, ONE[relaxation]).gaps
        assert torch.allclose(alone, whole[one])


@pytest.mark.parametrize("relaxation", list(Relaxation))
@pytest.mark.parametrize("kind", list(NETS))
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(kind: str, relaxation: Relaxation, training: bool) -> None:
    """Of every parameter, along one random direction; less exact where tanh is, whose points of touch are held."""
    module, x, y = scene(kind, 3)
    module.train(training)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(worst_logits(module, x, y, x - 0.03, x + 0.03, ONE[relaxation]).gaps, y)

    parameters = list(module.parameters())
    slopes = torch.autograd.grad(loss(), parameters)
    draw = torch.Generator().manual_seed(0)
    for parameter, slope in zip(parameters, slopes, strict=True):
        way = torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype)
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(way, alpha=step)
                ends.append(float(loss()))
                parameter.sub_(way, alpha=step)
        assert float((slope * way).sum()) == pytest.approx(
            (ends[0] - ends[1]) / 2e-6, rel=1e-3 if kind in ("dense", "pools") else 1e-5, abs=1e-7
        )


@pytest.mark.parametrize("relaxation", list(Relaxation))
@pytest.mark.parametrize("kind", list(NETS))
def test_at_radius_zero_it_is_the_module(kind: str, relaxation: Relaxation) -> None:
    """In training mode too: batch normalization by the rows' own statistics, its running ones moved once."""
    module, x, y = scene(kind, 4)
    module.train()
    other = scene(kind, 4)[0].train()
    worst: Worst = worst_logits(module, x, y, x, x, ONE[relaxation])
    clean = other(x)

    assert torch.allclose(worst.clean, clean)
    assert torch.allclose(worst.gaps, gaps(clean, y))
    assert all(torch.equal(a, b) for a, b in zip(module.buffers(), other.buffers(), strict=True))
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_what_is_taken_by_activations_is_given() -> None:
    module, x, y = scene("batch norm", 5)
    low, high = x - 0.1, x + 0.1
    worst = worst_logits(module, x, y, low, high)

    assert [tuple(one.low.shape) for one in worst.bent] == [(5, 3, 4, 4), (5, 6)]
    assert all(bool((one.low <= one.high).all()) for one in worst.bent)


def test_mixed_bounds_lie_between() -> None:
    module, x, y = scene("dense", 6)
    box = x - 0.1, x + 0.1
    first, second = (worst_logits(module, x, y, *box, ONE[one]).gaps for one in Relaxation)
    mixed = worst_logits(module, x, y, *box, tuple(zip(Relaxation, (0.25, 0.75), strict=True))).gaps

    assert torch.allclose(mixed, 0.25 * first + 0.75 * second)


def test_dropout_that_drops_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    x, y = torch.rand(2, 4), torch.tensor([0, 1])

    with pytest.raises(NotCertifiableError, match="dropout"):
        worst_logits(module, x, y, x, x)
    assert worst_logits(module.eval(), x, y, x, x).gaps.shape == (2, 2)


# -- mutants ----------------------------------------------------------------------------------------------------


def _signed(self: Affine, given: list[Interval]) -> Interval:
    """Takes a negative weight for what it is, where the ends of an interval change places."""
    bias = 0 if self.bias is None else self.bias
    return Interval(self.linear(given[0].low) + bias, self.linear(given[0].high) + bias)


def _first_alone(_self: Sum, given: list[Interval]) -> Interval:
    return given[0]


def _no_eps(kept: object) -> object:
    def steps(module: nn.Module, x: Tensor, statistics: dict[nn.Module, tuple[Tensor, Tensor]]) -> object:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps, before = 0.0, part.eps
                found = kept(module, x, statistics)  # type: ignore[operator]
                part.eps = before
                return found
        return kept(module, x, statistics)  # type: ignore[operator]

    return steps


@pytest.mark.parametrize(
    ("owner", "name", "broken", "kind"),
    [(Affine, "box", _signed, "dense"), (Sum, "box", _first_alone, "residual")],
    ids=["a negative weight keeps the ends in place", "a residual branch is dropped"],
)
def test_a_broken_bound_is_caught(
    owner: type, name: str, broken: object, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)

    assert any(exceeded(kind, seed, 0.1, one) for seed in range(5) for one in Relaxation)


def test_a_variance_without_its_eps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, y = scene("batch norm", 7)
    exact = gaps(module(x), y)
    assert torch.allclose(worst_logits(module, x, y, x, x).gaps, exact, rtol=1e-9)
    monkeypatch.setattr(trainable, "_steps", _no_eps(trainable._steps))

    assert not torch.allclose(worst_logits(module, x, y, x, x).gaps, exact, rtol=1e-9)
