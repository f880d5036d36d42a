"""What auditors' texts call what redan does: identifiers, names, dates and sources, from `standards.yaml`."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from redan.evidence.requirement import Requirement
from redan.threat import attackers as who
from redan.threat.changes import PatchChange, SpatialChange, TextChange

__all__ = ["Crosswalk", "Item", "Text", "crosswalk", "subjects_of"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(_Part):
    """A standard, a law or a catalog. read: whether its identifiers were read in itself or in others that quote it."""

    name: str
    version: str
    date: datetime.date
    source: Annotated[str, Field(pattern="^https://")]
    read: Literal["primary", "secondary"]


class Item(_Part):
    """One item of a text. shows, shows_not: what a report is evidence for, and what not."""

    id: str
    text: str
    name: str
    shows: str
    shows_not: str


class _File(_Part):
    texts: dict[str, Text]
    entries: list[Item]
    subjects: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """The texts, their items by id, and the ids that each subject of redan is evidence for."""

    texts: dict[str, Text]
    items: dict[str, Item]
    subjects: dict[str, tuple[str, ...]]

    def of(self, *subjects: str) -> tuple[str, ...]:
        """The ids of some subjects, each once. Raises KeyError for a subject that the file does not have."""
        return tuple(dict.fromkeys(id for subject in subjects for id in self.subjects[subject]))


@cache
def crosswalk() -> Crosswalk:
    """The shipped file."""
    text = resources.files("redan.threat").joinpath("standards.yaml").read_text(encoding="utf-8")
    found = _File.model_validate(yaml.safe_load(text))
    return Crosswalk(
        texts=found.texts,
        items={item.id: item for item in found.entries},
        subjects={subject: tuple(ids) for subject, ids in found.subjects.items()},
    )


_BY_HAND = (PatchChange, SpatialChange, TextChange)  # what a person could do to an input


def subjects_of(part: who.Attacker | Requirement) -> Iterator[str]:
    """What an attacker, or a requirement, is about."""
    match part:
        case who.Evasion(knowledge=knowledge, change=change, capability=capability):
            yield f"evasion/{knowledge}"
            if isinstance(change, _BY_HAND):
                yield "evasion/by hand"
            if capability.queries_per_row is not None:
                yield "capability/queries"
        case who.Poisoning(goal=who.BackdoorGoal()):
            yield "poisoning/backdoor"
        case who.Poisoning(goal=who.TargetedRowsGoal()):
            yield "poisoning/targeted rows"
        case who.Poisoning():
            yield "poisoning/availability"
        case who.Extraction(goal=goal, capability=capability):
            yield "extraction/transfer" if isinstance(goal, who.TransferGoal) else "extraction/fidelity"
            if capability.queries_total is not None:
                yield "capability/queries"
        case Requirement(metric=metric):
            yield f"metric/{metric}"
