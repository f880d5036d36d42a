"""Jacobian-based augmentation (Papernot et al. 2017, arXiv:1602.02697): few rows, grown along the copy's gradients.

Each epoch trains a copy on what was answered, and moves rows by λ along the sign of the copy's gradient for the label
that the model gave. The step's sign that changes periodically and the reservoir of rows are those of Papernot, McDaniel
and Goodfellow 2016, arXiv:1605.07277.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.extraction.customer import Customer
from redan.extraction.pools import Pool
from redan.extraction.surrogates import Bounds, Copy, Trainer
from redan.extraction.trainers import ByAdam
from redan.extraction.transfer import Stage, Teaching, TransferSet
from redan.targets import Target

__all__ = ["JacobianAugmentation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianAugmentation:
    """A copy of a model, trained on a few rows and on those that the copy's own gradients make of them.

    seeds: where the first rows come from. first: how many. trainer: makes differentiable copies. queries: answers to
    pay for at the most. soft: learn the probabilities shown; the paper learns labels.

    step: λ, as a share of the box's width. period: epochs after which the step's sign changes, λ·(-1)^⌊ρ / period⌋ in
    epoch ρ from 1; a negative step goes toward other labels. doublings: epochs that move every row; later ones move
    `reservoir` rows each, drawn from all (each with the same chance). epochs: at the most. The authors' own code
    (CleverHans) has λ = 0.1 and no reservoir, and its sign changes once, after 3 epochs, from negative to positive.

    Rows are held in the box, and a row met before is not asked again. Copies are trained anew in each epoch, where the
    authors' code goes on training one network.
    """

    seeds: Pool
    first: int = 100
    trainer: Trainer = field(default_factory=ByAdam)
    queries: int = 10_000
    soft: bool = False
    step: float = 0.1
    period: int = 1
    doublings: int = 3
    reservoir: int = 400
    epochs: int = 100

    def __post_init__(self) -> None:
        if self.queries < 1 or self.first < 1 or not self.step > 0:
            raise SettingError(
                f"augmentation needs queries ≥ 1, first ≥ 1 and step > 0, got {self.queries}, {self.first}, {self.step}"
            )
        if self.period < 1 or self.doublings < 0 or self.reservoir < 1 or self.epochs < 0:
            raise SettingError(
                f"augmentation needs period ≥ 1, doublings ≥ 0, reservoir ≥ 1 and epochs ≥ 0, got {self.period}, "
                f"{self.doublings}, {self.reservoir}, {self.epochs}"
            )
        _ = self._teaching

    @property
    def _teaching(self) -> Teaching:
        return Teaching.of(self.trainer, self.seeds, soft=self.soft)

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        return self.curve(customer, points=(self.queries,), seed=seed)[-1].copy

    def curve(self, customer: Customer, *, points: Sequence[int], seed: int) -> tuple[Stage, ...]:
        """A copy a point, each of the first so many answers of one sequence of queries.

        points: rising, `queries` at the most. Raises SettingError for others, and where copies have no gradients.
        """
        draw = torch.Generator().manual_seed(seed)
        bounds = self.seeds.bounds
        transfer = TransferSet(customer, self.queries, self.seeds.shape, bounds)
        first = itertools.islice((row for block in self.seeds.blocks(draw) for row in block), self.first)
        transfer.buy(torch.stack(list(first)))
        idle = 0
        for epoch in range(1, self.epochs + 1):
            # With either sign, and once more for another draw of the reservoir, nothing new was made.
            if not transfer.left or idle > 2 * self.period:
                break
            x, answer, _ = transfer.first(self.queries)
            if not len(x):
                break
            if not idle:
                copy = self._teaching.copy(x, answer, customer, seed)
            at = _reservoir(len(x), len(x) if epoch <= self.doublings else self.reservoir, draw)
            # What cannot be paid for should not be the last rows always.
            at = at[torch.randperm(len(at), generator=draw)]
            length = self.step * (bounds[1] - bounds[0]) * (-1) ** (epoch // self.period)
            moved = augmented(copy.target, x[at], answer.labels[at], length, bounds)
            idle = 0 if len(transfer.buy(moved).at) else idle + 1
        return transfer.stages(self._teaching, points, seed)


def augmented(target: Target[Tensor], x: Tensor, labels: Tensor, length: float, bounds: Bounds) -> Tensor:
    """Rows x (N, …) moved by `length` along the sign of the gradient of their labels' probability, in the box.

    Raises SettingError for a target that has no gradients.
    """
    if not target.differentiable:
        raise SettingError(
            "this trainer's copies have no gradients, and augmentation moves rows along them; train a torch network"
        )
    moved = []
    for rows, at in zip(torch.split(x, 256), torch.split(labels, 256), strict=True):
        inputs = rows.to(target.device, target.dtype).requires_grad_()
        with torch.enable_grad():
            # The logarithm has the same sign, and does not vanish where the copy is sure.
            logs = target(inputs).log_softmax(1).gather(1, at[:, None].to(inputs.device))
            (slope,) = torch.autograd.grad(logs.sum(), inputs)
        moved.append((rows + length * slope.sign().cpu().double()).clamp(*bounds))
    return torch.cat(moved)


def _reservoir(count: int, size: int, draw: torch.Generator) -> Tensor:
    """Positions of `size` of `count` rows, each with the same chance (Vitter 1985, algorithm R)."""
    if size >= count:
        return torch.arange(count)
    kept = torch.arange(size)
    for at in range(size, count):
        place = int(torch.randint(at + 1, (1,), generator=draw))
        if place < size:
            kept[place] = at
    return kept
