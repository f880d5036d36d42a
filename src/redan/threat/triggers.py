"""What calls a backdoor, as a threat-model file says it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import Field, Tag

from redan.threat.parts import Count, Loose, Part, by_key

__all__ = [
    "ColumnsTrigger",
    "CornerName",
    "PatchShape",
    "PatchTrigger",
    "Trigger",
    "TriggerName",
    "trigger_name",
]


class TriggerName(StrEnum):
    """What calls a backdoor, as it is usual."""

    PATCH = "patch"
    """A small square in a corner of the image."""
    BLEND = "blend"
    """Noise mixed into the row."""
    SINUSOID = "sinusoid"
    """A faint wave over the image."""


class CornerName(StrEnum):
    """Where a patch is put."""

    TOP_LEFT = "top_left"
    TOP_RIGHT = "top_right"
    BOTTOM_LEFT = "bottom_left"
    BOTTOM_RIGHT = "bottom_right"


class PatchShape(Part):
    """What a patch looks like."""

    size: Count = 3
    """Its side in pixels."""
    value: float | None = None
    """Of its pixels, in units of `inputs.bounds`; absent: the upper bound."""
    corner: Loose[CornerName] = CornerName.BOTTOM_RIGHT
    """Where it is put."""


class PatchTrigger(Part):
    """A small square in a corner of the image."""

    patch: PatchShape
    """What it looks like."""


class ColumnsTrigger(Part):
    """Fixed values in columns of a table, or of a tensor of one axis."""

    columns: Annotated[Mapping[Annotated[int, Field(ge=0)], float], Field(min_length=1)]
    """The column's position, from 0, and the value in it, in the data's units."""


Trigger: TypeAlias = Annotated[
    Annotated[Loose[TriggerName], Tag("@word")]
    | Annotated[PatchTrigger, Tag("@PatchTrigger")]
    | Annotated[ColumnsTrigger, Tag("@ColumnsTrigger")],
    by_key(PatchTrigger, ColumnsTrigger, words=tuple(TriggerName)),
]
"""What calls a backdoor."""


def trigger_name(trigger: Trigger) -> str:
    """What the file calls a trigger."""
    return str(trigger) if isinstance(trigger, TriggerName) else next(iter(type(trigger).model_fields))
