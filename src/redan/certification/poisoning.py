"""Answers that no few poisoned rows can change, proven: many models, each trained on a part of the rows, vote.

Deep Partition Aggregation (Levine and Feizi 2021, arXiv:2006.14768): each row is in the training set of one model.
Finite Aggregation (Wang et al. 2022, arXiv:2202.02628): of `copies` models, spread so that an attacker's rows overlap.
One row changes the votes of few models only, so a lead of many votes cannot be lost to few rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.answers import evaluate, micro_batch
from redan.data.samples import Samples
from redan.errors import DataError, SettingError, TargetError
from redan.runners import local
from redan.targets import Target, as_target

Whole = NDArray[np.int64]
Fit = Callable[[Samples, int], "nn.Module | Target[Tensor]"]
"""The user's training: (samples, seed) -> a model in evaluation mode. The certificate holds if the model depends on
nothing else, and on no row that it was not given: the same rows and seed, the same answers."""


class Change(Enum):
    """What one unit of the certified radius is."""

    ROWS = auto()
    """One row added, removed, or given another label; a row exchanged for another is two, as in DPA."""
    LABELS = auto()
    """One label changed, and no row added, removed or changed: SS-DPA, of the same paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How rows are given to models. parts: k, a model's training set is about 1/k of the rows. copies: d, the models
    that each row is given to; k d models are trained, and 1 is Deep Partition Aggregation. against: what is counted.

    >>> Plan(parts=50, copies=4).models
    200
    """

    parts: int
    copies: int = 1
    against: Change = Change.ROWS

    def __post_init__(self) -> None:
        if self.parts < 1 or self.copies < 1:
            raise SettingError(f"parts and copies must be 1 or more, got {self.parts} and {self.copies}; 50 and 1 are")

    @property
    def models(self) -> int:
        """How many models are trained, and how many pieces the rows are cut into: k d."""
        return self.parts * self.copies


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoisonCertificate:
    """prediction (N,): the class most models vote for. radius (N,): how many changes of the training set cannot change
    it, whatever they are. votes (N, M): each model's. against: what a change is."""

    prediction: Whole
    radius: Whole
    votes: Whole
    against: Change

    def holds(self, y: NDArray[Any], changes: int) -> NDArray[np.bool_]:
        """Whether each row is answered right, and still is after so many changes of the training set: (N,)."""
        right: NDArray[np.bool_] = (self.prediction == y) & (self.radius >= changes)
        return right


# -- which model gets which rows ---------------------------------------------------------------------------


def partition(samples: Samples, pieces: int, against: Change = Change.ROWS) -> Whole:
    """The piece that each row belongs to: (N,), from 0 to pieces - 1.

    ROWS: by a hash of the row's numbers, so that no other row plays a part. Its label plays none either, so another
    label is one change and not two. The authors take the sum of an image's pixels where this takes BLAKE2b.
    LABELS: dealt out in the order of the rows' numbers, so that pieces are as large as each other (SS-DPA); equal
    rows get one piece, so that their order plays no part. Raises SettingError for less than one piece,
    DataError for rows that are no numbers.

    >>> partition(Samples(np.eye(4), np.zeros(4, dtype=np.int64)), 2, Change.LABELS)
    array([1, 0, 1, 0])
    """
    if pieces < 1:
        raise SettingError(f"rows are cut into 1 piece or more, got {pieces}; give parts=50")
    if samples.x.dtype.kind not in "biuf":
        raise DataError(f"rows of {samples.x.dtype} have no bytes of their own to hash; give them as arrays of numbers")
    if not len(samples):
        return np.empty(0, dtype=np.int64)
    match against:
        case Change.ROWS:
            return np.array([int.from_bytes(_digest(row)[:8], "little") % pieces for row in samples.x], dtype=np.int64)
        case Change.LABELS:
            found = np.unique(samples.x.reshape(len(samples), -1), axis=0, return_inverse=True)[1]
            return np.asarray(found.reshape(-1) % pieces, dtype=np.int64)


def spread(plan: Plan, seed: int) -> Whole:
    """The models that each piece is given to: (M, copies), each model being given `copies` pieces as well.

    Piece i goes to the models (i + r) mod M of `copies` offsets r that are drawn once (Finite Aggregation, section 3).
    The offsets may be known to the attacker: the certificate does not rest on them.

    >>> spread(Plan(parts=4), seed=0).shape
    (4, 1)
    """
    offsets = np.random.default_rng(seed).choice(plan.models, plan.copies, replace=False)
    return np.asarray((np.arange(plan.models)[:, None] + offsets) % plan.models, dtype=np.int64)


def given(samples: Samples, pieces: Whole, to: Whole, model: int) -> Samples:
    """The rows that a model is trained on: those whose piece (N,) is spread to it (M, copies).

    They are in the order of their hashes, labels included, so that the order of the training set plays no part.
    """
    mine = np.flatnonzero(np.isin(pieces, np.flatnonzero((to == model).any(1))))
    order = sorted(mine.tolist(), key=lambda at: _digest(samples.x[at]) + _digest(samples.y[at]))
    return Samples(
        samples.x[order],
        samples.y[order],
        None if samples.ids is None else tuple(samples.ids[at] for at in order),
        None if samples.source is None else tuple(samples.source[at] for at in order),
        samples.split,
    )


def _digest(row: NDArray[Any]) -> bytes:
    """A hash of a row's numbers that is the same on every machine."""
    row = np.asarray(row)
    plain = np.ascontiguousarray(row, dtype=row.dtype.newbyteorder("<"))
    return hashlib.blake2b(plain.tobytes(), digest_size=16).digest()


# -- what the votes prove ----------------------------------------------------------------------------------


def counts(votes: Whole, classes: int) -> Whole:
    """How many models vote for each class: (N, K), from votes (N, M)."""
    return np.stack([(votes == c).sum(1) for c in range(classes)], 1).astype(np.int64)


def plurality(count: Whole) -> Whole:
    """The class with most votes, of equals the smallest: (N,), from counts (N, K)."""
    return np.asarray(count.argmax(1), dtype=np.int64)


def _leads(count: Whole) -> Whole:
    """By how many votes more than it needs the first class leads each other one: (N, K), its own column being M + 1.

    Of equals the smaller class wins: a larger one needs one vote more (DPA).
    """
    rows, first = np.arange(len(count)), plurality(count)
    needed = count + (np.arange(count.shape[1]) < first[:, None])
    lead = count[rows, first][:, None] - needed
    lead[rows, first] = count.sum(1) + 1
    return lead


def certified_radius(count: Whole) -> Whole:
    """How many models may vote otherwise, however they do, without another plurality: (N,), from counts (N, K).

    floor((n_c - max over c' of (n_c' + 1[c' < c])) / 2) (DPA, Theorem 1). It is the most that can be
    said: one vote more is enough. With one row in one training set it is also a number of rows.

    >>> certified_radius(np.array([[7, 3, 0], [2, 7, 1]]))
    array([2, 2])
    """
    _two_or_more(count.shape[1])
    radius: Whole = _leads(count).min(1) // 2
    return radius


def spread_radius(votes: Whole, classes: int, to: Whole) -> Whole:
    """How many pieces may be poisoned without another plurality: (N,), from votes (N, M) and `spread` (M, copies).

    A poisoned piece takes from the lead over c' at most the sum of 1 + 1[vote is c] - 1[vote is c'] over the models
    it is given to; the lead lasts as long as the largest such sums add up to no more (Finite Aggregation, Theorem 2).
    With one copy it equals `certified_radius`. It may be below the truth where pieces share models.

    >>> spread_radius(np.array([[0, 0, 0, 0, 1, 0]]), 2, spread(Plan(parts=3, copies=2), seed=0))
    array([1])
    """
    _two_or_more(classes)
    count = counts(votes, classes)
    first, lead = plurality(count)[:, None], _leads(count)
    radius = np.full(len(votes), len(to), dtype=np.int64)
    for other in range(classes):
        gain = 1 + (votes == first) - (votes == other).astype(np.int64)
        damage = sum(gain[:, to[:, copy]] for copy in range(to.shape[1]))
        worst = np.cumsum(-np.sort(-damage, 1), 1)
        stands = (worst <= lead[:, other, None]).sum(1)
        radius = np.where(first[:, 0] == other, radius, np.minimum(radius, stands))
    return radius


def _two_or_more(classes: int) -> None:
    if classes < 2:
        raise SettingError(f"a vote needs 2 classes or more, got {classes}; give the number that the models answer")


# -- training ----------------------------------------------------------------------------------------------


def certify(
    fit: Fit,
    samples: Samples,
    x: NDArray[Any],
    plan: Plan,
    *,
    classes: int,
    seed: int = 0,
    workers: int = 1,
    have: Mapping[int, Whole] = MappingProxyType({}),
    keep: Callable[[int, Whole], None] | None = None,
) -> PoisonCertificate:
    """Train the plan's models, let them vote on x (N, …), and say how many changes each answer outlasts.

    classes: K. Model m is trained by fit(its rows, seed + m); one that is given no row is not trained and votes for
    class 0. keep: called with each model's number and votes (N,) as they are found; have: the votes that an earlier,
    interrupted call with the same arguments kept, which are not found again. workers: models trained at a time, each
    with one thread; leave it at 1 if `fit` uses torch's global random numbers.

    For LABELS the rows themselves are beyond the attacker's reach: `fit` may learn from all of them without labels.

    Raises TargetError where a model does not answer every row, TrainingModeError for one in training mode.
    """
    _two_or_more(classes)
    votes = np.zeros((len(x), plan.models), dtype=np.int64)
    for model, found in have.items():
        _fits(model, found, plan, len(x), classes)
        votes[:, model] = found
    left = [model for model in range(plan.models) if model not in have]

    pieces = partition(samples, plan.models, plan.against)

    def one(model: int) -> Whole:
        return voted(fit, samples, x, plan, model, classes=classes, seed=seed, pieces=pieces)

    for at, found in local.each(one, left, workers, lambda: None):
        votes[:, left[at]] = found
        if keep is not None:
            keep(left[at], found)
    return proven(votes, plan, classes=classes, seed=seed)


def voted(
    fit: Fit,
    samples: Samples,
    x: NDArray[Any],
    plan: Plan,
    model: int,
    *,
    classes: int,
    seed: int = 0,
    pieces: Whole | None = None,
) -> Whole:
    """Train one of the plan's models and let it vote on x: (N,). A step of `certify`, for a caller's own queue.

    pieces: `partition` of the samples by the plan, where it is known already; it hashes every row.
    """
    if pieces is None:
        pieces = partition(samples, plan.models, plan.against)
    rows = given(samples, pieces, spread(plan, seed), model)
    return _votes(fit(rows, seed + model), x, classes) if len(rows) else np.zeros(len(x), dtype=np.int64)


def proven(votes: Whole, plan: Plan, *, classes: int, seed: int = 0) -> PoisonCertificate:
    """What the votes (N, M) of all the plan's models prove, with the seed that they were trained with."""
    _two_or_more(classes)
    return PoisonCertificate(
        prediction=plurality(counts(votes, classes)),
        radius=spread_radius(votes, classes, spread(plan, seed)),
        votes=votes,
        against=plan.against,
    )


def _fits(model: int, found: Whole, plan: Plan, rows: int, classes: int) -> None:
    wrong = found.shape != (rows,) or bool(((found < 0) | (found >= classes)).any())
    if wrong or not 0 <= model < plan.models:
        raise SettingError(f"the votes kept of model {model} are of another run; give those kept with these arguments")


def _votes(model: nn.Module | Target[Tensor], x: NDArray[Any], classes: int) -> Whole:
    """The class that a model gives each row: (N,)."""
    target = as_target(model, None)
    rows = torch.as_tensor(x).to(device=target.device, dtype=target.dtype)
    answers = evaluate(target, rows, micro=micro_batch(rows), classes=classes)
    if not bool(answers.answered.all()):
        why = next(iter(answers.reasons.values()), "the model answered NaN")
        raise TargetError(f"a model trained on a part of the rows does not answer all rows ({why}); mend what fit does")
    found: Whole = answers.output.argmax(1).cpu().numpy().astype(np.int64)
    return found
