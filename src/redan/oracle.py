"""Metered access to a target: bills every query, holds what the attacker may spend and what we may spend."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from redan.answers import Answers, averaged, evaluate, nothing, share, smallest
from redan.protocols import Loss
from redan.rows import Goal, nth, take
from redan.targets import Target
from redan.targets.torch import rounds


@dataclass(frozen=True, slots=True)
class Capability:
    """What the attacker may spend. A row that survives it is robust against this attacker.

    queries_per_row: inputs he may show the model for each row; None is unlimited. usd_per_1000_queries: what its
    owner asks for them.
    """

    queries_per_row: int | None = None
    usd_per_1000_queries: float | None = None

    @property
    def price(self) -> float:
        """US dollars for one query."""
        return (self.usd_per_1000_queries or 0.0) / 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What we spend on the whole run. A row cut off by them is undecided. None is unlimited."""

    seconds: float | None = None
    queries: int | None = None
    usd: float | None = None


class Purse:
    """What a run has spent of its limits, over all workers; after `stop` no query is answered."""

    def __init__(self, limits: Limits, spent: Callable[[], float] | None = None) -> None:
        """spent: US dollars that are gone in truth, for calls of all kinds; None: what the attackers' queries cost."""
        self._limits, self._spent = limits, spent
        self._lock = threading.Lock()
        self._queries = 0
        self._usd = 0.0
        self._end = math.inf if limits.seconds is None else time.monotonic() + limits.seconds
        self.hit: str | None = None

    def stop(self, reason: str = "interrupted") -> None:
        """No query is answered from now on."""
        self.hit = self.hit or reason

    def pay(self, queries: int, price: float = 0.0) -> bool:
        """Whether the run may still spend so many queries at this price each, in US dollars; counted if so."""
        with self._lock:
            if self.hit is None and time.monotonic() > self._end:
                self.hit = "seconds"
            most = self._limits.queries
            if self.hit is None and most is not None and self._queries + queries > most:
                self.hit = "queries"
            usd = self._limits.usd
            if self.hit is None and usd is not None and self._gone() + queries * price > usd * (1 + 1e-9):
                self.hit = "usd"
            if self.hit is None:
                self._queries += queries
                self._usd += queries * price
            return self.hit is None

    def _gone(self) -> float:
        return self._usd if self._spent is None else self._spent()


class Oracle:
    """A target, metered row by row. Ids are positions in a pool of `size` rows."""

    def __init__(
        self,
        target: Target[Tensor],
        size: int,
        classes: int,
        *,
        capability: Capability,
        purse: Purse,
        micro: int,
        eot: int = 1,
    ) -> None:
        """eot: draws of a stochastic target that a gradient is averaged over; each is a query."""
        self._eot = eot
        self._target, self._classes = target, classes
        self._climbed = target  # whose gradients are shown
        self._cap, self._price = capability.queries_per_row, capability.price
        self._purse, self._micro = purse, max(smallest(), micro)
        self.watch: Callable[[], None] | None = None  # called after each answer: progress
        self.queries = torch.zeros(size, dtype=torch.int64, device=target.device)
        self.backwards = torch.zeros_like(self.queries)
        self.blind = torch.zeros_like(self.queries)  # gradients that were zero, or not finite
        self.cut = torch.zeros(size, dtype=torch.bool, device=target.device)
        self.failed = torch.zeros_like(self.cut)
        self.reasons: dict[int, str] = {}

    @property
    def forwards(self) -> Tensor:
        """Forward passes of each row: one a query."""
        return self.queries

    @property
    def rounds(self) -> bool:
        """Whether scores that come with gradients may differ from the target's own by rounding."""
        return rounds(self._climbed)

    @contextmanager
    def climbing(self, instead: Target[Tensor] | None) -> Iterator[None]:
        """Within it gradients are those of a target that answers alike and has others; None: the target's own."""
        self._climbed = self._target if instead is None else instead
        try:
            yield
        finally:
            self._climbed = self._target

    def gone(self) -> Tensor:
        """Rows that get no answer any more: (pool,) bool."""
        gone = self.failed | self.cut
        return gone if self._cap is None else gone | (self.queries >= self._cap)

    def _admit(self, ids: Tensor, draws: int) -> Tensor:
        admitted = ~self.gone()[ids]
        if self._cap is not None:
            admitted &= self.queries[ids] + (nth(ids) + 1) * draws <= self._cap
        if not self._purse.pay(int(admitted.sum()) * draws, self._price):
            self.cut[ids[admitted]] = True
            admitted = torch.zeros_like(admitted)
        return admitted

    def _bill(self, ids: Tensor, draws: int, backwards: int) -> None:
        once = torch.ones_like(ids)
        self.queries.index_add_(0, ids, once, alpha=draws)
        if backwards:
            self.backwards.index_add_(0, ids, once, alpha=backwards)

    def _note(self, answers: Answers, ids: Tensor) -> None:
        """Remember which rows the model failed on, and whose gradients said nothing (those become 0)."""
        for at, reason in answers.reasons.items():
            row = int(ids[at])
            self.failed[row] = True
            self.reasons[row] = reason
        if len(answers.gradient):
            flat = answers.gradient.flatten(1)
            length = torch.linalg.vecdot(flat, flat)
            if not bool((length > 0).all()) or not bool(length.isfinite().all()):
                steepest = flat.abs().amax(1)  # a square may run over or under where the gradient does not
                lost = ~steepest.isfinite()
                blind = ids[lost | (steepest == 0)]
                self.blind.index_add_(0, blind, torch.ones_like(blind))
                answers.gradient[lost] = 0
            answers.loss[~answers.answered] = -torch.inf

    def ask(self, x: Tensor, ids: Tensor, *, goal: Goal | None = None, loss: Loss | None = None) -> Answers:
        """The scores of x, and the gradient of `loss` toward `goal` if one is given, billed to the rows `ids`.

        With a gradient all of them are means over `eot` draws (expectation over transformation, Athalye et al. 2018,
        arXiv:1707.07397).
        """
        draws = 1 if loss is None else self._eot
        admitted = self._admit(ids, draws)
        everyone = bool(admitted.all())
        paid, shown, aim = (ids, x, goal) if everyone else take(admitted, ids, x, goal)
        asked = self._target if loss is None else self._climbed
        once = partial(evaluate, asked, shown, micro=self._micro, goal=aim, loss=loss, classes=self._classes)
        answers = averaged(once, draws)
        columns = 0 if loss is None else 1 if answers.gradient.dim() == x.dim() else answers.gradient.shape[1]
        self._bill(paid, draws, draws * columns)
        self._note(answers, paid)
        if self.watch is not None:
            self.watch()
        if everyone:
            return answers
        full = nothing(x, self._classes, loss, {})
        if loss is not None:
            full = full._replace(
                loss=answers.loss.new_full((len(x), *answers.loss.shape[1:]), -torch.inf),
                gradient=answers.gradient.new_zeros(len(x), *answers.gradient.shape[1:]),
            )
            full.loss[admitted], full.gradient[admitted] = answers.loss, answers.gradient
        full.output[admitted], full.answered[admitted] = answers.output, answers.answered
        return full

    def share(self, x: Tensor, goal: Goal, draws: int) -> Tensor:
        """How often x reaches the goal over fresh draws of the target, billed to nobody: (N,)."""
        return share(self._target, x, goal, draws, self._micro)[0]
