"""Poison as the rows that are learned first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossIsolation:
    """Isolation by loss, the first stage of anti-backdoor learning, Li et al. 2021 (arXiv:2110.11571, section 3.2).

    A backdoor is learned within few epochs, so its rows' losses fall first. A row's number is minus its mean loss over
    the first epochs. The paper takes the loss after the last of them alone; the mean is less noisy, and the same for
    epochs=1 of a single column. `early_losses` trains as the paper does, with local gradient ascent.

    epochs: how many columns of the losses count, from the first; None: all.

    Blind to attacks that are learned slowly (clean-label, label flips), and finds easy clean rows too.

    >>> from redan.data.samples import Samples
    >>> losses = np.array([[2.0, 0.5], [2.0, 1.5]])
    >>> LossIsolation()(Suspects(samples=Samples(losses, np.zeros(2, int)), losses=losses), seed=0).tolist()
    [-1.25, -1.75]
    """

    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise SettingError(f"one epoch at least must count, got epochs={self.epochs}; leave it out for all")

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        return -np.asarray(suspects.known_losses()[:, : self.epochs].mean(1))
