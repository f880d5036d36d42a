"""Batches begin anywhere and are the same whenever seed and epoch are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from redan.errors import DataError, SettingError
from redan.hardening import Data, Loaded, Shuffled
from redan.hardening.batches import as_data, seed_of, seeded


def _rows(count: int = 23) -> tuple[Tensor, Tensor]:
    return torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count)


def _taken(data: Data, epoch: int, seed: int) -> list[list[int]]:
    return [y.tolist() for _, y in data.batches(epoch, seed)]


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Rows augmented from torch's generator."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.rand(2), torch.tensor(index)


@pytest.mark.parametrize("count", [22, 23, 24, 25])
def test_an_epoch_has_every_row_once_but_a_last_one_left_alone(count: int) -> None:
    data = Shuffled(*_rows(count), batch=8)
    batches = _taken(data, 0, 0)
    assert len(batches) == len(data)
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows) == (24 if count == 25 else count)
    for x, y in data.batches(0, 0):
        assert torch.equal(x[:, 0].long(), y)


def test_the_order_hangs_on_seed_and_epoch_alone() -> None:
    data = Shuffled(*_rows(), batch=8)
    first = _taken(data, 3, 1)
    torch.manual_seed(99)
    assert _taken(data, 3, 1) == first
    assert _taken(data, 4, 1) != first
    assert _taken(data, 3, 2) != first


@pytest.mark.parametrize("own", [False, True])
def test_loaders_follow_the_seed_in_shuffling_and_augmentation(own: bool) -> None:
    def loaded() -> Loaded:
        generator = torch.Generator() if own else None
        return Loaded(DataLoader(Noisy(), batch_size=4, shuffle=True, generator=generator))

    def rows(data: Data, epoch: int, disturb: bool = False) -> Tensor:
        found = []
        for x, y in data.batches(epoch, 5):
            found.append(torch.cat([x, y[:, None]], 1))
            if disturb:
                torch.rand(7)  # a model that draws, between two batches
        return torch.cat(found)

    with torch.random.fork_rng():
        data = loaded()
        first = rows(data, 1)
        assert not torch.equal(rows(data, 2), first)
        assert torch.equal(rows(data, 1, disturb=True), first)
        torch.manual_seed(4)
        assert torch.equal(rows(loaded(), 1), first)
    assert len(loaded()) == 3


def test_loaders_are_taken_as_they_are() -> None:
    data = Shuffled(*_rows())
    assert as_data(data) is data
    assert isinstance(as_data(DataLoader(TensorDataset(*_rows()))), Loaded)

    class Endless:
        def __iter__(self) -> Iterator[None]:
            return iter(())

    with pytest.raises(DataError, match="no length"):
        as_data(Endless())  # type: ignore[arg-type]


def test_seeds_of_different_purposes_differ() -> None:
    assert seed_of(0, "step", 1) != seed_of(0, "step", 2) != seed_of(1, "step", 2)
    assert 0 <= seed_of(-5, "anything") < 2**63


def test_rows_that_do_not_fit_are_refused() -> None:
    x, y = _rows()
    with pytest.raises(DataError, match="23 rows with 22 labels"):
        Shuffled(x, y[:-1])
    with pytest.raises(DataError, match="too few"):
        Shuffled(x[:1], y[:1])
    with pytest.raises(SettingError, match="at least 2"):
        Shuffled(x, y, batch=1)


def test_a_seed_gives_what_torch_s_own_would() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs = torch.rand(3)
        seeded(7)
        assert torch.equal(torch.rand(3), theirs)
