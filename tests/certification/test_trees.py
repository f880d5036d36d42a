"""The smallest change of trees: against every candidate point, against itself another way, and against attacks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import redan
from redan.certification.trees import Smallest, lower_bound, smallest_change
from redan.errors import DataError, SettingError, TargetError
from redan.evasion.noise import RandomNoise
from redan.formats.forest import Comparison, Forest, Precision, cuts, decided, scores, verified
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.targets import Output, Target, from_function

NORMS = (Linf, L2, L1, L0)
every_norm = pytest.mark.parametrize("norm", NORMS)
Kind = tuple[Comparison, Precision]
KINDS: tuple[Kind, ...] = tuple(itertools.product(Comparison, Precision))


def grown(
    seed: int,
    *,
    trees: int,
    depth: int,
    inputs: int,
    columns: int,
    kind: Kind = (Comparison.LESS, Precision.SINGLE),
    votes: bool = False,
) -> Forest:
    """Full trees with random splits; a leaf lifts one class, by a whole vote where those are asked for."""
    draw = np.random.default_rng(seed)
    inner, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    numbers = np.arange(nodes)
    feature, threshold, left, right, value = [], [], [], [], []
    for tree in range(trees):
        start = tree * nodes
        feature.append(draw.integers(0, inputs, nodes))
        threshold.append(draw.uniform(0.05, 0.95, nodes).astype(np.float32).astype(np.float64))
        left.append(np.where(numbers < inner, start + 2 * numbers + 1, -1))
        right.append(np.where(numbers < inner, start + 2 * numbers + 2, -1))
        lift = np.full(nodes, 1 / trees) if votes else draw.uniform(-1, 1, nodes)
        wide = np.zeros((nodes, columns))
        wide[numbers, draw.integers(0, columns, nodes)] = lift
        value.append(wide)
    return Forest(
        feature=np.concatenate(feature),
        threshold=np.concatenate(threshold),
        left=np.concatenate(left),
        right=np.concatenate(right),
        value=np.concatenate(value),
        roots=np.arange(trees) * nodes,
        base=np.zeros(columns),
        inputs=inputs,
        comparison=kind[0],
        precision=kind[1],
        sums=Precision.DOUBLE,
    )


def points(seed: int, forest: Forest, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    x = np.random.default_rng(seed).uniform(0, 1, (count, forest.inputs)).astype(forest.precision.dtype)
    return x, decided(scores(forest, x))


def as_target(forest: Forest) -> Target[Tensor]:
    dtype = torch.float32 if forest.precision is Precision.SINGLE else torch.float64

    def answer(x: NDArray[Any]) -> NDArray[Any]:
        found = scores(forest, x)
        return found[:, 0] if found.shape[1] == 1 else found

    return from_function(answer, classes=forest.classes, output=Output.LOGITS, dtype=dtype)


def by_trying(forest: Forest, x: NDArray[Any], y: int, norm: Any) -> float:
    """The least distance over every point whose coordinates stay, or lie on either side of a split.

    The nearest input of another class is one of these: a coordinate that moves stops at the first input beyond a
    split.
    """
    inner = forest.left >= 0
    lines = []
    for feature in range(forest.inputs):
        edge = cuts(forest)[inner & (forest.feature == feature)].astype(forest.precision.dtype)
        beside = np.nextafter(edge, forest.precision.dtype.type(-np.inf))
        lines.append(np.unique(np.concatenate([edge, beside, x[feature : feature + 1]])))
    tried = np.stack([part.ravel() for part in np.meshgrid(*lines, indexing="ij")], 1)
    changed = tried[decided(scores(forest, tried)) != y].astype(np.float64)
    if not len(changed):
        return math.inf
    start = torch.from_numpy(np.repeat(x[None].astype(np.float64), len(changed), 0))
    return float(norm(1.0).distance(torch.from_numpy(changed), start).min())


def attained(found: Smallest, forest: Forest, x: NDArray[Any], y: NDArray[np.int64], norm: Any) -> None:
    """The inputs found have another class, at the distance that is said, inside the box; or there are none."""
    there = torch.isfinite(found.distance)
    classes = torch.from_numpy(decided(scores(forest, found.x.numpy())))
    assert (classes[there] != torch.from_numpy(y)[there]).all()
    assert (found.x[~there] == torch.from_numpy(x)[~there]).all()
    distance = norm(1.0).distance(found.x.double(), torch.from_numpy(x).double())
    assert torch.allclose(distance[there], found.distance[there], rtol=1e-12, atol=0)
    assert float(found.x.min()) >= 0
    assert float(found.x.max()) <= 1


# -- splits ------------------------------------------------------------------------------------------------

Ordinary = st.floats(-2, 2, allow_nan=False)


@given(st.lists(Ordinary, min_size=1, max_size=20), st.sampled_from(KINDS), st.integers(-2, 2))
def test_a_cut_is_the_split_in_its_own_precision(thresholds: list[float], kind: Kind, steps: int) -> None:
    forest = grown(0, trees=1, depth=1, inputs=1, columns=1, kind=kind)
    dtype = forest.precision.dtype
    for threshold in thresholds:
        moved = Forest(
            **{name: getattr(forest, name) for name in Forest.__slots__ if name != "threshold"},
            threshold=np.array([threshold, 0.0, 0.0]),
        )
        x = np.asarray(threshold).astype(dtype)
        for _ in range(abs(steps)):
            x = np.nextafter(x, dtype.type(math.copysign(math.inf, steps)))
        exact = float(x) < threshold if kind[0] is Comparison.LESS else float(x) <= threshold
        assert (float(x) < cuts(moved)[0]) == exact


def test_nodes_that_are_no_trees_are_refused() -> None:
    forest = grown(0, trees=2, depth=2, inputs=2, columns=1)
    fields = {name: getattr(forest, name) for name in Forest.__slots__}
    looped, shared, far = (forest.left.copy() for _ in range(3))
    looped[2], shared[1], far[0] = 0, 5, 99
    for left in (looped, shared, far):
        with pytest.raises(TargetError, match="do not form trees"):
            Forest(**fields | {"left": left})
    with pytest.raises(TargetError, match="do not form trees"):
        Forest(**fields | {"feature": forest.feature + 2})
    with pytest.raises(TargetError, match="not finite"):
        Forest(**fields | {"base": np.array([np.inf])})


def test_trees_that_answer_otherwise_are_refused() -> None:
    forest = grown(0, trees=3, depth=2, inputs=2, columns=1)
    x, _ = points(0, forest, 20)
    assert verified(forest, x, lambda rows: scores(forest, rows)[:, 0], called="a twin") is forest
    with pytest.raises(TargetError, match=r"differ from a twin by 1e-05 on 20 real rows"):
        verified(forest, x, lambda rows: scores(forest, rows) + 1e-5, called="a twin")
    with pytest.raises(TargetError, match="1 scores a row where a twin answers 2"):
        verified(forest, x, lambda rows: np.zeros((len(rows), 2)), called="a twin")
    with pytest.raises(DataError, match="real rows"):
        verified(forest, x[:0], lambda rows: rows, called="a twin")


# -- exact -------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(1, 3, 2), (1, 2, 3), (2, 2, 2), (3, 2, 2), (4, 1, 3)]),
    columns=st.sampled_from([1, 2, 3]),
    kind=st.sampled_from(KINDS),
    votes=st.booleans(),
    norm=st.sampled_from(NORMS),
)
def test_it_is_the_least_of_all_candidates_both_ways(
    seed: int, shape: tuple[int, int, int], columns: int, kind: Kind, votes: bool, norm: Any
) -> None:
    trees, depth, inputs = shape
    forest = grown(
        seed, trees=trees, depth=depth, inputs=inputs, columns=columns, kind=kind, votes=votes and columns > 1
    )
    x, y = points(seed + 1, forest, 2)
    tried = [by_trying(forest, row, int(label), norm) for row, label in zip(x, y, strict=True)]
    expected = torch.tensor(tried, dtype=torch.float64)

    listed = smallest_change(forest, x, y, norm=norm)
    solved = smallest_change(forest, x, y, norm=norm, listing=0)

    assert listed.exact.all()
    assert torch.allclose(listed.distance, expected, rtol=1e-12, atol=0)
    assert (listed.lower == listed.distance).all()
    assert solved.exact.all()
    assert torch.allclose(solved.distance, listed.distance, rtol=1e-5, atol=0)
    assert (solved.lower <= listed.distance).all()
    for found in (listed, solved):
        attained(found, forest, x, y, norm)


@every_norm
@pytest.mark.parametrize("columns", [1, 3])
def test_listing_and_the_program_agree_on_larger_forests(norm: Any, columns: int) -> None:
    forest = grown(3, trees=5, depth=3, inputs=5, columns=columns)
    x, y = points(4, forest, 40)
    solved = smallest_change(forest, x, y, norm=norm, listing=0)
    listed = smallest_change(forest, x, y, norm=norm, listing=100_000)

    assert solved.exact.all()
    assert listed.exact.all()
    assert torch.allclose(solved.distance, listed.distance, rtol=1e-5, atol=0)
    assert bool((listed.distance > 0).all())
    attained(solved, forest, x, y, norm)


@pytest.mark.parametrize("trees", [4, 5, 10])
def test_ties_of_whole_votes_go_to_the_first_class(trees: int) -> None:
    """Many trees tie, near every row: from the first class a tie is no change, from the second it is one."""
    forest = grown(7, trees=trees, depth=2, inputs=3, columns=2, votes=True)
    x, y = points(8, forest, 200)
    x, y = (np.concatenate([part[y == 0][:12], part[y == 1][:12]]) for part in (x, y))
    assert set(y) == {0, 1}
    expected = [by_trying(forest, row, int(label), Linf) for row, label in zip(x, y, strict=True)]
    solved = smallest_change(forest, x, y, norm=Linf, listing=0)

    assert solved.exact.all()
    assert solved.distance.tolist() == pytest.approx(expected, rel=1e-12)


@every_norm
@pytest.mark.parametrize("trees", [12, 13])
def test_a_vote_of_stumps_changes_by_the_cheapest_majority(norm: Any, trees: int) -> None:
    """Each tree votes on a number of its own, so as many are moved as it takes, those that are nearest to their split.

    All choices of half the trees tie: more of them, and nearer, than any change from the first class.
    """
    stumps = grown(9, trees=trees, depth=1, inputs=trees, columns=2, votes=True)
    fields = {name: getattr(stumps, name) for name in Forest.__slots__}
    value = np.zeros_like(stumps.value)
    value[1::3, 0] = value[2::3, 1] = 1 / trees
    forest = Forest(**fields | {"feature": np.repeat(np.arange(trees), 3), "value": value})
    split = forest.threshold[0::3]
    draw = np.random.default_rng(10)
    for first in (0, 1):  # of all trees' votes: all for the first class, all for the second
        far = draw.uniform(0.005, 0.05, trees)
        x = (split - far if first == 0 else split + far).astype(np.float32)
        edge = cuts(forest)[0::3] if first == 0 else np.nextafter(split.astype(np.float32), np.float32(0))
        needed = trees // 2 + 1 if first == 0 else (trees + 1) // 2
        moved = np.sort(np.abs(edge.astype(np.float64) - x))[:needed]
        expected = float(norm(1.0).distance(torch.from_numpy(moved[None]), torch.zeros(1, needed, dtype=torch.float64)))
        found = smallest_change(forest, x[None], np.array([first]), norm=norm, listing=0)
        assert found.exact.all()
        assert float(found.distance) == pytest.approx(expected, rel=1e-5)
        assert float(found.lower) <= expected * (1 + 1e-12)


def test_one_split_is_crossed_by_one_unit_in_the_last_place() -> None:
    for comparison, precision in KINDS:
        stump = Forest(
            feature=np.array([0, 0, 0]),
            threshold=np.array([0.5, 0, 0]),
            left=np.array([1, -1, -1]),
            right=np.array([2, -1, -1]),
            value=np.array([[0.0], [-1.0], [1.0]]),
            roots=np.array([0]),
            base=np.zeros(1),
            inputs=2,
            comparison=comparison,
            precision=precision,
            sums=Precision.DOUBLE,
        )
        kind = precision.dtype.type
        x = np.array([[0.25, 0.5], [0.75, 0.5]], dtype=precision.dtype)
        found = smallest_change(stump, x, np.array([0, 1]), norm=L2)
        up, down = np.nextafter(kind(0.5), kind(1)), np.nextafter(kind(0.5), kind(0))
        left, right = (0.5, down) if comparison is Comparison.LESS else (up, 0.5)
        assert found.x[:, 0].tolist() == [float(left), float(right)]
        assert (found.x[:, 1] == 0.5).all()


def test_a_coordinate_that_moved_cannot_move_less() -> None:
    forest = grown(11, trees=1, depth=4, inputs=4, columns=1)
    x, y = points(12, forest, 20)
    found = smallest_change(forest, x, y, norm=L1).x.numpy()
    for i, j in zip(*np.nonzero(found != x), strict=True):
        nearer = found[i].copy()
        nearer[j] = np.nextafter(nearer[j], x[i, j])
        assert decided(scores(forest, nearer[None]))[0] == y[i]


def test_what_the_box_leaves_out_is_not_found() -> None:
    forest = grown(13, trees=1, depth=4, inputs=3, columns=1)
    x, _ = points(14, forest, 40)
    inside = np.clip(x, 0.4, 0.6)
    y = decided(scores(forest, inside))
    wide = smallest_change(forest, inside, y, norm=Linf)
    narrow = smallest_change(forest, inside, y, norm=Linf, bounds=(0.4, 0.6))
    assert bool((narrow.distance >= wide.distance).all())
    assert bool((narrow.distance > wide.distance).any())
    assert bool(((narrow.distance <= 0.2 + 1e-7) | narrow.distance.isinf()).all())
    assert bool((narrow.x >= 0.4).all() & (narrow.x <= 0.6 + 1e-7).all())
    assert bool(torch.isfinite(narrow.distance).any())


def test_a_row_of_another_class_is_at_distance_0_and_one_class_is_never_left() -> None:
    forest = grown(15, trees=2, depth=2, inputs=2, columns=1)
    x, y = points(16, forest, 4)
    wrong = smallest_change(forest, x, 1 - y, norm=L2)
    assert (wrong.distance == 0).all()
    assert wrong.exact.all()
    assert (wrong.x.numpy() == x).all()

    fields = {name: getattr(forest, name) for name in Forest.__slots__}
    always = Forest(**fields | {"base": np.array([9.0])})
    for listing in (0, 5_000):
        never = smallest_change(always, x, np.ones(4, dtype=int), norm=L2, listing=listing)
        assert bool((never.distance.isinf() & never.lower.isinf() & never.exact).all())
    assert bool(lower_bound(always, x, np.ones(4, dtype=int), norm=L2).isinf().all())


def test_rows_do_not_depend_on_each_other_and_none_are_fine() -> None:
    forest = grown(17, trees=4, depth=3, inputs=4, columns=3)
    x, y = points(18, forest, 5)
    together = smallest_change(forest, x, y, norm=L1, listing=0)
    alone = [smallest_change(forest, x[i : i + 1], y[i : i + 1], norm=L1, listing=0) for i in range(5)]
    assert together.distance.tolist() == [float(one.distance) for one in alone]
    assert bool((together.x == torch.cat([one.x for one in alone])).all())
    none = smallest_change(forest, x[:0], y[:0], norm=L1)
    assert none.x.shape == (0, 4)
    assert none.distance.shape == none.exact.shape == none.lower.shape == (0,)


def test_the_model_has_the_last_word() -> None:
    """A model that never leaves the first class: what the forest takes for a change is none."""
    forest = grown(19, trees=2, depth=2, inputs=2, columns=1)
    x, y = points(20, forest, 12)
    x, y = x[y == 0], y[y == 0]
    stubborn = from_function(lambda rows: np.zeros(len(rows)), classes=2, output=Output.LABELS)
    assert bool(torch.isfinite(smallest_change(forest, x, y, norm=Linf).distance).any())
    assert bool(smallest_change(forest, x, y, norm=Linf, model=stubborn).distance.isinf().all())


# -- bounds ------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), norm=st.sampled_from(NORMS), columns=st.sampled_from([1, 3]))
def test_the_bound_is_under_the_distance_and_merging_tightens_it(seed: int, norm: Any, columns: int) -> None:
    forest = grown(seed, trees=4, depth=2, inputs=3, columns=columns)
    x, y = points(seed + 1, forest, 3)
    exact = smallest_change(forest, x, y, norm=norm).distance
    plain, paired = (lower_bound(forest, x, y, norm=norm, merge=merge) for merge in (1, 12))
    assert bool((plain <= paired).all())
    assert bool((paired <= exact).all())


def test_the_bound_is_worth_something() -> None:
    forest = grown(21, trees=8, depth=3, inputs=6, columns=2, votes=True)
    x, y = points(22, forest, 24)
    exact = smallest_change(forest, x, y, norm=L2).distance
    plain, tight = (lower_bound(forest, x, y, norm=L2, merge=merge) / exact for merge in (1, 1_000))
    assert float(plain.mean()) > 0.3
    assert float(tight.mean()) > float(plain.mean())


@every_norm
def test_out_of_time_is_said_and_what_was_proven_holds(norm: Any) -> None:
    forest = grown(23, trees=15, depth=3, inputs=8, columns=2, votes=True)
    x, y = points(24, forest, 30)
    lead = np.abs(np.diff(scores(forest, x))[:, 0])
    x, y = x[lead > 0.3][:3], y[lead > 0.3][:3]
    short = smallest_change(forest, x, y, norm=norm, seconds=1e-4, listing=0)
    long = smallest_change(forest, x, y, norm=norm)
    assert long.exact.all()
    assert not short.exact.all()
    assert bool((short.lower <= long.distance * (1 + 1e-12)).all())
    assert bool((short.lower > 0).all())
    assert bool((short.distance >= long.lower).all())
    assert bool((short.lower < short.distance)[~short.exact].all())
    attained(short, forest, x, y, norm)


# -- attacks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trees", "share"), [(1, 0.6), pytest.param(8, 0.8, marks=pytest.mark.slow)])
def test_no_attack_wins_inside_and_square_wins_just_outside(trees: int, share: float) -> None:
    """In L∞ a ten-thousandth less than the exact distance nothing breaks; with as much more Square breaks most rows."""
    forest = grown(25, trees=trees, depth=4, inputs=6, columns=1)
    x, y = points(26, forest, 48)
    found = smallest_change(forest, x, y, norm=Linf)
    assert found.exact.all()
    near = torch.isfinite(found.distance) & (found.distance > 1e-3)
    rows, labels, distance = torch.from_numpy(x)[near], torch.from_numpy(y)[near], found.distance[near]
    assert len(rows) > 30
    target = as_target(forest)
    inside, outside = (Linf((distance * factor).float()) for factor in (0.9999, 1.0001))
    for attack in (redan.Square(queries=400), RandomNoise(), redan.Square(queries=400, first=0.3)):
        assert not redan.attack(target, rows, labels, attack, within=inside, workers=1).success.any()
    beyond = redan.attack(target, rows, labels, redan.Square(queries=400), within=outside, workers=1)
    assert float(beyond.success.double().mean()) >= share
    assert bool(outside.contains(found.x[near], rows).all())


@every_norm
def test_no_random_point_inside_is_of_another_class(norm: Any) -> None:
    forest = grown(27, trees=10, depth=3, inputs=4, columns=3)
    x, y = points(28, forest, 4)
    found = smallest_change(forest, x, y, norm=norm)
    assert found.exact.all()
    draw = np.random.default_rng(29)
    for row, label, distance in zip(x, y, found.distance.tolist(), strict=True):
        scale = distance if math.isfinite(distance) else 1.0
        step = draw.uniform(-1, 1, (20_000, 4)) * draw.integers(0, 2, (20_000, 4)) * max(min(scale, 1.0), 1e-3)
        tried = np.clip(row + step, 0, 1).astype(np.float32)
        start = torch.from_numpy(row).double().expand(len(tried), -1)
        inside = tried[norm(1.0).distance(torch.from_numpy(tried).double(), start).numpy() < distance]
        assert len(inside) > 100 or distance <= 1
        assert (decided(scores(forest, inside)) == label).all()


# -- refusals ----------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused() -> None:
    forest = grown(31, trees=1, depth=1, inputs=2, columns=1)
    x, y = points(32, forest, 3)
    norm: Any = "linf"
    with pytest.raises(SettingError, match="Linf, L2, L1 or L0"):
        smallest_change(forest, x, y, norm=norm)
    with pytest.raises(SettingError, match="seconds"):
        smallest_change(forest, x, y, norm=Linf, seconds=0)
    with pytest.raises(SettingError, match="low < high"):
        smallest_change(forest, x, y, norm=Linf, bounds=(1, 0))
    with pytest.raises(DataError, match=r"rows \(N, 2\)"):
        smallest_change(forest, x[:, :1], y, norm=Linf)
    with pytest.raises(DataError, match="from 0 to 1"):
        smallest_change(forest, x, y + 5, norm=Linf)
    with pytest.raises(DataError, match="from 0 to 1"):
        lower_bound(forest, x, y.astype(float), norm=Linf)
    with pytest.raises(DataError, match="outside the bounds"):
        smallest_change(forest, x + 1, y, norm=Linf)
    with pytest.raises(DataError, match="outside the bounds"):
        smallest_change(forest, x * np.nan, y, norm=Linf)
