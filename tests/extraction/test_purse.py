"""A purse spends a part of a customer's money, and no more."""

from __future__ import annotations

import torch
from torch import nn

from redan.extraction.customer import Customer, Spending
from redan.extraction.purse import Purse
from redan.targets.torch import from_torch

ROWS = torch.rand(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def customer(queries: int | None) -> Customer:
    return Customer(from_torch(nn.Linear(2, 3).double().eval()), Spending(queries=queries), classes=3)


def test_it_buys_its_own_limit_or_the_customers() -> None:
    for own, whole, most in ((4, 7, 4), (9, 7, 7), (None, 7, 7), (4, None, 4), (0, 7, 0)):
        payer = customer(whole)
        purse = Purse(payer, own)
        answer = purse.ask(ROWS)
        assert answer.answered.tolist() == [True] * most + [False] * (10 - most)
        assert payer.paid == most
        assert purse.left == 0
        assert answer.labels[most:].tolist() == [-1] * (10 - most)


def test_what_was_bought_before_it_is_free() -> None:
    payer = customer(None)
    payer.ask(ROWS[:5])
    purse = Purse(payer, 3)
    assert purse.left == 3
    assert purse.ask(ROWS).answered.tolist() == [True] * 8 + [False] * 2
    assert payer.paid == 8
    assert Purse(payer).left == float("inf")
    assert bool(Purse(payer).ask(ROWS).answered.all())


def test_no_rows_cost_nothing() -> None:
    purse = Purse(customer(3))
    assert [tuple(part.shape) for part in purse.ask(ROWS[:0])] == [(0, 3), (0,), (0,)]
    assert purse.left == 3
