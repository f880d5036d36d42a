"""Poison as the rows that are learned first."""

from __future__ import annotations

from dataclasses import dataclass

from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import DataError, SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossIsolation:
    """Isolation by loss, the first stage of anti-backdoor learning, Li et al. 2021 (arXiv:2110.11571, section 3.2).

    A backdoor is learned within few epochs, so its rows' losses fall first. A row's number is minus its loss after
    that many epochs; the paper takes out the 1 % with the least. `early_losses` trains as the paper does, with local
    gradient ascent.

    epochs: after how many the loss is read, 20 in the paper; None: after the last one that there is.

    Blind to attacks that are learned slowly (clean-label, label flips), and finds easy clean rows too.

    >>> import numpy as np
    >>> from redan.data.samples import Samples
    >>> losses = np.array([[2.0, 0.5], [2.0, 1.5]])
    >>> LossIsolation()(Suspects(samples=Samples(losses, np.zeros(2, int)), losses=losses), seed=0).tolist()
    [-0.5, -1.5]
    """

    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise SettingError(
                f"losses are read after one epoch at least, got epochs={self.epochs}; leave it out for the last"
            )

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:  # noqa: ARG002
        losses = suspects.known_losses()
        at = losses.shape[1] if self.epochs is None else self.epochs
        if at > losses.shape[1]:
            raise DataError(f"losses of {losses.shape[1]} epoch(s) have none after {at}; train longer, or read earlier")
        return -losses[:, at - 1]
