"""What is served of a threat-model file: its model behind its defenses, and the models that stand beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from redan.assessment.models import Loading, Served, loaded_model
from redan.ensembles import Together
from redan.errors import ThreatModelError
from redan.preprocessing import behind, transformation_of
from redan.protocols import Access
from redan.targets import Target
from redan.threat.attackers import Evasion, Knowledge
from redan.threat.schema import ThreatModel

__all__ = ["Bare", "Models", "check_access", "served"]


@dataclass(frozen=True, slots=True)
class Bare:
    """A model without what is served with it, by a name that completes "beside …". member: of the ensemble served."""

    name: str
    target: Target[Tensor]
    member: bool = False


class Models(NamedTuple):
    """All models of a file. main: the system's behind its defenses. bare: the system's without them, if it has any.

    lent: the bare models that attackers hold instead, by the attacker's name.
    """

    main: Served
    bare: tuple[Bare, ...]
    lent: Mapping[str, Sequence[Served]]


def served(how: Loading) -> Models:
    """The models of a file.

    Raises ThreatModelError for a surrogate that has no gradients: it is held to be climbed.
    """
    lent = {}
    for i, attacker in enumerate(how.model.attackers):
        if isinstance(attacker, Evasion) and attacker.surrogates:
            lent[attacker.name] = [loaded_model(each, replace(how, climbed=True)) for each in attacker.surrogates]
            for k, each in enumerate(lent[attacker.name]):
                if each.target.access < Access.GRADIENTS:
                    shows = each.target.access.name.lower()
                    raise ThreatModelError(
                        f"attackers[{i}].surrogates[{k}] shows {shows} alone, and a surrogate is climbed; name a model "
                        "with gradients"
                    )
    alone = loaded_model(how.model.system.model, how)
    return Models(_behind_defenses(alone, how), tuple(_bare(alone.target, how)), lent)


def _bare(alone: Target[Tensor], how: Loading) -> Iterator[Bare]:
    """The model without what is served with it; of an ensemble, each member: as `System.beside` names them."""
    members = alone.members if isinstance(alone, Together) else ()
    names = how.model.system.beside
    whole = [alone] if len(names) > len(members) else []
    targets = [(target, False) for target in whole] + [(target, True) for target in members]
    yield from (Bare(name, target, member) for name, (target, member) in zip(names, targets, strict=True))


def _behind_defenses(model: Served, how: Loading) -> Served:
    """The system's model as it is served; its digest stays its own, since the file's covers the defenses.

    Raises TargetError for a defense that cannot work here, such as JPEG without Pillow: it is tried on one row.
    """
    said = how.model.system.defenses
    if not said:
        return model
    made = [transformation_of(each.name, each.settings, model.target.bounds) for each in reversed(said)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        row = how.rows[:1].to(model.target.device, model.target.dtype)
        for each in made:
            row = each(row)
    return replace(model, target=behind(model.target, made))


def check_access(model: ThreatModel, target: Target[Tensor]) -> None:
    """Raise ThreatModelError for an attacker who would see more of the model than it shows."""
    for i, attacker in enumerate(model.attackers):
        if not isinstance(attacker, Evasion) or attacker.knowledge is Knowledge.SURROGATE:
            continue
        if Access[attacker.knowledge.name] > target.access:
            shows = target.access.name.lower()
            raise ThreatModelError(
                f"attackers[{i}].knowledge is {attacker.knowledge}, but this model shows {shows}; say knowledge: "
                f"{shows}, or knowledge: surrogate with a model like it"
            )
