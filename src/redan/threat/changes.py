"""What an evasion attacker may do to an input."""

from __future__ import annotations

from typing import Annotated, Self, TypeAlias

from pydantic import Field, Strict, Tag, model_validator

from redan.threat.parts import Count, Name, Part, Positive, Share, by_key, wrong

__all__ = [
    "BytesChange",
    "BytesLimits",
    "Change",
    "L0Change",
    "L1Change",
    "L2Change",
    "LinfChange",
    "PatchChange",
    "PatchLimits",
    "SpatialChange",
    "SpatialLimits",
    "TableChange",
    "TableLimits",
    "TextChange",
    "TextLimits",
]


class LinfChange(Part):
    """Every value a little."""

    linf: Positive
    """The largest change of any value: ε in units of `bounds`."""


class L2Change(Part):
    """A short Euclidean distance."""

    l2: Positive
    """The Euclidean norm of the change: ε in units of `bounds`."""


class L1Change(Part):
    """A small sum of changes."""

    l1: Positive
    """The sum of the absolute changes: ε in units of `bounds`."""


class L0Change(Part):
    """A few values, by as much as the bounds allow."""

    l0: Count
    """How many values may change."""


class PatchLimits(Part):
    """How large a patch may be."""

    area: Share
    """Its share of the image's area, above 0 and 1 at most."""


class PatchChange(Part):
    """A patch anywhere in the image, with any content."""

    patch: PatchLimits
    """How large it may be."""


class SpatialLimits(Part):
    """How far an image may be moved."""

    rotation: Positive | None = None
    """Degrees to either side; absent: no rotation."""
    translation: Share | None = None
    """Share of the image's side, in each direction; absent: no translation."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.rotation is None and self.translation is None:
            raise wrong("must allow something: give rotation, translation or both")
        return self


class SpatialChange(Part):
    """The image moved."""

    spatial: SpatialLimits
    """How far."""


class TextLimits(Part):
    """How much of a text may change."""

    characters: Count | None = None
    """How many characters may be changed, added or taken away; absent: none on their own."""
    words: Count | None = None
    """How many words may be replaced by others of the same meaning; absent: none."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.characters is None and self.words is None:
            raise wrong("must allow something: give characters, words or both")
        return self


class TextChange(Part):
    """The text reworded."""

    text: TextLimits
    """How much of it."""


class TableLimits(Part):
    """Which columns may change."""

    columns: Annotated[tuple[Name, ...], Strict(False), Field(min_length=1)]
    """The names of the columns that the attacker controls."""


class TableChange(Part):
    """Columns of the row set to other values of their range."""

    table: TableLimits
    """Which columns."""


class BytesLimits(Part):
    """How much of a file may change."""

    append: Count | None = None
    """How many bytes may be added at the end; absent: none."""
    replace: Count | None = None
    """How many bytes may be replaced where the file's format ignores them; absent: none."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.append is None and self.replace is None:
            raise wrong("must allow something: give append, replace or both")
        return self


class BytesChange(Part):
    """The file changed so that it still does what it did."""

    bytes: BytesLimits
    """How much of it."""


Change: TypeAlias = Annotated[
    Annotated[LinfChange, Tag("@LinfChange")]
    | Annotated[L2Change, Tag("@L2Change")]
    | Annotated[L1Change, Tag("@L1Change")]
    | Annotated[L0Change, Tag("@L0Change")]
    | Annotated[PatchChange, Tag("@PatchChange")]
    | Annotated[SpatialChange, Tag("@SpatialChange")]
    | Annotated[TextChange, Tag("@TextChange")]
    | Annotated[TableChange, Tag("@TableChange")]
    | Annotated[BytesChange, Tag("@BytesChange")],
    by_key(
        LinfChange,
        L2Change,
        L1Change,
        L0Change,
        PatchChange,
        SpatialChange,
        TextChange,
        TableChange,
        BytesChange,
    ),
]
"""What may be done to an input: exactly one of the alternatives."""
