"""The cheaper gradient pass: the plain pass's numbers, or the plain pass itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from redan.answers import evaluate
from redan.engine.intake import probes
from redan.engine.run import attack
from redan.evasion.pgd import PGD
from redan.goals import Untargeted
from redan.losses import cross_entropy
from redan.oracle import Oracle
from redan.perturbations.norms import L2, Linf
from redan.referee import Closest
from redan.runners.local import one_thread_each
from redan.samples import fashion_mnist, model
from redan.targets import TorchTarget, from_torch
from redan.targets.fast import TOLERANCE, Cheaper, agrees, choose, recorded
from redan.targets.surrogates import ensemble, plain
from redan.targets.torch import accelerated

BOTH = Cheaper(products=True, norms=True)


def gradient(target: TorchTarget, x: Tensor, y: Tensor) -> Tensor:
    return evaluate(target, x, micro=256, goal=Untargeted(y), loss=cross_entropy).gradient


def rows(count: int) -> tuple[Tensor, Tensor]:
    x, y = fashion_mnist()
    return torch.from_numpy(x[:count]), torch.from_numpy(y[:count])


def accelerated_sample(name: str) -> TorchTarget:
    found = accelerated(from_torch(model(name)), rows(8)[0])
    assert isinstance(found, TorchTarget)
    return found


def norm(channels: int, **settings: Any) -> nn.BatchNorm2d:
    """Batch normalization whose statistics and weights are no trivial ones."""
    made = nn.BatchNorm2d(channels, **settings)
    draws = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for part, low in ((made.running_mean, -1.0), (made.running_var, 0.5), (made.weight, 0.5), (made.bias, -1.0)):
            if part is not None:
                part.copy_(torch.rand(channels, generator=draws) + low)
    return made


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def settled(module: nn.Module) -> nn.Module:
    """The module with weights that are the same in every run of the tests."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                for weight in part.parameters(recurse=False):
                    weight.uniform_(-0.5, 0.5, generator=draws)
    return module


def passes(module: Callable[[Tensor], Tensor], x: Tensor, how: Cheaper) -> tuple[Tensor, Tensor]:
    """Scores and the gradient of their squares on one path."""
    inputs = x.clone().requires_grad_()
    with how.on():
        scores = module(inputs.clone())
    return scores.detach(), torch.autograd.grad(scores.square().sum(), inputs)[0]


def same(module: Callable[[Tensor], Tensor], x: Tensor, tolerance: float = 5e-6) -> bool:
    pairs = zip(passes(module, x, Cheaper()), passes(module, x, BOTH), strict=True)
    return all(bool((one - other).abs().amax() <= tolerance * one.abs().amax()) for one, other in pairs)


# -- the shipped models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [("natural", "products"), ("robust", "products"), ("residual", "products and folded norms")],
)
def test_gradients_are_the_plain_ones(name: str, words: str) -> None:
    x, y = rows(64)
    fast = accelerated_sample(name)
    assert fast.fast is not None
    assert fast.fast.words == words
    one, other = gradient(from_torch(model(name)), x, y), gradient(fast, x, y)
    largest = one.flatten(1).abs().amax(1)
    apart = (one - other).flatten(1).abs().amax(1) / largest
    assert float(apart.median()) <= TOLERANCE
    assert float((one - other).abs().amax() / one.abs().amax()) <= TOLERANCE
    assert not torch.equal(one, other), "the fast path was not taken at all"


@pytest.mark.parametrize("name", ["natural", "residual"])
def test_gradients_do_not_depend_on_the_batch(name: str) -> None:
    x, y = rows(256)
    fast = accelerated_sample(name)
    with one_thread_each():
        whole = gradient(fast, x, y)
        for size in (1, 2, 3, 4, 5, 7, 8, 16, 33, 64, 127):
            assert torch.equal(gradient(fast, x[:size], y[:size]), whole[:size]), size
            assert torch.equal(gradient(fast, x[-size:], y[-size:]), whole[-size:]), size


@pytest.mark.parametrize("within", [Linf(0.1), L2(1.5)])
@pytest.mark.parametrize("name", ["natural", "robust", "residual"])
def test_no_verdict_changes(name: str, within: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(64)
    fast = attack(model(name), x, y, PGD(steps=20), within=within)
    monkeypatch.setattr("redan.engine.run.accelerated", lambda target, x: target)
    slow = attack(model(name), x, y, PGD(steps=20), within=within)
    assert not fast.errors
    assert int((fast.success != slow.success).sum()) <= 1  # a row on the very edge may fall on either side
    assert abs(int(fast.success.sum()) - int(slow.success.sum())) <= 1


def test_order_batch_and_workers_change_no_byte() -> None:
    x, y = rows(48)
    whole = attack(model("residual"), x, y, PGD(steps=5), within=Linf(0.1), workers=1)
    other = attack(model("residual"), x.flip(0), y.flip(0), PGD(steps=5), within=Linf(0.1), workers=2, block=7)
    assert torch.equal(whole.adversarial, other.adversarial.flip(0))


def test_the_rows_of_the_check_are_the_same_in_any_order() -> None:
    x, names = drawn(20, 3), [str(i) for i in range(20)]
    assert torch.equal(probes(x, names), probes(x.flip(0), names[::-1]))
    assert len(probes(x[:0], [])) == 0


# -- products ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(1, 5, 3, stride=2, padding=1),
        nn.Conv2d(1, 4, (4, 3), stride=(2, 1), padding=(1, 0), bias=False),
        nn.Conv2d(1, 9, 5),
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(3, 8, 4, stride=4),
        nn.Conv2d(6, 4, 1, stride=2),
        nn.Conv2d(6, 4, 1, stride=(1, 2), bias=False),
        nn.Conv2d(6, 4, 1, stride=2, padding=1),
    ],
)
def test_every_geometry(convolution: nn.Conv2d) -> None:
    x = drawn(3, convolution.in_channels, 15, 17)
    assert same(nn.Sequential(settled(convolution), nn.Flatten()), x)
    with Cheaper(products=True).on():
        assert convolution(x.requires_grad_()).grad_fn.name() == "_ProductBackward"
    x = x.detach()
    assert agrees(BOTH, nn.Sequential(convolution.double(), nn.Flatten()), x.double())


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(2, 4, 3, groups=2),
        nn.Conv2d(1, 1, 9, padding=4),  # its columns would take 81 times the memory
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Conv2d(6, 4, 1),
        nn.Conv2d(6, 4, 1, stride=4),  # too few points
    ],
)
def test_other_geometries_keep_the_plain_path(convolution: nn.Conv2d) -> None:
    x = drawn(2, convolution.in_channels, 19, 19)
    one, other = (passes(nn.Sequential(convolution, nn.Flatten()), x, how)[1] for how in (Cheaper(), BOTH))
    assert torch.equal(one, other)


# -- folded norms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        [nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), norm(8)],
        [nn.Conv2d(4, 8, 3, padding=1, groups=2), norm(8)],
        [nn.Conv2d(4, 4, 3, groups=4, bias=False), norm(4, affine=False)],
        [nn.Conv2d(3, 8, 3, dilation=2), norm(8, eps=0.1)],
        [nn.Conv2d(3, 8, 3, padding="same", bias=False), norm(8)],
        [nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), norm(8)],
    ],
)
def test_a_norm_after_a_convolution_is_folded(parts: list[nn.Module]) -> None:
    module = settled(nn.Sequential(*parts)).eval()
    calls = []
    was = Cheaper.folded

    def folded(self: Cheaper, conv: tuple[Any, ...], norm: Any) -> tuple[Tensor, Tensor]:
        calls.append(conv)
        return was(self, conv, norm)

    x = drawn(4, parts[0].in_channels, 9, 9)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cheaper, "folded", folded)
        assert same(module, x)
    assert len(calls) == 1
    assert same(module.double(), x.double(), 1e-13)


@pytest.mark.parametrize(
    "parts",
    [
        [norm(3), nn.Conv2d(3, 8, 3)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), norm(8)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), norm(8)],
        [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)],  # statistics of the batch
        [nn.Conv2d(3, 8, 3), nn.Identity(), nn.Dropout(), nn.Conv2d(8, 4, 3)],
        [parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), norm(8)],
        [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)],
        [nn.ConvTranspose2d(3, 8, 3), norm(8)],
    ],
)
def test_what_is_no_such_pair_is_not_folded(parts: list[nn.Module]) -> None:
    module = nn.Sequential(*parts, nn.Flatten()).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cheaper, "folded", lambda *_: pytest.fail("folded"))
        one, other = (
            passes(module, drawn(4, 3, 9, 9), Cheaper()),
            passes(module, drawn(4, 3, 9, 9), Cheaper(norms=True)),
        )
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


class Net(nn.Module):
    """One convolution and one norm, combined by `how`."""

    def __init__(self, how: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.other, self.bn, self.how = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), norm(4), how
        settled(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x).flatten(1)


def _both_uses(net: Any, x: Tensor) -> Tensor:
    z = net.conv(x)
    return net.bn(z) + z.tanh()  # type: ignore[no-any-return]


def _other_use_first(net: Any, x: Tensor) -> Tensor:
    z = net.conv(x)
    mixed = torch.cat([z, x], 1).tanh()
    return net.bn(z) + mixed[:, :4]  # type: ignore[no-any-return]


def _written_over(net: Any, x: Tensor) -> Tensor:
    z = net.conv(x)
    z.mul_(2)
    return net.bn(z)  # type: ignore[no-any-return]


def _input_written_over_between_uses(net: Any, x: Tensor) -> Tensor:
    x = x * 1
    z = net.conv(x)
    normed = net.bn(z)
    x.mul_(3)
    return normed + z  # type: ignore[no-any-return]


def _by_data(net: Any, x: Tensor) -> Tensor:
    z = net.conv(x)
    return net.bn(z) if float(z.detach().mean()) > 0 else z.tanh()  # type: ignore[no-any-return]


TRAPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "the norm twice": lambda net, x: net.bn(net.bn(net.conv(x))),
    "the pair twice": lambda net, x: net.bn(net.conv(net.bn(net.conv(x)).relu())),
    "one convolution, two uses": _both_uses,
    "another use first": _other_use_first,
    "two convolutions, one norm": lambda net, x: net.bn(net.conv(x)) + net.bn(net.other(x)),
    "one norm of the other": lambda net, x: (net.conv(x), net.bn(net.other(x)))[0] + net.bn(x),
    "two are open": lambda net, x: (lambda a, b: net.bn(a) + net.bn(b))(net.conv(x), net.other(x)),
    "reads the weight": lambda net, x: net.bn(net.conv(x)) * net.conv.weight.square().sum(),
    "by hand": lambda net, x: functional.batch_norm(
        functional.conv2d(x, net.conv.weight), net.bn.running_mean, net.bn.running_var, training=False, eps=0.5
    ),
    "batch statistics by hand": lambda net, x: functional.batch_norm(net.conv(x), None, None, training=True),
    "reads the shape": lambda net, x: net.bn((lambda z: z.view(z.shape[0], 4, -1, z.size(3)))(net.conv(x))),
    "by the data": _by_data,
    "written over": _written_over,
    "no gradient there": lambda net, x: net.bn(net.conv(x.detach())) + x,
    "gradients off": lambda net, x: torch.no_grad()(lambda: net.bn(net.conv(x)))() + x,
    "straight through": lambda net, x: x + (net.bn(net.conv(x)) - x).detach(),
    "a list": lambda net, x: torch.stack([net.conv(x), net.bn(net.conv(x))]).sum(0),
    "lists of numbers": lambda net, x: net.bn(
        torch.conv2d(x, net.conv.weight, net.conv.bias, [1, 1], [1, 1], [1, 1], 1)
    ),
    "in place": lambda net, x: x + torch.relu_(net.bn(net.conv(x))),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_forward_means_what_it_says(trap: str) -> None:
    net = Net(TRAPS[trap]).eval().requires_grad_(False)
    assert same(net, drawn(4, 4, 8, 8))
    assert same(net.double(), drawn(4, 4, 8, 8).double(), 1e-13)


def test_what_cannot_be_followed_raises_and_falls_back() -> None:
    net = Net(_input_written_over_between_uses).eval()
    with pytest.raises(RuntimeError, match="written over"):
        passes(net, drawn(4, 4, 8, 8), BOTH)
    assert choose(net, net, drawn(4, 4, 8, 8)).words == "plain"


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_: Any, *gradients: Any) -> Any:
        return gradients[0] * 2


def test_functions_that_hide_from_the_mode_fall_back() -> None:
    apply: Callable[..., Tensor] = Doubled.apply
    net = Net(lambda net, x: net.bn(apply(net.conv(x)))).eval()
    assert choose(net, net, drawn(4, 4, 8, 8)).words == "plain"
    inside = Net(lambda net, x: apply(net.bn(net.conv(x)))).eval()
    assert choose(inside, inside, drawn(4, 4, 8, 8)).words == "folded norms"
    assert same(inside, drawn(4, 4, 8, 8))


@pytest.mark.parametrize("where", ["conv", "bn"])
@pytest.mark.parametrize("before", [False, True])
def test_hooks_see_what_they_see_in_the_plain_pass(where: str, before: bool) -> None:
    net = Net(lambda net, x: net.bn(net.conv(x))).eval()
    part, seen = getattr(net, where), []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], *answer: Tensor) -> None:
        seen.append((answer or inputs)[0].detach() * 1)

    if before:
        part.register_forward_pre_hook(look)
    else:
        part.register_forward_hook(look)
    assert same(net, drawn(4, 4, 8, 8))
    one, other = seen
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_backward_hook_falls_back_or_sees_the_same() -> None:
    for where in ("conv", "bn"):
        net = Net(lambda net, x: net.bn(net.conv(x))).eval()
        seen: list[Tensor] = []
        getattr(net, where).register_full_backward_hook(lambda m, inner, outer, seen=seen: seen.append(outer[0]))
        how = choose(net, net, drawn(4, 4, 8, 8))
        seen.clear()
        passes(net, drawn(4, 4, 8, 8), Cheaper())
        passes(net, drawn(4, 4, 8, 8), how)
        assert torch.allclose(seen[0], seen[1], rtol=1e-5, atol=1e-5)


def test_changed_parameters_and_statistics_are_seen() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x))).eval().double()
    x = drawn(4, 4, 8, 8).double()
    for part in (net.conv.weight, net.conv.bias, net.bn.weight, net.bn.bias, net.bn.running_mean, net.bn.running_var):
        before = passes(net, x, BOTH)[0]
        assert part is not None
        with torch.no_grad():
            part.mul_(1.5)
        assert not torch.equal(before, passes(net, x, BOTH)[0])
        assert same(net, x, 1e-12)
    assert net.bn.running_var is not None
    net.bn.running_var = net.bn.running_var * 2
    net.conv.weight = nn.Parameter(net.conv.weight.detach() * 2)
    assert same(net, x, 1e-12)


def test_a_run_begins_with_the_weights_of_its_day() -> None:
    net = Net(lambda net, x: net.bn(net.conv(x))).eval()
    x, y = drawn(8, 4, 3, 3), torch.zeros(8, dtype=torch.int64)
    target = accelerated(from_torch(net), x)
    gradient(target, x, y)  # type: ignore[arg-type]
    net.bn.train()
    with torch.no_grad():
        net.bn(x)  # moves the statistics, and does not count it as a change in place
    net.bn.eval()
    fresh, slow = accelerated(target, x), plain(target)
    assert isinstance(fresh, TorchTarget)
    assert isinstance(slow, TorchTarget)
    assert fresh.fast is not None
    assert fresh.fast.norms
    assert torch.allclose(gradient(fresh, x, y), gradient(slow, x, y), rtol=1e-4, atol=1e-6)


def test_nothing_of_the_module_changes() -> None:
    net = model("residual")
    state = {name: value.clone() for name, value in net.state_dict().items()}
    versions = [p._version for p in net.parameters()]
    gradient(accelerated_sample("residual"), *rows(8))
    attack(net, *rows(8), PGD(steps=2), within=Linf(0.1))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert versions == [p._version for p in net.parameters()]
    assert all(p.is_contiguous() and p.grad is None for p in net.parameters())


# -- what has no cheaper path --------------------------------------------------------------------------------


class Purified(nn.Module):
    """Asks for a gradient of its own in the forward pass, of its input or its weights, and is differentiated again."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.conv, self.weights = nn.Conv2d(1, 3, 3), weights
        settled(self)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x if x.requires_grad else x.detach().requires_grad_()
            asked = self.conv.weight if self.weights else inner
            step = torch.autograd.grad(self.conv(inner).square().sum(), asked, create_graph=True)[0]
        scores: Tensor = self.conv(x).mean((2, 3)) + 0.01 * step.square().sum()
        return scores


def test_a_product_can_be_differentiated_again() -> None:
    net, x = Purified(weights=False).eval().double(), drawn(2, 1, 8, 8).double()
    assert choose(net, net, x).words == "products"
    assert same(net, x, 1e-12)


def test_a_model_that_needs_more_of_autograd_keeps_the_plain_path() -> None:
    net = Purified(weights=True).eval()
    assert choose(net, net, drawn(2, 1, 8, 8)).words == "plain"


def test_what_cannot_gain_is_left_alone() -> None:
    deep = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    assert choose(deep, deep, torch.rand(2, 8, 8, 8)).words == "plain"
    linear = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    assert choose(linear, linear, torch.rand(2, 4)).words == "plain"
    noisy = replace(from_torch(model("natural")), stochastic=True)
    assert accelerated(noisy, torch.rand(2, 1, 28, 28)) is noisy
    half = from_torch(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()).to(torch.bfloat16).eval())
    assert accelerated(half, torch.rand(2, 1, 8, 8).bfloat16()) is half


def test_a_compiled_part_keeps_the_plain_path() -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        traced = torch.jit.trace(nn.Conv2d(1, 3, 3), torch.rand(2, 1, 8, 8))  # type: ignore[no-untyped-call]
    net = nn.Sequential(traced, nn.BatchNorm2d(3), nn.Flatten()).eval()
    assert choose(net, net, torch.rand(2, 1, 8, 8)).words == "plain"


def test_doubt_falls_back_step_by_step() -> None:
    net = settled(nn.Sequential(nn.Conv2d(1, 4, 3), norm(4), nn.Flatten())).eval()
    with pytest.MonkeyPatch.context() as patch:  # a fold that is off by a little
        was = Cheaper.folded
        patch.setattr(Cheaper, "folded", lambda self, conv, n: tuple(part * (1 + 1e-5) for part in was(self, conv, n)))
        assert choose(net, net, drawn(8, 1, 8, 8)).words == "products"
    assert choose(net, net, drawn(8, 1, 8, 8)).words == "products and folded norms"


def test_words_are_read_back() -> None:
    for kind in ((False, False), (True, False), (False, True), (True, True)):
        back = recorded(Cheaper(*kind).words)
        assert (back.products, back.norms) == kind


# -- rounding never decides ----------------------------------------------------------------------------------


class Leaning(nn.Module):
    """Two classes on the edge: the cheaper pass, which is told by gradients being asked, says the wrong one."""

    def __init__(self, lean: float) -> None:
        super().__init__()
        self.lean = lean

    def forward(self, x: Tensor) -> Tensor:
        right = x.flatten(1).mean(1) + (-self.lean if x.requires_grad else self.lean)
        return torch.stack([right, torch.zeros_like(right)], 1)


@pytest.mark.parametrize("keep", [None, Closest()])
def test_a_win_that_only_the_cheaper_pass_sees_is_none(keep: Any) -> None:
    x, y = torch.zeros(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)
    target = replace(from_torch(Leaning(1e-3).eval(), bounds=(0, 1)), fast=Cheaper(norms=True))
    found = attack(target, x, y, PGD(steps=3, rate=0.0, random_start=False), within=Linf(0.1), keep=keep)
    assert not found.success.any()
    assert not found.errors
    assert int(found.queries.min()) >= 3, "no row left the attack"


def test_wins_are_confirmed_only_where_scores_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(16)
    asked: list[int] = []
    was = Oracle.share

    def share(self: Oracle, x: Tensor, goal: Any, draws: int) -> Tensor:
        asked.append(len(x))
        return was(self, x, goal, draws)

    monkeypatch.setattr(Oracle, "share", share)
    attack(model("natural"), x, y, PGD(steps=5), within=Linf(0.1))
    assert not asked
    found = attack(model("residual"), x, y, PGD(steps=5), within=Linf(0.2))
    assert 0 < int(found.success.sum()) <= sum(asked) + int((found.distance == 0).sum())
    assert sum(asked) <= 16


class Moody(nn.Module):
    """A model whose cheaper pass cannot be taken where a row is bright; the check's rows are not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), norm(4)
        settled(self)

    def forward(self, x: Tensor) -> Tensor:
        apply: Callable[..., Tensor] = Doubled.apply
        z = self.conv(x)
        odd = bool((x.detach().amax((1, 2, 3)) > 0.9).any())
        return self.bn(apply(z) / 2 if odd else z).mean((2, 3))  # type: ignore[no-any-return]


def test_a_row_that_the_cheaper_pass_fails_on_is_asked_plainly() -> None:
    x, y = drawn(8, 1, 6, 6) * 0.8, torch.zeros(8, dtype=torch.int64)
    target = accelerated(from_torch(Moody().eval()), x)
    assert isinstance(target, TorchTarget)
    assert target.fast is not None
    assert target.fast.norms
    whole = gradient(target, x, y)
    x[3, 0, 0, 0] = 1.0
    found = evaluate(target, x, micro=256, goal=Untargeted(y), loss=cross_entropy)
    assert bool(found.answered.all())
    others = torch.arange(8) != 3
    assert torch.equal(found.gradient[others], whole[others])
    slow = plain(target)
    assert isinstance(slow, TorchTarget)
    assert torch.equal(found.gradient[3], gradient(slow, x[3:4], y[3:4])[0])


def test_an_ensemble_is_made_plain_member_by_member() -> None:
    like = from_torch(model("natural"))
    several = ensemble([model("natural"), nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()], like)
    assert plain(several) is None
    fast = several.accelerated(rows(8)[0])
    slow = plain(fast)
    assert slow is not None
    assert plain(slow) is None
