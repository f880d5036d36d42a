"""Windows change no bound: what is left out of a backward pass is zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from redan.certification import graph, passes
from redan.certification.bends import MaxPool
from redan.certification.patches import Patches
from redan.certification.region import region
from redan.certification.rounding import Rounding
from redan.certification.steps import Interval
from redan.certification.windows import Convolution, Window, cut
from redan.perturbations.norms import L2, Linf
from redan.samples.models import ResidualBlock
from redan.targets import from_torch

NETS = {
    "strides": nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, (3, 2), padding=(1, 0), groups=2, dilation=(1, 2)),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "residual": nn.Sequential(ResidualBlock(2, 3, 1), ResidualBlock(3, 4, 2), nn.Flatten(), nn.LazyLinear(3)),
    "pools": nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "maxima": nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.Conv2d(3, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d((2, 3), stride=(2, 1), padding=(1, 0)),
        nn.Conv2d(3, 4, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "maxima apart": nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=3, padding=1, ceil_mode=True),
        nn.Conv2d(3, 3, 3, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1, dilation=2),
        nn.Conv2d(3, 4, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    ),
}


def margins(kind: str, within: Linf | L2) -> Tensor:
    """CROWN's bounds of all differences of scores, for one row and weights of one seed."""
    with torch.random.fork_rng():
        model = NETS[kind]
        model.eval()(torch.rand(1, 2, 9, 8))
        torch.manual_seed(0)
        x = torch.rand(1, 2, 9, 8)
        for part in model.modules():
            if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                part.reset_parameters()
    with torch.no_grad():
        steps = graph.steps_of(from_torch(model), x.shape[1:])
        bounds = passes.refined(steps, region(x, within, float(within.radius)), Rounding(torch.float32))
        return passes.lower(bounds, len(steps) - 1, torch.eye(3, dtype=torch.float64) - 1 / 3)


def small(monkeypatch: pytest.MonkeyPatch, *, together: bool = False) -> None:
    """Take the smallest windows, whatever they cost; both ends at once or one after the other."""

    def tiles(bounds: passes.Bounds, step: int, _count: int) -> tuple[list[Window | None], bool]:
        shape = bounds.of(step).low.shape
        if len(shape) != 4:
            return [None], together
        return [Window(top, top + 1, left, left + 1) for top in range(shape[2]) for left in range(shape[3])], together

    monkeypatch.setattr(passes, "_tiles", tiles)


def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each number of an image a window of its own."""

    def tiles(bounds: passes.Bounds, step: int, _count: int) -> tuple[list[Window | None], bool]:
        return ([] if len(bounds.of(step).low.shape) == 4 else [None]), False

    monkeypatch.setattr(passes, "_tiles", tiles)


@pytest.mark.parametrize("within", [Linf(0.05), L2(0.4)], ids=["linf", "l2"])
@pytest.mark.parametrize("kind", list(NETS))
def test_the_smallest_windows_give_the_bounds_of_whole_images(
    kind: str, within: Linf | L2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_tiles", lambda *_: ([None], False))
    whole = margins(kind, within)
    for together in (False, True):
        small(monkeypatch, together=together)
        assert margins(kind, within).tolist() == pytest.approx(whole.tolist(), rel=1e-9)


@pytest.mark.parametrize("within", [Linf(0.05), L2(0.4)], ids=["linf", "l2"])
@pytest.mark.parametrize("kind", list(NETS))
def test_a_window_for_each_number_gives_them_too(kind: str, within: Linf | L2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_tiles", lambda *_: ([None], False))
    whole = margins(kind, within)
    patched(monkeypatch)

    assert margins(kind, within).tolist() == pytest.approx(whole.tolist(), rel=1e-9)


def test_branches_of_different_strides_meet_on_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.far, self.near = nn.Conv2d(2, 3, 2, stride=2), nn.Conv2d(2, 3, (5, 5))
            self.first, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(3 * 4 * 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            found: Tensor = self.last(torch.relu(self.far(x) + self.near(x)).flatten(1))
            return found

    torch.manual_seed(0)
    model, x = Branches().eval(), torch.rand(1, 2, 8, 8)

    def found() -> list[float]:
        with torch.no_grad():
            steps = graph.steps_of(from_torch(model), x.shape[1:])
            bounds = passes.refined(steps, region(x, Linf(0.05), 0.05), Rounding(torch.float32))
            return passes.lower(bounds, len(steps) - 1, torch.eye(3, dtype=torch.float64)).tolist()

    monkeypatch.setattr(passes, "_tiles", lambda *_: ([None], False))
    whole = found()
    patched(monkeypatch)

    assert found() == pytest.approx(whole, rel=1e-9)


def test_what_is_chosen_gives_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = margins("strides", Linf(0.05))
    monkeypatch.setattr(passes, "_CALLS", 0)
    cheap = margins("strides", Linf(0.05))

    assert cheap.tolist() == pytest.approx(chosen.tolist(), rel=1e-9)


def test_a_window_that_is_too_short_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = margins("strides", Linf(0.05))
    under = Window.under
    small(monkeypatch)
    monkeypatch.setattr(
        Window, "under", lambda w, look: under(w, look)._replace(bottom=max(under(w, look).bottom - 1, 0))
    )

    assert (margins("strides", Linf(0.05)) - whole).abs().max() > 1e-3


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_transpose_of_a_window(stride: int, padding: int, dilation: int) -> None:
    """⟨a, W x⟩ = ⟨Wᵀ a, x⟩, and Wᵀ a is zero outside what the window looks at."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, 3, 2, dtype=torch.float64, generator=draw)
    settings = (stride, stride), (padding, padding), (dilation, dilation), 1
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64, generator=draw, requires_grad=True)
    z = nn.functional.conv2d(x, weight, None, *settings)
    made = Convolution(weight, *settings, x.shape[1:])
    for window in (Window(0, 1, 0, 1), Window(0, z.shape[2], 0, z.shape[3]), Window(1, 3, 0, 2)):
        if window.bottom > z.shape[2] or window.right > z.shape[3]:
            continue
        a = torch.zeros_like(z)
        part = torch.randn_like(cut(z, window))
        cut(a, window)[:] = part
        (whole,) = torch.autograd.grad(z, x, a, retain_graph=True)
        found = made.looks(window).whole(made.adjoint(part, window), 9, 8)

        assert torch.allclose(found, whole)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_the_transpose_of_a_window_for_each_row(stride: int, padding: int) -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, 3, 2, dtype=torch.float64, generator=draw)
    settings = (stride, stride), (padding, padding), (1, 1), 1
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64, generator=draw, requires_grad=True)
    z = nn.functional.conv2d(x, weight, None, *settings)
    made, (height, width) = Convolution(weight, *settings, x.shape[1:]), z.shape[2:]
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    place = Patches.at(rows, columns, height, width)
    part = torch.randn(height * width, 3, 1, 1, dtype=torch.float64, generator=draw)
    found = made.looks(place).whole(made.adjoint(part, place), 9, 8)
    picked = made.looks(place).cut(x.detach())

    for at, a in enumerate(place.whole(part, height, width)):
        (whole,) = torch.autograd.grad(z, x, a[None], retain_graph=True)
        assert torch.allclose(found[at], whole[0])
    assert torch.allclose((picked * made.adjoint(part, place)).flatten(1).sum(1), (found * x).flatten(1).sum(1))


def test_many_channels_at_few_positions_are_multiplied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 48, 3, 3, dtype=torch.float64, generator=draw)
    made = Convolution(weight, (2, 2), (1, 1), (1, 1), 1, (48, 6, 6))
    a = torch.randn(2, 48, 2, 3, dtype=torch.float64, generator=draw)
    place = Window(0, 2, 0, 3)
    found = made.adjoint(a, place)
    monkeypatch.setattr("redan.certification.windows._FEW", 1)

    assert torch.allclose(found, made.adjoint(a, place))


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_transpose_of_many_rows(stride: int, padding: int, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one product, and as torch has it."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, 3, 2, dtype=torch.float64, generator=draw)
    settings = (stride, stride), (padding, padding), (dilation, dilation), 1
    x = torch.randn(40, 2, 9, 8, dtype=torch.float64, generator=draw, requires_grad=True)
    z = nn.functional.conv2d(x, weight, None, *settings)
    a = torch.randn(z.shape, dtype=torch.float64, generator=draw)
    (whole,) = torch.autograd.grad(z, x, a)
    made = Convolution(weight, *settings, x.shape[1:])

    with torch.no_grad():
        assert torch.allclose(made.transposed(a), whole)
        monkeypatch.setattr("redan.certification.windows._MANY", 41)
        assert torch.allclose(made.transposed(a), whole)


Pair = tuple[int, int]
Sizes = tuple[Pair, Pair, Pair, Pair, bool]

POOLS: list[Sizes] = [
    ((2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 2), (2, 2), (1, 1), (1, 1), True),
    ((3, 3), (2, 2), (1, 1), (1, 1), True),
    ((3, 2), (1, 2), (1, 0), (1, 1), False),
    ((2, 2), (3, 3), (0, 1), (1, 1), True),
    ((2, 3), (2, 1), (1, 1), (2, 1), True),
]


@pytest.mark.parametrize("sizes", POOLS, ids=str)
def test_the_way_back_over_a_maximum_is_its_gradient(sizes: Sizes) -> None:
    """Of numbers that are known, with coefficients above 0: on all of an image, of a window, and of one for each."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64, generator=draw, requires_grad=True)
    kernel, stride, padding, dilation, ceil = sizes
    z = nn.functional.max_pool2d(x, kernel, stride, padding, dilation, ceil)
    pool = MaxPool((-1,), *sizes, (9, 8))
    parts = pool.relaxed([Interval(x.detach(), x.detach())]).parts
    (height, width), a = z.shape[2:], torch.rand(z.shape, dtype=torch.float64, generator=draw)
    (whole,) = torch.autograd.grad(z, x, a, retain_graph=True)
    assert torch.allclose(pool.backward(a, parts).parents[0], whole)

    for window in (Window(0, 1, 0, 1), Window(0, height, 0, width), Window(height - 2, height, width - 1, width)):
        some = torch.zeros_like(a)
        cut(some, window)[:] = cut(a, window)
        (whole,) = torch.autograd.grad(z, x, some, retain_graph=True)
        (found,) = pool.backward(cut(a, window), [cut(part, window) for part in parts], window).parents
        assert torch.allclose(pool.looks(window).whole(found, 9, 8), whole)

    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    place = Patches.at(rows, columns, height, width)
    (found,) = pool.backward(place.cut(a), [place.cut(part) for part in parts], place).parents
    for at, some in enumerate(place.whole(place.cut(a), height, width)):
        (whole,) = torch.autograd.grad(z, x, some[None], retain_graph=True)
        assert torch.allclose(pool.looks(place).whole(found, 9, 8)[at], whole[0])


@pytest.mark.parametrize("sizes", POOLS, ids=str)
def test_a_window_of_maxima_bends_as_the_image_does(sizes: Sizes) -> None:
    """Coefficients of both signs, of numbers that are known a little or well."""
    draw = torch.Generator().manual_seed(0)
    low = torch.rand(1, 2, 9, 8, dtype=torch.float64, generator=draw)
    pool = MaxPool((-1,), *sizes, (9, 8))
    parts = pool.relaxed([Interval(low, low + 0.3 * torch.rand(low.shape, dtype=torch.float64, generator=draw))]).parts
    a = torch.randn(5, *parts[0].shape[1:], dtype=torch.float64, generator=draw)
    whole = pool.backward(a, parts)
    height, width = a.shape[2:]
    added, into = torch.zeros(5, dtype=torch.float64), torch.zeros_like(whole.parents[0])
    for window in [Window(top, top + 1, left, left + 1) for top in range(height) for left in range(width)]:
        back = pool.backward(cut(a, window), [cut(part, window) for part in parts], window)
        added += back.added
        into += pool.looks(window).whole(back.parents[0], 9, 8)

    assert torch.allclose(added, torch.as_tensor(whole.added))
    assert torch.allclose(into, whole.parents[0])
