"""ReLU networks with one hidden layer, copied from raw float64 outputs until no input in the box tells them apart.

Jagielski et al. 2020, arXiv:1909.01838; Carlini, Jagielski and Mironov 2020, arXiv:2003.04884. Victims, inputs in
[0, 1]:

    drawn     normal weights; each unit's plane goes through a point drawn from the middle of the box
    blind     the same, and 4 units are on all over the box, and 4 are off: units that no input shows
    trained   Adam on the Fashion-MNIST images that ship with redan, even classes against odd ones; units as they come

Copies are judged on 100,000 rows drawn from the box, 10,000 of its corners, images where there are some, and the two
corners that push each true unit furthest to either side, which show every unit that was missed.

`extraction_relu_claims.py` says what follows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from torch import Tensor, nn

import extraction_lab as lab
import harness
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.relu_networks import OneHiddenLayer, ReLUCopy
from redan.targets import from_torch

MEASURES = (
    "benchmarks/extraction_lab.py",
    "benchmarks/extraction_relu.py",
    "src/redan/extraction/customer.py",
    "src/redan/extraction/kinks.py",
    "src/redan/extraction/relu_networks.py",
    "src/redan/extraction/relu_numbers.py",
)
SIZES = {"784-64-1": (784, 64, 1), "20-64-10": (20, 64, 10)}
SEEDS = {"drawn-784-64-1": 5, "drawn-20-64-10": 20, "blind-20-64-10": 10, "trained-784-64-1": 5}
BLIND = 4
"""Units that are on all over the box, and as many that are off."""
ROWS, CORNERS = 100_000, 10_000
SAME = 1e-9
"""A unit counts as found if the angle's cosine between its weights and stolen ones is 1 up to this."""


def cells() -> list[lab.Cell]:
    import extraction_relu as here  # not `__main__`, which a child process would not find

    return [
        lab.Cell(
            f"{name}-{seed}", here.stolen, {"kind": name.split("-")[0], "size": name.split("-", 1)[1], "seed": seed}
        )
        for name, seeds in SEEDS.items()
        for seed in range(seeds)
    ]


def layers(size: str) -> nn.Sequential:
    """A network of a size, in float64, whose numbers are drawn by torch's seed."""
    features, hidden, outputs = SIZES[size]
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs)).double()


def linear(model: nn.Sequential, at: int = 0) -> nn.Linear:
    """The hidden layer, or the output layer at 2."""
    layer = model[at]
    assert isinstance(layer, nn.Linear)
    return layer


def drawn(size: str, seed: int, *, blind: int = 0) -> nn.Sequential:
    """Random weights and kinks inside the box, but for units that have none."""
    model = layers(size)
    features, hidden, outputs = SIZES[size]
    draw = torch.Generator().manual_seed(seed)
    first, last = linear(model), linear(model, 2)
    with torch.no_grad():
        first.weight.copy_(torch.randn(hidden, features, generator=draw) / features**0.5)
        inside = 0.2 + 0.6 * torch.rand(hidden, features, generator=draw)
        first.bias.copy_(-(first.weight * inside).sum(1))
        last.weight.copy_(torch.randn(outputs, hidden, generator=draw) / hidden**0.5)
        last.bias.copy_(torch.randn(outputs, generator=draw))
        low, high = reach(first)
        first.bias[:blind] += 0.1 - low[:blind]
        first.bias[blind : 2 * blind] -= 0.1 + high[blind : 2 * blind]
    return model.eval()


def images() -> tuple[Tensor, Tensor]:
    """The Fashion-MNIST images that ship with redan, (N, 784) in [0, 1], and whether their class is odd, (N,)."""
    with np.load(harness.ROOT / "src" / "redan" / "samples" / "fashion_mnist.npz") as file:
        parts = {name: file[name] for name in file.files}
    x = next(part for part in parts.values() if part.ndim >= 3)
    y = next(part for part in parts.values() if part.ndim == 1)
    return torch.from_numpy(x.reshape(len(x), -1) / 255.0).double(), torch.from_numpy(y % 2).double()


def trained(size: str, seed: int) -> nn.Sequential:
    """A network that has learned images: 300 steps of Adam."""
    x, y = images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = layers(size)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(300):
            at = torch.randint(len(x), (256,))
            loss = nn.functional.binary_cross_entropy_with_logits(model(x[at])[:, 0], y[at])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def reach(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """The least and the largest number that each unit gets in the box from 0 to 1: (H,) each."""
    low = layer.weight.clamp_max(0).sum(1) + layer.bias
    return low.detach(), (layer.weight.clamp_min(0).sum(1) + layer.bias).detach()


def stolen(kind: str, size: str, seed: int) -> lab.Row:
    """One network copied: answers bought, the largest differences, and its units."""
    features, _, outputs = SIZES[size]
    model = trained(size, seed) if kind == "trained" else drawn(size, seed, blind=BLIND if kind == "blind" else 0)
    customer = Customer(from_torch(model, classes=outputs), Spending(), classes=outputs, view=View(shows=Shows.RAW))
    copy = OneHiddenLayer(shape=(features,))(customer, seed=seed)
    draw = torch.Generator().manual_seed(1000 + seed)
    uniform = torch.rand(ROWS, features, generator=draw, dtype=torch.float64)
    weights = linear(model).weight.detach()
    rows = {
        "uniform": uniform,
        "corners": torch.randint(2, (CORNERS, features), generator=draw).double(),
        "pushed": torch.cat([weights > 0, weights < 0]).double(),
    }
    if kind == "trained":
        rows["images"] = images()[0]
    with torch.no_grad():
        pairs = {
            name: [(model(part), copy.module(part)) for part in torch.split(x, 10_000)] for name, x in rows.items()
        }
    return {
        "kind": kind,
        "size": size,
        "seed": seed,
        "parameters": sum(part.numel() for part in model.parameters()),
        "paid": customer.paid,
        "complete": copy.complete,
        "signed": copy.signed,
        "units": copy.units,
        "unreachable": copy.unreachable,
        "difference": {name: max(float((a - b).abs().max()) for a, b in told) for name, told in pairs.items()},
        "spread": float(torch.cat([a for a, _ in pairs["uniform"]]).std(0).mean()),
        **units(model, copy, uniform),
    }


def units(model: nn.Sequential, copy: ReLUCopy, rows: Tensor) -> lab.Row:
    """True units by number: on or off all over the box, and those with a kink in it that were not found, each with the
    share of rows on the smaller side of its plane."""
    layer = linear(model)
    low, high = reach(layer)
    kink = (low < 0) & (high > 0)
    weights = nn.functional.normalize(layer.weight.detach())
    near = (weights @ copy.parameters["hidden.weight"].T).abs()
    found = (near > 1 - SAME).any(1) if near.shape[1] else torch.zeros(len(near), dtype=torch.bool)
    missed = (kink & ~found).nonzero().flatten().tolist()
    with torch.no_grad():
        on = torch.cat([layer(part) > 0 for part in torch.split(rows, 10_000)]).double().mean(0)
    return {
        "kinks": int(kink.sum()),
        "found": int((kink & found).sum()),
        "always_on": (low >= 0).nonzero().flatten().tolist(),
        "always_off": (high <= 0).nonzero().flatten().tolist(),
        "missed": {unit: float(min(on[unit], 1 - on[unit])) for unit in missed},
    }


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("extraction_relu_claims").claims(rows)
    return found


def table(rows: Mapping[str, lab.Row]) -> str:
    """Each kind of network, and the units that no input shows."""
    found: str = import_module("extraction_relu_claims").table(rows)
    return found


if __name__ == "__main__":
    import extraction_relu

    lab.main(extraction_relu, "relu")
