"""Windows change no bound: what is left out of a backward pass is zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from redan.certification import graph, passes
from redan.certification.patches import Patches
from redan.certification.region import region
from redan.certification.rounding import Rounding
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
