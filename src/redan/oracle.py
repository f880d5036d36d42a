"""Metered access to a target: bills every query, holds what the attacker may spend and what we may spend.

The one gradient path of the house is here: the gradient in the input alone, nothing computed for the weights.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.errors import AccessError, RedanError, TargetError
from redan.protocols import Loss
from redan.rows import Goal, nth, take
from redan.targets import Target

_LARGEST_MICRO, _MICRO_NUMBERS = 256, 2**22
# Batches of one to three rows run other kernels than larger ones, and their bytes differ (measured, with oneDNN and
# MKL): fewer rows are asked together with copies of themselves, and billed once.
_SMALLEST = 4


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

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
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
            if self.hit is None and usd is not None and self._usd + queries * price > usd * (1 + 1e-9):
                self.hit = "usd"
            if self.hit is None:
                self._queries += queries
                self._usd += queries * price
            return self.hit is None


class Answers(NamedTuple):
    """One call's answers. A row that was not answered has NaN scores, loss -inf and gradient 0."""

    output: Tensor  # (N, K)
    loss: Tensor  # (N,); empty where no loss was asked for
    gradient: Tensor  # (N, …), or (N, K, …) for a loss with a column a class; empty where no loss was asked for
    answered: Tensor  # (N,) bool
    reasons: dict[int, str]  # position -> why the model failed on it


def micro_batch(x0: Tensor) -> int:
    """Rows a pass: bounded by the numbers in it, so that large inputs fit in memory. It does not change bytes."""
    return max(_SMALLEST, min(_LARGEST_MICRO, _MICRO_NUMBERS // max(1, math.prod(x0.shape[1:]))))


def _pass(target: Target[Tensor], x: Tensor, goal: Goal | None, loss: Loss | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, loss and input gradient of one batch, straight from the target."""
    if loss is None:
        with torch.no_grad():
            return _scores(target(x.clone())), x.new_empty(0), x.new_empty(0)
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        output = _scores(target(x.clone()))  # a copy, so that a model may write into what it is given
        if not output.requires_grad:
            raise AccessError(_NO_GRADIENT)
        value = loss(output, goal)
        columns = [value.sum()] if value.dim() == 1 else list(value.sum(0).unbind())
        last = len(columns) - 1
        try:
            found = [torch.autograd.grad(c, x, retain_graph=i < last)[0] for i, c in enumerate(columns)]
        except RuntimeError as error:
            if "appears to not have been used in the graph" in str(error):  # the weights' graph goes on without x
                raise AccessError(_NO_GRADIENT) from error
            raise
    return output.detach(), value.detach(), found[0] if value.dim() == 1 else torch.stack(found, 1)


_NO_GRADIENT = (
    "the model's output has no gradient in its input, so this attack cannot climb; "
    "attack it by scores (Square), or give it a differentiable surrogate"
)


def _scores(answer: object) -> Tensor:
    """The model's answer, if it is a tensor at all."""
    if not isinstance(answer, Tensor):
        raise TargetError(
            f"the model answered {type(answer).__name__}, but a tensor of class scores (N, K) is needed; wrap the "
            "model so that its forward returns the scores alone"
        )
    return answer


def _sturdy(target: Target[Tensor], x: Tensor, goal: Goal | None, loss: Loss | None, classes: int | None) -> Answers:
    """One batch, halved on an exception until the rows that cause it stand alone."""
    try:
        if len(x) < _SMALLEST:
            again = torch.arange(_SMALLEST, device=x.device) % len(x)
            output, value, gradient = (part[: len(x)] for part in _pass(target, *take(again, x, goal), loss))
        else:
            output, value, gradient = _pass(target, x, goal, loss)
    except RedanError:
        raise
    except Exception as error:
        if len(x) > 1:
            half = torch.arange(len(x), device=x.device).tensor_split(2)
            first, second = (_sturdy(target, *take(part, x, goal), loss, classes) for part in half)
            return _joined([first, second])
        reason = f"the model raised {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        return _nothing(x, classes or 1, loss, {0: reason[:200]})
    if output.dim() != 2 or len(output) != len(x) or (classes is not None and output.shape[1] != classes):
        raise TargetError(
            f"the model answered {tuple(output.shape)} to {len(x)} rows, but {classes or 'K'} scores a row are "
            "needed, (N, K); check the declared classes, or wrap the model so that it returns class scores"
        )
    bad = output.isnan().any(1)
    reasons = {}
    if bool(bad.any()):
        theirs = bad & x.flatten(1).isfinite().all(1)  # a NaN that the attack put in is no fault of the model
        reasons = dict.fromkeys(theirs.nonzero().flatten().tolist(), "the model answered NaN")
    return Answers(output, value, gradient, ~bad, reasons)


def _nothing(x: Tensor, classes: int, loss: Loss | None, reasons: dict[int, str]) -> Answers:
    rows = 0 if loss is None else len(x)
    return Answers(
        x.new_full((len(x), classes), torch.nan),
        x.new_full((rows,), -torch.inf),
        torch.zeros_like(x[:rows]),
        torch.zeros(len(x), dtype=torch.bool, device=x.device),
        reasons,
    )


def _joined(parts: list[Answers]) -> Answers:
    if len(parts) == 1:
        return parts[0]
    classes = max(part.output.shape[1] for part in parts)  # a part that failed whole may not know K
    outputs = [p.output if p.output.shape[1] == classes else p.output.expand(-1, classes) for p in parts]
    shape = next((p.gradient.shape[1:] for p in parts if bool(p.answered.any())), parts[0].gradient.shape[1:])
    gradients = [
        p.gradient if p.gradient.shape[1:] == shape else p.gradient.new_zeros(len(p.gradient), *shape) for p in parts
    ]
    columns = next((p.loss.shape[1:] for p in parts if bool(p.answered.any())), parts[0].loss.shape[1:])
    losses = [
        p.loss if p.loss.shape[1:] == columns else p.loss.new_full((len(p.loss), *columns), -torch.inf) for p in parts
    ]
    reasons: dict[int, str] = {}
    start = 0
    for part in parts:
        reasons |= {start + i: reason for i, reason in part.reasons.items()}
        start += len(part.output)
    return Answers(
        torch.cat(outputs),
        torch.cat(losses),
        torch.cat(gradients),
        torch.cat([part.answered for part in parts]),
        reasons,
    )


def evaluate(
    target: Target[Tensor],
    x: Tensor,
    *,
    micro: int,
    goal: Goal | None = None,
    loss: Loss | None = None,
    classes: int | None = None,
) -> Answers:
    """Answers to x (N, …) in micro-batches, billed to nobody: the clean pass and the re-measurement."""
    x = x.detach()
    if not len(x):
        return _nothing(x, classes or 1, loss, {})
    if len(x) <= micro:
        return _joined([_sturdy(target, x, goal, loss, classes)])
    pieces = torch.arange(len(x), device=x.device).tensor_split(math.ceil(len(x) / micro))
    return _joined([_sturdy(target, *take(piece, x, goal), loss, classes) for piece in pieces])


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
    ) -> None:
        self._target, self._classes = target, classes
        self._cap, self._price = capability.queries_per_row, capability.price
        self._purse, self._micro = purse, max(_SMALLEST, micro)
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

    def gone(self) -> Tensor:
        """Rows that get no answer any more: (pool,) bool."""
        gone = self.failed | self.cut
        return gone if self._cap is None else gone | (self.queries >= self._cap)

    def _admit(self, ids: Tensor) -> Tensor:
        admitted = ~self.gone()[ids]
        if self._cap is not None:
            admitted &= self.queries[ids] + nth(ids) < self._cap
        if not self._purse.pay(int(admitted.sum()), self._price):
            self.cut[ids[admitted]] = True
            admitted = torch.zeros_like(admitted)
        return admitted

    def _bill(self, ids: Tensor, backwards: int) -> None:
        once = torch.ones_like(ids)
        self.queries.index_add_(0, ids, once)
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
        """The scores of x, and the gradient of `loss` toward `goal` if one is given, billed to the rows `ids`."""
        admitted = self._admit(ids)
        everyone = bool(admitted.all())
        paid, shown, aim = (ids, x, goal) if everyone else take(admitted, ids, x, goal)
        answers = evaluate(self._target, shown, micro=self._micro, goal=aim, loss=loss, classes=self._classes)
        self._bill(paid, 0 if loss is None else 1 if answers.gradient.dim() == x.dim() else answers.gradient.shape[1])
        self._note(answers, paid)
        if self.watch is not None:
            self.watch()
        if everyone:
            return answers
        full = _nothing(x, self._classes, loss, {})
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


def share(target: Target[Tensor], x: Tensor, goal: Goal, draws: int, micro: int) -> tuple[Tensor, dict[int, str]]:
    """How often x reaches the goal over `draws` fresh answers: (N,); and the positions the model failed on."""
    hits = x.new_zeros(len(x))
    reasons: dict[int, str] = {}
    for _ in range(draws):
        answers = evaluate(target, x, micro=micro)
        hits += (answers.answered & goal.reached(answers.output)).to(hits.dtype)
        reasons |= answers.reasons
    return hits / draws, reasons
