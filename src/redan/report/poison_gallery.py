"""Pictures of poison: training rows before and after, the trigger that was planted beside the one that was found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.evidence.pictures import PoisonPictures
from redan.report.gallery import Gallery, data_uri

__all__ = ["Planted", "PoisonPicture", "Row", "poison_pictures"]

_ROWS = 6
_DARK = 0.5  # a trigger that is nowhere brighter is magnified


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training row as images that a page can carry."""

    clean: str
    poisoned: str
    difference: str
    factor: float
    """How much the difference is magnified, around middle gray."""
    before: int
    after: int
    """Labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What a trigger makes of a black input."""

    image: str
    factor: float
    """How much brighter it is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonPicture:
    """What one attacker planted, of images of this size."""

    rows: tuple[Row, ...]
    planted: Planted | None
    found: Planted | None
    """By Neural Cleanse."""
    width: int
    height: int


def poison_pictures(gallery: Gallery) -> dict[int, PoisonPicture]:
    """Draw what is images, by the attacker's place in the report; of other rows there is nothing to see."""
    return {each.attacker: _drawn(each) for each in gallery.poisoned if _is_image(each)}


def _is_image(found: PoisonPictures) -> bool:
    _, channels, height, width = found.clean.shape
    return channels in (1, 3) and min(height, width) > 1


def _drawn(found: PoisonPictures) -> PoisonPicture:
    low, high = found.bounds

    def unit(x: Tensor) -> Tensor:
        return (x.detach().cpu().double() - low) / (high - low)

    clean, poisoned = unit(found.clean), unit(found.poisoned)
    labels = zip(found.before.tolist(), found.after.tolist(), strict=True)
    rows = (_row(a, b, *pair) for a, b, pair in list(zip(clean, poisoned, labels, strict=True))[:_ROWS])
    taken = None
    if found.mask is not None and found.pattern is not None:
        taken = _trigger(found.mask.detach().cpu().double() * unit(found.pattern))
    return PoisonPicture(
        rows=tuple(rows),
        planted=None if found.planted is None else _trigger(unit(found.planted)),
        found=taken,
        width=clean.shape[3],
        height=clean.shape[2],
    )


def _row(clean: Tensor, poisoned: Tensor, before: int, after: int) -> Row:
    change = (poisoned - clean).nan_to_num(0.0)
    largest = float(change.abs().max())
    factor = 0.5 / largest if largest > 0 else 1.0
    return Row(
        clean=data_uri(clean),
        poisoned=data_uri(poisoned),
        difference=data_uri(0.5 + factor * change),
        factor=factor,
        before=before,
        after=after,
    )


def _trigger(image: Tensor) -> Planted:
    brightest = float(image.nan_to_num(0.0).max())
    factor = 1 / brightest if 0 < brightest < _DARK else 1.0
    return Planted(image=data_uri(factor * image), factor=factor)
