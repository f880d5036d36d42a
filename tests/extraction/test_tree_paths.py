"""Path finding recovers trees whose leaves and thresholds are known, and pays no more than it says."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from redan.errors import AccessError, DataError, SettingError, TargetError
from redan.extraction.customer import Customer, Spending
from redan.extraction.path_oracles import ForestPaths, PathCustomer, ScorePaths, Seen, shown_identities
from redan.extraction.stolen_tree import (
    Categorical,
    Continuous,
    Feature,
    Span,
    StolenTree,
    as_forest,
    as_target,
    recovered,
)
from redan.extraction.tree_paths import BottomUp, ScoreTree, TopDown
from redan.formats.forest import LEAF, Comparison, Floats, Forest, Precision, decided, scores
from redan.formats.forest_readers import forest_from_sklearn
from redan.targets.sklearn import from_sklearn

EPSILON = 0.01
FEATURES: tuple[Feature, ...] = (
    Continuous(low=0, high=10, precision=EPSILON),
    Categorical(values=(0, 1, 2, 3)),
    Continuous(low=-1, high=1, precision=EPSILON),
    Categorical(values=(0, 1)),
    Continuous(low=5, high=25, precision=EPSILON),
    Categorical(values=(1, 2, 4, 7, 9)),
)


@dataclass(eq=False)
class Node:
    """A node of a true tree, whose splits are of two or more ways. It answers as an API does."""

    spans: list[Span]
    number: int
    feature: int | None = None
    children: list[tuple[Span, Node]] = field(default_factory=list)

    @property
    def value(self) -> tuple[float, ...]:
        return (self.number / 1000, 1 - self.number / 1000)

    def walk(self, row: Mapping[int, float]) -> tuple[Node, set[int]]:
        node, asked = self, set(row)
        while node.feature is not None:
            asked.add(node.feature)
            if node.feature not in row:
                break
            at = int(FEATURES[node.feature].nearest(np.array([row[node.feature]]))[0])
            node = next(child for span, child in node.children if at in span)
        return node, asked

    def leaves(self) -> list[Node]:
        return [leaf for _, child in self.children for leaf in child.leaves()] or [self]


@dataclass
class Api:
    root: Node
    fields: bool

    def ask(self, row: Mapping[int, float]) -> Seen:
        node, asked = self.root.walk(row)
        return Seen(node.number, node.value, frozenset(asked) if self.fields else None)


def _grown(leaves: int, seed: int) -> Node:
    """A random tree with splits at points of the features, and with sets of categories, two-way and many-way."""
    draw = np.random.default_rng(seed)
    root = Node([each.whole for each in FEATURES], 0)
    ends, count = [root], 1
    while len(ends) < leaves:
        node = ends[int(draw.integers(len(ends)))]
        at = int(draw.integers(len(FEATURES)))
        span = node.spans[at]
        if isinstance(span, range):
            if len(span) < 10:
                continue
            cut = int(draw.integers(span[0] + 3, span[-1] - 3))
            parts: list[Span] = [range(span[0], cut + 1), range(cut + 1, span[-1] + 1)]
        else:
            if len(span) < 2:
                continue
            ways = 2 if draw.random() < 0.5 else len(span)
            order = [int(each) for each in draw.permutation(sorted(span))]
            parts = [frozenset(order[way::ways]) for way in range(ways)]
        ends.remove(node)
        node.feature = at
        for part in parts:
            child = Node([*node.spans[:at], part, *node.spans[at + 1 :]], count)
            count += 1
            node.children.append((part, child))
            ends.append(child)
    return root


def _rows(count: int, seed: int = 0) -> Floats:
    """Random rows, none so near to a point's edge that ε could matter."""
    draw = np.random.default_rng(seed)
    columns = [each.nearest(draw.uniform(*each.numbers, count)) for each in FEATURES]
    return np.array([[each.value(int(at)) for at in column] for each, column in zip(FEATURES, columns, strict=True)]).T


def _found(tree: StolenTree) -> set[tuple[Hashable, tuple[Span, ...]]]:
    return {(leaf.identity, leaf.spans) for leaf in tree.leaves}


def _true(root: Node) -> set[tuple[Hashable, tuple[Span, ...]]]:
    return {(leaf.number, tuple(leaf.spans)) for leaf in root.leaves()}


@pytest.mark.parametrize("leaves", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fields", [True, False])
def test_top_down_finds_every_leaf_of_a_random_tree(leaves: int, seed: int, fields: bool) -> None:
    root = _grown(leaves, seed)
    customer = PathCustomer(Api(root, fields))
    tree = TopDown(features=FEATURES)(customer, seed=0)
    assert tree.complete
    assert tree.collisions == 0
    assert _found(tree) == _true(root)
    bits = sum(math.log2(len(each.whole)) for each in FEATURES)
    assert tree.paid == customer.paid <= 1 + len(tree.leaves) * bits


@pytest.mark.parametrize("leaves", [1, 2, 12, 30])
@pytest.mark.parametrize("seed", range(4))
def test_bottom_up_finds_every_leaf_of_a_random_tree(leaves: int, seed: int) -> None:
    root = _grown(leaves, seed)
    tree = BottomUp(features=FEATURES)(PathCustomer(Api(root, fields=False)), seed=seed)
    assert tree.complete
    assert _found(tree) == _true(root)


def test_the_copy_predicts_as_the_tree_does() -> None:
    root = _grown(30, 7)
    customer = PathCustomer(Api(root, fields=True))
    tree = TopDown(features=FEATURES)(customer, seed=0)
    rows = _rows(10_000)
    true = np.array([root.walk(dict(enumerate(row)))[0].value for row in rows])
    assert np.array_equal(tree(rows), true)
    assert np.array_equal(scores(as_forest(tree), rows), true)
    shown = as_target(tree)(torch.from_numpy(rows)).softmax(1)
    assert torch.allclose(shown, torch.from_numpy(true))


def _forest(*, precision: Precision = Precision.DOUBLE) -> Forest:
    """x0 ≤ 3.337: x2 ≤ 0.1234: 0 | x0 ≤ 1.5: 1 | 2, else x4 ≤ 20: 3 | 0. Leaves 0 and 0 show the same."""
    leaf = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.9, 0.1]]
    inner = [[0.5, 0.5], [0.6, 0.4], [0.45, 0.55], [0.7, 0.3]]
    return Forest(
        feature=np.array([0, 2, 0, 4, 0, 0, 0, 0, 0]),
        threshold=np.array([3.337, 0.1234, 1.5, 20.0, 0, 0, 0, 0, 0]),
        left=np.array([1, 4, 5, 7, *[LEAF] * 5]),
        right=np.array([3, 2, 6, 8, *[LEAF] * 5]),
        value=np.array(inner + leaf),
        roots=np.array([0]),
        base=np.zeros(2),
        inputs=len(FEATURES),
        comparison=Comparison.AT_MOST,
        precision=precision,
        sums=Precision.DOUBLE,
    )


@pytest.mark.parametrize("precision", list(Precision))
def test_thresholds_are_within_epsilon_of_the_true_ones(precision: Precision) -> None:
    forest = _forest(precision=precision)
    tree = TopDown(features=FEATURES)(PathCustomer(ForestPaths(forest=forest)), seed=0)
    assert recovered(tree, forest).tolist() == [True] * 5
    copy = as_forest(tree)
    inner = copy.left != LEAF
    assert inner.sum() == 4
    true = {0: [1.5, 3.337], 2: [0.1234], 4: [20.0]}
    for at, thresholds in true.items():
        found = sorted(copy.threshold[inner & (copy.feature == at)])
        assert np.abs(np.array(found) - thresholds).max() <= EPSILON / 2


def test_top_down_pays_far_less_than_bottom_up() -> None:
    oracle = ForestPaths(forest=_forest(), fields=True)
    down, up = PathCustomer(oracle), PathCustomer(oracle)
    TopDown(features=FEATURES)(down, seed=0)
    BottomUp(features=FEATURES)(up, seed=0)
    # The root, an asking of both ends a split, a bisection each (10, 8, 10 and 11 bits), and what was set before.
    assert down.paid <= 1 + 4 * 2 + (10 + 8 + 10 + 11) + 2 * 4
    assert down.paid < up.paid


def test_the_answers_of_an_api() -> None:
    oracle = ForestPaths(forest=_forest(), fields=True, identities=shown_identities(_forest()))
    assert oracle.ask({}) == Seen((0.5, 0.5), (0.5, 0.5), frozenset({0}))
    assert oracle.ask({0: 3.337, 5: 1.0}) == Seen((0.6, 0.4), (0.6, 0.4), frozenset({0, 2, 5}))
    assert oracle.ask({0: 3.338, 4: 21.0}).value == (0.9, 0.1)
    with pytest.raises(AccessError, match="complete rows"):
        ForestPaths(forest=_forest(), incomplete=False).ask({0: 1.0})


def test_money_ends_the_search_and_inner_nodes_stand_for_their_leaves() -> None:
    forest = _forest()
    rows = _rows(500)
    true = scores(forest, rows)
    agreed = []
    for queries in (1, 15, 30, 60):
        customer = PathCustomer(ForestPaths(forest=forest, fields=True), Spending(queries=queries))
        tree = TopDown(features=FEATURES)(customer, seed=0)
        assert tree.paid == customer.paid <= queries
        agreed.append(float((tree(rows) == true).all(1).mean()))
        assert tree.complete == (queries == 60)
    assert agreed[0] == 0
    assert sorted(agreed) == agreed
    assert agreed[-1] > 0.99
    assert np.allclose(
        TopDown(features=FEATURES)(PathCustomer(ForestPaths(forest=forest), Spending(queries=1)), seed=0)(rows), 0.5
    )


def test_without_money_there_is_nothing() -> None:
    for attack in (TopDown(features=FEATURES), BottomUp(features=FEATURES)):
        tree = attack(PathCustomer(ForestPaths(forest=_forest()), Spending(queries=0)), seed=0)
        assert not tree.complete
        assert not tree.leaves
        with pytest.raises(TargetError, match="more to spend"):
            tree(_rows(1))
        with pytest.raises(TargetError, match="more to spend"):
            as_forest(tree)


def test_a_run_is_its_own_curve() -> None:
    tree = BottomUp(features=FEATURES)(PathCustomer(ForestPaths(forest=_forest())), seed=0)
    shares = [recovered(tree.after(paid), _forest()).mean() for paid in range(0, tree.paid + 1, 10)]
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert recovered(tree, _forest()).all()
    assert tree.after(tree.paid).complete
    assert not tree.after(tree.paid - 1).complete


def test_the_same_query_costs_once() -> None:
    customer = PathCustomer(ForestPaths(forest=_forest()), Spending(queries=1, usd_per_1000_queries=2.0))
    assert customer.ask({0: 1.0, 2: 0.0}) == customer.ask({2: 0.0, 0: 1.0})
    assert (customer.paid, customer.left, customer.usd) == (1, 0, 0.002)
    assert customer.ask({}) is None


def _line(values: list[float]) -> Forest:
    """A tree of one number with a leaf from each whole number to the next."""
    inner = len(values) - 1
    return Forest(
        feature=np.zeros(2 * inner + 1, dtype=np.int64),
        threshold=np.array([*(float(i) + 1 for i in range(inner)), *[0.0] * len(values)]),
        left=np.array([*(inner + i for i in range(inner)), *[LEAF] * len(values)]),
        right=np.array([*(i + 1 for i in range(inner - 1)), 2 * inner, *[LEAF] * len(values)]),
        value=np.array([*[0.5] * inner, *values])[:, None] * [[1.0, -1.0]] + [[0.0, 1.0]],
        roots=np.array([0]),
        base=np.zeros(2),
        inputs=1,
        comparison=Comparison.AT_MOST,
        precision=Precision.DOUBLE,
        sums=Precision.DOUBLE,
    )


def test_probes_and_starts_find_leaves_that_share_an_identity() -> None:
    """Both ends of the line show the same, which hides what is between from a search that starts at an end."""
    forest = _line([0.1, 0.8, 0.1, 0.7, 0.1])
    oracle = ForestPaths(forest=forest, identities=shown_identities(forest))
    feature = Continuous(low=0, high=5, precision=0.01)
    plain = [BottomUp(features=(feature,))(PathCustomer(oracle), seed=seed) for seed in range(20)]
    found = [len(tree.leaves) for tree in plain]
    assert min(found) == 1  # that leaf seems to be all there is
    assert [tree.collisions for tree in plain if len(tree.leaves) == 1] == [0] * found.count(1)
    probed = BottomUp(features=(feature,), probes=9)(PathCustomer(oracle), seed=0)
    assert recovered(probed, forest).all()
    assert probed.collisions == 2
    several = BottomUp(features=(feature,), starts=50)(PathCustomer(oracle), seed=0)
    assert recovered(several, forest).mean() >= 0.8


def _german(seed: int = 0) -> tuple[tuple[Feature, ...], Floats, Floats]:
    """Rows drawn to the form of the German credit data: 7 numbers and 13 categories, with labels of a noisy rule."""
    draw = np.random.default_rng(seed)
    numbers = {1: (4, 72), 4: (250, 18424), 7: (1, 4), 10: (1, 4), 12: (19, 75), 15: (1, 4), 17: (1, 2)}
    sizes = {0: 4, 2: 5, 3: 10, 5: 5, 6: 5, 8: 4, 9: 3, 11: 4, 13: 3, 14: 3, 16: 4, 18: 2, 19: 2}
    features: list[Feature] = []
    columns = []
    for at in range(20):
        if at in numbers:
            low, high = numbers[at]
            features.append(Continuous(low=low, high=high, precision=EPSILON))
            columns.append(draw.integers(low, high + 1, 1000))
        else:
            features.append(Categorical(values=tuple(map(float, range(sizes[at])))))
            columns.append(draw.integers(0, sizes[at], 1000))
    x = np.stack(columns, 1).astype(np.float64)
    rule = (x[:, 0] < 2) * 1.0 + (x[:, 1] > 24) + (x[:, 4] > 8000) + (x[:, 12] < 30) + draw.normal(0, 1, 1000)
    return tuple(features), x, (rule > 2).astype(np.float64)


@pytest.mark.extras
def test_a_tree_of_26_leaves_over_20_mixed_features_costs_less_than_the_paper_paid() -> None:
    """Tramèr et al. 2016, Table 6: German credit, 26 leaves, 1,150 queries top-down and 1,722 bottom-up."""
    from sklearn.tree import DecisionTreeClassifier

    features, x, y = _german()
    model = DecisionTreeClassifier(max_leaf_nodes=26, random_state=0).fit(x, y)
    forest = forest_from_sklearn(model, x)
    told = ForestPaths(forest=forest, identities=shown_identities(forest), fields=True)
    customer = PathCustomer(told)
    tree = TopDown(features=features)(customer, seed=0)
    assert recovered(tree, forest).mean() == 1
    assert len(tree.leaves) == 26
    assert customer.paid <= 1150
    assert np.allclose(tree(x), model.predict_proba(x))
    draw = np.random.default_rng(1)
    rows = np.stack([each.nearest(draw.uniform(*each.numbers, 10_000)) for each in features], 1)
    rows = np.array([[each.value(int(at)) for each, at in zip(features, row, strict=True)] for row in rows])
    assert np.allclose(tree(rows), model.predict_proba(rows))
    numbered = PathCustomer(ForestPaths(forest=forest))
    assert recovered(TopDown(features=features)(numbered, seed=0), forest).all()
    assert numbered.paid <= 1150


@pytest.mark.extras
def test_contradictions_lead_to_leaves_that_others_hid() -> None:
    """The 40 leaves have 29 identities, as the pure ones all show one of two."""
    from sklearn.tree import DecisionTreeClassifier

    features, x, y = _german()
    model = DecisionTreeClassifier(max_leaf_nodes=40, random_state=0).fit(x, y)
    forest = forest_from_sklearn(model, x)
    oracle = ForestPaths(forest=forest, identities=shown_identities(forest), incomplete=False)
    trees = [BottomUp(features=features, starts=n)(PathCustomer(oracle), seed=0) for n in (1, 1000)]
    agreed = [float(np.isclose(tree(x), model.predict_proba(x)).all(1).mean()) for tree in trees]
    shares = [float(recovered(tree, forest).mean()) for tree in trees]
    assert agreed[0] < 1
    assert agreed[1] == 1
    assert shares[0] < 0.9
    assert shares[1] > 0.95
    assert trees[1].collisions > 0


@pytest.mark.extras
def test_plain_probabilities_of_scikit_learn_are_enough() -> None:
    from sklearn.tree import DecisionTreeClassifier

    features, x, y = _german()
    model = DecisionTreeClassifier(max_leaf_nodes=8, random_state=0).fit(x, y)
    low, high = float(x.min()), float(x.max())
    customer = Customer(from_sklearn(model, bounds=(low, high)), Spending(queries=3000), classes=2)
    copy = ScoreTree(search=BottomUp(features=features, starts=20))(customer, seed=0)
    asked = torch.from_numpy(x)
    assert torch.equal(copy.target(asked).argmax(1), torch.from_numpy(model.predict(x)).long())
    assert customer.paid < 3000
    again = ScorePaths(customer, 20)
    with pytest.raises(AccessError, match="all 20 features"):
        again.ask({0: 1.0})


def test_impossible_settings_are_refused() -> None:
    for low, high, precision in ((0, 0, 1), (0, 1, 0), (0, math.inf, 1)):
        with pytest.raises(SettingError, match="low < high"):
            Continuous(low=low, high=high, precision=precision)
    with pytest.raises(SettingError, match="ascending"):
        Categorical(values=(1, 0))
    with pytest.raises(SettingError, match="needs a feature"):
        TopDown(features=())
    with pytest.raises(SettingError, match="starts"):
        BottomUp(features=FEATURES, starts=0)
    with pytest.raises(SettingError, match="an identity a node"):
        ForestPaths(forest=_forest(), identities=("one",))
    tree = TopDown(features=FEATURES)(PathCustomer(ForestPaths(forest=_forest())), seed=0)
    with pytest.raises(DataError, match="a column a feature"):
        tree(np.zeros((1, 2)))
    with pytest.raises(SettingError, match="the tree that was asked"):
        recovered(tree, _line([0.1, 0.2]))
    with pytest.raises(TargetError, match="more than 5 nodes"):
        as_forest(tree, most=5)
    assert decided(scores(as_forest(tree, most=9), _rows(3))).shape == (3,)


def test_most_leaves() -> None:
    for attack in (TopDown(features=FEATURES, most=2), BottomUp(features=FEATURES, most=2)):
        tree = attack(PathCustomer(ForestPaths(forest=_forest())), seed=0)
        assert sum(leaf.final for leaf in tree.leaves) == 2
        assert not tree.complete
