"""What is served with the model: defenses that transform its inputs, checked against what the inputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from pydantic import ConfigDict, RootModel, model_validator

from redan.errors import SettingError, TargetError
from redan.preprocessing import Transformation, described, transformation_of
from redan.threat.inputs import ImageInputs, InputKind, Inputs
from redan.threat.model import Http, Model
from redan.threat.parts import Settings, wrong


class Defense(RootModel[Mapping[str, Settings]]):
    """One defense that is served with the model, written `{name: settings}`."""

    model_config = ConfigDict(frozen=True, strict=True)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.root) != 1:
            raise wrong(f"must be one {{name: settings}} each, got {len(self.root)} names")
        return self

    @property
    def name(self) -> str:
        """What the defense is called in the list of defenses."""
        return next(iter(self.root))

    @property
    def settings(self) -> Settings:
        """Its settings by name."""
        return self.root[self.name]


class Named(Protocol):
    """A defense by name, with its settings."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def settings(self) -> Settings:
        """Its settings by name."""
        ...


def check_defenses(defenses: Sequence[Named], inputs: Inputs, model: Model) -> None:
    """Raise for a defense that there is not, whose settings mean nothing, or that does not fit inputs or model."""
    made = [_made(i, each, getattr(inputs, "bounds", None)) for i, each in enumerate(defenses)]
    match model:
        case Http() if made:
            raise wrong("are for models that are here: an endpoint transforms its inputs itself", "defenses")
    match inputs:
        case ImageInputs(shape=shape, normalization=normalization):
            seen = shape
            for i in reversed(range(len(made))):  # an input meets the outermost first, which is the last
                try:
                    seen = made[i].shape(seen)
                except TargetError as error:
                    raise wrong(f"does not fit: {error}", "defenses", i, defenses[i].name) from error
            if normalization is not None and seen[0] != shape[0]:
                raise wrong(
                    f"is for {shape[0]} channels, and the model gets {seen[0]} from the defenses; leave it out, or "
                    "normalize in the model's forward",
                    *("inputs", "normalization"),
                )
        case _ if defenses:
            raise wrong(
                f"fits inputs of kind {InputKind.IMAGE}, and they are {inputs.kind}", "defenses", 0, defenses[0].name
            )


def _made(i: int, defense: Named, bounds: tuple[float, float] | None) -> Transformation:
    try:
        return transformation_of(defense.name, defense.settings, bounds or (0.0, 1.0))
    except SettingError as error:
        raise wrong(f"is refused: {error}", "defenses", i, defense.name) from error


def words_of(defenses: Sequence[Named]) -> list[str]:
    """Each defense with all its settings, the outermost last: `jpeg(quality=75)`."""
    return [described(each.name, each.settings) for each in defenses]
