"""What a target answers to a batch: in micro-batches, halved where it raises, billed to nobody.

The one gradient path of the house is here: the gradient in the input alone, nothing computed for the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from redan.errors import NoGradientError, RedanError, TargetError
from redan.protocols import Loss
from redan.rows import Goal, take
from redan.targets import Remote, Target, is_remote
from redan.targets.surrogates import plain

_LARGEST_MICRO, _MICRO_NUMBERS = 256, 2**22
_FEWEST, _ENOUGH = 4, 32
_PRODUCTS = ((100, 10), (1568, 100), (2048, 256))  # inputs and outputs of linear layers


@cache
def smallest() -> int:
    """Rows that are asked together at the least, on this machine. Fewer are asked with copies of themselves, and
    billed once.

    Small batches run other kernels than larger ones, and their bytes differ: up to three rows with oneDNN and MKL on
    most processors, up to 15 on some. Where that ends is measured once in a process, on products of a few shapes.
    """
    draw = torch.Generator().manual_seed(0)
    found = _FEWEST
    for inputs, outputs in _PRODUCTS:
        weight = torch.randn(outputs, inputs, generator=draw)
        rows, slopes = (torch.randn(2 * _ENOUGH, size, generator=draw) for size in (inputs, outputs))
        whole = linear(rows, weight), slopes @ weight
        for n in range(_ENOUGH - 1, found - 1, -1):
            if not torch.equal(linear(rows[:n], weight), whole[0][:n]) or not torch.equal(
                slopes[:n] @ weight, whole[1][:n]
            ):
                found = n + 1
                break
    return found


class Answers(NamedTuple):
    """One call's answers. A row that was not answered has NaN scores, loss -inf and gradient 0."""

    output: Tensor  # (N, K)
    loss: Tensor  # (N,); empty where no loss was asked for
    gradient: Tensor  # (N, …), or (N, K, …) for a loss with a column a class; empty where no loss was asked for
    answered: Tensor  # (N,) bool
    reasons: dict[int, str]  # position -> why the model failed on it


def micro_batch(x0: Tensor) -> int:
    """Rows a pass: bounded by the numbers in it, so that large inputs fit in memory. It does not change bytes."""
    return max(smallest(), min(_LARGEST_MICRO, _MICRO_NUMBERS // max(1, math.prod(x0.shape[1:]))))


def _pass(target: Target[Tensor], x: Tensor, goal: Goal | None, loss: Loss | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, loss and input gradient of one batch, straight from the target."""
    if loss is None:
        with torch.no_grad():
            return _scores(target(x.clone())), x.new_empty(0), x.new_empty(0)
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        output = _scores(target(x.clone()))  # a copy, so that a model may write into what it is given
        if not output.requires_grad:
            raise NoGradientError(_NO_GRADIENT)
        value = loss(output if goal is None else goal.scores(output), goal)
        columns = [value.sum()] if value.dim() == 1 else list(value.sum(0).unbind())
        last = len(columns) - 1
        try:
            found = [torch.autograd.grad(c, x, retain_graph=i < last)[0].contiguous() for i, c in enumerate(columns)]
        except RuntimeError as error:
            if "appears to not have been used in the graph" in str(error):  # the weights' graph goes on without x
                raise NoGradientError(_NO_GRADIENT) from error
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
    if is_remote(target):
        return _called(target, x, loss, classes)
    try:
        if len(x) < smallest():
            again = torch.arange(smallest(), device=x.device) % len(x)
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
        other = None if loss is None else plain(target)
        if other is not None:
            return _sturdy(other, x, goal, loss, classes)
        reason = f"the model raised {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        return nothing(x, classes or 1, loss, {0: reason[:200]})
    return Answers(output, value, gradient, *_answered(output, x, classes))


def _called(target: Remote, x: Tensor, loss: Loss | None, classes: int | None) -> Answers:
    """One batch of calls: nothing is asked twice, and rows without an answer say why."""
    if loss is not None:
        raise NoGradientError(_NO_GRADIENT)
    scores, why = target.asked(x)
    answered, reasons = _answered(scores, x, classes)
    return Answers(scores, x.new_empty(0), x.new_empty(0), answered, reasons | why)


def _answered(output: Tensor, x: Tensor, classes: int | None) -> tuple[Tensor, dict[int, str]]:
    """Which rows got scores without a NaN: (N,) bool, and why others did not. Raises TargetError for other shapes."""
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
    return ~bad, reasons


def nothing(x: Tensor, classes: int, loss: Loss | None, reasons: dict[int, str]) -> Answers:
    rows = 0 if loss is None else len(x)
    return Answers(
        x.new_full((len(x), classes), torch.nan),
        x.new_full((rows,), -torch.inf),
        torch.zeros_like(x[:rows]),
        torch.zeros(len(x), dtype=torch.bool, device=x.device),
        reasons,
    )


def _alike(parts: list[Answers]) -> list[Answers]:
    """The parts in one shape: one that failed whole knows neither the number of scores nor of gradients a row."""
    like = next((part for part in parts if bool(part.answered.any())), parts[0])
    classes = max(part.output.shape[1] for part in parts)

    def shaped(part: Answers) -> Answers:
        output, loss, gradient = part.output, part.loss, part.gradient
        if output.shape[1] != classes:
            output = output.expand(-1, classes)
        if loss.shape[1:] != like.loss.shape[1:]:
            loss = loss.new_full((len(loss), *like.loss.shape[1:]), -torch.inf)
        if gradient.shape[1:] != like.gradient.shape[1:]:
            gradient = gradient.new_zeros(len(gradient), *like.gradient.shape[1:])
        return part._replace(output=output, loss=loss, gradient=gradient)

    return [shaped(part) for part in parts]


def _joined(parts: list[Answers]) -> Answers:
    if len(parts) == 1:
        return parts[0]
    parts = _alike(parts)
    reasons: dict[int, str] = {}
    start = 0
    for part in parts:
        reasons |= {start + i: reason for i, reason in part.reasons.items()}
        start += len(part.output)
    return Answers(
        torch.cat([part.output for part in parts]),
        torch.cat([part.loss for part in parts]),
        torch.cat([part.gradient for part in parts]),
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
        return nothing(x, classes or 1, loss, {})
    if len(x) <= micro:
        return _joined([_sturdy(target, x, goal, loss, classes)])
    pieces = torch.arange(len(x), device=x.device).tensor_split(math.ceil(len(x) / micro))
    return _joined([_sturdy(target, *take(piece, x, goal), loss, classes) for piece in pieces])


def averaged(draw: Callable[[], Answers], draws: int) -> Answers:
    """The mean of one call's answers over several draws; a row that one of them left out is not answered."""
    total = draw()
    for _ in range(draws - 1):
        total, more = _alike([total, draw()])
        total = Answers(
            total.output + more.output,
            total.loss + more.loss,
            total.gradient + more.gradient,
            total.answered & more.answered,
            total.reasons | more.reasons,
        )
    if draws == 1:
        return total
    return total._replace(output=total.output / draws, loss=total.loss / draws, gradient=total.gradient / draws)


def share(target: Target[Tensor], x: Tensor, goal: Goal, draws: int, micro: int) -> tuple[Tensor, dict[int, str]]:
    """How often x reaches the goal over `draws` fresh answers: (N,); and the positions the model failed on."""
    hits = x.new_zeros(len(x))
    reasons: dict[int, str] = {}
    for _ in range(draws):
        answers = evaluate(target, x, micro=micro)
        hits += (answers.answered & goal.reached(answers.output)).to(hits.dtype)
        reasons |= answers.reasons
    return hits / draws, reasons
