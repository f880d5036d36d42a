"""Label flips: rows stay as they are, and some are told to be of another class.

RandomFlips           to a class drawn at random                        Biggio, Nelson and Laskov 2011
TargetedFlips         from one class to another
LossMaximizingFlips   the flips that raise the validation loss most     Paudice et al. 2018
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import affordable, drawn, put, usable


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFlips:
    """Labels of rows drawn by the seed become another class, drawn evenly among the others that the samples have.

    Random label noise (Biggio, Nelson and Laskov 2011, "Support Vector Machines Under Adversarial Label Noise"). Calls
    raise SettingError where labels may not be changed.

    >>> clean = Samples(np.zeros((4, 1)), np.array([0, 0, 1, 1]))
    >>> RandomFlips()(clean, Budget(share=1.0, may_change_labels=True), seed=0).samples.y.tolist()
    [1, 1, 0, 0]
    """

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        """The samples with as many flips as the budget has rows."""
        _may_flip(budget)
        generator = np.random.default_rng(seed)
        classes, index = _classes(samples)
        at = drawn(np.ones(len(samples), dtype=bool), samples, budget, generator)
        other = (index[at] + generator.integers(1, len(classes), len(at))) % len(classes)
        return put(samples, at, samples.x[at], classes[other])


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetedFlips:
    """Labels of rows of one class become another's: (from, to) pairs, each class once on the left.

    Rows are drawn by the seed from all classes on the left together. Class-to-class flips are common in federated and
    contamination studies (Tolpegin et al. 2020, arXiv:2007.08432). Calls raise SettingError where labels
    may not be changed or no controlled row is of such a class.

    >>> clean = Samples(np.zeros((4, 1)), np.array([0, 0, 1, 2]))
    >>> TargetedFlips(pairs=((0, 2),))(clean, Budget(share=1.0, may_change_labels=True), seed=0).samples.y.tolist()
    [2, 2, 1, 2]
    """

    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        left = [one for one, _ in self.pairs]
        if not left or len(set(left)) < len(left) or any(one == other for one, other in self.pairs):
            raise SettingError(
                f"flips need pairs of two different classes, each once on the left, got {self.pairs}; give "
                "((from, to), …)"
            )

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        """The samples with as many flips as the budget has rows, or as there are rows of those classes."""
        _may_flip(budget)
        wanted = samples.y.copy()
        for one, other in self.pairs:
            wanted[samples.y == one] = other
        at = drawn(wanted != samples.y, samples, budget, np.random.default_rng(seed))
        return put(samples, at, samples.x[at], wanted[at])


Flipped = Callable[[NDArray[Any], NDArray[np.int64], NDArray[Any]], NDArray[np.float64]]
"""(y (N,), at (M,), labels (M,)) → the validation loss (M,) after training with y[at[m]] = labels[m], each m alone."""


class Damage(Protocol):
    """What single flips would do to a model that is trained on the rows."""

    def __call__(self, x: NDArray[Any], /) -> Flipped:
        """The losses after flips of rows x (N, …): what the rows alone decide is worked out once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LossMaximizingFlips:
    """The flips that raise the loss on validation rows most, one after another, each trained for anew (Paudice,
    Muñoz-González and Lupu 2018, arXiv:1803.00992, Algorithm 1: greedy, and so not always the best set of flips).

    damage: `LeastSquares`, where one solution tells about every flip, or `Retrained`, which trains anew for each.
    Deviations: with more than two classes, each other class is tried; it stops early where every flip left would lower
    the loss. Ties go to the first row, and the seed changes nothing. Calls raise SettingError where labels may not be
    changed or no row is controlled.

    >>> clean = Samples(np.array([[0.0], [0.4], [0.6], [5.0]]), np.array([0, 0, 1, 1]))
    >>> attack = LossMaximizingFlips(damage=LeastSquares(validation=clean))
    >>> attack(clean, Budget(share=0.25, may_change_labels=True), seed=0).changed.tolist()
    [3]
    """

    damage: Damage

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:  # noqa: ARG002  (nothing is drawn)
        """The samples with as many flips as the budget has rows, or as raise the loss."""
        _may_flip(budget)
        classes, _ = _classes(samples)
        count, y = affordable(samples, budget), samples.y.copy()
        left = usable(np.ones(len(samples), dtype=bool), samples, budget)
        flipped = self.damage(samples.x)
        loss = flipped(y, left[:1], y[left[:1]])[0]
        done: list[int] = []
        while len(done) < count and len(left):
            at, labels = np.repeat(left, len(classes)), np.tile(classes, len(left))
            new = labels != y[at]
            at, labels = at[new], labels[new]
            losses = flipped(y, at, labels)
            best = int(np.argmax(losses))
            if not losses[best] > loss:
                break
            loss, y[at[best]] = losses[best], labels[best]
            done.append(int(at[best]))
            left = left[left != at[best]]
        changed = np.array(sorted(done), dtype=np.int64)
        return put(samples, changed, samples.x[changed], y[changed])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeastSquares:
    """Damage to a linear model fit by least squares to one-hot labels, exact for every flip from one factorization.

    Weights W with a bias in them minimize Σ‖W[x; 1] - onehot(y)‖² + regularization·‖W‖²; the loss is the mean squared
    error of the validation rows. As W is linear in the labels, a flip of row i from a to b adds s_i·(e_b - e_a) to the
    validation answers, with s_i = V A⁻¹ x_i, V the validation rows and A the regularized Gram matrix.
    """

    validation: Samples
    regularization: float = 1.0

    def __post_init__(self) -> None:
        if self.regularization <= 0:
            raise SettingError(f"least squares needs a regularization above 0, got {self.regularization}; 1.0 is usual")

    def __call__(self, x: NDArray[Any], /) -> Flipped:
        rows, held_out = _with_one(x), _with_one(self.validation.x)
        gram = rows.T @ rows + self.regularization * np.eye(rows.shape[1])
        spread = held_out @ linalg.solve(gram, rows.T, assume_a="pos")  # (V, N)
        squared = (spread**2).sum(0)

        def losses(y: NDArray[Any], at: NDArray[np.int64], labels: NDArray[Any]) -> NDArray[np.float64]:
            classes = np.unique(np.concatenate([y, labels, self.validation.y]))
            residual = spread @ _one_hot(y, classes) - _one_hot(self.validation.y, classes)
            pull = spread.T @ residual  # (N, K)
            old, new = np.searchsorted(classes, y[at]), np.searchsorted(classes, labels)
            change = 2 * (pull[at, new] - pull[at, old] + (old != new) * squared[at])
            found: NDArray[np.float64] = ((residual**2).sum() + change) / len(held_out)
            return found

        return losses


Losses = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""A trained model's loss of rows (N, …) with labels (N,): (N,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """Damage to any model: trained anew for every flip that is considered, which costs as many trainings.

    fit: (x, y) → the trained model's loss per row. It must be deterministic, or chance is what is maximized.
    """

    fit: Callable[[NDArray[Any], NDArray[Any]], Losses]
    validation: Samples

    def __call__(self, x: NDArray[Any], /) -> Flipped:
        def losses(y: NDArray[Any], at: NDArray[np.int64], labels: NDArray[Any]) -> NDArray[np.float64]:
            found = np.empty(len(at))
            for i, (row, label) in enumerate(zip(at, labels, strict=True)):
                told = y.copy()
                told[row] = label
                found[i] = np.mean(self.fit(x, told)(self.validation.x, self.validation.y))
            return found

        return losses


def _may_flip(budget: Budget) -> None:
    if not budget.may_change_labels:
        raise SettingError("label flips change labels and the budget does not let them; set may_change_labels")


def _classes(samples: Samples) -> tuple[NDArray[Any], NDArray[np.int64]]:
    classes, index = np.unique(samples.y, return_inverse=True)
    if len(classes) < 2:
        raise DataError("the rows are all of one class, so no label can be flipped; give rows of two classes at least")
    return classes, index


def _with_one(x: NDArray[Any]) -> NDArray[np.float64]:
    rows = x.reshape(len(x), -1).astype(np.float64)
    return np.concatenate([rows, np.ones((len(rows), 1))], 1)


def _one_hot(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (y[:, np.newaxis] == classes).astype(np.float64)
    return found
