"""Poison as a row whose label survives when other rows are laid over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.defenses.suspicion import Numbers, Suspects
from redan.errors import DataError, SettingError
from redan.targets.base import Target

_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class STRIP:
    """STRIP, Gao et al. 2019 (arXiv:1902.06531, section 4.3, equations 4 and 5), on a trained target.

    Each row is blended with `copies` clean rows, and its number is minus the mean entropy of the answers, in bits: a
    trigger decides whatever is laid over it. The paper draws other rows for each input; here the same ones are drawn,
    by the seed, for all, so that rows are compared alike. Costs `copies` queries a row.

    overlays: clean rows (M, …) in the target's bounds that are not among the suspects, M ≥ copies. share: of the
    overlay in a blend, 1/2 where the paper adds both images and lets the sum be clipped.

    Blind to triggers that a blend destroys (small ones of low contrast), and to poison that is no backdoor.
    """

    target: Target[Tensor]
    overlays: NDArray[Any] = field(repr=False)
    copies: int = 32
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.copies < 1:
            raise SettingError(
                f"STRIP needs a share between 0 and 1 and copies ≥ 1, got {self.share} and {self.copies}; 0.5 and 32 "
                "are the defaults"
            )
        if len(self.overlays) < self.copies:
            raise DataError(
                f"STRIP lays {self.copies} clean rows over each row and has {len(self.overlays)}; give more rows, or "
                "ask for fewer copies"
            )

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:
        drawn = np.random.default_rng(seed).choice(len(self.overlays), self.copies, replace=False)
        over = self._tensor(self.overlays[drawn])
        x = suspects.samples.x
        entropies = np.zeros(len(x))
        block = max(1, _BATCH // self.copies)
        with torch.no_grad():
            for start in range(0, len(x), block):
                rows = self._tensor(x[start : start + block])
                blends = (1 - self.share) * rows[:, None] + self.share * over
                logs = self.target(blends.flatten(0, 1).clamp(*self.target.bounds)).double().log_softmax(1)
                entropy = -(logs.exp() * logs.clamp_min(-1e9)).sum(1).reshape(len(rows), -1).mean(1) / np.log(2)
                entropies[start : start + block] = entropy.cpu().numpy()
        return -entropies

    def _tensor(self, rows: NDArray[Any]) -> Tensor:
        return torch.as_tensor(rows, dtype=self.target.dtype, device=self.target.device)
