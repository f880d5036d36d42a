"""Logistic regressions by equation solving: exact answers, rounded ones, and labels alone.

Tramèr et al. 2016, arXiv:1609.02943. Victims: scikit-learn's logistic regression on breast cancer (569 rows, 30
features, 2 classes) and on digits (1,797 rows, 64 features, 10 classes), both scaled to [0, 1] over all rows, trained
on 70 % of them and judged on the other 30 %. A victim a seed, which draws the split and the attack's rows.

Copies are judged on the test rows, on 10,000 rows drawn from the box, and on 10,000 mixed rows: points between two test
rows that the victim tells apart, where its boundaries are.

`extraction_equations_claims.py` says what follows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch
from torch import Tensor

import extraction_lab as lab
import harness
from redan.extraction.curves import agreement, agreement_curve
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.equation_solving import LogisticRegression
from redan.extraction.label_only import AdaptiveRetraining, HyperplaneSearch, UniformRetraining
from redan.extraction.surrogates import uniform
from redan.targets import Target
from redan.targets.sklearn import from_sklearn

MEASURES = (
    "benchmarks/extraction_equations.py",
    "benchmarks/extraction_lab.py",
    "src/redan/extraction/curves.py",
    "src/redan/extraction/customer.py",
    "src/redan/extraction/equation_solving.py",
    "src/redan/extraction/label_only.py",
    "src/redan/extraction/purse.py",
    "src/redan/extraction/surrogates.py",
)
EXACT_VICTIMS, CURVE_VICTIMS = 10, 3
DECIMALS = (2, 3, 4, 5)
ROUNDED = {"breast-cancer": (31, 62, 155, 310, 620, 1550), "digits": (65, 130, 325, 650, 1300)}
"""Budgets for rounded probabilities: 1, 2, 5, … times d + 1. Digits have 650 parameters."""
LABELS = {"breast-cancer": (31, 62, 155, 310, 620, 1550, 3100), "digits": (65, 650, 3250, 6500, 13_000)}
MOST = 65_000
"""The most that the paper spends on labels of digits: 100·10·(64 + 1), here for one victim."""
DRAWN = 10_000


class Victim(NamedTuple):
    """A trained model, what it is judged on, and its size."""

    model: Any
    target: Target[Tensor]
    accuracy: float
    """On the test rows."""
    rows: dict[str, Tensor]
    features: int
    classes: int


def victim(data: str, seed: int) -> Victim:
    """The model of a split."""
    from sklearn import datasets, linear_model, model_selection

    load = datasets.load_breast_cancer if data == "breast-cancer" else datasets.load_digits
    x, y = load(return_X_y=True)
    x = (x - x.min(0)) / (x.max(0) - x.min(0)) if data == "breast-cancer" else x / 16
    train, test, told, truth = model_selection.train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
    model = linear_model.LogisticRegression(max_iter=5000).fit(train, told)
    target = from_sklearn(model)
    draw = torch.Generator().manual_seed(1000 + seed)
    held = torch.tensor(test)
    rows = {
        "test": held,
        "uniform": uniform(DRAWN, (x.shape[1],), (0.0, 1.0), draw),
        "mixed": mixed(held, target(held).argmax(1), draw),
    }
    return Victim(model, target, float(model.score(test, truth)), rows, x.shape[1], int(y.max()) + 1)


def mixed(rows: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
    """Points between two rows (N, D) of different labels (N,), drawn evenly: (DRAWN, D)."""
    one, other = torch.randint(len(rows), (2, 20 * DRAWN), generator=draw)
    apart = labels[one] != labels[other]
    one, other = one[apart][:DRAWN], other[apart][:DRAWN]
    share = torch.rand(DRAWN, 1, generator=draw, dtype=torch.float64)
    return rows[one] + share * (rows[other] - rows[one])


def cells() -> list[lab.Cell]:
    import extraction_equations as here  # not `__main__`, which a child process would not find

    found = [lab.Cell(f"exact-{data}", here.exact, {"data": data}) for data in ROUNDED]
    for data in ROUNDED:
        found += [
            lab.Cell(f"rounded-{data}-{decimals}", here.rounded, {"data": data, "decimals": decimals})
            for decimals in DECIMALS
        ]
    kinds = {"breast-cancer": ("library", "uniform", "adaptive", "hyperplane"), "digits": ("library", "uniform")}
    for data, each in kinds.items():
        found += [lab.Cell(f"labels-{data}-{kind}", here.labels, {"data": data, "kind": kind}) for kind in each]
    return [*found, lab.Cell("most-digits", here.most, {"data": "digits"})]


def exact(data: str) -> lab.Row:
    """Probabilities with all digits: answers bought, errors of parameters and logits, agreement, for each victim."""
    victims = []
    for seed in range(EXACT_VICTIMS):
        model, target, accuracy, rows, features, classes = victim(data, seed)
        customer = Customer(target, Spending(), classes=classes)
        copy = LogisticRegression(shape=(features,))(customer, seed=seed)
        weights, biases = torch.tensor(model.coef_), torch.tensor(model.intercept_)
        if classes == 2:
            weights, biases = (torch.cat([torch.zeros_like(part), part]) for part in (weights, biases))
        difference = {"weights": copy.parameters["weights"] - weights, "biases": copy.parameters["biases"] - biases}
        everything = torch.cat(list(rows.values()))
        logits = copy.target(everything) - everything @ weights.T - biases
        victims.append(
            {
                "seed": seed,
                "paid": customer.paid,
                "accuracy": accuracy,
                # What all classes have in common cannot be told from probabilities.
                "parameters": max(float((part - part[:1]).abs().max()) for part in difference.values()),
                "logits": float((logits - logits.mean(1, keepdim=True)).abs().max()),
                "agreement": {name: agreement(copy.target, target, x) for name, x in rows.items()},
                "largest_class": largest_class(target, rows, classes),
            }
        )
    return {"data": data, "features": features, "classes": classes, "victims": victims}


def largest_class(target: Target[Tensor], rows: Mapping[str, Tensor], classes: int) -> dict[str, float]:
    """The agreement of a copy that always answers the victim's most frequent class."""
    return {name: float(target(x).argmax(1).bincount(minlength=classes).max()) / len(x) for name, x in rows.items()}


def rounded(data: str, decimals: int) -> lab.Row:
    """Probabilities of so many decimals: agreement by budget."""
    return {"data": data, "decimals": decimals, "points": curve(data, View(decimals=decimals), "library")}


def labels(data: str, kind: str) -> lab.Row:
    """Labels alone: agreement by budget. kind: the attack; `library` is what LogisticRegression chooses."""
    return {"data": data, "kind": kind, "points": curve(data, View(shows=Shows.LABELS), kind)}


def most(data: str) -> lab.Row:
    """Labels alone, with the paper's largest budget, for one victim."""
    _, target, _, rows, features, classes = victim(data, 0)
    [point] = agreement_curve(
        LogisticRegression(shape=(features,)),
        target,
        rows,
        classes=classes,
        queries=(MOST,),
        view=View(shows=Shows.LABELS),
    )
    return {"data": data, "queries": MOST, "paid": point.paid, "agreement": dict(point.agreement)}


def curve(data: str, view: View, kind: str) -> list[lab.Row]:
    """A point a victim and budget."""
    budgets: Sequence[int] = (LABELS if view.shows is Shows.LABELS else ROUNDED)[data]
    points = []
    for seed in range(CURVE_VICTIMS):
        _, target, _, rows, features, classes = victim(data, seed)
        shape = (features,)
        match kind:
            case "uniform":
                attack: Any = UniformRetraining(shape=shape, queries=budgets[-1])
            case "adaptive":
                attack = AdaptiveRetraining(shape=shape, queries=budgets[-1])
            case "hyperplane":
                attack = HyperplaneSearch(shape=shape)
            case _:
                attack = LogisticRegression(shape=shape)
        found = agreement_curve(attack, target, rows, classes=classes, queries=budgets, view=view, seeds=(seed,))
        points += [
            {"seed": seed, "queries": point.queries, "paid": point.paid, "agreement": dict(point.agreement)}
            for point in found
        ]
    return points


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("extraction_equations_claims").claims(rows)
    return found


def table(rows: Mapping[str, lab.Row]) -> str:
    """Exact answers, and curves."""
    found: str = import_module("extraction_equations_claims").table(rows)
    return found


if __name__ == "__main__":
    import extraction_equations

    lab.main(extraction_equations, "equations")
