"""Randomized smoothing: a certified L2 radius for any classifier, by asking it about noisy copies of each row.

The smoothed classifier answers the class that the model most often answers under Gaussian noise. If that class has
probability p > 1/2, no change of the row shorter than σ Φ⁻¹(p) gives it another (Cohen, Rosenfeld and Kolter 2019,
arXiv:1902.02918, theorem 1); p is bounded from draws. The certificate is of the smoothed classifier, so that is what
must be served (`redan.certification.smoothed_classifier`). It is of real numbers: what rounding does to inputs and
noise is left out, and can be made to matter (Voráček and Hein 2023, arXiv:2207.07209).

`certify` and `predict` ask a fixed number of draws, as the paper does; `redan.certification.stopping` stops early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from scipy.special import ndtri
from torch import Tensor, nn

from redan.certification.verifier import SMOOTHING, Verifier
from redan.certification.votes import Voters, by_rows
from redan.errors import DataError, SettingError
from redan.evidence.statistics import Interval, check_share, interval, lower_bound, p_at_least
from redan.targets import Target

__all__ = ["ABSTAINED", "CertifiedAccuracy", "Smoothed", "Smoothing", "certify", "predict"]

ABSTAINED = -1
"""The class of a row about which nothing is certified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """What is drawn, and how sure a certificate is; the defaults are the paper's.

    sigma: the noise's standard deviation, in units of the box. selection: n0, draws that choose the class. draws: n,
    draws that certify it, at the most. alpha: the chance, at the most, that a row's certificate is false.
    """

    sigma: float
    selection: int = 100
    draws: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        if not 0 < self.sigma < math.inf:
            raise SettingError(f"sigma is a standard deviation in units of the box, above 0, got {self.sigma}")
        if self.selection < 1 or self.draws < 1:
            raise SettingError(f"selection and draws are 1 or more, got {self.selection} and {self.draws}")

    def radius(self, rate: float) -> float:
        """The radius σ Φ⁻¹(rate) that a class of at least this probability has; 0 for 1/2 and less.

        >>> round(Smoothing(sigma=0.5).radius(0.975), 2)
        0.98
        """
        return max(0.0, self.sigma * float(ndtri(rate)))


class CertifiedAccuracy(NamedTuple):
    """Rows that are right and certified at a radius: `k` of `n`, in the interval `rate`.

    robust: a lower bound, at half of what the interval may miss, of the share of rows of this kind on which the
    smoothed classifier is right all over the ball: the interval's lower end less the rows that are certified by chance.
    """

    radius: float
    k: int
    n: int
    rate: Interval
    robust: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothed:
    """One entry a row, in the order given.

    prediction: (N,) int64, the smoothed classifier's class, ABSTAINED (-1) where nothing is certified. radius: (N,)
    float64, L2 in units of the box, no shorter change alters the class; 0 where abstained. samples: (N,) int64, draws
    that were asked, selection included. Each row's class and radius are both right with a chance of 1 - alpha.
    """

    prediction: Tensor
    radius: Tensor
    samples: Tensor
    settings: Smoothing
    verifier: Verifier = SMOOTHING

    @property
    def abstained(self) -> Tensor:
        """Where nothing is certified: (N,) bool."""
        return self.prediction == ABSTAINED

    def certified(self, y: ArrayLike | Tensor, radius: float) -> Tensor:
        """Which rows have the right class y (N,) and a radius as large as this one: (N,) bool."""
        labels = torch.as_tensor(y).to(self.prediction.device)
        if labels.shape != self.prediction.shape:
            raise DataError(f"{len(self.prediction)} rows need a label each, got {tuple(labels.shape)}")
        return (self.prediction == labels) & (self.radius >= radius)

    def accuracy(self, y: ArrayLike | Tensor, radius: float, confidence: float = 0.95) -> CertifiedAccuracy:
        """Certified accuracy at a radius, with the Clopper–Pearson interval for rows drawn as these were.

        A row that is not robust is certified with a chance of alpha at most, so the share of certified rows is at most
        alpha + (1 - alpha) times that of robust ones, whatever rows err together.
        """
        k, n = int(self.certified(y, radius).sum()), len(self.prediction)
        rate = interval(k, n, confidence)
        alpha = self.settings.alpha
        return CertifiedAccuracy(radius, k, n, rate, max(0.0, (rate.low - alpha) / (1 - alpha)))


def certify(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    settings: Smoothing,
    *,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Smoothed:
    """The class of rows x (N, …) under noise and its certified radius: CERTIFY of the paper (section 3.2.2).

    The class is the most frequent of `selection` draws; its probability is bounded from below, one-sided at alpha, by
    Clopper and Pearson from `draws` others. bounds: the box that inputs live in. workers: cores, 0 for all. A row's
    noise depends on the seed and its own content alone. A draw that the model fails on counts against the row.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.eye(2)
    >>> found = certify(model, torch.tensor([[0.9, 0.1]]), Smoothing(sigma=0.5, draws=1_000))
    >>> found.prediction.tolist(), 0.4 < found.radius.item() < 0.5657  # of the true distance 0.8 / √2
    ([0], True)
    """

    def block(voters: Voters) -> list[tuple[int, float, int]]:
        rows = torch.arange(len(voters.x), device=voters.x.device)
        top = selected(voters, settings)
        hits = voters.keyed("estimation").votes(rows, settings.draws).gather(1, top[:, None])[:, 0]
        found = []
        for guess, k in zip(top.tolist(), hits.tolist(), strict=True):
            low = lower_bound(k, settings.draws, settings.alpha)
            asked = settings.selection + settings.draws
            found.append((guess if low >= 0.5 else ABSTAINED, settings.radius(low), asked))
        return found

    return gathered(by_rows(model, x, settings.sigma, block, bounds=bounds, seed=seed, workers=workers), settings)


def predict(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    settings: Smoothing,
    *,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    workers: int = 0,
) -> Tensor:
    """The smoothed classifier's class of rows x (N, …), or ABSTAINED (-1): PREDICT of the paper (section 3.2.1).

    A class is answered where the two most frequent of `draws` draws differ by more than chance, two-sided at alpha
    (Hung and Fithian 2019), so that another than the smoothed classifier's is answered with a chance of alpha at most.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.eye(2)
    >>> predict(model, torch.tensor([[0.9, 0.1], [0.5, 0.5]]), Smoothing(sigma=0.5, draws=1_000)).tolist()
    [0, -1]
    """

    def block(voters: Voters) -> list[int]:
        rows = torch.arange(len(voters.x), device=voters.x.device)
        first, second = voters.keyed("prediction").votes(rows, settings.draws).topk(2, dim=1)
        found = []
        for (k, rival), (top, _) in zip(first.tolist(), second.tolist(), strict=True):
            sure = 2 * p_at_least(k, k + rival, 0.5) <= settings.alpha
            found.append(top if sure else ABSTAINED)
        return found

    blocks = by_rows(model, x, settings.sigma, block, bounds=bounds, seed=seed, workers=workers)
    return torch.tensor([top for part in blocks for top in part], dtype=torch.int64)


def selected(voters: Voters, settings: Smoothing) -> Tensor:
    """The class that each row gets most often in the draws that choose it: (N,). These draws prove nothing later."""
    rows = torch.arange(len(voters.x), device=voters.x.device)
    return voters.keyed("selection").votes(rows, settings.selection).argmax(1)


def gathered(blocks: Sequence[Sequence[tuple[int, float, int]]], settings: Smoothing) -> Smoothed:
    """Blocks of (class, radius, samples) as one result."""
    found = [row for block in blocks for row in block]
    return Smoothed(
        prediction=torch.tensor([row[0] for row in found], dtype=torch.int64),
        radius=torch.tensor([row[1] for row in found], dtype=torch.float64),
        samples=torch.tensor([row[2] for row in found], dtype=torch.int64),
        settings=settings,
    )
