"""Jacobian-based augmentation: rows move as the paper says, the copy gains by them, and the budget is kept."""

from __future__ import annotations

import pytest
import torch
from tests.extraction.learned import CLASSES, QUICK, draw, images, linear, nearest

from redan.errors import SettingError
from redan.extraction.curves import agreement
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.jacobian import JacobianAugmentation, _reservoir, augmented
from redan.extraction.label_only import linear_copy
from redan.extraction.pools import RowPool, UniformPool
from redan.extraction.surrogates import ByLogLoss, Perceptron
from redan.extraction.trainers import ByEstimator

LABELS = View(shows=Shows.LABELS)
TEST = torch.rand(2000, 6, generator=draw(9))
PAIRS = (torch.tensor([[1.0, -2.0, 0.0], [-1.0, 2.0, 0.0]]), torch.zeros(2))


def test_rows_move_along_the_sign_of_their_labels_gradient_in_the_box() -> None:
    model = linear_copy(*PAIRS, (3,), (0.0, 1.0)).target
    x = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.95, 0.05, 0.5]], dtype=torch.float64)
    moved = augmented(model, x, torch.tensor([0, 1, 0]), 0.1, (0.0, 1.0))
    wanted = torch.tensor([[0.6, 0.4, 0.5], [0.4, 0.6, 0.5], [1.0, 0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(moved, wanted)


def test_the_step_is_a_share_of_the_box_and_changes_its_sign() -> None:
    """A linear model and two rows: the first epoch moves them toward each other, the second one apart."""
    box = (0.0, 10.0)
    model = linear_copy(torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), torch.zeros(2), (3,), box).target
    seeds = RowPool(name="two", rows=torch.tensor([[8.0, 5.0, 5.0], [5.0, 8.0, 5.0]]), bounds=box)
    wanted = [[8, 5, 5], [5, 8, 5], [7, 6, 5], [6, 7, 5], [9, 4, 5], [4, 9, 5]]
    for epochs, count in ((0, 2), (1, 4), (2, 6)):
        customer = Customer(model, Spending(), classes=2, view=LABELS)
        JacobianAugmentation(seeds=seeds, first=2, trainer=ByLogLoss(bounds=box), epochs=epochs)(customer, seed=0)
        assert customer.paid == count
        assert bool(customer.knows(torch.tensor(wanted[:count]).double()).all())


def test_later_epochs_move_the_reservoir_alone() -> None:
    paid = []
    for doublings in (0, 1, 3):
        extractor = JacobianAugmentation(
            seeds=UniformPool(shape=(6,)), first=10, trainer=ByLogLoss(), doublings=doublings, reservoir=3, epochs=3
        )
        customer = Customer(linear(), Spending(), classes=3, view=LABELS)
        extractor(customer, seed=0)
        paid.append(customer.paid)
    assert 10 < paid[0] <= 19
    assert 20 < paid[1] <= 26
    assert 40 < paid[2] <= 80


def test_augmentation_raises_agreement_over_the_seeds_alone() -> None:
    model = linear()
    rates: dict[int, list[float]] = {10: [], 120: []}
    for seed in range(4):
        extractor = JacobianAugmentation(
            seeds=UniformPool(shape=(6,)), first=10, trainer=ByLogLoss(), queries=120, reservoir=40
        )
        customer = Customer(model, Spending(), classes=3, view=LABELS)
        for stage in extractor.curve(customer, points=(10, 120), seed=seed):
            rates[stage.queries].append(agreement(stage.copy.target, model, TEST))
        assert customer.paid == 120
    assert sum(rates[120]) / 4 > sum(rates[10]) / 4 + 0.03


def test_images_are_augmented() -> None:
    seeds = RowPool(name="few", rows=images(60, 4)[0])
    extractor = JacobianAugmentation(seeds=seeds, first=20, trainer=QUICK, queries=60, doublings=1, reservoir=20)
    customer = Customer(nearest(), Spending(), classes=CLASSES, view=LABELS)
    stages = extractor.curve(customer, points=(20, 60), seed=0)
    assert [stage.paid for stage in stages] == [20, 60]
    assert agreement(stages[1].copy.target, nearest(), images(400, 2)[0]) > 0.7


@pytest.mark.parametrize("view", [View(), View(decimals=1), View(shows=Shows.RAW)])
def test_probabilities_are_learned_where_asked(view: View) -> None:
    extractor = JacobianAugmentation(
        seeds=UniformPool(shape=(6,)), first=20, trainer=ByLogLoss(), queries=60, soft=True
    )
    customer = Customer(linear(), Spending(), classes=3, view=view)
    assert agreement(extractor(customer, seed=0).target, linear(), TEST) > 0.9


def test_the_same_seed_asks_the_same() -> None:
    extractor = JacobianAugmentation(
        seeds=UniformPool(shape=(6,)),
        first=10,
        trainer=ByLogLoss(network=Perceptron(hidden=(4,)), steps=50),
        queries=70,
        doublings=1,
        reservoir=15,
    )
    customers = [Customer(linear(), Spending(), classes=3, view=LABELS) for _ in range(3)]
    copies = [extractor(customer, seed=seed) for customer, seed in zip(customers, (0, 0, 1), strict=True)]
    assert torch.equal(copies[0].target(TEST.double()), copies[1].target(TEST.double()))
    assert set(customers[0]._known) == set(customers[1]._known) != set(customers[2]._known)


@pytest.mark.parametrize("money", [Spending(queries=37), Spending(usd=0.37, usd_per_1000_queries=10)])
def test_a_budget_is_spent_to_the_last_answer(money: Spending) -> None:
    extractor = JacobianAugmentation(seeds=UniformPool(shape=(6,)), first=10, trainer=ByLogLoss(), queries=100)
    customer = Customer(linear(), money, classes=3, view=LABELS)
    extractor(customer, seed=0)
    assert customer.paid == 37


def test_fewer_seeds_than_wanted_and_less_money_than_seeds_will_do() -> None:
    pool = RowPool(name="few", rows=torch.rand(5, 6, generator=draw(0)))
    customer = Customer(linear(), Spending(queries=3), classes=3, view=LABELS)
    copy = JacobianAugmentation(seeds=pool, trainer=ByLogLoss())(customer, seed=0)
    assert customer.paid == 3
    assert copy.target(TEST.double()).shape == (2000, 3)


def test_seeds_of_one_label_end_it() -> None:
    model = linear()
    labels = model(TEST.double()).argmax(1)
    pool = RowPool(name="alike", rows=TEST[labels == 1][:20])
    customer = Customer(model, Spending(), classes=3, view=LABELS)
    copy = JacobianAugmentation(seeds=pool, first=20, trainer=ByLogLoss(), queries=500)(customer, seed=0)
    assert customer.paid == 20
    assert set(copy.target(TEST.double()).argmax(1).tolist()) == {1}


def test_the_reservoir_takes_each_row_alike() -> None:
    taken = torch.zeros(20)
    generator = draw(0)
    for _ in range(2000):
        at = _reservoir(20, 5, generator)
        assert len(set(at.tolist())) == 5
        taken[at] += 1
    assert float((taken / 2000 - 0.25).abs().max()) < 0.04
    assert _reservoir(3, 5, generator).tolist() == [0, 1, 2]


@pytest.mark.extras
def test_copies_without_gradients_are_refused() -> None:
    from sklearn.ensemble import RandomForestClassifier

    trainer = ByEstimator(estimator=lambda seed: RandomForestClassifier(5, random_state=seed))
    extractor = JacobianAugmentation(seeds=UniformPool(shape=(6,)), first=20, trainer=trainer, queries=60)
    with pytest.raises(SettingError, match="no gradients"):
        extractor(Customer(linear(), Spending(), classes=3, view=LABELS), seed=0)


def test_impossible_settings_are_refused() -> None:
    pool = UniformPool(shape=(6,))
    with pytest.raises(SettingError, match="step > 0"):
        JacobianAugmentation(seeds=pool, step=0.0)
    with pytest.raises(SettingError, match="period ≥ 1"):
        JacobianAugmentation(seeds=pool, period=0)
    with pytest.raises(SettingError, match="reservoir ≥ 1"):
        JacobianAugmentation(seeds=pool, reservoir=0)
