"""Threat models to start from: commented files of `presets/`, complete but for the owner's model and data.

What only the owner can say is marked by FILL_IN. The file is valid as it stands, so it can be planned at once;
an assessment refuses it with the key that is to be filled in.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import yaml

from redan.errors import SettingError

__all__ = ["MARK", "Preset", "Unfilled", "filled", "preset", "presets", "unfilled", "value_at"]

MARK = "FILL_IN"
"""What marks a value that only the owner can give."""
_NAMES = ("driving", "malware", "fraud", "moderation")


@dataclass(frozen=True, slots=True)
class Preset:
    """A threat model to start from. about: its first line; text: the file, YAML with comments."""

    name: str
    about: str
    text: str


class Unfilled(NamedTuple):
    """A value that is to be filled in: its line, from 1, and its key."""

    line: int
    key: str


def presets() -> tuple[Preset, ...]:
    """Every preset.

    >>> [each.name for each in presets()]
    ['driving', 'malware', 'fraud', 'moderation']
    """
    folder = resources.files("redan.threat").joinpath("presets")
    texts = {name: folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in _NAMES}
    return tuple(Preset(name, text.splitlines()[0].removeprefix("# "), text) for name, text in texts.items())


def preset(name: str) -> Preset:
    """The preset of that name. Raises SettingError with the nearest name."""
    for each in presets():
        if each.name == name:
            return each
    near = "".join(f"; did you mean {close}?" for close in difflib.get_close_matches(name, _NAMES, n=1))
    raise SettingError(f"there is no preset '{name}'; redan has {', '.join(_NAMES)}{near}")


def value_at(text: str, key: str) -> yaml.Node | None:
    """The YAML node below a dotted key, as in system.inputs.shape; None if the text does not have it."""
    return _below(yaml.compose(text, yaml.SafeLoader), key)


def _below(node: yaml.Node | None, key: str) -> yaml.Node | None:
    for step in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for name, value in pairs if name.value == step), None)
    return node


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with other values, and with its comments. values: YAML by dotted key; keys that it lacks stay out.

    >>> filled("a: {b: 1, c: 2}  # two", {"a.c": "[3, 4]"})
    'a: {b: 1, c: [3, 4]}  # two'
    """
    root = yaml.compose(text, yaml.SafeLoader)
    found = [(node, value) for key, value in values.items() if (node := _below(root, key)) is not None]
    for node, value in sorted(found, key=lambda pair: pair[0].start_mark.index, reverse=True):  # later places first
        text = text[: node.start_mark.index] + value + text[node.end_mark.index :]
    return text


def unfilled(text: str) -> tuple[Unfilled, ...]:
    """Every value that is still marked, in the order of the lines."""
    return tuple(_marked(yaml.compose(text, yaml.SafeLoader), ""))


def _marked(node: yaml.Node | None, key: str) -> Iterator[Unfilled]:
    match node:
        case yaml.MappingNode():
            for name, value in node.value:
                yield from _marked(value, f"{key}.{name.value}".lstrip("."))
        case yaml.SequenceNode():
            for i, value in enumerate(node.value):
                yield from _marked(value, f"{key}[{i}]")
        case yaml.ScalarNode() if MARK in node.value:
            yield Unfilled(node.start_mark.line + 1, key)
