"""Certified bounds: no point of the ball is worse, whatever looks for it; and they are as tight as they claim."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from redan.certification import Certificate, Method, bends, certified, graph, known, passes
from redan.certification.bends import Lines, MaxPool, Relu
from redan.certification.layers import Plan, Wire
from redan.certification.region import Region, region
from redan.certification.rounding import Rounding
from redan.certification.steps import Affine, Back, Interval, Relaxed, Sum
from redan.certification.windows import cut
from redan.engine.run import attack
from redan.errors import NotCertifiableError, SetError, TrainingModeError
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.fmn import FMN
from redan.evasion.pgd import PGD
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.rows import Streams
from redan.samples import fashion_mnist
from redan.samples import model as sample
from redan.samples.models import ResidualBlock
from redan.targets import Output, from_torch

FEW = settings(max_examples=8)
METHODS = list(Method)


# -- small networks of every kind -------------------------------------------------------------------------------


class Skip(nn.Module):
    """Additions, subtractions and constants, written as functions."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4, 3)
        self.register_buffer("shift", torch.tensor([0.4, 0.6]).reshape(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.shift) / 0.5
        x = functional.relu(self.conv(x) * 2 - 0.1)
        x = torch.relu(self.inner(x)) + x - 0.25 * x
        x = -x.mean((2, 3))
        return self.head(x.view(x.size(0), -1))  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Pools, shapes and a product with a matrix, written as functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8) / 3)
        self.kernel = nn.Parameter(torch.randn(2, 2, 3, 3) / 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.kernel, stride=1, padding=1).relu()
        y = functional.max_pool2d(x, 3, stride=2, padding=1)
        z = functional.adaptive_avg_pool2d(y, (2, 2))
        z = functional.dropout(self.drop(z), training=self.training)
        return torch.flatten(z, 1) @ self.weight.T


class Branches(nn.Module):
    """Results side by side, and activations of several kinds as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.after = nn.Conv2d(7, 4, 3, stride=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([functional.leaky_relu(self.left(x), 0.2), x, self.right(x).sigmoid()], 1)
        x = functional.hardtanh(torch.tanh(self.after(x)), -0.5, 0.4)
        return self.head(functional.pad(x, (0, 0)).flatten(1))  # type: ignore[no-any-return]


NETS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "same": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding="same", bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(108, 2)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8, affine=False),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(8, 3),
    ),
    "max pool": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    ),
    "residual": lambda: nn.Sequential(
        ResidualBlock(2, 4, 2), ResidualBlock(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ),
    "wide": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ZeroPad2d((1, 0, 0, 1)),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=1),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "curves": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.LeakyReLU(0.1),
        nn.Linear(8, 6),
        nn.ReLU6(),
        nn.Linear(6, 3),
    ),
    "dense branches": Branches,
    "skip": Skip,
    "functional": Functional,
}
BOUNDS = ((0.0, 1.0), (-1.0, 1.0), (-2.1, 2.64))
SETS: dict[str, tuple[Any, tuple[float, ...]]] = {
    "linf": (Linf, (0.0, 0.01, 0.05, 0.2)),
    "l2": (L2, (0.05, 0.3, 1.0)),
    "l1": (L1, (0.05, 0.5, 2.0)),
}


def network(kind: str, seed: int) -> nn.Module:
    """A network with weights and running statistics that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = NETS[kind]()
        made.eval()(torch.rand(2, 2, 6, 6))  # lazy layers take their shape
        for part in made.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(part.running_mean, 0, 0.3)  # type: ignore[arg-type]
                nn.init.uniform_(part.running_var, 0.3, 2)  # type: ignore[arg-type]
                if part.affine:
                    nn.init.normal_(part.weight, 1, 0.5)
                    nn.init.normal_(part.bias, 0, 0.2)
    return made


class Scene:
    """A network, rows with the classes it answers, and a set around them."""

    def __init__(self, kind: str, norm: str, seed: int, dtype: torch.dtype = torch.float32) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.seed = seed
        bounds = BOUNDS[seed % len(BOUNDS)]
        ball, radii = SETS[norm]
        normalization = ((0.3, -0.2), (0.5, 2.0)) if seed % 2 else None
        self.target = from_torch(network(kind, seed).to(dtype), bounds=bounds, normalization=normalization)
        self.x = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(4, 2, 6, 6, generator=draw).to(dtype)
        self.x = self.x.clamp(*bounds)
        with torch.no_grad():
            self.y = self.target(self.x).argmax(1)
        radius = torch.tensor(radii)[torch.randint(len(radii), (4,), generator=draw)]
        self.within: Any = ball(radius, bounds)

    def margin(self, x: Tensor) -> Tensor:
        z = self.target(x)
        other = z.scatter(1, self.y[:, None], -torch.inf).amax(1)
        return z.gather(1, self.y[:, None])[:, 0] - other

    def worst(self) -> Tensor:
        """The least margin that random points, corners and descent find inside the set: (N,)."""
        draw = Streams.start(self.seed, [str(i) for i in range(len(self.x))])
        wide = torch.as_tensor(self.within.radius).to(self.x.dtype).reshape(-1, 1, 1, 1)
        least = self.margin(self.x).detach()
        for turn in range(12):
            x = self.within.sample(self.x, draw)
            if turn % 3 == 1:
                x = self.within.project(self.x + 9 * wide * draw.signs(self.x.shape[1:], self.x.dtype), self.x)
            for _ in range(1 if turn % 3 else 10):
                x = x.detach().requires_grad_()
                margin = self.margin(x)
                least = torch.minimum(least, margin.detach())
                step = self.within.steepest(-torch.autograd.grad(margin.sum(), x)[0])
                x = self.within.project(x.detach() + 0.5 * wide * step, self.x)
            assert bool(self.within.contains(x, self.x).all())
            least = torch.minimum(least, self.margin(x).detach())
        return least

    def bound(self, most: Method = Method.CROWN) -> Certificate:
        return certified(self.target, self.x, self.y, within=self.within, most=most, workers=1)


scenes = st.builds(Scene, st.sampled_from(list(NETS)), st.sampled_from(list(SETS)), st.integers(0, 2**20))


# -- soundness --------------------------------------------------------------------------------------------------


@FEW
@given(scenes, st.sampled_from(METHODS))
def test_no_point_of_the_set_is_below_the_bound(scene: Scene, most: Method) -> None:
    no_point_is_below(scene, most)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=200)
@given(scenes, st.sampled_from(METHODS))
def test_no_point_of_two_hundred_sets_is_below_the_bound(scene: Scene, most: Method) -> None:
    no_point_is_below(scene, most)


def no_point_is_below(scene: Scene, most: Method) -> None:
    found = scene.bound(most)

    assert bool((scene.worst() >= found.lower).all())
    assert torch.equal(found.certified, found.lower > 0)


@FEW
@given(st.sampled_from(list(NETS)), st.sampled_from(list(SETS)), st.integers(0, 2**20))
def test_double_precision_models_too(kind: str, norm: str, seed: int) -> None:
    scene = Scene(kind, norm, seed, torch.float64)

    assert bool((scene.worst() >= scene.bound().lower).all())


@pytest.mark.parametrize("norm", list(SETS))
@pytest.mark.parametrize("kind", list(NETS))
def test_no_attack_breaks_a_certified_row(kind: str, norm: str) -> None:
    none_breaks_what_is_certified(kind, norm, nets=1)


@pytest.mark.slow
@pytest.mark.parametrize("norm", list(SETS))
@pytest.mark.parametrize("kind", list(NETS))
def test_no_attack_breaks_a_certified_row_of_twenty_nets(kind: str, norm: str) -> None:
    none_breaks_what_is_certified(kind, norm, nets=20)


def none_breaks_what_is_certified(kind: str, norm: str, *, nets: int) -> None:
    """On the first so many networks of which a row is certified."""
    attacks: list[Any] = [PGD(steps=20), APGDL1(steps=20) if norm == "l1" else APGD(steps=20)]
    attacked = 0
    for seed in range(10 * nets):
        scene = Scene(kind, norm, seed)
        found = scene.bound()
        if not bool(found.certified.any()):
            continue
        for one in attacks:
            result = attack(scene.target, scene.x, scene.y, one, within=scene.within, workers=1)
            assert not bool((result.success & found.certified).any()), (type(one).__name__, seed)
        attacked += 1
        if attacked == nets:
            return
    raise AssertionError(f"a row was certified of {attacked} networks only, so no more were attacked")


def _drop_offset(lines: Lines) -> Lines:
    return lines._replace(offset=torch.zeros_like(lines.offset))


def _chord_below(lines: Lines) -> Lines:
    return lines._replace(lower=lines.upper)  # sound: mutants must be told from what is merely different


def _steeper(lines: Lines) -> Lines:
    return lines._replace(lower=lines.lower * 1.2)


def _swapped(self: Relu, a: Tensor, parts: Any, window: Any = None) -> Back:
    upside = RELU_BACK(self, -a, parts, window)
    return Back((-upside.parents[0],), upside.added)


def _unsigned(self: Region, a: Tensor, window: Any = None) -> tuple[Tensor, Tensor]:
    return a.flatten(1) @ cut(self.interval.low, window).flatten(), torch.zeros(len(a), dtype=torch.float64)


def _no_bias(self: Affine, a: Tensor, parts: Any, window: Any = None) -> Back:
    return AFFINE_BACK(self, a, parts, window)._replace(added=0.0)


def _added_wrong(self: Sum, a: Tensor, _parts: Any, _window: Any = None) -> Back:
    return Back((a, -a if self.sign > 0 else a))


def _branch_dropped(self: Sum, a: Tensor, _parts: Any, _window: Any = None) -> Back:
    return Back((a, torch.zeros_like(a)))


def _smallest(self: MaxPool, given: Any) -> Relaxed:
    certain, constant, *chosen = MAX_RELAXED(self, given).parts
    return Relaxed((certain, torch.where(certain, constant, self.pool(given[0].low)[0]), *chosen))


def _always_certain(_self: MaxPool, x: Interval) -> Tensor:
    return torch.ones_like(_self.pool(x.low)[0], dtype=torch.bool)


def _no_eps(self: Plan, x: Wire, layer: Any) -> Wire:
    kept, layer.eps = layer.eps, 0.0
    try:
        return NORMALIZED(self, x, layer)
    finally:
        layer.eps = kept


def _signed_radius(self: Affine, given: Any, rounding: Rounding) -> Any:
    reached = AFFINE_FORWARD(self, given, rounding)
    half = self.linear((given[0].high - given[0].low) / 2).abs()
    middle = (reached.interval.low + reached.interval.high) / 2
    return reached._replace(interval=Interval(middle - half, middle + half))


RELU_BACK, MAX_RELAXED, LINES = Relu.backward, MaxPool.relaxed, bends.relu_lines
AFFINE_FORWARD, AFFINE_BACK, NORMALIZED = Affine.forward, Affine.backward, Plan.normalized
MUTANTS: dict[str, tuple[Any, str, Any, str]] = {
    "the chord goes through the origin": (bends, "relu_lines", lambda x: _drop_offset(LINES(x)), "dense"),
    "the lower line is too steep": (bends, "relu_lines", lambda x: _steeper(LINES(x)), "dense"),
    "lines above and below are swapped": (Relu, "backward", _swapped, "dense"),
    "the box's upper face is left out": (Region, "least", _unsigned, "dense"),
    "the bias is left out": (Affine, "backward", _no_bias, "dense"),
    "radii see the signs of weights": (Affine, "forward", _signed_radius, "dense"),
    "a sum is taken for a difference": (Sum, "backward", _added_wrong, "residual"),
    "a residual branch is dropped": (Sum, "backward", _branch_dropped, "residual"),
    "a window's constant is its least": (MaxPool, "relaxed", _smallest, "max pool"),
    "a window's winner is taken for certain": (MaxPool, "_certain", _always_certain, "max pool"),
}


def _violated(kind: str) -> bool:
    """Whether the search of the soundness test finds a point below the bound, or the model outside its own."""
    for seed in range(20):
        scene = Scene(kind, "linf", seed)
        scene.within = scene.within.sized(0.1)
        try:
            if not bool((scene.worst() >= scene.bound().lower).all()):
                return True
        except NotCertifiableError:
            return True
    return False


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_broken_relaxation_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, broken, kind = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, broken)

    assert _violated(kind)


def test_a_variance_without_its_eps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the model's own answer in double precision, which bounds of radius 0 hold to a few units of the last place."""
    scene = Scene("batch norm", "linf", 0, torch.float64)
    scene.within = Linf(0.0, scene.within.bounds)
    scene.bound()
    monkeypatch.setattr(Plan, "normalized", _no_eps)

    with pytest.raises(NotCertifiableError, match="outside the bounds"):
        scene.bound()


def test_another_sound_relaxation_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bends, "relu_lines", lambda x: _chord_below(LINES(x)))

    assert not _violated("dense")


# -- tightness --------------------------------------------------------------------------------------------------


@FEW
@given(scenes)
def test_each_method_is_as_tight_as_the_one_before(scene: Scene) -> None:
    first, second, third = (scene.bound(most).lower for most in METHODS)

    assert bool((first <= second).all())
    assert bool((second <= third).all())


@pytest.mark.parametrize("norm", list(SETS))
def test_a_linear_model_is_bounded_exactly(norm: str) -> None:
    """min (w_y - w_j) · x = the margin - ε ‖w_y - w_j‖ in the dual norm, where the ball lies inside the box."""
    draw = torch.Generator().manual_seed(0)
    model = nn.Linear(20, 4).eval()
    model.weight.data.normal_(generator=draw)
    model.bias.data.normal_(generator=draw)
    x = torch.full((30, 20), 0.5) + 0.05 * torch.randn(30, 20, generator=draw)
    y = model(x).argmax(1)
    radius = torch.linspace(0.01, 0.25, 30)
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    weight, scores = model.weight.detach().double(), model(x).detach().double()
    exact = []
    for i, k in enumerate(y.tolist()):
        gaps = [
            float(scores[i, k] - scores[i, j]) - float(radius[i]) * float((weight[k] - weight[j]).norm(p=dual))
            for j in range(4)
            if j != k
        ]
        exact.append(min(gaps))
    found = certified(model, x, y, within=SETS[norm][0](radius), most=Method.CROWN_IBP)
    undecided = [i for i, method in enumerate(found.method) if norm == "linf" or method is Method.CROWN_IBP]

    assert len(undecided) >= 3
    assert found.lower[undecided].tolist() == pytest.approx([exact[i] for i in undecided], abs=2e-4)
    assert bool((found.lower <= torch.tensor(exact, dtype=torch.float64) + 1e-5).all())


def test_one_hidden_layer_is_near_the_truth() -> None:
    """What the margin may lose: at most 1.5 times what a fine grid finds, and CROWN is nearer than IBP."""
    grid = torch.tensor(list(itertools.product(torch.linspace(-1, 1, 201).tolist(), repeat=2)))
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        last = nn.Linear(16, 2)
        model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), last).eval()
        x = torch.full((1, 2), 0.5)
        y = model(x).argmax(1)
        gap = (model(x)[0, y] - model(x)[0, 1 - y]).detach()
        last.bias.data[1 - y] += gap - 1e-3  # near the boundary, where no method stops early
        with torch.no_grad():
            z = model(x + 0.1 * grid)
            clean = float(model(x)[0, y] - model(x)[0, 1 - y])
            lost = clean - float((z[:, y] - z[:, 1 - y]).min())
        found = [float(certified(model, x, y, within=Linf(0.1), most=most).lower[0]) for most in METHODS]
        assert clean - lost >= found[-1]
        shares.append([(clean - one) / lost for one in found])
    mean = torch.tensor(shares).mean(0).tolist()

    assert max(share[-1] for share in shares) <= 1.5
    assert mean[-1] < 1.2
    assert mean[0] > 2


# -- rounding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_a_row_at_the_boundary_is_never_certified(kind: Any) -> None:
    model = nn.Linear(2, 2, bias=False).eval()
    model.weight.data = torch.eye(2)
    x, y = torch.tensor([[0.75, 0.25]]), torch.tensor([0])
    reach = {Linf: 0.25, L2: 0.5 / math.sqrt(2), L1: 0.5}[kind]

    for share, proven in ((0.999, True), (1 - 1e-9, False), (1.0, False), (1.001, False)):
        assert certified(model, x, y, within=kind(reach * share)).certified.tolist() == [proven]


def test_a_tie_is_never_certified() -> None:
    model = nn.Linear(3, 2, bias=False).eval()
    model.weight.data = torch.ones(2, 3)
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))

    for label in (0, 1):
        assert not bool(certified(model, x, torch.full((5,), label), within=Linf(0.0)).certified.any())


def _orders(products: np.ndarray[Any, Any]) -> list[float]:
    """Single-precision sums of some products: as they stand, sorted both ways, signs apart, pairwise."""
    up = np.sort(products)
    sums = [np.cumsum(part, dtype=np.float32)[-1] for part in (products, up, up[::-1])]
    apart = [np.cumsum(part[::-1], dtype=np.float32)[-1] for part in (up[up < 0], up[up >= 0]) if len(part)]
    return [float(s) for s in (*sums, np.sum(apart, dtype=np.float32), np.sum(products, dtype=np.float32))]


def _outside(size: int) -> int:
    """How many single-precision sums of a layer's products lie outside the interval at radius 0, in 20 layers."""
    outside = 0
    for seed in range(20):
        torch.manual_seed(seed)
        layer = nn.Linear(size, 2, bias=False).eval()
        x = torch.rand(1, size)
        made = graph.steps_of(from_torch(layer), (size,))
        point = Region(Interval(x.double(), x.double()), x.double(), 0.0, 1.0)
        low, high = (p[0] for p in passes.intervals(made, point, Rounding(torch.float32)).of(len(made) - 1))
        for k in range(2):
            products = (layer.weight[k] * x[0]).detach().numpy()
            outside += sum(not float(low[k]) <= one <= float(high[k]) for one in _orders(products))
    return outside


@pytest.mark.parametrize("size", [3, 50, 3000])
def test_bounds_hold_for_any_order_of_summation(size: int) -> None:
    assert _outside(size) == 0


def test_without_the_room_for_rounding_they_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rounding, "affine", lambda self, terms: 0.0)

    assert _outside(50) > 20


def test_what_may_overflow_is_not_certified() -> None:
    """1e38 is a number, ten of them are none."""
    first, last = nn.Linear(10, 10, bias=False), nn.Linear(10, 2)
    model = nn.Sequential(first, nn.ReLU(), last).eval()
    for layer in (first, last):
        layer.weight.data.fill_(1e19)
    last.weight.data[1] = 0
    x = torch.full((1, 10), 0.5)

    assert certified(model, x, torch.tensor([0]), within=Linf(0.01)).lower.tolist() == [-math.inf]


def test_the_region_holds_all_that_the_referee_accepts() -> None:
    """The farthest points that `contains` allows, rounding included."""
    draw = torch.Generator().manual_seed(0)
    for kind, share in ((Linf, 1.0), (L2, 50**-0.5), (L1, 1 / 50)):
        for bounds in BOUNDS:
            x0 = (torch.rand(1, 50, generator=draw) * 0.5 + 0.2).clamp(*bounds)
            within = kind(0.1, bounds)
            around = region(x0, within, 0.1)
            way = torch.rand(1, 50, generator=draw).sign()
            reach = [0.1 * share * (1 + 10**-power) for power in range(3, 9)]
            kept = [x0 + r * way for r in reach if bool(within.contains(x0 + r * way, x0))]
            order = {Linf: math.inf, L2: 2.0, L1: 1.0}[kind]
            assert kept
            for x in kept:
                assert float((x.double() - x0.double()).norm(p=order)) <= around.radius
                assert bool(((x >= around.interval.low) & (x <= around.interval.high)).all())


# -- rows and settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["residual", "max pool"])
def test_no_number_depends_on_other_rows_or_cores(kind: str) -> None:
    target = from_torch(network(kind, 3))
    x = torch.rand(40, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    y = target(x).argmax(1)
    radius = torch.linspace(0.001, 0.1, 40)
    whole = certified(target, x, y, within=Linf(radius), workers=2)

    assert len(set(whole.method)) == 3
    for part in (slice(0, 1), slice(5, 6), slice(7, 30)):
        some = certified(target, x[part], y[part], within=Linf(radius[part]), workers=1)
        assert torch.equal(some.lower, whole.lower[part])
        assert some.method == whole.method[part]


def test_no_rows() -> None:
    found = certified(nn.Linear(3, 2).eval(), torch.empty(0, 3), torch.empty(0, dtype=torch.long), within=Linf(0.1))

    assert found.lower.shape == found.certified.shape == (0,)
    assert found.method == ()


@FEW
@given(st.sampled_from(list(NETS)), st.integers(0, 2**20))
def test_at_radius_zero_what_is_right_is_certified(kind: str, seed: int) -> None:
    """But for margins that rounding could turn: a few thousandths here."""
    scene = Scene(kind, "linf", seed)
    scene.y[2:] = (scene.y[2:] + 1) % scene.target(scene.x).shape[1]  # wrong rows
    scene.within = Linf(0.0, scene.within.bounds)
    margin, found = scene.margin(scene.x).detach(), scene.bound()

    assert not bool((found.certified & (margin <= 0)).any())
    assert bool(found.certified[margin > 5e-3].all())
    assert (found.lower - margin).tolist() == pytest.approx([0] * 4, abs=5e-3)


def test_an_infinite_radius_is_the_whole_box() -> None:
    model = nn.Linear(2, 2).eval()
    model.weight.data, model.bias.data = torch.eye(2), torch.tensor([1.5, 0.0])
    x = torch.tensor([[0.5, 0.5]])

    for kind in (Linf, L2, L1):
        found = certified(model, x, torch.tensor([0]), within=kind(math.inf), most=Method.CROWN)
        assert float(found.lower[0]) == pytest.approx(0.5, abs=1e-5)


def test_a_single_number_a_row_and_a_module_that_is_one_layer() -> None:
    model = nn.Linear(1, 2).eval()
    model.weight.data, model.bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.5, 0.5])
    x = torch.tensor([[0.9], [0.6], [0.1]])
    found = certified(model, x, torch.tensor([0, 0, 1]), within=Linf(torch.tensor([0.3, 0.3, 0.3])))

    assert found.certified.tolist() == [True, False, True]


def test_nothing_of_the_module_is_changed() -> None:
    model = network("skip", 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = set(vars(model))
    certified(model, torch.rand(2, 2, 6, 6), torch.tensor([0, 1]), within=Linf(0.01))

    assert set(vars(model)) == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# -- what has no bounds -----------------------------------------------------------------------------------------


class Own(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = super().forward(x).square()
        return z


def written(forward: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    """A module with this forward, which has a layer to call."""
    kind = type("Written", (nn.Module,), {"forward": forward})
    made: nn.Module = kind()
    made.layer = nn.Linear(4, 4)
    return made


def _used_again(self: Any, x: Tensor) -> Tensor:
    z: Tensor = self.layer(x)
    return z + torch.relu_(z.view(-1, 4))


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "layer": (nn.Sequential(nn.Linear(4, 4), nn.SiLU()), r"1 \(SiLU\) has no bound"),
    "nested": (nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.GELU())), r"0\.1 \(GELU\) has no bound"),
    "subclass": (nn.Sequential(Own(4, 4)), r"operation square has no bound"),
    "itself": (nn.Softmax(1), r"the module itself \(Softmax\)"),
    "slope": (nn.LeakyReLU(1.5), "slope"),
    "joined rows": (written(lambda self, x: torch.cat([x, x])), "rows"),
    "parametrized": (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "bound"),
    "batch statistics": (nn.BatchNorm1d(4, track_running_stats=False), "normalizes by the batch"),
    "circular": (nn.Conv2d(1, 4, 1, padding_mode="circular"), "pads with circular"),
    "product": (written(lambda self, x: self.layer(x) * x), "multiplies two results"),
    "quotient": (written(lambda self, x: 1 / self.layer(x)), "divides by a result"),
    "function": (written(lambda self, x: functional.softplus(self.layer(x))), "operation softplus"),
    "method": (written(lambda self, x: self.layer(x).exp()), "operation exp"),
    "rows": (written(lambda self, x: x - x.mean(0, keepdim=True)), "mean over the rows"),
    "slice": (written(lambda self, x: self.layer(x)[:, :2]), "operation getitem"),
    "branch": (written(lambda self, x: x if x.sum() > 0 else -x), "cannot be traced"),
    "used again": (written(_used_again), "writes into numbers that are used again"),
    "shapes": (written(lambda self, x: self.layer(x) + torch.zeros(4, 1)), "broadcasting"),
    "scores": (written(lambda self, x: self.layer(x).unsqueeze(1)), "class scores"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_bound_is_refused_by_name(name: str) -> None:
    model, reason = REFUSED[name]

    with pytest.raises(NotCertifiableError, match=reason):
        graph.steps_of(from_torch(model.eval()), (1, 2, 2) if name == "circular" else (4,))


def test_hooks_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    model[0].register_forward_hook(lambda module, given, result: -result)

    with pytest.raises(NotCertifiableError, match="0 has forward hooks"):
        certified(model, torch.rand(2, 4), torch.tensor([0, 1]), within=Linf(0.1))


def test_targets_that_cannot_be_certified() -> None:
    model, x, y = nn.Linear(4, 2).eval(), torch.rand(2, 4), torch.tensor([0, 1])
    for target, reason in (
        (from_torch(model, output=Output.PROBABILITIES), "probabilities"),
        (from_torch(model, stochastic=True), "stochastic"),
        (from_torch(nn.Linear(4, 2).bfloat16().eval()), "bfloat16"),
    ):
        with pytest.raises(NotCertifiableError, match=reason):
            certified(target, x, y, within=Linf(0.1))
    with pytest.raises(TrainingModeError):
        certified(nn.Sequential(nn.Linear(4, 2), nn.Dropout()), x, y, within=Linf(0.1))
    with pytest.raises(SetError, match="L0"):
        certified(model, x, y, within=L0(1))


def test_fewer_bits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = nn.Linear(4, 2).eval(), torch.rand(2, 4), torch.tensor([0, 1])
    with torch.autocast("cpu"), pytest.raises(NotCertifiableError, match="autocast"):
        certified(model, x, y, within=Linf(0.1))
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with pytest.raises(NotCertifiableError, match="fewer bits"):
        certified(model, x, y, within=Linf(0.1))
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE")
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(NotCertifiableError, match="fewer bits"):
            certified(model, x, y, within=Linf(0.1))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(certified(model, x, y, within=Linf(0.1)).method) == 2


def test_a_graph_that_is_not_what_runs_is_refused() -> None:
    """Symbolic tracing decides a branch on Python state once; the model goes the other way when it is asked."""

    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.layer(x)
            return -z if type(x) is Tensor else z

    with pytest.raises(NotCertifiableError, match="outside the bounds of its own traced graph"):
        certified(Turning().eval(), torch.rand(2, 4), torch.tensor([0, 1]), within=Linf(0.1))


def test_every_listed_layer_and_function_exists_once() -> None:
    assert all(callable(made) for made in (*known.MODULES.values(), *known.FUNCTIONS.values()))


def test_the_document_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/certificates.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/certificates.md", "exec", dont_inherit=True), {})  # noqa: S102  # our own document

    assert re.fullmatch(r"5\d of 64 rows are certified\n", capsys.readouterr().out)


# -- the shipped models -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "eps", "most", "rows", "least"),
    [
        ("natural", 0.01, Method.CROWN, 200, 0.75),
        ("robust", 0.02, Method.CROWN, 200, 0.8),
        ("residual", 0.02, Method.CROWN, 12, 0.5),
    ],
)
def test_no_attack_of_ours_reaches_into_a_certified_ball(
    name: str, eps: float, most: Method, rows: int, least: float
) -> None:
    images, labels = fashion_mnist()
    x, y = torch.from_numpy(images[:rows]), torch.from_numpy(labels[:rows])
    model = sample(name)
    found = certified(model, x, y, within=Linf(eps), most=most)
    assert float(found.certified.double().mean()) >= least

    for one in (APGD(steps=100), FMN(steps=100)):
        result = attack(model, x, y, one, within=Linf(eps))
        assert not bool((result.success & found.certified).any()), type(one).__name__
    nearest = attack(model, x, y, FMN(steps=100), within=Linf(math.inf))
    assert bool((nearest.distance[found.certified] > eps).all())
