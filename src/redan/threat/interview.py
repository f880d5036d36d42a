"""The interview of `redan init`: questions in, answers checked one by one, a commented threat-model file out.

It knows no terminal: who answers is a function. Each answer is checked at once, by the schema, in the file as it would
be if everything that is not answered yet were left at its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import yaml
from pydantic import ValidationError

from redan.errors import SettingError
from redan.threat.asking import Answers, Question, always
from redan.threat.presets import Preset, filled, value_at
from redan.threat.problems import problems
from redan.threat.questions_attackers import ATTACKERS
from redan.threat.questions_system import SYSTEM
from redan.threat.schema import ThreatModel
from redan.threat.writing import written

__all__ = ["QUESTIONS", "Ask", "Interview", "blank", "conduct", "from_preset"]

QUESTIONS = (*SYSTEM, *ATTACKERS)
"""Everything that can be asked, in order."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # not every build of PyYAML has the fast one
Ask: TypeAlias = Callable[[Question, str, tuple[str, ...], Callable[[str], str]], str]
"""Asks a person: the question, its default, the words that may be answered if it is a choice, and a check, which
raises SettingError or returns what `Ask` has to return."""


@dataclass(frozen=True, slots=True)
class Interview:
    """What is asked, and the file that the answers make."""

    questions: tuple[Question, ...]
    write: Callable[[Answers], str]


def blank() -> Interview:
    """Everything is asked, and the file is made of the answers alone."""
    return Interview(QUESTIONS, written)


def from_preset(preset: Preset) -> Interview:
    """What a preset leaves open is asked, with its own values as defaults."""

    def defaulted(question: Question) -> Question:
        default = _shown_at(preset.text, question.key)
        default_of = question.default if default is None else lambda _: default
        return replace(question, default=default_of, when=always, needed=False)

    asked = [q for q in QUESTIONS if q.name == "model_kind" or (q.key and value_at(preset.text, q.key))]
    keys = {question.name: question.key for question in asked if question.key}
    return Interview(
        tuple(map(defaulted, asked)),
        lambda answers: filled(preset.text, {key: answers[name] for name, key in keys.items()}),
    )


def _shown_at(text: str, key: str) -> str | None:
    """A text, a number or a list of the file as a person types it; None for anything else."""
    match value_at(text, key) if key else None:
        case yaml.ScalarNode(value=value):
            return str(value)
        case yaml.SequenceNode(value=entries):
            return ", ".join(str(entry.value) for entry in entries)
    return None


def conduct(interview: Interview, given: Mapping[str, str], ask: Ask | None = None) -> str:
    """The file that the answers make.

    given: answers by the question's name. ask: who answers the rest; None: nobody, so the rest takes its defaults.
    Raises SettingError for an answer that cannot be, one that was not asked for, and, if nobody is there to ask, for
    all those together that only the owner knows.
    """
    known = {question.name for question in interview.questions}
    for name in given:
        if name not in known:
            raise SettingError(f"{_flag(name)} is not asked with a preset; change it in the file that is written")
    answers: dict[str, str] = {}
    missing: list[str] = []
    for question in interview.questions:
        check = _checker(interview, question, answers)
        if not question.when(answers):
            if question.name in given and not missing:  # else it may be the missing answer that would make it fit
                raise SettingError(f"{question.flag} does not fit the other answers; leave it out")
        elif question.name in given:
            try:
                answers[question.name] = check(given[question.name])
            except SettingError as error:
                raise SettingError(f"{question.flag}: {error}") from None
        elif ask is not None:
            answers[question.name] = ask(question, question.default(answers), question.choices(answers), check)
        else:
            answers[question.name] = question.read(question.default(answers), answers)
            missing += [question.flag] if question.needed else []
    if missing:
        flags = ", ".join(missing)
        raise SettingError(f"there is no terminal to ask on, and these flags are missing: {flags}; or give --preset")
    return interview.write(answers)


def _flag(name: str) -> str:
    return next(question.flag for question in QUESTIONS if question.name == name)


def _checker(interview: Interview, question: Question, before: Answers) -> Callable[[str], str]:
    """What turns an answer into YAML, or raises SettingError with what is wrong with it."""

    def check(said: str) -> str:
        answers = {**before, question.name: question.read(said, before)}
        for later in interview.questions:
            if later.name not in answers and later.when(answers):
                answers[later.name] = later.read(later.default(answers), answers)
        _validate(interview.write(answers))
        return answers[question.name]

    return check


def _validate(text: str) -> None:
    """Raise SettingError with the first thing that is wrong with a file."""
    try:
        ThreatModel.model_validate(yaml.load(text, _LOADER))  # noqa: S506  # safe both
    except ValidationError as error:
        root = yaml.compose(text, yaml.SafeLoader) or yaml.MappingNode("", [])
        raise SettingError(problems(error, root)[0].sentence) from None
