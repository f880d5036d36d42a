"""How an attacker meets what is served: the goal against a detector, surrogates that have none, a leveled ensemble."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from redan.ensembles import Combine, Together, leveled
from redan.goals import Aim
from redan.rejection import Refusing, Undetected
from redan.rejection.accepting import Accepting
from redan.targets import Target
from redan.targets.surrogates import Ensemble

__all__ = ["answering", "evened", "lent_to", "wanted"]


def answering(target: Target[Tensor]) -> Target[Tensor]:
    """The target without its detector, if it has one: with its K scores alone."""
    match target:
        case Refusing(target=inner):
            return inner
    return target


def wanted(target: Target[Tensor], aim: Aim) -> Aim:
    """What the attacker wants of a target: of one that may refuse, that it does not."""
    match target:
        case Refusing():
            return Undetected(aim)
    return aim


def lent_to(target: Target[Tensor], surrogates: Ensemble | None) -> Ensemble | None:
    """Surrogates with as many scores as the target has. Nobody lends a detector: they never refuse."""
    match target, surrogates:
        case Refusing(), Ensemble(members=members, classes=classes):
            return replace(
                surrogates,
                members=tuple(Accepting(member) for member in members),
                classes=None if classes is None else classes + 1,
            )
    return surrogates


def evened(target: Target[Tensor]) -> Target[Tensor] | None:
    """The target with its ensemble climbed as if all members were as sure; None where there is no such ensemble."""
    match target:
        case Together(combine=combine):
            return None if combine is Combine.VOTES else leveled(target)
    inner: Target[Tensor] | None = getattr(target, "target", None)
    found = None if inner is None else evened(inner)
    if found is None:
        return None
    changed: Target[Tensor] = replace(cast("Any", target), target=found)
    return changed
