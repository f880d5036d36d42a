"""Functionally equivalent extraction, against networks whose every number is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.relu_networks import OneHiddenLayer, ReLUCopy
from redan.targets import from_torch

RAW = View(shows=Shows.RAW)


def network(features: int, hidden: int, outputs: int, seed: int, bounds: tuple[float, float] = (0.0, 1.0)) -> nn.Module:
    """Normal weights; each unit's plane passes through a point well inside the box."""
    draw = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs)).double()
    first, second = module[1], module[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.randn(hidden, features, generator=draw) / math.sqrt(features))
        inside = bounds[0] + (bounds[1] - bounds[0]) * (0.2 + 0.6 * torch.rand(hidden, features, generator=draw))
        first.bias.copy_(-(first.weight * inside).sum(1))
        second.weight.copy_(torch.randn(outputs, hidden, generator=draw) / math.sqrt(hidden))
        second.bias.copy_(torch.randn(outputs, generator=draw))
    return module.eval().requires_grad_(False)


def layers(module: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    first, second = (part for part in module.modules() if isinstance(part, nn.Linear))
    return first, second


def customer(
    module: nn.Module,
    outputs: int,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    view: View = RAW,
    queries: int | None = None,
) -> Customer:
    target = from_torch(module, bounds=bounds, classes=outputs)
    return Customer(target, Spending(queries=queries), classes=outputs, view=view)


def difference(module: nn.Module, copy: ReLUCopy, *shape: int, bounds: tuple[float, float] = (0.0, 1.0)) -> float:
    """The largest on rows drawn from the box."""
    draw = torch.Generator().manual_seed(99)
    x = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(20_000, *shape, generator=draw, dtype=torch.float64)
    return float((module(x) - copy.target(x)).abs().max())


def planes(weight: Tensor, bias: Tensor) -> Tensor:
    """Rows (H, D + 1) of length 1 in the weights, in an order and with a sign of their own."""
    rows = torch.cat([weight, bias[:, None]], 1) / weight.norm(dim=1, keepdim=True)
    rows = rows * rows[:, :1].sign()
    ordered: Tensor = rows[rows[:, 0].argsort()]
    return ordered


@pytest.mark.parametrize(("features", "hidden", "outputs"), [(6, 4, 1), (10, 8, 3), (20, 16, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_number_of_a_network_is_found(features: int, hidden: int, outputs: int, seed: int) -> None:
    module = network(features, hidden, outputs, seed)
    asks = customer(module, outputs)
    copy = OneHiddenLayer(shape=(features,))(asks, seed=seed)
    assert copy.complete
    assert copy.signed
    assert (copy.units, copy.unreachable) == (hidden, 0)
    assert copy.queries == asks.paid <= (hidden + 2) * (features + 60) + 1500
    assert difference(module, copy, features) < 1e-9
    assert copy.error < 1e-9
    assert copy.module.skip is None
    first, second = layers(module)
    ours = copy.parameters
    known = planes(first.weight, first.bias)
    assert torch.allclose(planes(ours["hidden.weight"], ours["hidden.bias"]), known, rtol=0, atol=1e-8)
    # Signs too: each unit is on where the true one is, so output weights match where rows do.
    true = first.weight / first.weight.norm(dim=1, keepdim=True)
    match = (true @ ours["hidden.weight"].T).argmax(1)
    scale = second.weight * first.weight.norm(dim=1)
    assert torch.allclose(ours["output.weight"][:, match], scale, rtol=0, atol=1e-8)
    assert torch.allclose(ours["output.bias"], second.bias, rtol=0, atol=1e-8)


def test_the_copy_is_a_target_in_evaluation_mode_with_gradients() -> None:
    module = network(6, 4, 2, 3)
    copy = OneHiddenLayer(shape=(6,))(customer(module, 2), seed=0)
    assert not copy.module.training
    assert copy.target.dtype == torch.float64
    assert copy.target.classes == 2
    x = torch.rand(5, 6, dtype=torch.float64).requires_grad_()
    ours, true = (torch.autograd.grad(of(x)[:, 0].sum(), x)[0] for of in (copy.target, module))
    assert torch.allclose(ours, true, rtol=0, atol=1e-9)


def test_inputs_of_any_shape_in_any_box() -> None:
    bounds = (-3.0, 5.0)
    module = network(12, 6, 2, 4, bounds)
    copy = OneHiddenLayer(shape=(3, 2, 2), bounds=bounds)(customer(module, 2, bounds=bounds), seed=0)
    assert copy.complete
    assert difference(module, copy, 3, 2, 2, bounds=bounds) < 1e-9


def test_units_always_on_become_a_linear_term_and_are_counted() -> None:
    module = network(10, 8, 3, 2)
    first, _ = layers(module)
    first.bias[:2] = 50.0
    first.bias[2] = -50.0
    copy = OneHiddenLayer(shape=(10,))(customer(module, 3), seed=0)
    assert copy.complete
    assert (copy.units, copy.unreachable, copy.signed) == (5, 2, False)  # the one that is always off leaves no trace
    assert copy.module.skip is not None
    assert difference(module, copy, 10) < 1e-8
    told = OneHiddenLayer(shape=(10,), hidden=8)(customer(module, 3), seed=0)
    assert told.unreachable == 3


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("outputs", [1, 3])
def test_two_units_that_are_nearly_parallel_are_two(gap: float, outputs: int) -> None:
    module = network(10, 8, outputs, 1)
    first, _ = layers(module)
    first.weight[1] = 1.3 * first.weight[0] + gap * torch.randn(10, generator=torch.Generator().manual_seed(5)).double()
    first.bias[1] = 1.3 * first.bias[0] + gap / 2
    copy = OneHiddenLayer(shape=(10,))(customer(module, outputs), seed=0)
    assert copy.complete
    assert copy.units == 8
    assert difference(module, copy, 10) < 1e-6


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("gap", [0.0, 1e-8])
def test_units_with_one_plane_are_one(gap: float, outputs: int) -> None:
    module = network(10, 8, outputs, 1)
    first, _ = layers(module)
    first.weight[1] = 1.3 * first.weight[0] + gap * torch.randn(10, generator=torch.Generator().manual_seed(5)).double()
    first.bias[1] = 1.3 * first.bias[0] + gap / 2
    copy = OneHiddenLayer(shape=(10,))(customer(module, outputs), seed=0)
    assert copy.complete
    assert copy.units == 7
    assert difference(module, copy, 10) < 1e-6


def test_more_units_than_features_and_outputs_tell_signs_apart() -> None:
    module = network(3, 40, 2, 0)
    copy = OneHiddenLayer(shape=(3,))(customer(module, 2), seed=0)
    assert copy.complete
    assert (copy.units, copy.unreachable, copy.signed) == (40, 0, False)
    assert difference(module, copy, 3) < 1e-8


def test_refinement_reaches_the_rounding_of_the_answers() -> None:
    module = network(20, 16, 2, 0)
    plain = OneHiddenLayer(shape=(20,))(customer(module, 2), seed=0)
    fine = OneHiddenLayer(shape=(20,), agreement=1e-12)(customer(module, 2), seed=0)
    assert fine.complete
    assert fine.queries > plain.queries
    assert difference(module, fine, 20) < 1e-13 < difference(module, plain, 20)


@pytest.mark.parametrize("hidden", [0, 4])
def test_what_is_linear_has_no_unit(hidden: int) -> None:
    module = network(5, 4, 2, 0)
    layers(module)[0].bias[:] = 50.0
    copy = OneHiddenLayer(shape=(5,), hidden=hidden or None)(customer(module, 2), seed=0)
    assert copy.complete
    assert copy.units == 0
    assert copy.unreachable == (4 if hidden else 2)  # two outputs show two of four
    assert difference(module, copy, 5) < 1e-9


def test_a_spent_budget_gives_the_best_so_far() -> None:
    module = network(10, 8, 3, 0)
    whole = OneHiddenLayer(shape=(10,))(customer(module, 3), seed=0)
    found = []
    for queries in (0, 1, 30, 100, 300, 600):
        asks = customer(module, 3, queries=queries)
        copy = OneHiddenLayer(shape=(10,))(asks, seed=0)
        assert not copy.complete
        assert copy.queries == asks.paid == queries
        assert bool(copy.target(torch.rand(3, 10, dtype=torch.float64)).isfinite().all())
        found.append(copy.units)
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == 8
    assert difference(module, copy, 10) < 1e-9  # the last one was only checked less
    enough = OneHiddenLayer(shape=(10,))(customer(module, 3, queries=whole.queries), seed=0)
    assert enough.complete
    assert torch.equal(enough.parameters["hidden.weight"], whole.parameters["hidden.weight"])


def test_knowing_the_number_of_units_saves_probes() -> None:
    module = network(10, 8, 3, 0)
    copy = OneHiddenLayer(shape=(10,), hidden=8)(customer(module, 3), seed=0)
    assert copy.complete
    assert copy.queries < OneHiddenLayer(shape=(10,))(customer(module, 3), seed=0).queries - 300
    assert difference(module, copy, 10) < 1e-9


def test_the_same_seed_gives_the_same_copy() -> None:
    module = network(6, 4, 2, 3)
    one, two = (OneHiddenLayer(shape=(6,))(customer(module, 2), seed=7) for _ in range(2))
    assert all(torch.equal(one.parameters[name], two.parameters[name]) for name in one.parameters)
    assert one.queries == two.queries


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(shows=Shows.LABELS), "shows labels; use a view with Shows.RAW"),
        (View(shows=Shows.PROBABILITIES), "shows probabilities; use a view with Shows.RAW"),
        (View(shows=Shows.RAW, decimals=5), "without decimals, top and noise"),
        (View(shows=Shows.RAW, noise=0.1), "without decimals, top and noise"),
        (View(shows=Shows.RAW, top=1), "without decimals, top and noise"),
    ],
)
def test_views_that_hide_digits_are_refused_before_anything_is_paid(view: View, words: str) -> None:
    asks = customer(network(6, 4, 3, 0), 3, view=view)
    with pytest.raises(SettingError, match=words):
        OneHiddenLayer(shape=(6,))(asks, seed=0)
    assert not asks.paid


def test_float32_answers_are_refused() -> None:
    with pytest.raises(SettingError, match="float32.*module.double"):
        OneHiddenLayer(shape=(6,))(customer(network(6, 4, 3, 0).float(), 3), seed=0)


class Scattered(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        return y + 1e-6 * (1e12 * x.sum(1, keepdim=True)).sin()


def test_answers_that_scatter_are_refused() -> None:
    with pytest.raises(SettingError, match="scatter by"):
        OneHiddenLayer(shape=(6,))(customer(Scattered(network(6, 4, 3, 0)).eval(), 3), seed=0)


@pytest.mark.slow
def test_what_is_no_such_network_is_said_not_to_be_complete() -> None:
    smooth = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()
    deep = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
    with torch.no_grad():
        for at, part in enumerate([*smooth.parameters(), *deep.parameters()]):
            part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(at)))
    assert not OneHiddenLayer(shape=(6,))(customer(smooth, 2), seed=0).complete
    assert not OneHiddenLayer(shape=(4,))(customer(deep, 2), seed=0).complete


class Failing(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        return y.masked_fill(x[:, :1] > 0.97, torch.nan)


class Flaky(nn.Module):
    """One row in fifty fails, always the same."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        odd = 2654435761 * (2 * torch.arange(x.shape[1]) + 1)
        failed = ((x.contiguous().view(torch.int64) * odd).sum(1) % 1009) < 20
        return y.masked_fill(failed[:, None], torch.nan)


def test_rows_that_failed_are_asked_again() -> None:
    module = network(10, 8, 3, 0)
    copy = OneHiddenLayer(shape=(10,))(customer(Flaky(module).eval(), 3), seed=0)
    assert copy.complete
    assert copy.queries > OneHiddenLayer(shape=(10,))(customer(module, 3), seed=0).queries
    assert difference(module, copy, 10) < 1e-9


def test_a_model_that_fails_ends_the_search_with_what_there_is() -> None:
    copy = OneHiddenLayer(shape=(6,))(customer(Failing(network(6, 4, 3, 0)).eval(), 3), seed=0)
    assert not copy.complete


@pytest.mark.parametrize(("hidden", "probes", "agreement"), [(-1, 10, 1e-6), (None, 0, 1e-6), (None, 10, 0.0)])
def test_impossible_settings_are_refused(hidden: int | None, probes: int, agreement: float) -> None:
    with pytest.raises(SettingError, match="hidden must be 0 or more"):
        OneHiddenLayer(shape=(3,), hidden=hidden, probes=probes, agreement=agreement)
    with pytest.raises(SettingError, match="low < high"):
        OneHiddenLayer(shape=(3,), bounds=(1.0, 0.0))
