"""Knockoff Nets: an easy model is copied, useless rows are found out, and the budget is kept."""

from __future__ import annotations

import pytest
import torch
from tests.extraction.learned import CLASSES, QUICK, SHAPE, draw, images, linear, nearest
from torch import Tensor

import redan
from redan import PGD, Linf
from redan.errors import SettingError
from redan.extraction.curves import agreement
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.knockoff import Adaptive, KnockoffNets, Reward
from redan.extraction.pools import RowPool, UniformPool
from redan.extraction.surrogates import ByLogLoss, Copy
from redan.targets import Target

MATCHING = RowPool(name="matching", rows=images(400, 1)[0])
TEST = images(400, 2)[0]


def half_useless(count: int = 300) -> RowPool:
    """Images, and as many nearly black ones, in groups of their own."""
    dark = 0.02 * torch.rand(count, *SHAPE, generator=draw(6))
    groups = torch.arange(2 * count) // count
    return RowPool(name="half useless", rows=torch.cat([images(count, 1)[0], dark]), groups=groups)


def stolen(
    extractor: KnockoffNets, model: Target[Tensor] | None = None, *, view: View | None = None, seed: int = 0
) -> tuple[Copy, Customer]:
    model = model or nearest()
    customer = Customer(model, Spending(), classes=model.classes or 0, view=view or View())
    return extractor(customer, seed=seed), customer


VIEWS = [
    View(),
    View(shows=Shows.RAW),
    View(shows=Shows.LABELS),
    View(decimals=1),
    View(top=1),
    View(noise=0.05),
]


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_a_matching_pool_copies_an_easy_model_whatever_is_shown(view: View) -> None:
    copy, customer = stolen(KnockoffNets(pool=MATCHING, trainer=QUICK, queries=200), view=view)
    assert agreement(copy.target, nearest(), TEST) > 0.9
    assert customer.paid == 200


def test_the_copy_is_attacked_in_place_of_the_model() -> None:
    copy, _ = stolen(KnockoffNets(pool=MATCHING, trainer=QUICK, queries=200))
    x, _ = images(60, 2)
    model = nearest()
    y = model(x).argmax(1)
    found = redan.attack(model, x, y, PGD(steps=20), within=Linf(0.25), surrogates=(copy.target,))
    assert float(torch.as_tensor(found.success).double().mean()) > 0.5
    assert copy.parameters


def test_noise_copies_a_linear_model() -> None:
    pool = UniformPool(shape=(6,))
    copy, customer = stolen(KnockoffNets(pool=pool, trainer=ByLogLoss(), queries=60), linear())
    assert agreement(copy.target, linear(), torch.rand(2000, 6, generator=draw(9))) > 0.99
    assert customer.paid == 60


def test_labels_alone_are_learned_where_asked() -> None:
    pool = UniformPool(shape=(6,))
    soft, hard = (
        stolen(KnockoffNets(pool=pool, trainer=ByLogLoss(), queries=60, soft=each), linear())[0]
        for each in (True, False)
    )
    x = torch.rand(2000, 6, generator=draw(9))
    assert 0.85 < agreement(hard.target, linear(), x) < agreement(soft.target, linear(), x)


@pytest.mark.parametrize("adaptive", [None, Adaptive(trainings=3)])
def test_the_same_seed_asks_the_same_and_gives_the_same(adaptive: Adaptive | None) -> None:
    extractor = KnockoffNets(pool=half_useless(60), trainer=QUICK, queries=40, adaptive=adaptive)
    (first, one), (second, two), (other, three) = (stolen(extractor, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.target(TEST), second.target(TEST))
    assert not torch.equal(first.target(TEST), other.target(TEST))
    assert set(one._known) == set(two._known) != set(three._known)


@pytest.mark.parametrize("adaptive", [None, Adaptive(trainings=2, rewards=(Reward.CERTAINTY, Reward.DIVERSITY))])
def test_a_curve_is_one_run_of_which_each_budget_is_a_part(adaptive: Adaptive | None) -> None:
    extractor = KnockoffNets(pool=half_useless(60), trainer=QUICK, queries=60, adaptive=adaptive)
    customer = Customer(nearest(), Spending(), classes=CLASSES)
    stages = extractor.curve(customer, points=(20, 45, 60), seed=0)
    assert customer.paid == 60
    assert [(stage.queries, stage.paid) for stage in stages] == [(20, 20), (45, 45), (60, 60)]
    other = extractor.curve(Customer(nearest(), Spending(), classes=CLASSES), points=(45,), seed=0)
    assert torch.equal(other[0].copy.target(TEST), stages[1].copy.target(TEST))
    copy, _ = stolen(extractor)
    assert torch.equal(copy.target(TEST), stages[2].copy.target(TEST))


@pytest.mark.parametrize("adaptive", [None, Adaptive(trainings=2)])
@pytest.mark.parametrize("money", [Spending(queries=33), Spending(usd=0.33, usd_per_1000_queries=10)])
def test_a_budget_is_spent_to_the_last_answer_and_no_further(money: Spending, adaptive: Adaptive | None) -> None:
    extractor = KnockoffNets(pool=half_useless(60), trainer=QUICK, queries=100, adaptive=adaptive)
    customer = Customer(nearest(), money, classes=CLASSES)
    stages = extractor.curve(customer, points=(30, 100), seed=0)
    assert (customer.paid, customer.left) == (33, 0)
    assert [stage.paid for stage in stages] == [30, 33]


@pytest.mark.parametrize("adaptive", [None, Adaptive(trainings=2)])
def test_a_pool_smaller_than_the_budget_is_asked_whole(adaptive: Adaptive | None) -> None:
    extractor = KnockoffNets(pool=half_useless(25), trainer=QUICK, queries=500, adaptive=adaptive)
    copy, customer = stolen(extractor)
    assert customer.paid == 50
    assert copy.target(TEST).shape == (400, CLASSES)


@pytest.mark.slow
def test_adaptive_extraction_finds_the_useful_half() -> None:
    pool, found = half_useless(), {}
    for name, adaptive in (("random", None), ("adaptive", Adaptive(trainings=4))):
        extractor = KnockoffNets(pool=pool, trainer=QUICK, queries=60, adaptive=adaptive)
        rates = []
        for seed in range(3):
            copy, customer = stolen(extractor, seed=seed)
            assert customer.paid == 60
            rates.append(agreement(copy.target, nearest(), TEST))
        found[name] = sum(rates) / len(rates)
    assert found["adaptive"] >= found["random"]


@pytest.mark.parametrize("reward", [Reward.DIVERSITY, Reward.LOSS])
def test_rows_that_all_get_one_answer_are_left(reward: Reward) -> None:
    """Dark images are all of one class: by their diversity, and by the copy's loss, they are worth little."""
    pool = half_useless()
    adaptive = Adaptive(rewards=(reward,), trainings=6)
    _, customer = stolen(KnockoffNets(pool=pool, trainer=QUICK, queries=120, adaptive=adaptive))
    known = customer.knows(pool.rows.double())
    assert int(known.sum()) == 120
    assert int(known[300:].sum()) < 40


def test_rows_of_whose_class_the_model_is_sure_are_preferred() -> None:
    """Half of the rows are near the boundary of a linear model."""
    model = linear(classes=2)
    rows = torch.rand(4000, 6, generator=draw(4))
    margin = model(rows.double()).softmax(1).amax(1)
    chosen = torch.cat([rows[margin < 0.7][:150], rows[margin > 0.95][:150]])
    pool = RowPool(name="unsure and sure", rows=chosen, groups=torch.arange(300) // 150)
    adaptive = Adaptive(rewards=(Reward.CERTAINTY,))
    extractor = KnockoffNets(pool=pool, trainer=ByLogLoss(), queries=120, adaptive=adaptive)
    _, customer = stolen(extractor, model)
    assert int(customer.knows(chosen.double())[150:].sum()) > 80


def test_what_cannot_be_chosen_among_is_refused() -> None:
    for pool in (MATCHING, UniformPool(shape=SHAPE)):
        with pytest.raises(SettingError, match="groups"):
            KnockoffNets(pool=pool, adaptive=Adaptive())
    with pytest.raises(SettingError, match="rewards"):
        Adaptive(rewards=())
    with pytest.raises(SettingError, match="step ≥ 1"):
        Adaptive(step=0)
    with pytest.raises(SettingError, match="queries"):
        KnockoffNets(pool=MATCHING, queries=0)
    with pytest.raises(SettingError, match="bounds"):
        KnockoffNets(pool=UniformPool(shape=SHAPE, bounds=(0.0, 255.0)))
