"""Poison as a row whose neighbors in feature space carry another label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redan.defenses.neighbors import nearest
from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepKNN:
    """Deep k-NN, Peri et al. 2020 (arXiv:1909.13374, section 3.2).

    A row's number is (a - b) / k, of the k nearest other rows in feature space: b have its label, and a the most
    frequent other one. The paper takes out the rows whose label is not the plurality of their neighbors: those above
    0. k must be more than twice the poisoned rows that stand together; a small set has N - 1 neighbors at the most.

    Blind where poison forms a cluster larger than k of its own: a backdoor's rows are each other's neighbors.
    """

    k: int = 50

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingError(f"a row needs one neighbor at least, got k={self.k}; 50 is usual")

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        labels, codes = np.unique(suspects.samples.y, return_inverse=True)
        k = min(self.k, len(suspects) - 1)
        if k < 1:
            return np.zeros(len(suspects))
        near = codes[nearest(suspects.known_features(), k)[1]]
        counts = np.zeros((len(suspects), len(labels)))
        np.add.at(counts, (np.arange(len(suspects))[:, None], near), 1)
        own = np.take_along_axis(counts, codes[:, None], 1)[:, 0]
        np.put_along_axis(counts, codes[:, None], 0, 1)
        return np.asarray((counts.max(1) - own) / k)
