"""Pictures of what broke the model: the original, what it was turned into, and the difference, magnified."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.evidence.log import RightAnswer
from redan.evidence.pictures import Pictures, PoisonPictures
from redan.evidence.report import Report

__all__ = ["Example", "Gallery", "Picture", "data_uri", "gallery_of", "pictures", "png"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row and the input that an attacker made of it."""

    attacker: str
    row: str
    """The row's id."""
    label: int
    clean: int
    """What the model answered to the row: a class's index."""
    adversarial: int
    """What it answered to the input that was made."""
    distance: float
    """In the attacker's norm and units."""
    x0: Tensor
    """The row, (C, H, W) with 1 or 3 channels to be shown."""
    x: Tensor
    """The input that was made of it, of the same shape."""
    scores: tuple[Tensor, Tensor] | None = None
    """The model's answers (K,) to x0 and to x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Examples in the order in which they are to be shown."""

    examples: tuple[Example, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)
    """The smallest and the largest number an input may hold: black and white."""
    poisoned: tuple[PoisonPictures, ...] = ()
    """What was planted in training rows, by the attacker's place in the report."""


def gallery_of(report: Report, found: Pictures | None, ids: Sequence[str], labels: Sequence[RightAnswer]) -> Gallery:
    """The examples that a run kept, in words of its report. ids, labels: of the run's rows."""
    if found is None:
        return Gallery()
    examples = []
    for i, (number, row) in enumerate(zip(found.attacker.tolist(), found.row.tolist(), strict=True)):
        if not (0 <= number < len(report.attackers) and 0 <= row < len(ids)):
            continue  # a file that does not fit this run shows nothing
        label = labels[row]
        if not isinstance(label, int):
            continue
        change = found.x[i] - found.x0[i]
        part = report.attackers[number]
        examples.append(
            Example(
                attacker=part.name,
                row=ids[row],
                label=label,
                clean=int(found.before[i].argmax()),
                adversarial=int(found.after[i].argmax()),
                distance=_length(change, part.change or ""),
                x0=found.x0[i],
                x=found.x[i],
                scores=(found.before[i], found.after[i]),
            )
        )
    return Gallery(examples=tuple(examples), bounds=found.bounds, poisoned=_planted(report, found))


def _planted(report: Report, found: Pictures) -> tuple[PoisonPictures, ...]:
    """What fits this report: pictures of attackers who are in it, and who changed training rows."""
    poisoners = {number for number, part in enumerate(report.attackers) if part.poisoning is not None}
    return tuple(each for each in found.poisoned if each.attacker in poisoners)


def _length(change: Tensor, said: str) -> float:
    """How large a change is in the norm that the attacker's change names; L∞ for any other."""
    order = {"l2": 2.0, "l1": 1.0, "l0": 0.0}.get(said.partition(":")[0], float("inf"))
    return float(torch.linalg.vector_norm(change.double().flatten(), ord=order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One example as images that a page can carry."""

    example: Example
    original: str
    changed: str
    difference: str
    factor: float
    """How much the difference is magnified, around middle gray."""
    width: int
    height: int


def pictures(gallery: Gallery) -> tuple[Picture, ...]:
    """Draw the examples that are images; of other inputs there is nothing to see."""
    return tuple(_drawn(each, gallery.bounds) for each in gallery.examples if _is_image(each))


def _is_image(example: Example) -> bool:
    shape = example.x0.shape
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1 and example.x.shape == shape


def _drawn(example: Example, bounds: Sequence[float]) -> Picture:
    low, high = bounds
    x0, x = ((each.detach().cpu().double() - low) / (high - low) for each in (example.x0, example.x))
    largest = float((x - x0).abs().max())
    factor = 0.5 / largest if largest > 0 else 1.0
    return Picture(
        example=example,
        original=data_uri(x0),
        changed=data_uri(x),
        difference=data_uri(0.5 + factor * (x - x0)),
        factor=factor,
        width=x0.shape[2],
        height=x0.shape[1],
    )


def data_uri(image: Tensor) -> str:
    """An image (C, H, W) with numbers from 0 to 1 as text that stands for the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")


def png(image: Tensor) -> bytes:
    """Write an image (C, H, W), C 1 (gray) or 3 (RGB), numbers from 0 to 1, as PNG (ISO/IEC 15948), 8 bits.

    What lies outside, or is no number, is drawn as the nearest end, or black. The same image gives the same bytes.
    """
    channels, height, width = image.shape
    levels = (image.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).reshape(height, -1)
    lines = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), levels], 1)  # 0: no filter in this line
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    packed = zlib.compress(bytes(lines.flatten().tolist()), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
