"""Several models as one target: the mean of their logits (Dong et al. 2018, arXiv:1710.06081, section 3.3).

Of the ensembles that Dong et al. compare (mean logits, mean probabilities, mean losses), the mean logits carry over
best. As surrogates they stand in for a target that the attacker cannot look into; see `redan.engine.transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from redan.errors import SettingError, TargetError
from redan.protocols import Access
from redan.targets.base import Output, Target
from redan.targets.fast import Cheaper
from redan.targets.torch import TorchTarget, accelerated, as_target


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A target that answers the mean of its members' scores. Build it with `ensemble`."""

    members: tuple[Target[Tensor], ...]
    bounds: tuple[float, float]
    classes: int | None
    dtype: torch.dtype
    device: torch.device

    output = Output.LOGITS

    @property
    def access(self) -> Access:
        return min(member.access for member in self.members)

    @property
    def stochastic(self) -> bool:
        return any(member.stochastic for member in self.members)

    @property
    def differentiable(self) -> bool:
        return all(member.differentiable for member in self.members)

    @property
    def surrogate(self) -> bool:
        return any(member.surrogate for member in self.members)

    def accelerated(self, x: Tensor) -> Ensemble:
        """The same with each member's cheaper gradient path, where it agrees on rows x with the plain one."""
        return replace(self, members=tuple(accelerated(m, x.to(m.device, m.dtype)) for m in self.members))

    def each(self, x: Tensor) -> Tensor:
        """Every member's scores (M, N, K). Raises TargetError where their shapes differ."""
        scores = [member(x.to(member.device, member.dtype)).to(x.device, x.dtype) for member in self.members]
        if len({each.shape for each in scores}) > 1:
            raise TargetError(
                f"the members answered {[tuple(each.shape) for each in scores]} to {len(x)} rows; combine models with "
                "the same classes, in the same order"
            )
        return torch.stack(scores)

    def __call__(self, x: Tensor) -> Tensor:
        return self.each(x).mean(0)


def plain(target: Target[Tensor]) -> Target[Tensor] | None:
    """The target on the plain gradient path, its members too; None where it is on no other."""
    if isinstance(target, Ensemble):
        found = [plain(member) for member in target.members]
        members = tuple(other or member for other, member in zip(found, target.members, strict=True))
        return replace(target, members=members) if any(found) else None
    if isinstance(target, TorchTarget) and target.fast is not None and (target.fast.products or target.fast.norms):
        return replace(target, fast=Cheaper())
    return None


def ensemble(models: Sequence[nn.Module | Target[Tensor]], like: Target[Tensor]) -> Ensemble:
    """The models as one target that takes the inputs of `like` as they are, whatever type or device theirs is.

    Raises SettingError where there are none, or where bounds or classes are known to differ from `like`'s.

    >>> from redan.targets.torch import from_torch
    >>> like = from_torch(nn.Linear(4, 2).eval())
    >>> ensemble([nn.Linear(4, 2).eval(), nn.Linear(4, 2).eval()], like)(torch.rand(3, 4)).shape
    torch.Size([3, 2])
    """
    if not models:
        raise SettingError("an ensemble needs at least one model; give it one, or leave the surrogates out")
    plain = [isinstance(model, nn.Module) for model in models]
    members = tuple(as_target(m, like.bounds if bare else None) for m, bare in zip(models, plain, strict=True))
    for member in members:
        if tuple(member.bounds) != tuple(like.bounds):
            raise SettingError(
                f"a surrogate's bounds are {member.bounds}, the target's {like.bounds}; wrap it so that both take "
                "the same inputs"
            )
        if None not in (member.classes, like.classes) and member.classes != like.classes:
            raise SettingError(
                f"a surrogate has {member.classes} classes, the target {like.classes}; choose surrogates with the "
                "target's classes, in its order"
            )
    return Ensemble(members, like.bounds, like.classes, like.dtype, like.device)
