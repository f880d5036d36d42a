"""The benchmarks' own judge of an attack: it imports neither redan nor any of redan's peers.

Every attack in a benchmark, ours included, hands over inputs and nothing else. Whether they count is decided
here, from the inputs, the model and the budget: no side reports its own success.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

Norm: TypeAlias = Literal["linf", "l2", "l1", "l0"]

TOLERANCE = 1e-5
"""Slack for rounding, per coordinate and relative to the width of the box. See `judge`."""

_BATCH = 1024
_NO_ANSWER = -1


class Judgement(NamedTuple):
    """What the judge found; the first three have one entry a row, shape (N,)."""

    right_before: Tensor
    broken: Tensor
    inside: Tensor
    robust_accuracy: float


def judge(
    model: Callable[[Tensor], Tensor],
    x0: Tensor,
    y: Tensor,
    x_adv: Tensor,
    *,
    norm: Norm,
    eps: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Judgement:
    """Judge adversarial inputs ``x_adv`` (N, ...) against the clean ``x0`` (N, ...) with labels ``y`` (N,).

    A row is *broken* if the model answers ``y`` on the clean input and something else on the adversarial one,
    and the adversarial one is *inside*: every coordinate is finite and in the box, and the change is in the
    ball. A row outside is not broken, and the model never sees it. *Robust accuracy* is the share, of all rows,
    that was right before and is not broken.

    With w the width of the box, D the coordinates of a row and t = ``TOLERANCE`` = 1e-5, inside means

    * box: ``low - t*w <= x_adv <= high + t*w`` in every coordinate;
    * linf: ``max |x_adv - x0| <= eps + t*w``;
    * l2: ``|x_adv - x0| <= eps + t*w*sqrt(D)``: an error of t*w in every coordinate adds no more than that;
    * l1: ``sum |x_adv - x0| <= eps + t*w*D``, likewise;
    * l0: at most eps coordinates differ, by however little: rounding is no excuse to touch one.

    Distances are measured in float64 on the values the model gets: ``x_adv`` is first cast to the dtype of
    ``x0``. The answer is the first largest logit; a row of logits with a NaN in it is no answer, neither right
    before nor broken after.

    Raises ValueError if shapes disagree, there are no rows, the budget or the box makes no sense, clean inputs
    are outside the box, or the model is in training mode.
    """
    low, high = bounds
    _check(model, x0, y, x_adv, norm=norm, eps=eps, bounds=bounds)
    x_adv = x_adv.detach().to(device=x0.device, dtype=x0.dtype)

    slack = TOLERANCE * (high - low)
    candidate = x_adv.flatten(1).double()
    change = candidate - x0.flatten(1).double()
    in_box = ((candidate >= low - slack) & (candidate <= high + slack)).all(dim=1)
    room = {"linf": slack, "l2": slack * math.sqrt(change.shape[1]), "l1": slack * change.shape[1], "l0": 0.0}[norm]
    in_ball = _length(change, norm) <= eps + room
    inside = in_box & in_ball  # comparisons with NaN are false, and an infinity is outside any box

    before = _answers(model, x0)
    after = _answers(model, torch.where(inside.reshape(-1, *[1] * (x0.dim() - 1)), x_adv, x0))
    right_before = before == y
    broken = right_before & inside & (after != y) & (after != _NO_ANSWER)
    robust = (right_before & ~broken).double().mean().item()
    return Judgement(right_before, broken, inside, robust)


def distances(x0: Tensor, x_adv: Tensor, *, norm: Norm) -> Tensor:
    """How far each row of ``x_adv`` (N, ...) is from ``x0``: (N,) float64, measured on the values the model gets.

    l0 is the number of coordinates that differ.
    """
    x_adv = x_adv.detach().to(device=x0.device, dtype=x0.dtype)
    return _length(x_adv.flatten(1).double() - x0.flatten(1).double(), norm)


def _length(change: Tensor, norm: Norm) -> Tensor:
    order = {"linf": math.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}[norm]
    length: Tensor = torch.linalg.vector_norm(change, ord=order, dim=1)
    return length


@torch.no_grad()
def _answers(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the class of each row, shape (N,); `_NO_ANSWER` where a logit is NaN."""
    logits = torch.cat([model(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])
    return torch.where(logits.isnan().any(dim=1), _NO_ANSWER, logits.argmax(dim=1))


def _check(
    model: Callable[[Tensor], Tensor],
    x0: Tensor,
    y: Tensor,
    x_adv: Tensor,
    *,
    norm: str,
    eps: float,
    bounds: tuple[float, float],
) -> None:
    low, high = bounds
    if norm not in ("linf", "l2", "l1", "l0"):
        raise ValueError(f"norm is {norm!r}: choose linf, l2, l1 or l0")
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"bounds are {bounds}: give a finite lower and a larger upper bound")
    if not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"eps is {eps}: give a finite radius of zero or more")
    if x_adv.shape != x0.shape:
        raise ValueError(f"x_adv is {tuple(x_adv.shape)} but x0 is {tuple(x0.shape)}: hand over one row for each")
    if len(x0) == 0 or x0.dim() < 2:
        raise ValueError(f"x0 is {tuple(x0.shape)}: give at least one row, first dimension N")
    if y.shape != (len(x0),) or (y < 0).any():
        raise ValueError(f"y is {tuple(y.shape)}: give one label of 0 or more for each of the {len(x0)} rows")
    if not ((x0 >= low) & (x0 <= high)).all():
        raise ValueError(f"clean inputs leave the box {bounds}: give x0 in the units of the box")
    if isinstance(model, nn.Module) and any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode: call eval() before it is judged")
