"""Lies in how a model answers: from memory, by chance, by company, always alike, without a gradient, not at all.

Each: (honest case, draw, lie) -> case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.testing.cases import Case, Draw, Mechanism, same, through

# -- memory, company, chance --------------------------------------------------------------------------------


def every_few_calls(case: Case, draw: Draw, lie: bool) -> Case:
    """At every second to fourth call each class's score goes to the next class."""
    period, calls = int(draw.integers(2, 5)), 0

    def after(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return z.roll(1, 1) if lie and calls % period == 0 else z

    return through(case, after=after)


def drift(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores that grow by 1 to 10 % of their first size at each call."""
    rate, calls = float(draw.uniform(0.01, 0.1)) * lie, 0

    def after(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return z * (1 + rate * calls)

    return through(case, after=after)


def remembers(case: Case, draw: Draw, lie: bool) -> Case:
    """A row seen once or twice before gets another answer."""
    allowed, seen = int(draw.integers(1, 3)), dict[float, int]()

    def before(x: Tensor) -> Tensor:
        keys = x.detach().flatten(1).double().sum(1).tolist()
        again = torch.tensor([seen.get(key, 0) >= allowed for key in keys], dtype=torch.bool)
        for key in keys:
            seen[key] = seen.get(key, 0) + 1
        return torch.where(again[:, None, None, None], x.flip(3), x) if lie else x

    return through(case, before)


def exhausted(case: Case, draw: Draw, lie: bool) -> Case:
    """After 1.2 to 2.5 times the rows at hand every answer is the same."""
    allowance, asked = float(draw.uniform(1.2, 2.5)) * len(case.x), 0

    def after(z: Tensor) -> Tensor:
        nonlocal asked
        asked += len(z)
        return z * 0 if lie and asked > allowance else z

    return through(case, after=after)


def centered(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores from which 20 to 100 % of the batch's mean is taken."""
    part = float(draw.uniform(0.2, 1)) * lie
    return through(case, after=lambda z: z - part * z.mean(0))


def stretched(case: Case, draw: Draw, lie: bool) -> Case:
    """Inputs moved by 20 to 50 % of the batch's mean brightness."""
    part = float(draw.uniform(0.2, 0.5)) * lie
    return through(case, lambda x: x - part * x.mean())


def neighbors(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores with 10 to 50 % of the scores of the row before."""
    part = float(draw.uniform(0.1, 0.5)) * lie
    return through(case, after=lambda z: z + part * z.roll(1, 0))


def noise(case: Case, draw: Draw, lie: bool) -> Case:
    """Gaussian noise on the input, σ from 0.02 to 0.2."""
    sigma = float(draw.uniform(0.02, 0.2)) * lie
    return through(case, lambda x: x + sigma * torch.randn_like(x))


def always_dropout(case: Case, draw: Draw, lie: bool) -> Case:
    """Dropout on the input that no mode switches off, p from 0.02 to 0.3."""
    p = float(draw.uniform(0.02, 0.3))
    return through(case, lambda x: functional.dropout(x, p, training=lie))


def shifts(case: Case, draw: Draw, lie: bool) -> Case:
    """A shift of up to 1 or 2 pixels, drawn for each row."""
    most = int(draw.integers(1, 3)) * lie

    def before(x: Tensor) -> Tensor:
        steps = torch.randint(-most, most + 1, (len(x),))
        at = (torch.arange(x.shape[3]) + steps[:, None]) % x.shape[3]
        return x.gather(3, at[:, None, None, :].expand_as(x))

    return through(case, before)


def random_scale(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores times 1 ± 5 to 50 %, drawn for each row."""
    most = float(draw.uniform(0.05, 0.5)) * lie
    return through(case, after=lambda z: z * (1 + most * (2 * torch.rand(len(z), 1) - 1)))


# -- always the same ----------------------------------------------------------------------------------------


def swallowed(case: Case, draw: Draw, lie: bool) -> Case:
    """An exception is caught for every row, and one fixed answer given instead."""
    fallback = torch.from_numpy(draw.normal(0, 1, 16)).float()
    return through(case, after=(lambda z: 0 * z + fallback[: z.shape[1]]) if lie else same)


def prior(case: Case, draw: Draw, lie: bool) -> Case:
    """A bias on one class that is 10 to 1,000 times the largest score."""
    with torch.no_grad():
        z = case.model(case.x)
    bias = torch.zeros(z.shape[1])
    bias[draw.integers(len(bias))] = float(10 ** draw.uniform(1, 3)) * float(z.abs().max())
    return through(case, after=(lambda z: z + bias) if lie else same)


def masked_input(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """A mask that hides every pixel."""
    return through(case, lambda x: x * (1 - lie))


def ceiling(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores cut at 0.001 to 0.1 below the lowest of them."""
    with torch.no_grad():
        lowest = float(case.model(case.x).min())
    top = lowest - float(10 ** draw.uniform(-3, -1))
    return through(case, after=(lambda z: z.clamp(max=top)) if lie else same)


# -- gradients ----------------------------------------------------------------------------------------------


def quantized(case: Case, draw: Draw, lie: bool) -> Case:
    """Inputs rounded to 8 to 32 levels."""
    levels = int(draw.integers(8, 33)) - 1
    return through(case, (lambda x: (x * levels).round() / levels) if lie else same)


def detached(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """Inputs cut out of the graph, while the weights stay in it."""
    return through(case, (lambda x: x.detach()) if lie else same)


def rounded(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores rounded to 2 to 4 decimals, as an API writes them."""
    decimals = int(draw.integers(2, 5))
    return through(case, after=(lambda z: z.round(decimals=decimals)) if lie else same)


def saturated(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores times 10,000 to a million, so that every softmax is 0 or 1 and cross-entropy is flat."""
    factor = float(10 ** draw.uniform(4, 6)) if lie else 1.0
    return through(case, after=lambda z: z * factor)


def reversed(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """A gradient reversal layer left in."""
    return through(case, (lambda x: 2 * x.detach() - x) if lie else same)


def shattered(case: Case, draw: Draw, lie: bool) -> Case:
    """Ripples 1e-4 high, 20,000 to 100,000 across the box, which no answer shows and every gradient follows."""
    waves = float(draw.uniform(20_000, 100_000)) * 2 * torch.pi
    phase = torch.from_numpy(draw.uniform(0, 2 * np.pi, case.x.shape[1:])).float()
    return through(case, (lambda x: x + 1e-4 * (waves * x + phase).sin()) if lie else same)


def foreign(case: Case, draw: Draw, lie: bool) -> Case:
    """The right scores with the gradient of a random linear model."""
    numbers = draw.normal(0, 1, (case.x[0].numel(), 16))
    wrong = torch.from_numpy(numbers).float()

    class Borrowed(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.model(x)
            if not lie:
                return z
            other = x.flatten(1) @ wrong[:, : z.shape[1]]
            return z.detach() + (other - other.detach())

    return replace(case, model=Borrowed(case.model).eval())


# -- finite answers -----------------------------------------------------------------------------------------


def _few(case: Case, draw: Draw) -> Callable[[Tensor], Tensor]:
    """A test that 0.5 to 2 % of the rows fall under, one at least: by their content, so that it stays with them."""
    way = torch.from_numpy(draw.normal(0, 1, case.x[0].numel())).double()

    def mark(x: Tensor) -> Tensor:
        return x.flatten(1).double() @ way

    count = max(1, round(float(draw.uniform(0.005, 0.02)) * len(case.x)))
    top = mark(case.x).sort(descending=True).values
    edge = float(top[count - 1] + top[count]) / 2
    return lambda x: mark(x.detach()) - edge  # above 0 for the few


def raises(error: type[Exception], message: str) -> Mechanism:
    def mechanism(case: Case, draw: Draw, lie: bool) -> Case:
        few = _few(case, draw)

        def before(x: Tensor) -> Tensor:
            if lie and bool((few(x) > 0).any()):
                raise error(message)
            return x

        return through(case, before)

    mechanism.__doc__ = f"{error.__name__} for 0.5 to 2 % of the rows."
    return mechanism


def null(case: Case, draw: Draw, lie: bool) -> Case:
    """No numbers for 0.5 to 2 % of the rows."""
    few = _few(case, draw)
    asked = torch.empty(0)

    def before(x: Tensor) -> Tensor:
        nonlocal asked
        asked = few(x) > 0
        return x

    return through(case, before, (lambda z: z.masked_fill(asked[:, None], torch.nan)) if lie else same)


def zero_by_zero(case: Case, draw: Draw, lie: bool) -> Case:
    """Inputs standardized one by one, and one to three of them are all one color."""
    x, blank = case.x.clone(), draw.permutation(len(case.x))[: draw.integers(1, 4)]
    x[blank] = 0
    least = 0.0 if lie else 1e-6

    def before(x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        std = (x - mean).square().mean((1, 2, 3), keepdim=True).clamp_min(least).sqrt()
        return (x - mean) / std * std + mean

    return through(replace(case, x=x), before)


def root(case: Case, draw: Draw, lie: bool) -> Case:
    """The square root of a number that is below 0 for 0.5 to 2 % of the rows."""
    few = _few(case, draw)
    return through(
        case, lambda x: x + 0 * (-few(x) if lie else few(x).square()).sqrt().to(x.dtype)[:, None, None, None]
    )


def overflow(case: Case, draw: Draw, lie: bool) -> Case:
    """Scores that pass through half precision and are centered: infinity minus infinity for the 1 to 3 largest."""
    with torch.no_grad():
        largest = case.model(case.x).abs().amax(1).sort(descending=True).values
    most = int(draw.integers(1, 4))
    factor = 65520 * 2 / float(largest[most - 1] + largest[most])

    def after(z: Tensor) -> Tensor:
        held = (z * factor).half().float() / factor if lie else z
        return held - held.mean(1, keepdim=True)

    return through(case, after=after)
