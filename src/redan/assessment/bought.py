"""The model as extraction asks it: what is known costs us nothing again, and our limits hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch
from redan.errors import RedanError
from redan.extraction.customer import named
from redan.oracle import Purse
from redan.targets import Target
from redan.targets.base import its

__all__ = ["Bought", "LimitHitError"]


class LimitHitError(RedanError):
    """Our limits allow no more; what was begun is left undecided."""


@dataclass(slots=True, eq=False)
class Bought:
    """A target whose every new answer is paid from our limits, at `price` US dollars each.

    An attacker's customer counts what the attacker pays. Several of them ask the same rows; here a row is asked once,
    unless the model answers by chance. watch: is told how many answers were new. Raises LimitHitError where the limits
    do not allow a call.
    """

    target: Target[Tensor]
    purse: Purse
    price: float = 0.0
    watch: Callable[[int], None] | None = None
    _known: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _fresh: list[str] = field(default_factory=list, repr=False)

    access = its("access")
    output = its("output")
    bounds = its("bounds")
    classes = its("classes")
    stochastic = its("stochastic")
    dtype = its("dtype")
    device = its("device")
    surrogate = its("surrogate")
    differentiable = False

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (N, K); NaN in rows that the model failed on."""
        names = named(x)
        new: dict[str, int] = {}
        for at, name in enumerate(names):
            if name not in self._known and name not in new:
                new[name] = at
        if new:
            self._pay(x[list(new.values())], list(new))
        scores = torch.stack([self._known[name] for name in names]).to(x.device)
        if self.stochastic:
            self._known.clear()
        return scores

    def _pay(self, x: Tensor, names: list[str]) -> None:
        if not self.purse.pay(len(names), self.price):
            raise LimitHitError(f"the run's limit of {self.purse.hit} is reached")
        answers = evaluate(self.target, x, micro=micro_batch(x), classes=self.classes)
        self._known.update(zip(names, answers.output.cpu(), strict=True))
        self._fresh += names
        if self.watch is not None:
            self.watch(len(names))

    def fresh(self) -> dict[str, Tensor]:
        """What was bought since the last call, to be kept: names of rows (N, 16) uint8 and scores (N, K)."""
        names, self._fresh = self._fresh, []
        if self.stochastic or not names:
            return {}
        told = torch.tensor([list(bytes.fromhex(name)) for name in names], dtype=torch.uint8)
        return {"asked": told, "answers": torch.stack([self._known[name] for name in names])}

    def know(self, asked: Tensor, answers: Tensor) -> None:
        """Take what was bought before, as `fresh` told it."""
        if not self.stochastic:
            names = [bytes(row).hex() for row in asked.tolist()]
            self._known.update(zip(names, answers, strict=True))
