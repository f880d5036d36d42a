"""Rows held out of the training, on which epochs are compared: clean, and under an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.errors import DataError
from redan.hardening.inner import PGD_10, Ask, Inner
from redan.hardening.objectives import right
from redan.hardening.passes import cheapest, served
from redan.hardening.step import streams
from redan.protocols import Attack, Ball

_BATCH = 128


class Score(NamedTuple):
    """Shares of the held-out rows that are answered rightly, clean and attacked."""

    clean: float
    robust: float


class Validates(Protocol):
    """What compares epochs: `Validation`, or anything that scores a model."""

    def __call__(self, model: nn.Module, seed: int, /) -> Score:
        """Both accuracies; the epoch with the highest robust one is taken."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Validation:
    """Held-out rows x (N, …) with labels y (N,), and how they are attacked.

    within: what the attacker may change. attack: any attack of redan's, a cascade for example; it is judged by the
    referee, and a row counts as robust where it is right and was not broken. Without one, `inner` is one short ascent.
    Robust accuracy is measured with the same random numbers each time, so that epochs are compared on equal terms.
    """

    x: Tensor
    y: Tensor
    within: Ball
    attack: Attack[Any, Any] | None = None
    inner: Inner = PGD_10

    def __post_init__(self) -> None:
        if not len(self.x) or len(self.x) != len(self.y):
            raise DataError(f"{len(self.x)} held-out rows with {len(self.y)} labels; give some rows, one label each")

    def __call__(self, model: nn.Module, seed: int) -> Score:
        """Both accuracies of a model, whose mode is left as it was."""
        with served(model) as bare:
            like = next(bare.parameters())
            x, y = self.x.to(like), self.y.to(like.device)
            robust = 0
            with torch.no_grad():
                hits = torch.cat([right(bare(rows), labels) for rows, labels in _parts(x, y)])
            clean = int(hits.sum())
            if self.attack is not None:
                found = attack(bare, x, y, self.attack, within=self.within, bounds=self.within.bounds, seed=seed)
                robust = len(x) - int(found.success.sum()) - len(found.errors)
            else:
                path = cheapest(bare, x)
                for number, (rows, labels) in enumerate(_parts(x, y)):
                    ask = Ask(model=bare, wanted=labels, path=path.kept())
                    moved = self.inner(ask, rows, self.within, streams(seed, number, rows))
                    with torch.no_grad():
                        robust += int((right(bare(moved), labels) & right(bare(rows), labels)).sum())
        return Score(clean / len(x), robust / len(x))


def _parts(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(x, _BATCH), torch.split(y, _BATCH), strict=True))
