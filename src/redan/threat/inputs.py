"""What one row of the data is: an image, a tensor, a table's row, a text, bytes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, Strict, Tag, model_validator

from redan.threat.parts import Count, Loose, Part, Positive, by_value, wrong

__all__ = [
    "BytesInputs",
    "ImageInputs",
    "InputKind",
    "Inputs",
    "Normalization",
    "TableInputs",
    "TensorInputs",
    "TextInputs",
]


class InputKind(StrEnum):
    """What a row is."""

    IMAGE = "image"
    TENSOR = "tensor"
    TABLE = "table"
    TEXT = "text"
    BYTES = "bytes"


def _bounds(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not low < high:
        raise wrong(f"must be [low, high] with low below high, got [{low:g}, {high:g}]")
    return value


Bounds = Annotated[tuple[float, float], Strict(False), AfterValidator(_bounds)]
"""The smallest and the largest value an input may hold; ε is in units of these."""


class Normalization(Part):
    """What the model expects of its inputs: (x − mean) / std, one entry a channel."""

    mean: Loose[tuple[float, ...]]
    """What is subtracted, in units of `bounds`."""
    std: Loose[tuple[Positive, ...]]
    """What is divided by, in units of `bounds`."""


def _check_channels(normalization: Normalization | None, shape: tuple[int, ...]) -> None:
    if normalization is None:
        return
    for key, values in (("mean", normalization.mean), ("std", normalization.std)):
        if len(values) != shape[0]:
            raise wrong(
                f"must have one entry a channel: {shape[0]}, as shape says, got {len(values)}", "normalization", key
            )


class ImageInputs(Part):
    """Images, channels first."""

    kind: Literal[InputKind.IMAGE]
    """`image`."""
    shape: Loose[tuple[Count, Count, Count]]
    """Channels, height, width of one row."""
    bounds: Bounds
    """The smallest and the largest pixel value in the data, before normalization; ε is in units of these."""
    normalization: Normalization | None = None
    """Absent: the model takes values within `bounds`."""

    @model_validator(mode="after")
    def _channels(self) -> Self:
        _check_channels(self.normalization, self.shape)
        return self


class TensorInputs(Part):
    """Arrays of numbers that are no images."""

    kind: Literal[InputKind.TENSOR]
    """`tensor`."""
    shape: Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]
    """Shape of one row; the first axis counts as the channels."""
    bounds: Bounds
    """The smallest and the largest value in the data, before normalization; ε is in units of these."""
    normalization: Normalization | None = None
    """Absent: the model takes values within `bounds`."""

    @model_validator(mode="after")
    def _channels(self) -> Self:
        _check_channels(self.normalization, self.shape)
        return self


class TableInputs(Part):
    """Rows of a table."""

    kind: Literal[InputKind.TABLE]
    """`table`."""
    shape: Loose[tuple[Count]] | None = None
    """The number of columns; absent: as the data has."""
    bounds: Bounds | None = None
    """The smallest and the largest value of every column; absent: each column's own range in the data."""


class TextInputs(Part):
    """Texts."""

    kind: Literal[InputKind.TEXT]
    """`text`."""


class BytesInputs(Part):
    """Files, as their bytes."""

    kind: Literal[InputKind.BYTES]
    """`bytes`."""
    shape: Loose[tuple[Count]] | None = None
    """The number of bytes that the model reads; absent: any."""


Inputs: TypeAlias = Annotated[
    Annotated[ImageInputs, Tag("@ImageInputs")]
    | Annotated[TensorInputs, Tag("@TensorInputs")]
    | Annotated[TableInputs, Tag("@TableInputs")]
    | Annotated[TextInputs, Tag("@TextInputs")]
    | Annotated[BytesInputs, Tag("@BytesInputs")],
    by_value("kind", ImageInputs, TensorInputs, TableInputs, TextInputs, BytesInputs),
]
"""What a row is, by `kind`."""
