"""Poison as the direction in which a class's features are spread most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redan.defenses.suspicion import Numbers, Suspects


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralSignatures:
    """Spectral signatures, Tran, Li and Madry 2018 (arXiv:1811.00636, algorithm 1).

    In each class the features (N_c, D) are centered; a row's number is its squared projection on their top right
    singular vector. The paper takes out the 1.5 ε N_c largest of each class; here the numbers are calibrated. They have
    the features' scale, so compare them within a class. A class of one row scores 0.

    Blind where poison does not move the class's mean by more than its spread, and in a class that is mostly poison.

    >>> from redan.data.samples import Samples
    >>> rows = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    >>> SpectralSignatures()(Suspects(samples=Samples(rows, np.zeros(3, int)), features=rows), seed=0).round(9).tolist()
    [4.0, 0.0, 4.0]
    """

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        features, labels = suspects.known_features(), suspects.samples.y
        scores = np.zeros(len(suspects))
        for label in np.unique(labels):
            mine = labels == label
            centered = features[mine] - features[mine].mean(0)
            top = np.linalg.svd(centered, full_matrices=False)[2][:1]
            scores[mine] = ((centered @ top.T) ** 2).sum(1)
        return scores
