"""The inner attack: closed forms, geometry, and nothing of the model's touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import redan
from redan import samples
from redan.errors import NoGradientError, SettingError
from redan.hardening import FGSM, FGSM_RS, N_FGSM, PGD_10, Adversarial, Ascent, Ask, Batch, cheapest, streams
from redan.hardening.inner import divergence
from redan.hardening.passes import PLAIN, Path, served
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Ball
from redan.samples.models import cnn, residual

FAR = (-100.0, 100.0)


class Binary(nn.Module):
    """Logits (0, w·x + b)."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.weight + self.bias
        return torch.stack([torch.zeros_like(z), z], 1)


def _linear() -> tuple[Binary, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    model = Binary(torch.randn(6, generator=draw, dtype=torch.float64), 0.3).double()
    return model.eval(), torch.randn(20, 6, generator=draw, dtype=torch.float64), torch.arange(20) % 2


def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y, reduction="none").detach()


def _worst(model: Binary, x: Tensor, y: Tensor, lowered: float) -> Tensor:
    """softplus(ε · dual norm of w - signed margin): the exact worst case (Goodfellow 2015, section 5)."""
    margin = (x @ model.weight + model.bias) * (2 * y - 1)
    return functional.softplus(lowered - margin).detach()


@pytest.mark.parametrize("inner", [FGSM, FGSM_RS, PGD_10, Ascent(steps=3, rate=1.0)])
def test_linear_models_are_attacked_to_the_exact_worst_case_in_linf(inner: Ascent) -> None:
    model, x, y = _linear()
    moved = inner(Ask(model=model, wanted=y), x, Linf(0.2, FAR), streams(0, 0, x))
    expected = _worst(model, x, y, 0.2 * float(model.weight.detach().abs().sum()))
    if inner is FGSM_RS:  # a quarter of the starts are farther from the corner than one step goes
        assert (_losses(model, moved, y) <= expected + 1e-12).all()
        assert (_losses(model, moved, y) > _losses(model, x, y)).all()
    else:
        torch.testing.assert_close(_losses(model, moved, y), expected)


def test_linear_models_are_attacked_to_the_exact_worst_case_in_l2() -> None:
    model, x, y = _linear()
    moved = Ascent(steps=1, rate=1.0, start=0)(Ask(model=model, wanted=y), x, L2(0.5, FAR), streams(0, 0, x))
    torch.testing.assert_close(_losses(model, moved, y), _worst(model, x, y, 0.5 * float(model.weight.detach().norm())))


def test_it_reaches_what_the_library_s_own_pgd_reaches() -> None:
    model, x, y = _linear()
    within = Linf(0.2, FAR)
    moved = PGD_10(Ask(model=model, wanted=y), x, within, streams(0, 0, x))
    found = redan.attack(model, x, y, redan.PGD(steps=10), within=within, bounds=FAR, keep=redan.Worst())
    torch.testing.assert_close(_losses(model, moved, y), _losses(model, found.adversarial, y))


def test_it_reaches_the_library_s_losses_on_a_network() -> None:
    x, y = (torch.tensor(part[:64]) for part in samples.fashion_mnist())
    model = samples.model("natural")
    moved = PGD_10(Ask(model=model, wanted=y), x, Linf(0.1), streams(0, 0, x))
    found = redan.attack(model, x, y, redan.PGD(steps=10), within=Linf(0.1), keep=redan.Worst(), workers=1)
    ours, theirs = _losses(model, moved, y).mean(), _losses(model, found.adversarial, y).mean()
    assert ours > 0.95 * theirs  # which keep the highest of eleven points, where training takes the last
    assert ours > 3 * _losses(model, x, y).mean()


def test_a_divergence_is_climbed_as_well() -> None:
    model, x, _ = _linear()
    clean = model(x).softmax(1).detach()
    ask = Ask(model=model, wanted=clean, loss=divergence)
    assert ask(x).abs().max() < 1e-12
    moved = Ascent(steps=10, start=0.05)(ask, x, Linf(0.2, FAR), streams(0, 0, x))
    ends = [x + sign * 0.2 * model.weight.detach().sign() for sign in (-1, 1)]
    reached = torch.stack([torch.isclose(ask(moved), ask(end)) for end in ends])
    assert (reached.sum(0) == 1).all()  # each row climbed to an end, whichever its start was nearer to
    assert reached.any(1).all()


# -- geometry ------------------------------------------------------------------------------------------------------


@given(
    radius=st.floats(0.01, 2),
    steps=st.integers(1, 4),
    rate=st.floats(0.1, 3),
    start=st.floats(0, 1),
    ball=st.sampled_from([Linf, L2, L1]),
    seed=st.integers(0, 9),
)
def test_points_stay_in_ball_and_box(
    radius: float, steps: int, rate: float, start: float, ball: type[Linf], seed: int
) -> None:
    x = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval()
    within = ball(radius)
    moved = Ascent(steps=steps, rate=rate, start=start)(
        Ask(model=model, wanted=torch.arange(5) % 3), x, within, streams(seed, 0, x)
    )
    assert within.contains(moved, x).all()


def test_noise_is_not_projected_into_the_ball_but_into_the_box() -> None:
    x = torch.rand(50, 9, generator=torch.Generator().manual_seed(0))
    moved = N_FGSM(Ask(model=nn.Linear(9, 3).eval(), wanted=torch.zeros(50).long()), x, Linf(0.1), streams(0, 0, x))
    assert Linf(0.3).contains(moved, x).all()
    assert not Linf(0.2).contains(moved, x).all()
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_a_radius_a_row() -> None:
    model, x, y = _linear()
    radius = torch.linspace(0.0, 0.5, 20, dtype=torch.float64)
    moved = Ascent(steps=5)(Ask(model=model, wanted=y), x, Linf(radius, FAR), streams(0, 0, x))
    torch.testing.assert_close((moved - x).abs().amax(1), radius)


def test_starts_hang_on_seed_step_and_row() -> None:
    x = torch.full((4, 50), 0.5)
    sampled = Linf(0.1).sample(x, streams(3, 7, x))
    assert torch.equal(sampled, Linf(0.1).sample(x, streams(3, 7, x)))
    assert torch.equal(sampled[:2], Linf(0.1).sample(x[:2], streams(3, 7, x[:2])))
    others = [Linf(0.1).sample(x, streams(4, 7, x)), Linf(0.1).sample(x, streams(3, 8, x)), sampled.roll(1, 0)]
    assert not any(torch.equal(sampled, other) for other in others)


# -- what is left as it was ----------------------------------------------------------------------------------------


class _Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.last = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(x)))).flatten(1))
        return z


def _batch(count: int = 8) -> Batch:
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(count) % 3, streams(0, 0, x))


def test_the_attack_moves_no_weight_no_gradient_no_statistic_and_no_mode() -> None:
    model = _Normed().train()
    model.drop.eval()
    torch.autograd.backward(functional.cross_entropy(model(_batch().x), _batch().y))
    state = {name: part.clone() for name, part in model.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(grads) == 6
    computed: list[Tensor] = []
    torch.autograd.graph.register_multi_grad_hook(list(model.parameters()), computed.append, mode="any")
    Adversarial(within=Linf(0.1)).attacked(model, _batch())
    assert not computed  # not even computed
    for name, part in model.state_dict().items():
        assert torch.equal(part, state[name])
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert torch.equal(p.grad, grads[name])
        assert p.requires_grad
    assert [part.training for part in (model, model.first, model.norm, model.drop)] == [True, True, True, False]


def test_modes_come_back_when_the_attack_raises() -> None:
    model = _Normed().train()
    model.norm.eval()
    with pytest.raises(RuntimeError, match="boom"), served(model) as bare:
        assert not any(part.training for part in bare.modules())
        raise RuntimeError("boom")
    assert model.training
    assert not model.norm.training


def test_a_model_that_answers_without_a_gradient_is_refused() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    x = torch.rand(3, 4)
    with pytest.raises(NoGradientError, match="differentiable"):
        FGSM(Ask(model=Detached(4, 2), wanted=torch.zeros(3).long()), x, Linf(0.1), streams(0, 0, x))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": 0.0}, {"start": -1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="steps ≥ 1"):
        Ascent(**wrong)  # type: ignore[arg-type]


# -- the cheaper path ----------------------------------------------------------------------------------------------


def _trained_a_little() -> nn.Module:
    torch.manual_seed(0)
    model = residual()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(16, 1, 28, 28))
    return model


def test_the_cheaper_path_reaches_the_plain_one_s_points() -> None:
    x, y = (torch.tensor(part[:32]) for part in samples.fashion_mnist())
    model = _trained_a_little()
    path = cheapest(model, x)
    assert path == Path(products=True, norms=True, last=True)
    assert model.training
    one = Adversarial(within=Linf(0.1), inner=FGSM)
    plain, fast = (one.attacked(model, Batch(x, y, streams(0, 0, x), how)) for how in (PLAIN, path))
    assert ((plain - fast).abs() < 1e-6).double().mean() > 0.99


def test_the_path_goes_by_shapes() -> None:
    x = torch.rand(4, 1, 28, 28)
    assert cheapest(cnn(), x) == Path(products=True, norms=False, last=False)  # all strided
    assert cheapest(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 3)), x).last
    assert cheapest(nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), x) == PLAIN
    ordered = Path(last=True).ordered(x)
    assert torch.equal(ordered, x)
    assert ordered.stride() == (784, 1, 28, 1)  # and not the order that one channel leaves open
    assert Path(last=True).ordered(x.flatten(1)).is_contiguous()
    assert PLAIN.ordered(x).data_ptr() != x.data_ptr()


def test_what_was_folded_is_forgotten_when_statistics_move() -> None:
    """Batch normalization moves its statistics without a trace that the folding could see."""
    x, y = (torch.tensor(part[:32]) for part in samples.fashion_mnist())
    model = _trained_a_little()
    path, one = cheapest(model, x), Adversarial(within=Linf(0.1), inner=FGSM)
    one.attacked(model, Batch(x, y, streams(0, 0, x), path))
    with torch.no_grad():
        model(5 * x)
    plain, fast = (one.attacked(model, Batch(x, y, streams(0, 0, x), how)) for how in (PLAIN, path))
    assert ((plain - fast).abs() < 1e-6).double().mean() > 0.99


def test_what_is_folded_once_for_an_attack_gives_the_same_bits() -> None:
    x, y = (torch.tensor(part[:32]) for part in samples.fashion_mnist())
    model = _trained_a_little().eval()
    path = cheapest(model, x)
    again, kept = Ask(model=model, wanted=y, path=path), Ask(model=model, wanted=y, path=path.kept())
    assert path.kept() == path
    for _ in range(2):
        assert torch.equal(kept.gradient(x), again.gradient(x))


@pytest.mark.parametrize("form", [cnn, residual])
def test_half_a_number_s_bits_climb_nearly_as_the_whole_do(form: Callable[[], nn.Module]) -> None:
    x, y = (torch.tensor(part[:32]) for part in samples.fashion_mnist())
    torch.manual_seed(0)
    model = form()
    whole, half = cheapest(model, x), cheapest(model, x, half=True)
    assert half == replace(whole, half=True)
    one, start = Adversarial(within=Linf(0.1), inner=Ascent(steps=4)), streams(0, 0, x)
    exact, coarse = (one.attacked(model, Batch(x, y, start.keyed("same"), path)) for path in (whole, half))
    assert coarse.dtype == x.dtype
    assert bool(Linf(0.1).contains(coarse, x).all())
    assert not torch.equal(exact, coarse)
    model.eval()
    climbed, nearly = (float((_losses(model, moved, y) - _losses(model, x, y)).mean()) for moved in (exact, coarse))
    assert nearly > 0.95 * climbed > 0


def test_no_ball_without_a_limit_can_be_stepped_in() -> None:
    x = torch.rand(3, 4)
    unbounded: Ball = Linf(math.inf)
    with pytest.raises(SettingError, match="finite"):
        FGSM_RS(Ask(model=nn.Linear(4, 2), wanted=torch.zeros(3).long()), x, unbounded, streams(0, 0, x))
