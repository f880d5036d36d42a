"""Garment pictures from two suppliers, and how the shop trains its classifier on them.

redan trains every victim with `fit`, exactly as the shop does: on the rows it is given, by the seed it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from redan.data.samples import Samples
from redan.samples import fashion_mnist

TRUSTED = 1_000  # pictures that the shop took itself


def train() -> dict[str, Any]:
    """The suppliers' pictures: every fourth is supplier-b's."""
    x, y = fashion_mnist("train")
    x, y = x[TRUSTED:], y[TRUSTED:]
    source = np.where(np.arange(len(x)) % 4 == 0, "supplier-b", "supplier-a")
    return {"x": x, "y": y, "source": source}


def trusted() -> dict[str, Any]:
    """The shop's own pictures, which nobody else could change."""
    x, y = fashion_mnist("train")
    return {"x": x[:TRUSTED], "y": y[:TRUSTED], "source": np.full(TRUSTED, "own")}


def build() -> nn.Module:
    """The network, not trained yet."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def fit(samples: Samples, seed: int) -> nn.Module:
    """A network trained on the samples: the same samples and seed give the same network."""
    torch.manual_seed(seed)
    model, epochs, batch = build(), 6, 64
    x, y = torch.as_tensor(samples.x), torch.as_tensor(samples.y)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * -(-len(x) // batch))
    for _ in range(epochs):
        for at in torch.split(torch.randperm(len(x)), batch):
            optimizer.zero_grad()
            cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def served() -> nn.Module:
    """The model in service: trained on the suppliers' pictures as they are."""
    rows = train()
    return fit(Samples(rows["x"], rows["y"]), seed=0)
