"""The smoothed classifier as it is served: the vote, or the mean, of a few noisy answers. A target to be attacked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto

import torch
from torch import Tensor
from torch.nn import functional

from redan.errors import SettingError, TargetError
from redan.protocols import Access, Output
from redan.targets import Target
from redan.targets.base import its

__all__ = ["SmoothedClassifier", "Vote", "smoothed_classifier"]


class Vote(Enum):
    """How noisy answers become one."""

    MAJORITY = auto()
    """Shares of the draws that each class wins; what certificates of `redan.certification.smoothing` speak of."""
    MEAN = auto()
    """The mean of the draws' probabilities."""


@dataclass(frozen=True, slots=True)
class SmoothedClassifier:
    """Answers the logarithm of the draws' shares, or of their mean probabilities. Build it with `smoothed_classifier`.

    Each answer has fresh noise, so the target is stochastic, and an attack's win is judged on fresh answers. Votes have
    no gradient, and are differentiated as the mean of the same draws' probabilities, which is what attacks on smoothed
    classifiers climb (Salman et al. 2019, arXiv:1906.04584, equation 6); the target says that this is a stand-in. The
    noise of several threads comes from one generator, in the order in which they ask.
    """

    target: Target[Tensor]
    sigma: float
    draws: int
    vote: Vote
    noise: torch.Generator = field(repr=False)

    stochastic = True
    output = its("output")
    bounds = its("bounds")
    classes = its("classes")
    differentiable = its("differentiable")
    dtype = its("dtype")
    device = its("device")

    @property
    def access(self) -> Access:
        return Access.GRADIENTS if self.target.differentiable else Access.SCORES

    @property
    def surrogate(self) -> bool:
        return self.vote is Vote.MAJORITY or self.target.surrogate

    def __call__(self, x: Tensor) -> Tensor:
        votes: Tensor | None = None
        logs = []
        for _ in range(self.draws):
            normal = torch.randn(x.shape, generator=self.noise, dtype=x.dtype, device=x.device)
            scores = self.target(x + self.sigma * normal)
            if scores.dim() != 2 or scores.shape[1] < 2:
                raise TargetError(
                    f"a vote needs scores of classes (N, K), got {tuple(scores.shape)}; wrap the model so that it "
                    "returns a score for each class"
                )
            won = functional.one_hot(scores.argmax(1), scores.shape[1])
            votes = won if votes is None else votes + won
            logs.append(scores.log_softmax(1))
        mean = torch.stack(logs).logsumexp(0) - math.log(self.draws)
        if self.vote is Vote.MEAN or votes is None:
            return mean
        shares = (votes.to(mean.dtype).clamp_min(0.5) / self.draws).log()  # no vote is less than one, and not nothing
        return shares + (mean - mean.detach()) if mean.requires_grad else shares


def smoothed_classifier(
    target: Target[Tensor], *, sigma: float, draws: int, vote: Vote = Vote.MAJORITY, seed: int = 0
) -> SmoothedClassifier:
    """A target that answers from `draws` copies of each input under Gaussian noise of standard deviation sigma.

    sigma: in units of the box. draws: what is served for one query; more cost more, and answer alike more often. seed:
    of the noise. Raises SettingError for values that cannot be, and for the mean of answers that are no probabilities.

    >>> from torch import nn
    >>> from redan.targets import from_torch
    >>> served = smoothed_classifier(from_torch(nn.Linear(4, 2).eval()), sigma=0.5, draws=8)
    >>> served(torch.zeros(3, 4)).shape, served.stochastic
    (torch.Size([3, 2]), True)
    """
    if not 0 < sigma < math.inf or draws < 1:
        raise SettingError(
            f"sigma is a standard deviation above 0 and draws are 1 or more, got {sigma} and {draws}; give sigma=0.25"
        )
    if target.output in (Output.SIGMOIDS, Output.VALUE):
        raise SettingError(
            f"a vote needs classes that exclude each other, and this model answers {target.output.name.lower()}"
        )
    if target.output is Output.LABELS and vote is Vote.MEAN:
        raise SettingError("class numbers have no probabilities to average; give vote=Vote.MAJORITY")
    generator = torch.Generator(device=target.device).manual_seed(seed)
    return SmoothedClassifier(target, float(sigma), int(draws), vote, generator)
