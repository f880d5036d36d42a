"""What every part of a threat-model file is made of: the base class, field types, alternatives, errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    Strict,
    StringConstraints,
)
from pydantic_core import CoreSchema, PydanticCustomError

__all__ = [
    "Count",
    "File",
    "Import",
    "Loose",
    "Name",
    "OneOf",
    "Part",
    "Positive",
    "Settings",
    "Share",
    "by_key",
    "by_type",
    "by_value",
    "either",
    "shown",
    "wrong",
]

T = TypeVar("T")
DATA_SUFFIXES = (".npz", ".parquet", ".csv", ".jsonl")


class Part(BaseModel):
    """Base of all parts of the file: frozen, strict, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def wrong(sentence: str, *key: str | int) -> PydanticCustomError:
    """Return an error to raise in a validator, about the given key below the part that is validated.

    The sentence goes on after the key's name: "is refused for …", "must be …".
    """
    at = ".".join(map(str, key))
    return PydanticCustomError("wrong", "{at} {sentence}", {"at": at, "sentence": sentence, "key_below": key})


def shown(value: object) -> str:
    """Return a value as an error message may show it: short, in YAML's words, and never an address.

    An address can hold a password, so it is not shown at all.
    """
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str() if "://" in value:
            return "an address"
        case str():
            return repr(value if len(value) <= 40 else value[:40] + "…")
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int() | float():
            return f"{value}"[:40]
    return "something else"


def either(allowed: Sequence[str]) -> str:
    """Return "a, b or c"."""
    return " or ".join(", ".join(allowed).rsplit(", ", 1))


def _import(value: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", value):
        hint = "; a file is written {path: …}" if value.endswith(DATA_SUFFIXES) else ""
        raise wrong(f"must be of the form 'module:name', got {shown(value)}{hint}")
    return value


def _file(value: Path) -> Path:
    if value == Path():
        raise wrong("must not be empty")
    return value


Loose = Annotated[T, Strict(False)]
"""For what YAML cannot write as itself: a choice or a path (written as text), a tuple (written as a list)."""
Name = Annotated[str, StringConstraints(pattern=r"\S")]
"""Text that is not blank."""
Import = Annotated[str, AfterValidator(_import)]
"""A Python object as "module:name"; the file's folder can be imported from."""
File = Annotated[Path, Strict(False), AfterValidator(_file)]
"""A path, relative to the folder of the threat-model file."""
Count = Annotated[int, Field(ge=1)]
"""A whole number from 1."""
Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""
Share = Annotated[float, Field(gt=0, le=1)]
"""A number above 0, and 1 at most."""
Settings = Mapping[str, JsonValue]
"""Free settings: text, numbers, true or false, lists, mappings."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Chooses among the tagged alternatives of a union; where none fits, the error says what is allowed.

    It is pydantic's `Discriminator`, but hashable with its context, so that a union may be optional.
    """

    choose: Callable[[object], str | None]
    """Takes the value and returns the tag of an alternative, or None."""
    forms: str
    """What is allowed, in words."""
    context: tuple[tuple[str, str], ...] = ()
    """What a reader of the error needs besides: names and values."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choice = Discriminator(
            self.choose,
            custom_error_type="alternatives",
            custom_error_message="must be {forms}",
            custom_error_context={"forms": self.forms, **dict(self.context)},
        )
        return choice.__get_pydantic_core_schema__(source, handler)


def by_key(*parts: type[Part], words: Sequence[str] = ()) -> OneOf:
    """Choose among parts by the name of their first field, and among them a bare word, if any.

    The alternatives are tagged "@" and the class's name, and "@word".
    """
    tags = {next(iter(part.model_fields)): _tag(part) for part in parts}

    def choose(value: object) -> str | None:
        if isinstance(value, Part):
            return _tag(type(value))
        if isinstance(value, Mapping):
            named = {key for key in tags if key in value}
            found = [_tag(part) for part in parts if next(iter(part.model_fields)) in named <= set(part.model_fields)]
            return found[0] if len(found) == 1 else None
        return "@word" if value in tuple(words) else None

    forms = [*words, *(f"{{{key}: …}}" for key in tags)]
    return OneOf(choose, either(forms), (("keys", " ".join(tags)), ("words", " ".join(words))))


def by_value(key: str, *parts: type[Part]) -> OneOf:
    """Choose among parts by the value of a key that all of them have; each has one literal value there.

    The alternatives are tagged "@" and the class's name.
    """
    tags = {str(get_args(part.model_fields[key].annotation)[0]): _tag(part) for part in parts}

    def choose(value: object) -> str | None:
        if isinstance(value, Part):
            return _tag(type(value))
        found = value.get(key) if isinstance(value, Mapping) else None
        return tags.get(found) if isinstance(found, str) else None

    return OneOf(choose, "a mapping", (("key", key), ("values", " ".join(tags))))


def by_type(forms: str, word: str | None = None) -> OneOf:
    """Choose by what YAML holds; `forms` says what is allowed.

    The alternatives are tagged "@text" (if a word is given: "@word", for that text alone), "@whole" (a whole
    number), "@list" and "@mapping".
    """

    def choose(value: object) -> str | None:
        match value:
            case bool():
                return None
            case str() if word is None:
                return "@text"
            case str():
                return "@word" if value == word else None
            case int():
                return "@whole"
            case list() | tuple():
                return "@list"
            case Mapping() | Part():
                return "@mapping"
        return None

    return OneOf(choose, forms, (("words", word or ""),))


def _tag(part: type[Part]) -> str:
    return "@" + part.__name__
