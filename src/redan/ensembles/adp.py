"""Members trained to differ in what they find second best: adaptive diversity promoting (ADP).

Pang, Xu, Du, Chen, Zhu 2019, "Improving Adversarial Robustness via Promoting Ensemble Diversity", arXiv:1901.08846,
section 3. All members are trained at once, each by its own cross-entropy, less a regularizer of all of them:

    Σ_m CE(member m, y) - α · H(mean probability) - β · log det(G)

G is the Gram matrix (M, M) of the members' probabilities of the K - 1 wrong classes, each scaled to length 1; its
determinant is the squared volume they span: 1 where no two members think of the same wrong classes, 0 where two think
of them alike.

It makes inputs carry over worse from member to member, and no member harder to attack. The whole was broken by better
attacks than its authors' (Tramèr et al. 2020, arXiv:2002.08347): measure it with `redan.ensembles.transfer.between`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from redan.ensembles.combine import mean_probabilities
from redan.errors import DataError, SettingError

_OFFSET = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ADP:
    """The loss of each row, of members' logits (M, N, K) and labels (N,): (N,).

    alpha: of the entropy; beta: of the log determinant. 2 and 0.5 are the authors' for three networks. Both 0 is
    ordinary training, side by side. Raises SettingError for a negative one, and as `log_diversity` does.

    An objective for `redan.hardening.harden` over a `Members` is

        def objective(model, batch):
            return Loss(ADP()(model.each(batch.x), batch.y).mean())

    >>> logits = torch.zeros(2, 1, 4)
    >>> ADP(alpha=0, beta=0)(logits, torch.tensor([1])).item()  # 2 · log 4
    2.7725887298583984
    """

    alpha: float = 2.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if not value >= 0:
                raise SettingError(f"{name} must be 0 or more, got {value}; the authors' are alpha=2 and beta=0.5")

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        own = torch.stack([functional.cross_entropy(each, y, reduction="none") for each in logits]).sum(0)
        return own - self.alpha * entropy(logits) - self.beta * log_diversity(logits, y)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the members' mean probability, in nats: (M, N, K) to (N,)."""
    mean = mean_probabilities(logits)
    return -(mean.exp() * mean).sum(-1)


def log_diversity(logits: Tensor, y: Tensor) -> Tensor:
    """The logarithm of the ensemble diversity, det(G): logits (M, N, K), labels (N,) to (N,).

    As in the authors' code a millionth is added to G's diagonal. Two deviations in how it is computed, none in what:
    lengths are taken of logarithms, where the sum over all classes cancels, so that it is defined where the right class
    has all the probability; and in 64-bit numbers, since G is nearly singular where members agree.

    Raises SettingError for more members than wrong classes, whose determinant is always 0, and DataError for labels
    that are not (N,).
    """
    members, rows, classes = logits.shape
    if y.shape != (rows,):
        raise DataError(f"labels are {tuple(y.shape)} for {rows} rows; give one class number a row")
    if members > classes - 1:
        raise SettingError(
            f"{members} members cannot differ in all of {classes - 1} wrong classes; take at most {classes - 1}"
        )
    place = torch.arange(classes - 1, device=y.device)
    others = place + (place >= y[:, None])
    wrong = logits.double().gather(-1, others.expand(members, -1, -1)).transpose(0, 1)  # (N, M, K - 1)
    unit = (wrong - (2 * wrong).logsumexp(-1, keepdim=True) / 2).exp()
    gram = unit @ unit.mT + _OFFSET * torch.eye(members, dtype=unit.dtype, device=unit.device)
    volume: Tensor = torch.linalg.slogdet(gram).logabsdet
    return volume.to(logits.dtype)
