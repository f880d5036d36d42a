"""Knockoff Nets (Orekondy, Schiele and Fritz 2019, arXiv:1812.02766): a copy trained on answers to an attacker's rows.

Random strategy: rows of the pool in a drawn order. Adaptive strategy: a gradient bandit over the pool's classes or
clusters, which are drawn more often the more their rows were worth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.extraction.customer import Customer
from redan.extraction.pools import Pool, RowPool
from redan.extraction.surrogates import Copy, Trainer
from redan.extraction.trainers import ByAdam, spread
from redan.extraction.transfer import Stage, Teaching, TransferSet, shares

__all__ = ["Adaptive", "KnockoffNets", "Reward"]


class Reward(Enum):
    """What makes a row worth its answer."""

    CERTAINTY = auto()
    """The margin between the two largest probabilities: the model knows what it sees."""
    DIVERSITY = auto()
    """By how much probabilities exceed those of late answers, over the classes: not the same class again."""
    LOSS = auto()
    """The copy's cross-entropy with the answer: the copy has something to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """The bandit over the pool's groups.

    rewards: each is scaled to [0, 1] by those of the last `window` rows, its mean there is taken off, and they are
    added up. step: rows drawn and asked at a time, before preferences change. trainings: of the copy that the loss
    looks at.

    Preferences H of groups change by α·(r - r̄)·(1 - π) for the group drawn and by -α·(r - r̄)·π for others, with
    π = softmax(H) and α one over how often the group was drawn. Deviations: the groups are flat, where the paper puts
    its thousands of classes into a hierarchy; several rows are asked at a time; no row is asked twice.
    """

    rewards: tuple[Reward, ...] = (Reward.CERTAINTY, Reward.DIVERSITY, Reward.LOSS)
    window: int = 200
    step: int = 8
    trainings: int = 10

    def __post_init__(self) -> None:
        if not self.rewards or len(set(self.rewards)) < len(self.rewards):
            raise SettingError(f"adaptive extraction needs rewards, each once, got {self.rewards}")
        if self.window < 2 or self.step < 1 or self.trainings < 1:
            raise SettingError(
                f"adaptive extraction needs window ≥ 2, step ≥ 1 and trainings ≥ 1, got {self.window}, {self.step}, "
                f"{self.trainings}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KnockoffNets:
    """A copy of a model, trained on its answers to a pool's rows.

    pool: where rows come from. trainer: makes a copy. queries: answers to pay for at the most. soft: learn the
    probabilities shown, or the labels alone. adaptive: how to choose among the pool's groups; None: rows at random.

    Raises SettingError where adaptive extraction finds no groups, or the trainer does not fit.
    """

    pool: Pool
    trainer: Trainer = field(default_factory=ByAdam)
    queries: int = 10_000
    soft: bool = True
    adaptive: Adaptive | None = None

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise SettingError(f"queries must be 1 or more, got {self.queries}")
        if self.adaptive is not None:
            _grouped(self.pool)
        _ = self._teaching

    @property
    def _teaching(self) -> Teaching:
        return Teaching.of(self.trainer, self.pool, soft=self.soft)

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        return self.curve(customer, points=(self.queries,), seed=seed)[-1].copy

    def curve(self, customer: Customer, *, points: Sequence[int], seed: int) -> tuple[Stage, ...]:
        """A copy a point, each of the first so many answers of one sequence of queries.

        points: rising, `queries` at the most. Raises SettingError for others.
        """
        draw = torch.Generator().manual_seed(seed)
        transfer = TransferSet(customer, self.queries, self.pool.shape, self.pool.bounds)
        if self.adaptive is None:
            transfer.fill(self.pool.blocks(draw))
        else:
            self._choose(transfer, self.adaptive, draw, seed)
        return transfer.stages(self._teaching, points, seed)

    def _choose(self, transfer: TransferSet, adaptive: Adaptive, draw: torch.Generator, seed: int) -> None:
        """Fills the transfer set, group by group as the bandit draws them."""
        pool, groups = _grouped(self.pool)
        arms = _Arms.of(groups, draw)
        worth = _Worth(adaptive.rewards, adaptive.window)
        every = -(-transfer.left // adaptive.trainings)
        trained = 0
        copy: Copy | None = None
        while transfer.left:
            drawn = arms.draw(min(adaptive.step, transfer.left), draw)
            if not len(drawn.rows):
                break
            bought = transfer.buy(pool.rows[drawn.rows])
            answered = bought.answer.answered
            shown = spread(shares(bought.answer.shown[answered], transfer.customer.view))
            rewards = worth.of(shown, copy, bought.x[answered])
            arms.update(drawn.groups[bought.at[answered]], drawn.policy, rewards)
            if Reward.LOSS in adaptive.rewards and transfer.paid - trained >= every:
                trained = transfer.paid
                x, answer, _ = transfer.first(transfer.queries)
                copy = self._teaching.copy(x, answer, transfer.customer, seed)


def _grouped(pool: Pool) -> tuple[RowPool, Tensor]:
    if not isinstance(pool, RowPool) or pool.groups is None or not len(pool.rows):
        raise SettingError(
            "adaptive extraction chooses among groups of rows; give a RowPool with groups (classes of its own, or "
            "`clustered`)"
        )
    return pool, torch.unique(pool.groups, return_inverse=True)[1]


class _Drawn(NamedTuple):
    rows: Tensor  # (M,) positions in the pool
    groups: Tensor  # (M,)
    policy: Tensor  # (G,) the chances they were drawn by


@dataclass(slots=True, eq=False)
class _Arms:
    """Groups with their rows left, and how much each is preferred."""

    rows: list[list[int]]
    preference: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, groups: Tensor, draw: torch.Generator) -> _Arms:
        count = int(groups.max()) + 1
        rows: list[list[int]] = [[] for _ in range(count)]
        order = torch.randperm(len(groups), generator=draw)
        for row, group in zip(order.tolist(), groups[order].tolist(), strict=True):
            rows[group].append(row)
        return cls(rows, torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64))

    def draw(self, count: int, draw: torch.Generator) -> _Drawn:
        """Up to `count` rows of drawn groups; fewer where groups have fewer left, none only where all are empty."""
        open_ = torch.tensor([bool(rows) for rows in self.rows])
        policy = torch.zeros_like(self.preference)
        picked: list[int] = []
        groups: list[int] = []
        if bool(open_.any()):
            policy = self.preference.masked_fill(~open_, -torch.inf).softmax(0)
            for group in torch.multinomial(policy, count, replacement=True, generator=draw).tolist():
                if self.rows[group]:
                    picked.append(self.rows[group].pop())
                    groups.append(group)
        return _Drawn(torch.tensor(picked, dtype=torch.int64), torch.tensor(groups, dtype=torch.int64), policy)

    def update(self, groups: Tensor, policy: Tensor, rewards: Tensor) -> None:
        """Prefer groups (M,) by rewards over their mean (M,)."""
        for group, reward in zip(groups.tolist(), rewards.tolist(), strict=True):
            self.drawn[group] += 1
            step = reward / float(self.drawn[group])
            self.preference -= step * policy
            self.preference[group] += step


@dataclass(slots=True, eq=False)
class _Worth:
    """Rewards of rows, over the mean of late rows."""

    rewards: tuple[Reward, ...]
    window: int
    _late: dict[Reward, deque[float]] = field(default_factory=dict)
    _answers: deque[Tensor] = field(default_factory=deque)

    def of(self, shown: Tensor, copy: Copy | None, x: Tensor) -> Tensor:
        """(M,) of probabilities (M, K) shown for rows x."""
        total = torch.zeros(len(shown), dtype=torch.float64)
        for reward in self.rewards:
            late = self._late.setdefault(reward, deque(maxlen=self.window))
            for at, value in enumerate(self._values(reward, shown, copy, x).tolist()):
                late.append(value)
                low, high = min(late), max(late)
                if high > low:
                    total[at] += (value - sum(late) / len(late)) / (high - low)
        self._answers.extend(shown)
        while len(self._answers) > self.window:
            self._answers.popleft()
        return total

    def _values(self, reward: Reward, shown: Tensor, copy: Copy | None, x: Tensor) -> Tensor:
        match reward:
            case Reward.CERTAINTY:
                top = shown.topk(min(2, shown.shape[1]), 1).values
                return top[:, 0] - top[:, -1]
            case Reward.DIVERSITY:
                mean = torch.stack(list(self._answers)).mean(0) if self._answers else shown.mean(0)
                return (shown - mean).clamp_min(0.0).sum(1)
            case Reward.LOSS:
                if copy is None or not len(x):
                    return torch.zeros(len(shown), dtype=torch.float64)
                with torch.no_grad():
                    scores = copy.target(x.to(copy.target.device, copy.target.dtype)).cpu().double()
                return -(shown * scores.log_softmax(1).clamp_min(-30.0)).sum(1)
