"""Linear classifiers of two classes, and how what they learn moves with one training row.

SupportVectors    Biggio, Nelson and Laskov 2012, arXiv:1206.6389, Section 3, gradient computation
Smooth            Xiao et al. 2015, arXiv:1804.07933, and Demontis et al. 2019, arXiv:1809.02861, poisoning attacks;
                  built by `logistic_regression` and `ridge`

Labels are -1 and 1. A learner fits weights (D,) and a bias; `slope` is the gradient of its mean loss on validation rows
in one training row, with the fit taken along: the fit's own optimality conditions are differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit

from redan.errors import SettingError

Numbers = NDArray[np.float64]


class Fitted(NamedTuple):
    """What a learner learned: answers are x·weights + bias, and their sign is the class."""

    weights: Numbers
    """(D,)"""
    bias: float
    duals: Numbers
    """(N,): one a training row, of a support vector machine; else empty."""

    def answers(self, x: Numbers) -> Numbers:
        """(N,) for rows x (N, D)."""
        return x @ self.weights + self.bias

    def error(self, x: Numbers, y: Numbers) -> float:
        """The share of rows that are told wrong; an answer of 0 is wrong."""
        return float(np.mean(y * self.answers(x) <= 0))


class Learner(Protocol):
    """A classifier whose fit can be differentiated in a training row."""

    def fit(self, x: Numbers, y: Numbers, warm: Fitted | None = None) -> Fitted:
        """The optimum for rows x (N, D) with labels y (N,), from that of nearly the same rows if given."""
        ...

    def losses(self, fitted: Fitted, x: Numbers, y: Numbers) -> Numbers:
        """The loss of each row: (N,)."""
        ...

    def slope(self, fitted: Fitted, x: Numbers, y: Numbers, at: int, held_x: Numbers, held_y: Numbers) -> Numbers:
        """The gradient (D,) of the mean loss on the held-out rows in the training row x[at]."""
        ...

    def push(self, fitted: Fitted, x: Numbers, y: Numbers, at: int, held_x: Numbers, held_y: Numbers) -> Numbers:
        """Where to try a step (D,) when none along the gradient climbs; zeros where nothing else is worth it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportVectors:
    """A linear support vector machine: the hinge loss, c times summed over the rows, plus ½‖weights‖².

    The dual is solved by sequential minimal optimization (Platt 1998; pairs by second-order gain, Fan, Chen and Lin
    2005) until no pair violates optimality by more than `tolerance`, and from the duals of the last fit if given.
    """

    c: float = 1.0
    tolerance: float = 1e-6
    most_steps: int = 200_000

    def __post_init__(self) -> None:
        if self.c <= 0 or self.tolerance <= 0 or self.most_steps < 1:
            raise SettingError(
                f"a support vector machine needs c and tolerance above 0 and a step at least, got {self.c}, "
                f"{self.tolerance} and {self.most_steps}; 1.0 and 1e-6 are usual"
            )

    def fit(self, x: Numbers, y: Numbers, warm: Fitted | None = None) -> Fitted:
        gram = x @ x.T
        diagonal = gram.diagonal()
        duals = np.zeros(len(x)) if warm is None else warm.duals.copy()
        ahead = y - gram @ (duals * y)  # what the bias would be if the row were on its margin
        for step_number in range(self.most_steps):
            if step_number % 100 == 99:
                ahead -= gram @ self._free_step(gram, y, duals, ahead)
            below, above = duals < self.c, duals > 0
            rises = np.where(y > 0, below, above)  # rows whose y·dual may grow
            falls = np.where(y > 0, above, below)
            i = int(np.argmax(np.where(rises, ahead, -np.inf)))
            gap = np.where(falls, ahead[i] - ahead, -np.inf)
            if gap.max() <= self.tolerance:
                break
            curves = np.maximum(gram[i, i] + diagonal - 2 * gram[i], 1e-12)
            j = int(np.argmax(np.where(gap > 0, gap**2 / curves, -np.inf)))
            room_i = self.c - duals[i] if y[i] > 0 else duals[i]
            room_j = duals[j] if y[j] > 0 else self.c - duals[j]
            step = min(gap[j] / curves[j], room_i, room_j)
            # A dual that reaches its bound is set to it exactly, or rounding would keep it in play.
            duals[i] = (self.c if y[i] > 0 else 0.0) if step == room_i else duals[i] + step * y[i]
            duals[j] = (0.0 if y[j] > 0 else self.c) if step == room_j else duals[j] - step * y[j]
            ahead -= step * (gram[i] - gram[j])
        else:
            raise SettingError(
                f"the support vector machine is not solved after {self.most_steps} steps; lower c, scale the rows to "
                "[0, 1], or raise most_steps"
            )
        return Fitted(x.T @ (duals * y), float(ahead[i] - gap.max() / 2), duals)

    def _free_step(self, gram: Numbers, y: Numbers, duals: Numbers, ahead: Numbers) -> Numbers:
        """Moves the duals between their bounds to their common optimum, or on the way there to the first bound.

        Pairs creep where the Gram matrix is singular, as it is for more rows than columns: there the dual rises evenly
        in a direction until a bound. The change of y·dual is returned (N,), and duals are changed.
        """
        change = np.zeros(len(y))
        free = np.flatnonzero((duals > 0) & (duals < self.c))
        if len(free) < 2:
            return change
        curves, ways = np.linalg.eigh(_centered(gram[np.ix_(free, free)]))
        rise = ways.T @ (ahead[free] - ahead[free].mean())
        flat = curves <= 1e-10 * curves[-1]
        if np.abs(rise[flat]).max(initial=0.0) > 1e-3 * self.tolerance:
            move, most = ways[:, flat] @ rise[flat], np.inf
        else:
            move, most = ways[:, ~flat] @ (rise[~flat] / curves[~flat]), 1.0
        move -= move.mean()
        grown = move * y[free]  # of the duals themselves
        room = np.where(grown > 0, self.c - duals[free], duals[free])
        with np.errstate(divide="ignore"):
            far = np.where(grown == 0, np.inf, room / np.maximum(np.abs(grown), np.finfo(np.float64).tiny))
        length = min(most, float(far.min()))
        if not np.isfinite(length):
            return change
        new = np.clip(duals[free] + length * grown, 0.0, self.c)
        met = far <= length
        new[met] = np.where(grown[met] > 0, self.c, 0.0)
        change[free] = (new - duals[free]) * y[free]
        duals[free] = new
        return change

    def losses(self, fitted: Fitted, x: Numbers, y: Numbers) -> Numbers:
        found: Numbers = np.maximum(0.0, 1 - y * fitted.answers(x))
        return found

    def slope(self, fitted: Fitted, x: Numbers, y: Numbers, at: int, held_x: Numbers, held_y: Numbers) -> Numbers:
        """Biggio 2012, Section 3, written as one adjoint system for all held-out rows together.

        While no row changes sides, rows on the margin stay there: for such i, y_i (x_i·dw + dx_i·w + db) = 0, and the
        duals keep their balance. Deviation: the row itself may be on the margin too, which the paper leaves aside; then
        its own margin moves with it, which adds -λ·y·w.
        """
        duals, margin = fitted.duals, np.flatnonzero((fitted.duals > 0) & (fitted.duals < self.c))
        wrong = held_y * fitted.answers(held_x) < 1
        pull: Numbers = -(held_y[wrong] @ held_x[wrong]) / len(held_y)  # of the loss in the weights
        lift = -held_y[wrong].sum() / len(held_y)  # and in the bias
        if not len(margin):
            alone: Numbers = duals[at] * y[at] * pull
            return alone
        rows, labels = x[margin], y[margin]
        system = np.zeros((len(margin) + 1, len(margin) + 1))
        system[:-1, :-1] = labels[:, np.newaxis] * (rows @ rows.T) * labels
        system[:-1, -1] = system[-1, :-1] = labels
        known = np.append(labels * (rows @ pull), lift)
        adjoint = linalg.lstsq(system, known)[0][:-1]
        slope: Numbers = duals[at] * y[at] * (pull - rows.T @ (labels * adjoint))
        own = adjoint[margin == at]
        slope -= own.sum() * y[at] * fitted.weights
        return slope

    def push(self, fitted: Fitted, x: Numbers, y: Numbers, at: int, held_x: Numbers, held_y: Numbers) -> Numbers:  # noqa: ARG002
        """The gradient were the duals to stay as they are, and the row's one at c.

        The true one is 0 where the row has no part in the weights, and where as many rows are on the margin as weights
        and a bias can serve: small moves are answered by the duals alone, and large ones are not.
        """
        wrong = held_y * fitted.answers(held_x) < 1
        found: Numbers = -y[at] * self.c * (held_y[wrong] @ held_x[wrong]) / len(held_y)
        return found


class Pointwise(NamedTuple):
    """A loss of single rows and its first two derivatives in the answer: (N,) each."""

    loss: Numbers
    first: Numbers
    second: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth:
    """A linear model of a loss with two derivatives, summed over the rows, plus ½ regularization·‖weights‖².

    Build it with `logistic_regression` or `ridge`. The bias is not regularized. Newton's method; steps that do not
    descend are halved.
    """

    pointwise: Callable[[Numbers, Numbers], Pointwise]
    regularization: float = 1.0

    def __post_init__(self) -> None:
        if self.regularization <= 0:
            raise SettingError(f"a smooth learner needs a regularization above 0, got {self.regularization}; try 1.0")

    def fit(self, x: Numbers, y: Numbers, warm: Fitted | None = None) -> Fitted:
        rows = _with_one(x)
        theta = np.zeros(rows.shape[1]) if warm is None else np.append(warm.weights, warm.bias)
        value = self._objective(theta, rows, y)
        for _ in range(100):
            gradient = rows.T @ self.pointwise(rows @ theta, y).first + self._penalty(theta)
            step = self._solved(rows, y, theta, gradient)
            foretold = float(gradient @ step)
            if foretold <= 1e-24 * (1 + abs(value)):
                break
            rate = 1.0
            # So near the optimum that the objective's rounding hides the descent, whole steps are safe.
            while foretold > 1e-9 * (1 + abs(value)) and rate > 1e-9:
                if self._objective(theta - rate * step, rows, y) <= value - 1e-4 * rate * foretold:
                    break
                rate /= 2
            theta = theta - rate * step
            value = self._objective(theta, rows, y)
        return Fitted(theta[:-1], float(theta[-1]), np.empty(0))

    def losses(self, fitted: Fitted, x: Numbers, y: Numbers) -> Numbers:
        return self.pointwise(fitted.answers(x), y).loss

    def slope(self, fitted: Fitted, x: Numbers, y: Numbers, at: int, held_x: Numbers, held_y: Numbers) -> Numbers:
        """Xiao 2015, from the optimality conditions: -(∇θ L)ᵀ H⁻¹ ∂(∇θ ℓ)/∂x, by one adjoint solution."""
        rows, theta = _with_one(x), np.append(fitted.weights, fitted.bias)
        along = _with_one(held_x).T @ self.pointwise(fitted.answers(held_x), held_y).first / len(held_y)
        adjoint = self._solved(rows, y, theta, along)
        _, first, second = self.pointwise(fitted.answers(x[[at]]), y[[at]])
        slope: Numbers = -(second * (rows[at] @ adjoint) * fitted.weights + first * adjoint[:-1])
        return slope

    def push(self, fitted: Fitted, x: Numbers, y: Numbers, at: int, held_x: Numbers, held_y: Numbers) -> Numbers:  # noqa: ARG002
        """Nothing: the loss is smooth in the row, so what the gradient does not climb is a summit."""
        return np.zeros(x.shape[1])

    def _objective(self, theta: Numbers, rows: Numbers, y: Numbers) -> float:
        return float(self.pointwise(rows @ theta, y).loss.sum() + 0.5 * theta @ self._penalty(theta))

    def _penalty(self, theta: Numbers) -> Numbers:
        return np.append(self.regularization * theta[:-1], 0.0)

    def _solved(self, rows: Numbers, y: Numbers, theta: Numbers, known: Numbers) -> Numbers:
        """H⁻¹·known, with H the objective's second derivative, by the smaller of its two forms (Woodbury)."""
        curve = np.maximum(self.pointwise(rows @ theta, y).second, 1e-12)
        x = rows[:, :-1]
        if len(x) >= x.shape[1]:
            hessian = (rows * curve[:, np.newaxis]).T @ rows
            hessian[np.arange(x.shape[1]), np.arange(x.shape[1])] += self.regularization
            solved: Numbers = linalg.solve(hessian, known, assume_a="pos")
            return solved
        # The weights are taken out first; what remains for the bias is one number.
        inner = linalg.cho_factor(x @ x.T + self.regularization * np.diag(1 / curve))
        columns = np.column_stack([known[:-1], x.T @ curve])
        columns = (columns - x.T @ linalg.cho_solve(inner, x @ columns)) / self.regularization
        bias = (known[-1] - curve @ (x @ columns[:, 0])) / (curve.sum() - curve @ (x @ columns[:, 1]))
        return np.append(columns[:, 0] - bias * columns[:, 1], bias)


def logistic_regression(regularization: float = 1.0) -> Smooth:
    """Logistic regression: the loss log(1 + exp(-y·answer))."""
    return Smooth(pointwise=_logistic, regularization=regularization)


def ridge(regularization: float = 1.0) -> Smooth:
    """Ridge regression on the labels -1 and 1: the loss ½(answer - y)²."""
    return Smooth(pointwise=_squared, regularization=regularization)


def _logistic(answers: Numbers, y: Numbers) -> Pointwise:
    missed = expit(-y * answers)
    return Pointwise(np.logaddexp(0, -y * answers), -y * missed, missed * (1 - missed))


def _squared(answers: Numbers, y: Numbers) -> Pointwise:
    return Pointwise(0.5 * (answers - y) ** 2, answers - y, np.ones_like(answers))


def _centered(square: Numbers) -> Numbers:
    """The matrix on vectors whose sum is 0."""
    found: Numbers = square - square.mean(0) - square.mean(1)[:, np.newaxis] + square.mean()
    return found


def _with_one(x: Numbers) -> Numbers:
    return np.concatenate([x, np.ones((len(x), 1))], 1)
