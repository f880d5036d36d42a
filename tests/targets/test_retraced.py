"""Ways to hide a gradient beyond the planted victims, and honest modules in which nothing is hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import redan
from redan.samples import fashion_mnist, model
from redan.targets import Output, from_torch, rescaled, retraced
from redan.targets.base import Target

IMAGES, LABELS = (torch.from_numpy(rows[:32]) for rows in fashion_mnist())
CODES = torch.linspace(0, 1, 8)
THRESHOLDS = (torch.arange(15.0) + 0.5) / 15


class Staged(nn.Module):
    """A stage, then a network, then another stage."""

    def __init__(self, before: Callable[[Tensor], Any], network: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.network, self.after = before, network, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


def behind(before: Callable[[Tensor], Any]) -> Target[Tensor]:
    return from_torch(Staged(before, model("natural"), torch.Tensor.contiguous))


def linear(before: Callable[[Tensor], Any]) -> Target[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return from_torch(Staged(before, network, torch.Tensor.contiguous))


def slope(target: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(functional.cross_entropy(target(x), y, reduction="sum"), x)
    return found


def standing(target: Target[Tensor]) -> int:
    found = redan.attack(target, IMAGES, LABELS, redan.PGD(steps=20), within=redan.Linf(0.1), workers=1)
    return len(IMAGES) - int(found.success.sum())


def levels(x: Tensor) -> Tensor:
    return (x * 7).round()


def into_part(x: Tensor) -> Tensor:
    whole = torch.zeros_like(x)
    whole[:, :, 1:-1, 1:-1] = levels(x[:, :, 1:-1, 1:-1]) / 7
    return whole


def through_view(x: Tensor) -> Tensor:
    sevenths = x * 7
    sevenths.view(-1).round_()
    return sevenths / 7


def inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return levels(x) / 7


def spectrum(x: Tensor) -> Tensor:
    found = torch.fft.rfft2(x)
    rounded = torch.complex((found.real / 2).round() * 2, (found.imag / 2).round() * 2)
    back: Tensor = torch.fft.irfft2(rounded, s=x.shape[-2:])
    return back


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "table": lambda x: CODES[levels(x).long()],
    "take": lambda x: CODES.take(levels(x).long()),
    "embedding": lambda x: functional.embedding(levels(x).long(), CODES[:, None])[..., 0],
    "one-hot": lambda x: (functional.one_hot(levels(x).long(), 8) * CODES).sum(-1),
    "equality": lambda x: torch.stack([(levels(x) == k) * k / 7 for k in range(8)]).sum(0),
    "nearest code": lambda x: CODES[(x[..., None] - CODES).abs().argmin(-1)],
    "buckets": lambda x: torch.bucketize(x, THRESHOLDS) / 15,
    "sorted": lambda x: torch.searchsorted(THRESHOLDS, x.contiguous()) / 15,
    "heaviside": lambda x: torch.heaviside(x[..., None] - THRESHOLDS, torch.zeros(())).mean(-1),
    "thresholds first": lambda x: (x >= THRESHOLDS.reshape(-1, 1, 1, 1, 1)).float().mean(0),
    "part": into_part,
    "view": through_view,
    "copy": lambda x: torch.empty_like(x).copy_(x.detach()),
    "inference mode": inference,
    "spectrum": spectrum,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_gradient_hidden_in_another_way_is_found_and_belongs_to_its_row(name: str) -> None:
    target = behind(HIDDEN[name])
    again = retraced(target, IMAGES)
    assert again is not None
    with torch.no_grad():
        assert torch.equal(again(IMAGES), target(IMAGES))
    assert torch.equal(again(IMAGES.clone().requires_grad_()).detach(), again(IMAGES))
    assert standing(again) <= 3
    whole, part = slope(again, IMAGES, LABELS), slope(again, IMAGES[8:17], LABELS[8:17])
    assert torch.allclose(whole[8:17], part, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize(
    "stage",
    [
        lambda x: x - torch.remainder(x, 1 / 7),
        lambda x: x - torch.fmod(x, 1 / 7),
        lambda x: (x * 7 - (x * 7).frac()) / 7,
        lambda x: ((x * 255).int() & 0xE0) / 224,
        lambda x: ((x * 255).int() >> 5) / 7,
    ],
    ids=["remainder", "fmod", "frac", "and", "shift"],
)
def test_cutting_counts_as_keeping(stage: Callable[[Tensor], Tensor]) -> None:
    again = retraced(behind(stage), IMAGES)
    assert again is not None
    assert standing(again) <= 14  # cut to 3 bits, some rows do stand


@pytest.mark.parametrize("factor", [30.0, 1000.0])
def test_probabilities_that_are_all_0_and_1_have_the_slope_of_their_logarithm(factor: float) -> None:
    network = Staged(torch.Tensor.contiguous, model("natural"), lambda scores: (scores * factor).softmax(1))
    target = from_torch(network, output=Output.PROBABILITIES)
    again = retraced(rescaled(target, IMAGES) or target, IMAGES)
    assert again is not None
    assert standing(again) <= 2


def swish(x: Tensor) -> Tensor:
    found = x * 4 - 2
    return found.mul_(found.sigmoid())


def read_before(x: Tensor) -> Tensor:
    found = x * 4 - 2
    bent = found.tanh()
    return bent + found.mul_(3)


def halves(x: Tensor) -> Tensor:
    both = torch.cat([x, x], 1)
    both[:, 0] = both[:, 1] * 2
    return both[:, :1] * both[:, 1:]


def attention(x: Tensor) -> Tensor:
    rows = x[:, 0][:, None]
    found = functional.scaled_dot_product_attention(rows * 4, rows, rows)
    return rows + 5 * found


HONEST: dict[str, Callable[[Tensor], Tensor]] = {
    "swish in place": swish,
    "read before it is written over": read_before,
    "halves": halves,
    "attention": attention,
    "sawtooth": lambda x: (x * 3) % 1.0,
    "clipped": lambda x: torch.where(x > 0.7, torch.full_like(x, 0.7), x),
    "sorted": lambda x: x.flatten(1).gather(1, x.flatten(1).argsort(1)),
    "layer norm": lambda x: functional.layer_norm(x, (28, 28)),
    "straight through": lambda x: x + (levels(x) / 7 - x).detach(),
}


@pytest.mark.parametrize("name", HONEST)
def test_where_nothing_is_hidden_the_gradient_is_torch_s(name: str) -> None:
    target = linear(HONEST[name])
    again = retraced(target, IMAGES)
    assert again is not None
    own, played = slope(target, IMAGES, LABELS), slope(again, IMAGES, LABELS)
    assert torch.allclose(own, played, rtol=1e-5, atol=1e-6 * float(own.abs().max()))


@pytest.mark.parametrize("name", ["robust", "residual", "distilled", "fast", "trades"])
def test_the_sample_models_gradients_are_torch_s(name: str) -> None:
    target = from_torch(model(name))
    again = retraced(target, IMAGES)
    assert again is not None
    own, played = slope(target, IMAGES, LABELS), slope(again, IMAGES, LABELS)
    assert torch.allclose(own, played, rtol=1e-5, atol=1e-6 * float(own.abs().max()))


def test_a_buffer_that_is_written_over_later_is_remembered_as_it_was() -> None:
    def stage(x: Tensor) -> Tensor:
        scale = torch.full((1,), 2.0)
        found = x * scale
        scale.fill_(100)
        return found

    again = retraced(linear(stage), IMAGES)
    honest = linear(lambda x: x * 2)
    assert again is not None
    assert torch.allclose(slope(again, IMAGES, LABELS), slope(honest, IMAGES, LABELS))


def test_a_transformer_is_followed_though_it_takes_a_short_cut_without_autograd() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(28, 2, 32, batch_first=True, dropout=0.0)
        head = nn.Linear(28, 10)
    network = nn.Sequential(nn.Flatten(1, 2), layer, head).eval()
    target = from_torch(Staged(torch.Tensor.contiguous, network, lambda scores: scores.mean(1)))
    again = retraced(target, IMAGES)
    assert again is not None
    with torch.no_grad():
        assert torch.equal(again(IMAGES), target(IMAGES))
    own, played = slope(target, IMAGES, LABELS), slope(again, IMAGES, LABELS)
    assert torch.allclose(own, played, rtol=1e-4, atol=1e-5 * float(own.abs().max()))


@pytest.mark.parametrize(
    "stage",
    [
        lambda x: torch.from_numpy(x.detach().numpy() * 2),
        lambda x: torch.tensor(x.tolist()),
        lambda x: [][len(x)],
        lambda x: x.nothing,
    ],
    ids=["numpy", "list", "IndexError", "AttributeError"],
)
def test_what_cannot_be_followed_is_none_and_raises_nothing(stage: Callable[[Tensor], Any]) -> None:
    assert retraced(behind(stage), IMAGES) is None
