"""What an extraction reaches with more answers: how often the copy agrees with the model, by the answers paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.extraction.customer import Customer, Extractor, Spending, View
from redan.extraction.surrogates import Copy
from redan.targets import Target

__all__ = ["Point", "agreement", "agreement_curve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one budget bought."""

    queries: int
    """The budget."""
    paid: int
    """The answers that were bought of it."""
    seed: int
    agreement: Mapping[str, float]
    """By the name of the rows: the share of them on which copy and model answer the same class."""


def agreement(copy: Target[Tensor], target: Target[Tensor], x: Tensor) -> float:
    """The share of rows x (N, …) on which two models answer the same class."""
    labels = []
    for model in (copy, target):
        with torch.no_grad():
            labels.append(model(x.to(model.device, model.dtype)).argmax(1).cpu())
    return float((labels[0] == labels[1]).double().mean())


def agreement_curve(
    extractor: Extractor[Copy],
    target: Target[Tensor],
    rows: Mapping[str, Tensor],
    *,
    classes: int,
    queries: Sequence[int],
    view: View,
    seeds: Sequence[int] = (0,),
) -> list[Point]:
    """A point a budget and seed, each from a customer of its own. rows: (N, …) by name, on which copies are judged.

    The extractor's own setting of queries, if it has one, must not be below these budgets.
    """
    points = []
    for budget in queries:
        for seed in seeds:
            customer = Customer(target, Spending(queries=budget), classes=classes, view=view)
            copy = extractor(customer, seed=seed)
            shares = {name: agreement(copy.target, target, x) for name, x in rows.items()}
            points.append(Point(queries=budget, paid=customer.paid, seed=seed, agreement=shares))
    return points
