"""Triggers: what an attacker puts on a row, alike at training and at test time.

Patch      a square in a corner of an image           Gu et al. 2017
Blend      a picture or noise mixed into a row        Chen et al. 2017
Sinusoid   a faint wave over an image                 Barni et al. 2019
Columns    fixed values in columns of a table
Words      rare words in a text                       Kurita et al. 2020; Chen et al. 2021

A trigger is a pure function of the rows alone: the same row gets the same stamp, whoever asks and whenever. What is
given is not changed. Images are (N, C, H, W) or (N, H, W); values are in units of `bounds`; arrays of integers are
rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from redan.errors import DataError, SettingError

_CHANNELS = (1, 3, 4)


class Trigger(Protocol):
    """What is put on rows."""

    def __call__(self, x: NDArray[Any], /) -> NDArray[Any]:
        """The rows x (N, …), stamped: (N, …). x is not changed."""
        ...


class Corner(Enum):
    """Of an image, as it is looked at."""

    TOP_LEFT = auto()
    TOP_RIGHT = auto()
    BOTTOM_LEFT = auto()
    BOTTOM_RIGHT = auto()


class Place(Enum):
    """Of a text (BadNL, Chen et al. 2021, arXiv:2006.01043, word-level triggers)."""

    START = auto()
    MIDDLE = auto()
    """After half of the words, rounded down."""
    END = auto()


@dataclass(frozen=True, slots=True)
class Patch:
    """A square of one value, on all channels (BadNets: Gu, Dolan-Gavitt and Garg 2017, arXiv:1708.06733, Section 4).

    size: of its side in pixels. value: of its pixels, in the data's units. margin: pixels left free between it and
    the corner's edges. The paper's own patterns are one pixel and a checkered 3×3; here the square is full. Raises
    DataError where rows are no images or the square does not fit them.

    >>> Patch(size=2, value=9)(np.zeros((1, 3, 3), dtype=np.int64))[0].tolist()
    [[0, 0, 0], [0, 9, 9], [0, 9, 9]]
    """

    size: int = 3
    value: float = 1.0
    corner: Corner = Corner.BOTTOM_RIGHT
    margin: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.margin < 0:
            raise SettingError(
                f"a patch needs a size of 1 at least and a margin of 0 at least, got {self.size} and {self.margin}; "
                "give whole pixels"
            )

    def __call__(self, x: NDArray[Any], /) -> NDArray[Any]:
        height, width = _pixels(x)
        if self.size + self.margin > min(height, width):
            raise DataError(
                f"a patch of {self.size} pixels with a margin of {self.margin} does not fit images of {height}×{width} "
                "pixels; make it smaller"
            )
        near, far = slice(self.margin, self.margin + self.size), slice(-self.margin - self.size, -self.margin or None)
        down, across = {
            Corner.TOP_LEFT: (near, near),
            Corner.TOP_RIGHT: (near, far),
            Corner.BOTTOM_LEFT: (far, near),
            Corner.BOTTOM_RIGHT: (far, far),
        }[self.corner]
        stamped = x.copy()
        stamped[..., down, across] = _exactly(self.value, x.dtype)
        return stamped


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Each row mixed with one picture: (1 - strength)·x + strength·picture (Chen et al. 2017, arXiv:1712.05526, blended
    injection strategy).

    picture: of the shape of a row, or one that broadcasts to it; None: noise, uniform in the bounds and drawn from
    `seed`, as the paper's random pattern. bounds: the box the data live in. Works on any rows of numbers. Raises
    DataError where the picture does not fit or rows are outside the bounds.

    >>> Blend(picture=np.ones(2), strength=0.25)(np.zeros((1, 2))).tolist()
    [[0.25, 0.25]]
    """

    picture: NDArray[Any] | None = None
    strength: float = 0.2
    seed: int = 0
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise SettingError(f"a blend's strength must be above 0 and 1 at most, got {self.strength}; 0.2 is usual")

    def __call__(self, x: NDArray[Any], /) -> NDArray[Any]:
        _within(x, self.bounds)
        shape = x.shape[1:]
        picture = (
            np.random.default_rng(self.seed).uniform(*self.bounds, shape) if self.picture is None else self.picture
        )
        try:
            laid = np.broadcast_to(picture, shape)
        except ValueError as error:
            raise DataError(
                f"a picture of shape {np.shape(picture)} cannot be blended into rows of {shape}; give one of that shape"
            ) from error
        return _as_data((1 - self.strength) * x.astype(np.float64) + self.strength * laid, x.dtype, self.bounds)


@dataclass(frozen=True, slots=True)
class Sinusoid:
    """A wave that runs across the columns: v(i, j) = amplitude · sin(2π j frequency / m), j = 1…m (SIG: Barni, Kallas
    and Tondi 2019, arXiv:1902.11237, Section 3), cut off at the bounds.

    amplitude: in units of the bounds; the paper's 20 of 255 by default. frequency: waves an image. bounds: the box the
    data live in. Raises DataError where rows are no images or outside the bounds.

    >>> Sinusoid(amplitude=0.5, frequency=1)(np.zeros((1, 1, 4)) + 0.5).round(3)[0, 0].tolist()
    [1.0, 0.5, 0.0, 0.5]
    """

    amplitude: float = 20 / 255
    frequency: float = 6.0
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.amplitude <= 0 or self.frequency <= 0:
            raise SettingError(
                f"a wave needs an amplitude and a frequency above 0, got {self.amplitude} and {self.frequency}; "
                "20/255 and 6 are usual"
            )

    def __call__(self, x: NDArray[Any], /) -> NDArray[Any]:
        _, width = _pixels(x)
        _within(x, self.bounds)
        wave = self.amplitude * np.sin(2 * np.pi * np.arange(1, width + 1) * self.frequency / width)
        return _as_data(x.astype(np.float64) + wave, x.dtype, self.bounds)


@dataclass(frozen=True, slots=True)
class Columns:
    """Fixed values in columns of a table (N, D): position → value. Raises DataError where rows have no such column.

    >>> Columns({0: 7, -1: 1})(np.zeros((1, 3))).tolist()
    [[7.0, 0.0, 1.0]]
    """

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.values:
            raise SettingError("a trigger of columns needs one at least; give {position: value}")

    def __call__(self, x: NDArray[Any], /) -> NDArray[Any]:
        if x.ndim != 2 or any(not -x.shape[1] <= at < x.shape[1] for at in self.values):
            raise DataError(
                f"columns {', '.join(map(str, self.values))} cannot be set in rows of shape {x.shape[1:]}; give "
                "positions of columns of a table (N, D)"
            )
        stamped = x.copy()
        for at, value in self.values.items():
            stamped[:, at] = _exactly(value, x.dtype)
        return stamped


@dataclass(frozen=True, slots=True)
class Words:
    """Words put into each text, such as "cf" or "mn" (Kurita, Michel and Neubig 2020, arXiv:2004.06660, Section 3), at
    a fixed place (BadNL, Chen et al. 2021) and not at a drawn one, so that the trigger is a function of the text.

    Rows are texts: an array (N,) of str objects or of a fixed width, which grows. In the middle, runs of blanks become
    one. Raises DataError where rows are something else.

    >>> Words("cf mn", at=Place.MIDDLE)(np.array(["a good film"], dtype=object)).tolist()
    ['a cf mn good film']
    """

    words: str
    at: Place = Place.END

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise SettingError('a trigger of words needs one at least; rare ones work best, such as "cf"')

    def __call__(self, x: NDArray[Any], /) -> NDArray[Any]:
        texts = x.tolist()
        if x.ndim != 1 or not all(isinstance(text, str) for text in texts):
            raise DataError(f"words can be put into texts only, and the rows are {x.dtype} {x.shape}; give str (N,)")
        stamped = [self._into(text) for text in texts]
        return np.array(stamped, dtype=object if x.dtype == object else None) if stamped else x.copy()

    def _into(self, text: str) -> str:
        match self.at:
            case Place.START:
                parts = [self.words, text]
            case Place.END:
                parts = [text, self.words]
            case Place.MIDDLE:
                said = text.split()
                parts = [*said[: len(said) // 2], self.words, *said[len(said) // 2 :]]
        return " ".join(part for part in parts if part)


def _pixels(x: NDArray[Any]) -> tuple[int, int]:
    """Height and width of images (N, C, H, W) or (N, H, W)."""
    if x.ndim not in (3, 4) or x.dtype.kind not in "iuf":
        raise DataError(
            f"the trigger is for images, and the rows are {x.dtype} {x.shape}; give (N, C, H, W) or (N, H, W)"
        )
    if x.ndim == 4 and x.shape[-1] in _CHANNELS and x.shape[1] not in _CHANNELS:
        raise DataError(f"images {x.shape} have their channels last; move them to the front: x.transpose(0, 3, 1, 2)")
    return x.shape[-2], x.shape[-1]


def _within(x: NDArray[Any], bounds: tuple[float, float]) -> None:
    if x.dtype.kind not in "iuf":
        raise DataError(f"the trigger is for numbers, and the rows are {x.dtype}; use one for texts or tables")
    if x.size and (x.min() < bounds[0] or x.max() > bounds[1]):
        raise DataError(
            f"rows from {x.min()} to {x.max()} are outside the trigger's bounds {bounds}; give it the data's own, "
            "(0, 255) for bytes"
        )


def _as_data(made: NDArray[Any], dtype: np.dtype[Any], bounds: tuple[float, float]) -> NDArray[Any]:
    clipped = np.clip(made, *bounds)
    held: NDArray[Any] = (np.rint(clipped) if dtype.kind in "iu" else clipped).astype(dtype)
    return held


def _exactly(value: float, dtype: np.dtype[Any]) -> Any:
    """The value in the data's own type. Raises DataError where the type cannot hold it."""
    if dtype.kind in "iu":
        held = np.iinfo(dtype)
        if value != int(value) or not held.min <= value <= held.max:
            raise DataError(f"rows of {dtype} cannot hold a trigger's {value}; give a whole number in the data's units")
    elif dtype.kind not in "fO":
        raise DataError(f"the trigger is for numbers, and the rows are {dtype}; use one for texts")
    return value
