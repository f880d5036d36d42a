"""Losses over class scores: `(output (N, K), goal) -> (N,)`, larger is nearer the attacker's goal."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class ClassGoal(Protocol):
    """A goal about one class a row: away from `label` (sign +1), or toward it (sign -1)."""

    @property
    def label(self) -> Tensor: ...
    @property
    def sign(self) -> int: ...


class PairGoal(ClassGoal, Protocol):
    """A goal that knows the right class `y` and the wanted class `label`."""

    @property
    def truth(self) -> Tensor: ...


def _at(output: Tensor, label: Tensor) -> Tensor:
    return output.gather(1, label[:, None])[:, 0]


def _runner_up(output: Tensor, label: Tensor) -> Tensor:
    """The highest score of another class than `label`."""
    return output.scatter(1, label[:, None], -torch.inf).amax(1)


def cross_entropy(output: Tensor, goal: ClassGoal) -> Tensor:
    """Cross-entropy against the goal's label, the loss of FGSM and PGD (Goodfellow 2015, eq. 1)."""
    return goal.sign * functional.cross_entropy(output, goal.label, reduction="none")


def margin(output: Tensor, goal: ClassGoal) -> Tensor:
    """Best other score minus the label's: above 0 exactly when the goal is reached (Carlini 2017, f6)."""
    return goal.sign * (_runner_up(output, goal.label) - _at(output, goal.label))


def dlr(output: Tensor, goal: ClassGoal) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eq. 6): the margin over z_1 - z_3 of the sorted scores.

    It is shift and scale invariant. With two classes there is no third score, and the margin is used bare.
    """
    if output.shape[1] < 3:
        return margin(output, goal)
    top = output.topk(3, 1).values
    return margin(output, goal) / (top[:, 0] - top[:, 2] + 1e-12)


def gap(output: Tensor, goal: PairGoal) -> Tensor:
    """The target's score minus the right class's, z_t - z_y: the margin toward one wrong class."""
    return _at(output, goal.label) - _at(output, goal.truth)


def targeted_dlr(output: Tensor, goal: PairGoal) -> Tensor:
    """Targeted difference of logits ratio (Croce and Hein 2020, eq. 7): (z_t - z_y) / (z_1 - (z_3 + z_4) / 2).

    With fewer than four classes there is no z_4 (and with z_3 alone the ratio is constant where t is last), so the
    difference is used bare.
    """
    apart = gap(output, goal)
    if output.shape[1] < 4:
        return apart
    top = output.topk(4, 1).values
    return apart / (top[:, 0] - top[:, 2:].mean(1) + 1e-12)
