"""Poison as a label that a model trained without the row does not believe, found by cleanlab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import DataError, SettingError
from redan.targets.base import Target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfidentLearning:
    """Confident learning, Northcutt et al. 2021 (arXiv:1911.00068), as cleanlab does it.

    A row's number is 1 minus cleanlab's label quality: the normalized margin between the probability of the row's label
    and the most probable other one, each first held against the mean self-confidence of its class, the paper's
    per-class threshold. Where a class has no rows there is none, and margins are taken as they are.

    probabilities: (N, K), of models that were not trained on the row, as of `held_out_probabilities`; a row for each
    sample, labels from 0 to K - 1.

    Blind to poison whose label is true (clean-label), and to a backdoor that the held-out models learned from the
    other poisoned rows.

    Raises DataError where probabilities and samples do not fit, SettingError where cleanlab is missing.
    """

    probabilities: NDArray[Any] = field(repr=False)

    def __post_init__(self) -> None:
        p = self.probabilities
        if p.ndim != 2 or not np.isfinite(p).all() or (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-3):
            raise DataError(f"probabilities of shape {p.shape} are no distributions (N, K); give softmax outputs")

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        try:
            from cleanlab.rank import get_label_quality_scores
        except ImportError as error:
            raise SettingError(
                "confident learning needs the package cleanlab; run: pip install 'redan[poisoning]'"
            ) from error
        y, (rows, classes) = suspects.samples.y, self.probabilities.shape
        if rows != len(suspects) or (len(y) and not (y.min() >= 0 and y.max() < classes)):
            raise DataError(
                f"probabilities {self.probabilities.shape} do not fit {len(suspects)} samples with labels from "
                f"{y.min(initial=0)} to {y.max(initial=0)}; give one row for each sample and one column for each class"
            )
        missing = np.setdiff1d(np.arange(classes), y)
        quality = get_label_quality_scores(
            np.asarray(y), self.probabilities, method="normalized_margin", adjust_pred_probs=not len(missing)
        )
        return np.asarray(1 - quality, dtype=np.float64)


def held_out_probabilities(
    fit: Callable[[Samples, int], Target[torch.Tensor]], samples: Samples, *, folds: int = 5, seed: int
) -> Numbers:
    """Each row's class probabilities by a model that was trained without it, (N, K).

    fit: trains a target on samples with a seed. folds: models that are trained, each without one of as many parts, in
    which every label has its share (stratified cross-validation). Parts are drawn by the seed.

    Raises SettingError for fewer than 2 folds or more than there are rows.
    """
    if not 2 <= folds <= len(samples):
        raise SettingError(f"rows are held out in 2 to {len(samples)} folds, got {folds}; 5 is usual")
    drawn = np.random.default_rng(seed).permutation(len(samples))
    part = np.empty(len(samples), dtype=np.int64)
    part[drawn[np.argsort(samples.y[drawn], kind="stable")]] = np.arange(len(samples)) % folds
    found: dict[int, Numbers] = {}
    for fold in range(folds):
        kept, out = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
        target = fit(_at(samples, kept), seed + fold)
        with torch.no_grad():
            scores = torch.cat(
                [
                    target(torch.as_tensor(samples.x[some], dtype=target.dtype, device=target.device))
                    for some in np.array_split(out, -(-len(out) // 256))
                ]
            )
        found |= zip(out.tolist(), scores.double().softmax(1).cpu().numpy(), strict=True)
    return np.stack([found[at] for at in range(len(samples))])


def _at(samples: Samples, index: NDArray[np.int64]) -> Samples:
    ids, source = (
        None if names is None else tuple(names[at] for at in index.tolist()) for names in (samples.ids, samples.source)
    )
    return replace(samples, x=samples.x[index], y=samples.y[index], ids=ids, source=source)
