"""Pools: given rows once each, noise in the box, and columns of a table drawn one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.extraction.pools import Between, OneOf, Pool, RowPool, TablePool, UniformPool, clustered

ROWS = torch.rand(1500, 2, 3, generator=torch.Generator().manual_seed(0))


def drawn(pool: Pool, count: int, seed: int = 0) -> Tensor:
    blocks = itertools.islice(pool.blocks(torch.Generator().manual_seed(seed)), 10)
    return torch.cat(list(blocks))[:count]


def test_given_rows_come_once_each_in_an_order_of_the_seed() -> None:
    pool = RowPool(name="some", rows=ROWS)
    found = drawn(pool, 5000)
    assert torch.equal(found.flatten(1).sort(0).values, ROWS.flatten(1).sort(0).values)
    assert torch.equal(found, drawn(pool, 5000))
    assert not torch.equal(found, drawn(pool, 5000, seed=1))
    assert not torch.equal(found, ROWS)
    assert pool.shape == (2, 3)


@pytest.mark.parametrize("number", [1.5, -0.1, float("nan"), float("inf")])
def test_a_row_outside_of_the_bounds_is_refused_by_its_place(number: float) -> None:
    rows = ROWS.clone()
    rows[7, 1, 2] = number
    with pytest.raises(DataError, match=r"1 of 1500 rows of the pool signs are outside of \[0, 1\], row 7 first"):
        RowPool(name="signs", rows=rows)


def test_a_wider_box_takes_it() -> None:
    assert RowPool(name="signs", rows=255 * ROWS, bounds=(0.0, 255.0)).bounds == (0.0, 255.0)


@pytest.mark.parametrize("rows", [torch.zeros(3, 2, dtype=torch.uint8), torch.zeros(3), torch.zeros(0, 2)])
def test_what_are_no_rows_is_refused(rows: Tensor) -> None:
    with pytest.raises(DataError, match="rows"):
        RowPool(name="signs", rows=rows)


@pytest.mark.parametrize("groups", [torch.zeros(3, dtype=torch.int64), torch.zeros(1500), torch.zeros(1500, 1).long()])
def test_groups_must_match_the_rows(groups: Tensor) -> None:
    with pytest.raises(SettingError, match="groups must be 1500 whole numbers"):
        RowPool(name="some", rows=ROWS, groups=groups)


def test_noise_fills_the_box_without_end() -> None:
    found = drawn(UniformPool(shape=(2, 2), bounds=(-1.0, 3.0)), 4000)
    assert found.shape == (4000, 2, 2)
    assert float(found.min()) >= -1.0
    assert float(found.max()) <= 3.0
    assert float(found.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(found.var()) == pytest.approx(16 / 12, abs=0.05)


def test_columns_are_drawn_by_themselves_from_their_ranges_and_categories() -> None:
    hot = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    pool = TablePool(columns=(Between(18, 21, whole=True), OneOf(hot), Between(-2.0, 2.0)), bounds=(-5.0, 100.0))
    found = drawn(pool, 4000)
    assert pool.shape == (5,)
    assert sorted(set(found[:, 0].tolist())) == [18, 19, 20, 21]
    assert torch.equal(found[:, 1:4].sum(1), torch.ones(4000).double())
    assert float(found[:, 1:4].mean(0).min()) > 0.3
    assert -2 <= float(found[:, 4].min()) < -1.9
    assert 1.9 < float(found[:, 4].max()) <= 2
    alike = torch.corrcoef(found[:, [0, 1, 4]].T) - torch.eye(3)
    assert float(alike.abs().max()) < 0.06


def test_a_table_tells_its_columns() -> None:
    ages = torch.arange(40.0)
    hot = torch.eye(3)[torch.arange(40) % 3]
    code = torch.tensor([2.0, 7.0])[torch.arange(40) % 2]
    pay = torch.linspace(0.5, 99.5, 40)
    pool = TablePool.of(torch.column_stack([ages, hot, code, pay]), bounds=(0.0, 100.0), together=[(1, 4)])
    assert pool.columns == (
        Between(0.0, 39.0, whole=True),
        OneOf(((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))),
        OneOf(((2.0,), (7.0,))),
        Between(0.5, 99.5),
    )
    assert pool.shape == (6,)


def test_impossible_columns_are_refused() -> None:
    with pytest.raises(SettingError, match="column 1 has the range"):
        TablePool(columns=(Between(0, 1), Between(0, 2)))
    with pytest.raises(SettingError, match="low ≤ high"):
        Between(2, 1)
    with pytest.raises(SettingError, match="categories"):
        OneOf(((1.0,), (1.0, 2.0)))
    with pytest.raises(SettingError, match="categories"):
        OneOf(())
    with pytest.raises(DataError, match="finite"):
        TablePool.of(torch.tensor([[torch.nan]]))


def test_clusters_are_groups_of_near_rows() -> None:
    near, far = 0.2 * ROWS[:50], 1 - 0.2 * ROWS[50:80]
    found = clustered(RowPool(name="two", rows=torch.cat([near, far])), 2, seed=0).groups
    assert found is not None
    assert len(set(found[:50].tolist())) == len(set(found[50:].tolist())) == 1
    assert int(found[0]) != int(found[-1])
    with pytest.raises(SettingError, match="1 to 1500 clusters"):
        clustered(RowPool(name="some", rows=ROWS), 0, seed=0)
