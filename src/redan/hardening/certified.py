"""Certified training in the loop of `harden`: interval bounds (IBP), or linear relaxations on them (CROWN-IBP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from redan.certification.certified_training import CertifiedTraining, certified_loss
from redan.certification.trainable import Relaxation, worst_logits
from redan.errors import DataError
from redan.hardening.objectives import Batch, Loss, right
from redan.hardening.passes import served
from redan.hardening.validation import Score

_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """The cross-entropy of the worst scores that bounds allow, ε growing with the share of the training that is over.

    settings: the radius, the warm-up and what else `redan.certification.certified_training` has; the papers are named
    there. It begins best from weights that its `initialize` drew, with a learning rate of 0.0005 (Shi et al. 2021,
    arXiv:2103.17009). There is no inner attack, so nothing is watched for. Bounds leave rounding out here and prove
    nothing; `redan.certified` does, of the trained model.

    Raises DataError for labels that are no class numbers, and what `certified_loss` raises.
    """

    settings: CertifiedTraining

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        if batch.y.dim() != 1:
            raise DataError(f"certified training needs class numbers (N,), got labels {tuple(batch.y.shape)}")
        return Loss(certified_loss(model, batch.x.contiguous(), batch.y, batch.done, self.settings))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CertifiedValidation:
    """Held-out rows x (N, …) with labels y (N,): how many are right, and how many no change up to the radius can turn.

    The latter, by interval bounds at the full radius, stands for robust accuracy: a network in its warm-up, which
    attacks find robust and no bound can prove, must not be taken for the best. Rounding is left out.
    """

    x: Tensor
    y: Tensor
    settings: CertifiedTraining

    def __post_init__(self) -> None:
        if not len(self.x) or len(self.x) != len(self.y):
            raise DataError(f"{len(self.x)} held-out rows with {len(self.y)} labels; give some rows, one label each")

    def __call__(self, model: nn.Module, _seed: int) -> Score:
        """Both shares, of a model whose mode is left as it was."""
        clean = proven = 0
        with served(model) as bare, torch.no_grad():
            like = next(bare.parameters())
            bottom, top = self.settings.bounds
            for x, y in zip(torch.split(self.x.to(like), _BATCH), torch.split(self.y, _BATCH), strict=True):
                labels = y.to(like.device)
                low = (x - self.settings.radius).clamp_min(bottom)
                high = (x + self.settings.radius).clamp_max(top)
                worst = worst_logits(bare, x, labels, low, high, ((Relaxation.INTERVALS, 1.0),))
                others = worst.gaps.scatter(1, labels[:, None], -torch.inf).amax(1)
                clean += int(right(worst.clean, labels).sum())
                proven += int((others < 0).sum())
        return Score(clean / len(self.x), proven / len(self.x))
