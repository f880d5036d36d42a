"""Copycat CNN: labels alone, whatever else is shown, from any pool."""

from __future__ import annotations

import pytest
import torch
from tests.extraction.learned import CLASSES, QUICK, draw, images, linear, nearest
from torch import Tensor

from redan.errors import SettingError
from redan.extraction.copycat import CopycatCNN
from redan.extraction.curves import agreement
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.pools import Between, Pool, RowPool, TablePool, UniformPool
from redan.extraction.surrogates import ByLogLoss, Copy
from redan.targets import Target

MATCHING = RowPool(name="matching", rows=images(400, 1)[0])
TEST = images(400, 2)[0]


LABELS = View(shows=Shows.LABELS)


def stolen(
    extractor: CopycatCNN,
    model: Target[Tensor],
    *,
    spending: Spending | None = None,
    view: View = LABELS,
    seed: int = 0,
) -> tuple[Copy, Customer]:
    customer = Customer(model, spending or Spending(), classes=model.classes or 0, view=view)
    return extractor(customer, seed=seed), customer


def test_a_matching_pool_copies_an_easy_model() -> None:
    copy, customer = stolen(CopycatCNN(pool=MATCHING, trainer=QUICK, queries=200), nearest())
    assert agreement(copy.target, nearest(), TEST) > 0.9
    assert customer.paid == 200


def test_probabilities_make_no_difference() -> None:
    extractor = CopycatCNN(pool=MATCHING, trainer=QUICK, queries=60)
    views = (LABELS, View(), View(shows=Shows.RAW))
    answers = [stolen(extractor, nearest(), view=view)[0].target(TEST) for view in views]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("pool", [UniformPool(shape=(6,)), TablePool(columns=tuple(Between(0, 1) for _ in range(6)))])
def test_any_pool_will_do(pool: Pool) -> None:
    copy, customer = stolen(CopycatCNN(pool=pool, trainer=ByLogLoss(), queries=200), linear())
    assert agreement(copy.target, linear(), torch.rand(1000, 6, generator=draw(9))) > 0.93
    assert customer.paid == 200


def test_the_same_seed_gives_the_same_within_a_budget() -> None:
    extractor = CopycatCNN(pool=MATCHING, trainer=QUICK, queries=60)
    (first, one), (second, two), (other, _) = (
        stolen(extractor, nearest(), spending=Spending(queries=41), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.target(TEST), second.target(TEST))
    assert not torch.equal(first.target(TEST), other.target(TEST))
    assert one.paid == two.paid == 41


def test_rare_labels_weigh_as_much_where_balanced() -> None:
    model, rows = linear(classes=3), torch.rand(2000, 6, generator=draw(3))
    labels = model(rows.double()).argmax(1)
    few = torch.cat([rows[labels == 0][:200], rows[labels == 1][:4], rows[labels == 2][:4]])
    pool = RowPool(name="lopsided", rows=few)
    trainer = ByLogLoss(penalty=0.05)
    plain, balanced = (
        stolen(CopycatCNN(pool=pool, trainer=trainer, queries=300, balanced=each), model)[0] for each in (False, True)
    )
    assert agreement(balanced.target, model, rows) > agreement(plain.target, model, rows)


def test_a_curve_pays_once() -> None:
    customer = Customer(nearest(), Spending(), classes=CLASSES)
    stages = CopycatCNN(pool=MATCHING, trainer=QUICK, queries=50).curve(customer, points=(10, 50), seed=0)
    assert [stage.paid for stage in stages] == [10, 50]
    assert customer.paid == 50


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="queries"):
        CopycatCNN(pool=MATCHING, queries=0)
    with pytest.raises(SettingError, match="bounds"):
        CopycatCNN(pool=UniformPool(shape=(6,), bounds=(-1.0, 1.0)))
