"""The transformations by the names that a threat model gives them, as in `{jpeg: {quality: 75}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from enum import Enum
from typing import Any, get_type_hints

from torch import Tensor

from redan.errors import SettingError
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.jpeg import JPEG
from redan.preprocessing.median import Median
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.resize_pad import ResizePad
from redan.preprocessing.served import behind
from redan.preprocessing.thermometer import Thermometer
from redan.preprocessing.total_variation import TotalVariation
from redan.preprocessing.transformation import Transformation
from redan.targets.base import Target

_BOX = "bounds"  # known of the system's inputs, and set nowhere else


@dataclass(frozen=True, slots=True)
class Entry:
    """One transformation as a threat model and the report know it. kind: its class."""

    name: str
    kind: type[Any]
    stochastic: bool
    paper: str

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of its settings."""
        return tuple(field.name for field in self._settings())

    def _settings(self) -> tuple[Field[Any], ...]:
        return tuple(field for field in fields(self.kind) if field.name != _BOX)

    def make(self, settings: Mapping[str, object], bounds: tuple[float, float] = (0.0, 1.0)) -> Transformation:
        """The transformation with these settings, for images in `bounds`.

        Raises SettingError for a setting that it does not have, one that is missing, and values that do not fit.
        """
        for name in settings:
            if name not in self.settings:
                near = get_close_matches(name, self.settings, 1)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                raise SettingError(f"{self.name} has no setting '{name}'; it has {', '.join(self.settings)}{meant}")
        for field in self._settings():
            if field.name not in settings and field.default is MISSING:
                raise SettingError(
                    f"{self.name} needs the setting '{field.name}'; write {{{self.name}: {{{field.name}: …}}}}"
                )
        hints = get_type_hints(self.kind)
        found = {name: _fitting(self.name, name, value, hints[name]) for name, value in settings.items()}
        if any(field.name == _BOX for field in fields(self.kind)):
            found[_BOX] = bounds
        made: Transformation = self.kind(**found)
        return made


def _fitting(transformation: str, name: str, value: object, kind: type[Any]) -> object:
    """A value of a file as a setting has it: a choice by its name, a whole number where any number is meant."""
    if issubclass(kind, Enum):
        choices = [each.value for each in kind]
        if value in choices:
            return kind(value)
        raise SettingError(f"{name} of {transformation} must be one of {', '.join(choices)}, got {value!r}")
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        wanted = "a whole number" if kind is int else "a number"
        raise SettingError(f"{name} of {transformation} must be {wanted}, got {value!r}")
    return kind(value)


TRANSFORMATIONS: tuple[Entry, ...] = (
    Entry("bit-depth", BitDepth, False, "Xu, Evans and Qi 2018, arXiv:1704.01155"),
    Entry("median", Median, False, "Xu, Evans and Qi 2018, arXiv:1704.01155"),
    Entry("non-local-means", NonLocalMeans, False, "Buades, Coll and Morel 2005, DOI 10.1109/CVPR.2005.38"),
    Entry("jpeg", JPEG, False, "Dziugaite et al. 2016, arXiv:1608.00853"),
    Entry("total-variation", TotalVariation, True, "Guo et al. 2018, arXiv:1711.00117"),
    Entry("resize-pad", ResizePad, True, "Xie et al. 2018, arXiv:1711.01991"),
    Entry("thermometer", Thermometer, False, "Buckman et al. 2018, openreview S18Su--CW"),
)


def entry_of(name: str) -> Entry:
    """The transformation of that name, in which `_` counts as `-`. Raises SettingError with the known names."""
    meant = name.replace("_", "-")
    known = [each.name for each in TRANSFORMATIONS]
    for each in TRANSFORMATIONS:
        if each.name == meant:
            return each
    near = get_close_matches(meant, known, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise SettingError(f"there is no transformation named '{name}'; redan knows {', '.join(known)}{hint}")


def transformation_of(
    name: str, settings: Mapping[str, object], bounds: tuple[float, float] = (0.0, 1.0)
) -> Transformation:
    """The transformation of that name, with settings as a file has them, for images in `bounds`.

    Raises SettingError with the known names, or those of the settings.

    >>> transformation_of("jpeg", {"quality": 75})
    JPEG(quality=75, bounds=(0.0, 1.0))
    """
    return entry_of(name).make(settings, bounds)


def described(name: str, settings: Mapping[str, object]) -> str:
    """A transformation with all its settings, as a report names it. Raises SettingError as `transformation_of` does.

    >>> described("bit_depth", {"bits": 3})
    'bit-depth(bits=3)'
    """
    entry = entry_of(name)
    made = entry.make(settings)
    values = [(each, getattr(made, each)) for each in entry.settings]
    said = ", ".join(f"{each}={_shown(value)}" for each, value in values)
    return f"{entry.name}({said})"


def _shown(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def defended(target: Target[Tensor], defenses: Sequence[tuple[str, Mapping[str, object]]] = ()) -> Target[Tensor]:
    """The target behind defenses by name and settings, the outermost last, as `system.defenses` lists them.

    An input meets the last one first. Raises SettingError for names and settings that there are not, TargetError around
    an endpoint.
    """
    return behind(target, [transformation_of(name, settings, target.bounds) for name, settings in reversed(defenses)])
