"""How suspicious a training row is, and which rows may be called poison at a stated rate of false alarms.

A detector gives one number a row, and its scale means nothing. Beside the numbers of rows that are known to be clean
it becomes a conformal p-value, and the rows below a threshold have a false-discovery rate that holds for any detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import DataError, SettingError

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suspects:
    """A training set as a detector meets it, trusted rows among the others.

    features: (N, D), often of the penultimate layer. losses: (N, E), of each row after each of E epochs. trusted:
    (N,) bool, rows known to be clean. A detector never looks at `trusted`: clean and trusted rows are exchangeable only
    if both are treated alike, in the training of the model that made the features too.

    Raises DataError where the arrays do not have a row for each sample.
    """

    samples: Samples
    features: NDArray[Any] | None = None
    losses: NDArray[Any] | None = None
    trusted: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shapes = {"features": (self.features, 2), "losses": (self.losses, 2), "trusted": (self.trusted, 1)}
        for name, (array, dimensions) in shapes.items():
            if array is None:
                continue
            if array.ndim != dimensions or len(array) != len(self):
                raise DataError(
                    f"{name} of shape {array.shape} do not fit {len(self)} samples; give one row for each sample, in "
                    f"{dimensions} dimension(s)"
                )
            if not np.isfinite(array).all():
                raise DataError(
                    f"{name} hold numbers that are not finite; take out such rows before looking for poison"
                )
        if self.trusted is not None and self.trusted.dtype != np.bool_:
            raise DataError(
                f"trusted rows are marked by true and false, not by {self.trusted.dtype}; give a bool array"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def known_features(self) -> Numbers:
        """The features (N, D) as float64. Raises DataError where there are none."""
        if self.features is None:
            raise DataError("this detector looks at features and has none; give it those of defenses.features")
        return np.asarray(self.features, dtype=np.float64)

    def known_losses(self) -> Numbers:
        """The losses (N, E) as float64. Raises DataError where there are none."""
        if self.losses is None or not self.losses.shape[1]:
            raise DataError("this detector looks at losses by epoch and has none; give it those of defenses.losses")
        return np.asarray(self.losses, dtype=np.float64)


class Detector(Protocol):
    """Looks for poison in a training set."""

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:
        """One number a row, (N,), larger is more suspicious; the same for the same seed, and for any order of rows."""
        ...


class Procedure(Enum):
    """Which p-values are discoveries. q bounds the expected share of false ones among them.

    Benjamini-Hochberg (1995) and Storey's form of it (2004, with λ = 1/2) hold for conformal p-values that share their
    trusted rows (Bates et al. 2023, arXiv:2104.08279; Marandon et al. 2024, arXiv:2208.06685, for scores that were
    learned from the tested rows too). Benjamini-Yekutieli (2001) holds for any dependence.
    """

    BENJAMINI_HOCHBERG = "benjamini-hochberg"
    STOREY = "storey"
    BENJAMINI_YEKUTIELI = "benjamini-yekutieli"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suspicion:
    """What a detector says of each row.

    scores: (N,), larger is more suspicious. p: (N,) conformal p-values, NaN for trusted rows, which are not tested; or
    None where there are no trusted rows. notes: what to know before these numbers are used, in sentences.
    """

    scores: Numbers
    p: Numbers | None
    notes: tuple[str, ...] = field(default=())

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Positions of the rows, the most suspicious first, (N,); equal rows in their order."""
        return np.argsort(-self.scores, kind="stable")

    def poison(self, q: float, procedure: Procedure = Procedure.BENJAMINI_HOCHBERG) -> NDArray[np.int64]:
        """Positions of the rows that are called poison at a false-discovery rate of q, ascending.

        Raises DataError where there are no trusted rows: ranks have no rate of false alarms.
        """
        if self.p is None:
            raise DataError(
                "without trusted rows suspicions are ranks, with no rate of false alarms; give data.trusted, or take a "
                "number of rows from the ranks"
            )
        return np.flatnonzero(discoveries(self.p, q, procedure))


def calibrated(scores: Numbers, trusted_scores: Numbers) -> Numbers:
    """Split-conformal p-values (N,): how many of the n trusted rows are as suspicious, (1 + count) / (n + 1).

    For a clean row that is exchangeable with the trusted ones, p ≤ t has a probability of t at the most, whatever the
    detector (Vovk et al. 2005; Bates et al. 2023, arXiv:2104.08279). Ties count against suspicion. No
    trusted row: all 1.

    >>> calibrated(np.array([5.0, 1.0]), np.array([0.0, 1.0, 2.0]))
    array([0.25, 0.75])
    """
    _finite(scores)
    _finite(trusted_scores)
    ordered = np.sort(trusted_scores)
    return np.asarray((1 + len(ordered) - np.searchsorted(ordered, scores, side="left")) / (1 + len(ordered)))


def discoveries(p: Numbers, q: float, procedure: Procedure = Procedure.BENJAMINI_HOCHBERG) -> NDArray[np.bool_]:
    """Which rows are discoveries at a false-discovery rate of q, (N,). NaN: not tested, and none.

    Raises SettingError unless 0 < q < 1.

    >>> discoveries(np.array([0.001, 0.02, 0.04, 0.9]), 0.05).tolist()
    [True, True, False, False]
    """
    if not 0 < q < 1:
        raise SettingError(f"a false-discovery rate lies between 0 and 1, got q={q}; 0.1 is usual")
    tested = np.flatnonzero(~np.isnan(p))
    found = np.zeros(len(p), dtype=np.bool_)
    m = len(tested)
    if not m:
        return found
    values = p[tested]
    match procedure:
        case Procedure.BENJAMINI_HOCHBERG:
            level = q
        case Procedure.STOREY:
            level = q * m * 0.5 / (1 + int((values > 0.5).sum()))
        case Procedure.BENJAMINI_YEKUTIELI:
            level = q / float((1 / np.arange(1, m + 1)).sum())
    ordered = np.sort(values)
    below = np.flatnonzero(ordered <= level * np.arange(1, m + 1) / m * (1 + 1e-12))
    if len(below):
        found[tested] = values <= ordered[below[-1]]
    return found


def trusted_rows_needed(tested: int, poisoned: int, q: float) -> int:
    """How many trusted rows must be compared with before `poisoned` of `tested` rows can be discoveries at q.

    The least p-value is 1 / (n + 1), and Benjamini-Hochberg wants q · poisoned / tested of it.

    >>> trusted_rows_needed(4000, 40, 0.1)
    999
    """
    if not 0 < poisoned <= tested:
        raise SettingError(f"poisoned rows are among the tested ones, got {poisoned} of {tested}; give 1 at least")
    return max(0, math.ceil(tested / (q * poisoned) - 1e-9) - 1)


def suspicion(suspects: Suspects, detector: Detector, *, seed: int = 0, by_class: bool = True) -> Suspicion:
    """What a detector says of each row, calibrated where there are trusted rows.

    by_class: compare a row with trusted rows of its own label alone (Mondrian conformal, Vovk et al. 2005). That holds
    whatever the mix of labels; a class with few trusted rows then has no small p-value, and a note says which. Without
    it all trusted rows are compared with, which holds if they have the mix of labels that the clean rows have.

    Raises DataError for a detector that has nothing to look at, or answers what is no finite number a row.
    """
    scores = np.asarray(detector(suspects, seed=seed), dtype=np.float64)
    if scores.shape != (len(suspects),):
        raise DataError(f"the detector answered {scores.shape} to {len(suspects)} rows; one number a row is needed")
    _finite(scores)
    trusted = suspects.trusted
    if trusted is None or not trusted.any():
        return Suspicion(
            scores=scores,
            p=None,
            notes=("No row is trusted, so suspicions are ranks alone: no p-values, and no rate of false alarms.",),
        )
    p = np.full(len(suspects), np.nan)
    tested = ~trusted
    if not by_class:
        p[tested] = calibrated(scores[tested], scores[trusted])
        return Suspicion(scores=scores, p=p, notes=_few({"the training set": (int(trusted.sum()), int(tested.sum()))}))
    labels = suspects.samples.y
    counts = {}
    for label in np.unique(labels[tested]):
        mine = labels == label
        p[mine & tested] = calibrated(scores[mine & tested], scores[mine & trusted])
        counts[f"class {label}"] = (int((mine & trusted).sum()), int((mine & tested).sum()))
    return Suspicion(scores=scores, p=p, notes=_few(counts))


def _few(counts: dict[str, tuple[int, int]]) -> tuple[str, ...]:
    """A note for each group whose least p-value stays above q = 0.1 even if nearly all of its rows were poison."""
    return tuple(
        f"In {name} {trusted} trusted row(s) stand beside {tested} tested ones: its least p-value is "
        f"{1 / (trusted + 1):.2g}, so no row of it can be called poison at q = 0.1."
        for name, (trusted, tested) in counts.items()
        if 1 / (trusted + 1) > 0.1
    )


def _finite(scores: Numbers) -> None:
    if not np.isfinite(scores).all():
        raise DataError("a detector's numbers are not finite, so rows cannot be compared; look at its features")
