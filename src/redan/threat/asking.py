"""What a question of `redan init` is, and how what somebody types becomes YAML.

An answer is kept as the YAML that goes into the file, so that a preset's values and what somebody types are one kind
of thing: text in, YAML out. What an answer must be beyond its form is for the schema to say.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from redan.errors import SettingError
from redan.threat.parts import either, shown

__all__ = [
    "NOBODY",
    "NONE",
    "UNLIMITED",
    "Answers",
    "Question",
    "a_limit",
    "a_number",
    "a_text",
    "always",
    "names",
    "numbers",
    "typed",
]

Answers: TypeAlias = Mapping[str, str]
"""YAML by the question's name, of the questions before."""
NOBODY, UNLIMITED, NONE = "nobody", "unlimited", "none"


def a_text(said: str, _: Answers) -> str:
    """A line of text, in quotes where YAML would take it for something else."""
    if not said.strip() or not said.isprintable():
        raise SettingError(f"must be a line of text, got {shown(said)}")
    plain = re.fullmatch(r"[A-Za-z]([\w ()/'-]*\w)?", said) and yaml.safe_load(said) == said
    return said if plain else yaml.safe_dump(said, default_style='"', width=10**6, allow_unicode=True).strip()


def a_number(said: str, _: Answers) -> str:
    """A number, or a fraction as in 8/255."""
    above, slash, below = said.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise SettingError(f"must be a number, got {shown(said)}") from None
    if slash:
        value = float(f"{value:.6g}")
    return yaml.safe_dump(int(value) if value.is_integer() else value).removesuffix("...\n").strip()


def _list(said: str, answers: Answers, one: Callable[[str, Answers], str]) -> str:
    entries = [each.strip() for each in said.strip().strip("[]()").split(",")]
    return "[" + ", ".join(one(each, answers) for each in entries) + "]"


def numbers(said: str, answers: Answers) -> str:
    """Numbers with commas between, as in 3, 224, 224."""
    return _list(said, answers, a_number)


def names(said: str, answers: Answers) -> str:
    """Texts with commas between."""
    return _list(said, answers, a_text)


def a_limit(said: str, answers: Answers) -> str:
    """A number, or a word for no limit."""
    return said.lower() if said.lower() in {UNLIMITED, NONE} else a_number(said, answers)


def always(*_: object) -> bool:
    """Whatever the answers before."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question; on the command line its name is a flag.

    about: one line that explains it. default: what may just be confirmed. words: the answers that are allowed, if
    they are words, and fits: which of them, after the answers before. when: whether it is asked. needed: whether
    only the owner knows, so that nothing is assumed without a terminal. key: where its answer stands in a preset.
    """

    name: str
    ask: str
    about: str
    default: Callable[[Answers], str]
    form: Callable[[str, Answers], str] = a_text
    words: tuple[str, ...] = ()
    fits: Callable[[str, Answers], bool] = always
    when: Callable[[Answers], bool] = always
    needed: bool = False
    key: str = ""

    @property
    def flag(self) -> str:
        """The name as the command line has it."""
        return "--" + self.name.replace("_", "-")

    def choices(self, answers: Answers) -> tuple[str, ...]:
        """The words that may be answered after these answers; empty if any text may."""
        return tuple(word for word in self.words if self.fits(word, answers))

    def read(self, said: str, answers: Answers) -> str:
        """What was said as YAML. Raises SettingError, which goes on after the question's name: "must be …"."""
        said, choices = said.strip(), self.choices(answers)
        if not choices:
            return self.form(said, answers)
        if said.lower() not in choices:
            near = "".join(f"; did you mean {each}?" for each in difflib.get_close_matches(said, choices, n=1))
            raise SettingError(f"must be {either(choices)}, got {shown(said)}{near}")
        return {"yes": "true", "no": "false"}.get(said.lower(), said.lower())


def typed(value: str) -> Callable[[Answers], str]:
    """A default that does not depend on the answers before."""
    return lambda _: value
