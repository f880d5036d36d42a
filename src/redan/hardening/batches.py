"""Where batches come from: tensors in a random order of their own, or anyone's loader. Both can begin anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeGuard, cast

import torch
from torch import Tensor

from redan.errors import DataError, SettingError


def seed_of(seed: int, *names: object) -> int:
    """A generator's seed for one purpose: it depends on these words alone, and not on what was drawn before."""
    words = "|".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def seeded(seed: int) -> None:
    """Seed torch's own generators, as `torch.manual_seed` does.

    Where there is no accelerator, that would keep a stack trace for each kind there might be, at each call and for
    good: in every step of a training.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class Data(Protocol):
    """Rows to train on."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch's batches x (N, …), y (N,): the same whenever epoch and seed are."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Shuffled:
    """Rows x (N, …) with labels y (N,) in memory, in another random order each epoch.

    The order is drawn from the seed and the epoch's number. A last row that is left alone is dropped, for batch
    normalization has no variance of one row. Raises DataError for lengths that differ.

    >>> len(Shuffled(torch.zeros(257, 2), torch.zeros(257), batch=128))
    2
    """

    x: Tensor
    y: Tensor
    batch: int = 128

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise DataError(f"{len(self.x)} rows with {len(self.y)} labels; give one label a row")
        if len(self.x) < 2:
            raise DataError(f"{len(self.x)} row(s) are too few to train on; give at least two")
        if self.batch < 2:
            raise SettingError(f"a batch must have at least 2 rows, got {self.batch}; 128 is usual")

    def __len__(self) -> int:
        whole, rest = divmod(len(self.x), self.batch)
        return whole + (rest > 1)

    def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
        for index in torch.split(torch.randperm(len(self.x), generator=draw), self.batch)[: len(self)]:
            at = index.to(self.x.device)
            yield self.x[at], self.y[at]


class Loader(Protocol):
    """Anything that gives an epoch's batches when it is iterated, such as `torch.utils.data.DataLoader`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A loader whose batches begin with x and y.

    Torch's generator is seeded before an epoch and before each batch, and so is a generator of the loader's own, so
    shuffling, workers and augmentation by torch follow the training's seed. What draws from elsewhere (numpy or
    `random` in the process that trains, workers that persist from epoch to epoch) does not, and no run with it can be
    repeated.
    """

    loader: Loader

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        own: object = getattr(self.loader, "generator", None)
        if isinstance(own, torch.Generator):
            own.manual_seed(seed_of(seed, "loader", epoch))
        seeded(seed_of(seed, "epoch", epoch))
        batches = iter(self.loader)
        for number in count():
            seeded(seed_of(seed, "batch", epoch, number))
            batch = next(batches, None)
            if batch is None:
                return
            yield batch[0], batch[1]


def _is_data(data: Data | Loader) -> TypeGuard[Data]:
    return hasattr(data, "batches")


def as_data(data: Data | Loader) -> Data:
    """Rows to train on as `Data`. Raises DataError for what has no length."""
    if _is_data(data):
        return data
    loader = cast("Loader", data)
    try:
        len(loader)
    except TypeError as error:
        raise DataError(
            "the training rows have no length, so an epoch has no end and the learning rate no schedule; give a "
            "DataLoader over a sized dataset, or redan.hardening.Shuffled(x, y)"
        ) from error
    return Loaded(loader)
