"""Szegedy's attack (2014, arXiv:1312.6199, section 4.1): distance + c · loss by L-BFGS in a box, all rows at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from redan.evasion.penalty import Search, balanced, narrowed, opened
from redan.losses import ClassGoal
from redan.perturbations.norms import L2
from redan.protocols import Cost, Gradients, Reply, wide
from redan.rows import Rows, take

_MEMORY = 8  # pairs of steps and turns that each row remembers
_ARMIJO, _SHORTER = 1e-4, 0.3
_SHORTEST = 1e-8  # of a full step: a row that needs less stands still
_LITTLE = 1e-6  # of ‖x - x0‖²: a step that promises less is the last
_CURVED = 1e-8  # of ‖turn‖²: pairs that curve less are not believed


def log_likelihood(output: Tensor, goal: ClassGoal) -> Tensor:
    """Log-probability that a class drawn from the softmax reaches the goal: (N,).

    Targeted it is minus the cross-entropy, as in the paper. Untargeted it is log(1 - p) of the label and not minus
    log p, which has no upper bound: its minimizers jump past the boundary as c grows.
    """
    others = output.scatter(1, goal.label[:, None], -torch.inf).logsumexp(1)
    return functional.logsigmoid(goal.sign * (others - output.gather(1, goal.label[:, None])[:, 0]))


class _History(NamedTuple):
    """Each row's last moves, in a ring."""

    steps: Tensor  # (N, memory, D)
    turns: Tensor  # what the gradient changed by
    at: Tensor  # (N,) where the next one goes


def _remember(history: _History, index: Tensor, step: Tensor, turn: Tensor) -> _History:
    """The history (written in place) with one more pair for the rows at `index`."""
    slot = history.at[index]
    history.steps[index, slot], history.turns[index, slot] = step.flatten(1)[index], turn.flatten(1)[index]
    return history._replace(at=history.at.index_put((index,), (slot + 1) % _MEMORY))


def _downhill(gradient: Tensor, free: Tensor, history: _History) -> Tensor:
    """The quasi-Newton step in the free coordinates (Nocedal 1980): two loops over each row's pairs, (N, …).

    Pairs are cut to the free coordinates, so the step is the one of the face that x lies on (Bertsekas 1982). Without
    a pair the curvature is the distance's own, 2.
    """
    free = free.flatten(1)
    step = gradient.flatten(1) * free
    here = torch.arange(len(step), device=step.device)
    scale = step.new_full((len(step),), 0.5)
    fresh = torch.ones_like(scale, dtype=torch.bool)
    pairs = []
    for back in range(1, _MEMORY + 1):
        slot = (history.at - back) % _MEMORY
        moved, turn = history.steps[here, slot] * free, history.turns[here, slot] * free
        curve, power = torch.linalg.vecdot(moved, turn), torch.linalg.vecdot(turn, turn)
        believed = curve > _CURVED * power
        scale = torch.where(fresh & believed, curve / power, scale)
        fresh = fresh & ~believed
        inverse = torch.where(believed, 1 / curve, 0)
        share = inverse * torch.linalg.vecdot(moved, step)
        step = torch.addcmul(step, turn, share[:, None], value=-1)
        pairs.append((moved, turn, inverse, share))
    step = step * scale[:, None]
    for moved, turn, inverse, share in reversed(pairs):
        step = torch.addcmul(step, moved, (share - inverse * torch.linalg.vecdot(turn, step))[:, None])
    return -step.reshape(gradient.shape)


class _Walk(NamedTuple):
    """Each row's state: where it stands, what it knows there, where it tries to go."""

    x: Tensor
    reached: Tensor
    loss: Tensor
    climb: Tensor  # the gradient of the loss
    value: Tensor  # of the objective
    slope: Tensor  # the gradient of the objective
    way: Tensor
    rate: Tensor  # the share of `way` to try
    history: _History
    search: Search
    spent: Tensor  # queries of the present search
    done: Tensor  # searches


def _begun(rows: Rows[Tensor, L2]) -> _Walk:
    """Nothing known: the first trial is x0, and whatever it answers is progress."""
    x = rows.x0
    ones, none = x.new_ones(len(x)), torch.zeros_like(x)
    whole = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    ring = x.new_zeros(len(x), _MEMORY, math.prod(x.shape[1:]))
    history = _History(ring, ring.clone(), whole)
    return _Walk(x, ones < 0, ones, none, ones * torch.inf, none, none, ones, history, opened(ones), whole, whole)


def _objective(x: Tensor, loss: Tensor, climb: Tensor, weight: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """‖x - x0‖² - c · loss, and its gradient."""
    change = x - x0
    flat = change.flatten(1)
    value = torch.linalg.vecdot(flat, flat) - weight * loss
    return value, torch.addcmul(change * 2, climb, wide(weight, x), value=-1)


def _judged(walk: _Walk, x: Tensor, reply: Reply, x0: Tensor) -> tuple[_Walk, Tensor, Tensor]:
    """The walk after a trial; which rows accepted it, and which stand still."""
    value, slope = _objective(x, reply.loss, reply.gradient, walk.search.weight, x0)
    step = x - walk.x
    gain = torch.linalg.vecdot(walk.slope.flatten(1), step.flatten(1))
    noise = 2 * torch.finfo(x.dtype).eps * walk.value.abs()
    accepted = value <= walk.value + _ARMIJO * gain + noise.nan_to_num(posinf=0)
    # By the slope, for differences of values drown in rounding where c · loss is large beside the distance.
    change = (x - x0).flatten(1)
    little = gain.abs() <= _LITTLE * torch.linalg.vecdot(change, change)
    still = torch.where(accepted, little & walk.value.isfinite(), walk.rate < _SHORTEST)
    known = accepted & walk.value.isfinite()
    history = _remember(walk.history, known.nonzero().flatten(), step, slope - walk.slope)
    taken = wide(accepted, x)
    walk = walk._replace(
        x=torch.where(taken, x, walk.x),
        reached=torch.where(accepted, reply.reached, walk.reached),
        loss=torch.where(accepted, reply.loss, walk.loss),
        climb=torch.where(taken, reply.gradient, walk.climb),
        value=torch.where(accepted, value, walk.value),
        slope=torch.where(taken, slope, walk.slope),
        rate=torch.where(accepted, 1, walk.rate * _SHORTER),
        history=history,
        spent=walk.spent + 1,
    )
    return walk, accepted, still


def _searched(walk: _Walk, over: Tensor, x0: Tensor) -> _Walk:
    """The walk with the next c for the rows whose search is over; they go on from where they stand."""
    following = narrowed(walk.search, walk.reached)
    search = Search(*(torch.where(over, new, old) for new, old in zip(following, walk.search, strict=True)))
    value, slope = _objective(walk.x, walk.loss, walk.climb, search.weight, x0)
    walk.history.turns[over] = 0  # they are of another objective
    return walk._replace(
        value=torch.where(over, value, walk.value),
        slope=torch.where(wide(over, slope), slope, walk.slope),
        rate=torch.where(over, 1, walk.rate),
        search=search,
        spent=torch.where(over, 0, walk.spent),
        done=walk.done + over,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LBFGS:
    """Minimum L2 norm: ‖x - x0‖² - c · log-likelihood of the goal, inside the box, with a search over c in each row.

    searches: values of c a row; steps: the most gradient queries for each; a row goes on to its next c when it stands
    still, whatever the others do. weight: the first c, in multiples of the one that balances loss and distance at
    x0. A success is the minimizer of a c; c is narrowed geometrically (the paper: line search for the least one).

    The paper leaves the optimizer to a library (Fortran's L-BFGS-B). This is projected L-BFGS: the two loops on the
    free coordinates, backtracking on the projected arc, one query a round. It starts each c where the last one ended.

    >>> LBFGS(searches=5, steps=20).cost(10)
    Cost(queries=100, backwards=100)
    """

    searches: int = 10
    steps: int = 60
    weight: float = 1.0

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.searches * self.steps, self.searches * self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L2]) -> None:
        low, high = rows.within.bounds
        walk = _begun(rows)
        for at in range(self.searches * self.steps):
            x = torch.addcmul(walk.x, walk.way, wide(walk.rate, walk.x)).clamp_(low, high)
            reply = referee.gradient(x, rows, log_likelihood)
            rows, walk, x, reply = referee.survivors(rows, walk, x, reply)
            if not at:
                first = balanced(reply.loss, reply.gradient, self.weight, (high - low) ** 2)
                walk = walk._replace(search=opened(first))
            walk, renewed, still = _judged(walk, x, reply, rows.x0)
            over = still | (walk.spent >= self.steps)
            if bool(over.any()):
                walk, renewed = _searched(walk, over, rows.x0), renewed | over
                rows, walk, renewed = take(walk.done < self.searches, rows, walk, renewed)
            if not len(rows):
                return
            bound = ((walk.x <= low) & (walk.slope > 0)) | ((walk.x >= high) & (walk.slope < 0))
            way = _downhill(walk.slope, ~bound, walk.history)
            walk = walk._replace(way=torch.where(wide(renewed, way), way, walk.way))
