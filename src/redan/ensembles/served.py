"""Several models served as one, and attacked as one: what an attack climbs is their common answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn

from redan.ensembles.combine import Combine, combined, in_leads
from redan.errors import SettingError, TargetError
from redan.protocols import Output
from redan.targets.base import Target, is_remote, its
from redan.targets.stand_in import StandIn
from redan.targets.surrogates import Ensemble
from redan.targets.torch import as_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """A target whose answer is its members', combined. Build it with `together`.

    It shows what its most reticent member shows, and is stochastic if one of them is. The mean of logits or of
    probabilities has the gradient of the whole. A vote has none, and is climbed by a stand-in (`surrogate`): see
    `redan.ensembles.combine.votes`.
    """

    target: Ensemble
    combine: Combine

    members = its("members")
    access = its("access")
    bounds = its("bounds")
    classes = its("classes")
    stochastic = its("stochastic")
    differentiable = its("differentiable")
    dtype = its("dtype")
    device = its("device")

    @property
    def output(self) -> Output:
        match self.combine:
            case Combine.PROBABILITIES:
                return Output.PROBABILITIES
            case Combine.VOTES:
                return Output.LABELS
        found = {member.output for member in self.target.members}
        return next((kind for kind in (Output.VALUE, Output.SIGMOIDS) if kind in found), Output.LOGITS)

    @property
    def surrogate(self) -> bool:
        return self.target.surrogate or self.combine is Combine.VOTES

    def __call__(self, x: Tensor) -> Tensor:
        return combined(self.target.each(x), self.combine)


def together(
    models: Sequence[nn.Module | Target[Tensor]],
    combine: Combine = Combine.PROBABILITIES,
    *,
    bounds: tuple[float, float] | None = None,
) -> Together:
    """Models, or targets, as one target.

    bounds: the box of the inputs, for modules; (0, 1) unless given. Inputs are taken in the members' widest type, on
    the first one's device; each member gets them in its own.

    Raises SettingError where there is no model, where bounds, classes or kinds of answer differ, or where there are no
    classes to vote on; TargetError for a model at an endpoint, and for members whose answers have different shapes.

    >>> both = together([nn.Linear(4, 3).eval(), nn.Linear(4, 3).eval()], Combine.VOTES)
    >>> both(torch.rand(5, 4)).shape, both.surrogate
    (torch.Size([5, 3]), True)
    """
    if not models:
        raise SettingError("an ensemble needs at least one model; give it one or more")
    members = tuple(as_target(model, bounds) for model in models)
    if any(is_remote(member) for member in members):
        raise TargetError(
            "a member is asked at an endpoint, where every call is counted and paid for; serve the ensemble there as a "
            "whole, or leave the member out"
        )
    for one, other in pairwise(members):
        if tuple(one.bounds) != tuple(other.bounds):
            raise SettingError(
                f"one member's bounds are {tuple(one.bounds)}, another's {tuple(other.bounds)}; wrap them so that all "
                "take the same inputs"
            )
    classes = sorted({member.classes for member in members if member.classes is not None})
    if len(classes) > 1:
        raise SettingError(
            f"the members have {' and '.join(map(str, classes))} classes; combine models with the same classes, in the "
            "same order"
        )
    _agree({member.output for member in members}, combine)
    dtype = reduce(torch.promote_types, (member.dtype for member in members))
    inner = Ensemble(members, members[0].bounds, classes[0] if classes else None, dtype, members[0].device)
    return Together(target=inner, combine=combine)


def leveled(ensemble: Together) -> StandIn:
    """The same answers, climbed as if all members were as sure: `redan.ensembles.combine.in_leads`.

    Worth an attack beside the one on the ensemble's own gradient, which forgets a member that is much surer than the
    others. A vote is climbed so already.

    >>> pair = together([nn.Linear(4, 3).eval(), nn.Linear(4, 3).eval()])
    >>> x = torch.rand(5, 4)
    >>> torch.equal(leveled(pair)(x), pair(x)), leveled(pair).surrogate
    (True, True)
    """
    return StandIn(ensemble, lambda x: in_leads(ensemble.target.each(x)))


def _agree(kinds: set[Output], combine: Combine) -> None:
    """Raise SettingError for answers that cannot be combined so."""
    words = " and ".join(sorted(kind.name.lower() for kind in kinds))
    if combine is not Combine.LOGITS and kinds & {Output.SIGMOIDS, Output.VALUE}:
        raise SettingError(
            f"{combine.name.lower()} are of classes that exclude each other, and the members answer {words}; combine "
            "them with Combine.LOGITS, which averages what they answer"
        )
    if Output.VALUE in kinds and len(kinds) > 1:
        raise SettingError(f"the members answer {words}, which have no mean; combine models of one task")
