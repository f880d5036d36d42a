"""Turns what pydantic finds wrong with a threat-model file into sentences with a line and a dotted key.

No sentence shows a value below `http`, where a secret may have been written by mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from redan.threat.parts import either, shown
from redan.threat.schema import ThreatModel

__all__ = ["Problem", "dotted", "problems"]

Key = str | int


class Problem(NamedTuple):
    """One thing that is wrong with a file."""

    line: int
    """Where, from 1."""
    sentence: str
    """What, and what is allowed."""


def problems(error: ValidationError, root: yaml.Node) -> list[Problem]:
    """Return what is wrong with the document whose YAML nodes start at root, in the order of its lines."""
    details = error.errors(include_url=False)
    # a required key that is misspelt is one problem, not an unknown and a missing key
    meant = {_meant(each["loc"]) for each in details if each["type"] == "extra_forbidden"}
    told = [each for each in details if each["type"] != "missing" or each["loc"] not in meant]
    # a list whose entries are wrong is not too short as well
    told = [each for each in told if each["type"] != "too_short" or not _is_above(each["loc"], told)]
    return sorted((_problem(each, root) for each in told), key=lambda problem: problem.line)


def dotted(path: Sequence[Key]) -> str:
    """Return a key's full name, as in `attackers[0].change.linf`."""
    name = ""
    for i, key in enumerate(path):
        if isinstance(key, int):
            name += f"[{key}]"
        elif "auth" in path[:i] and key not in {"header", "env"}:
            name += ".…"  # a secret written in the place of a key
        else:
            plain = re.fullmatch(r"[\w-]{1,40}", key)
            name += ("." if name else "") + (key if plain else shown(key))
    return name


def _is_above(loc: tuple[Key, ...], others: Sequence[ErrorDetails]) -> bool:
    """Whether another problem lies inside the value at loc."""
    return any(len(each["loc"]) > len(loc) and each["loc"][: len(loc)] == loc for each in others)


def _problem(each: ErrorDetails, root: yaml.Node) -> Problem:
    context = each.get("ctx", {})
    path, rest, line = _locate(root, (*each["loc"], *context.get("key_below", ())))
    if each["type"] in {"missing", "wrong"}:  # about a key that may not be there
        path = [*path, *rest]
    return Problem(line, _sentence(each, context, path))


def _meant(loc: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return the loc of the known key that is nearest to the unknown key at loc, or loc itself."""
    near = difflib.get_close_matches(str(loc[-1]), list(_part_at(loc[:-1])[0].model_fields), n=1)
    return (*loc[:-1], *near) if near else loc


def _locate(root: yaml.Node, loc: Sequence[Key]) -> tuple[list[Key], list[Key], int]:
    """Return which steps of loc are in the document, which are not, and the line of the last that is."""
    node, path, rest, line = root, [], [], root.start_mark.line
    for step in loc:
        match node:
            case yaml.MappingNode():
                # the last pair of a name is the one that counts, after a merge (<<)
                found = next(((k, v) for k, v in reversed(node.value) if k.value == str(step)), None)
            case yaml.SequenceNode() if isinstance(step, int) and step < len(node.value):
                found = (node.value[step], node.value[step])
            case _:
                found = None
        if found:
            path.append(step)
            line, node = found[0].start_mark.line, found[1]
        elif not (isinstance(step, str) and step.startswith("@")):  # "@": an alternative's tag, no key
            rest.append(step)
    return path, rest, line + 1


_MUST = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "mapping_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "model_type": "must be a mapping",
    "path_type": "must be a path, written as text",
    "string_pattern_mismatch": "must not be blank",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}
"""What a key must be, by pydantic's name of the error."""
_LIMIT = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _sentence(each: ErrorDetails, context: Mapping[str, Any], path: Sequence[Key]) -> str:
    at, kind, value = dotted(path), each["type"], each["input"]
    got = "" if "http" in path else f", got {shown(value)}"
    match kind:
        case "missing":
            return _missing(each["loc"], path)
        case "extra_forbidden":
            return _unknown(each["loc"], path)
        case "alternatives":
            return _alternatives(value, context, path, got)
        case "wrong":
            return f"{at} {context['sentence']}"
        case "value_error":
            return f"{at}: {context['error']}"
        case "enum" | "literal_error":
            allowed = re.findall(r"'([^']*)'", context["expected"])
            return f"{at} must be {either(allowed)}{got}{_nearest(value, allowed)}"
        case "invalid_key":
            return f"{dotted(path[:-1])} has the key {shown(value)}, and a key must be text: put it in quotes"
        case "too_short":
            return f"{at} must have {context['min_length']} or more entries, got {context['actual_length']}"
        case "too_long":
            return f"{at} must have {context['max_length']} entries at most, got {context['actual_length']}"
        case "invalid-json-value":
            return f"{at} must be text, a number, true, false, a list or a mapping"
    if kind in _LIMIT:
        key, words = _LIMIT[kind]
        return f"{at} must be {words} {context[key]:g}{got}"
    return f"{at} {_MUST.get(kind, 'does not fit here')}{got}{_hint(kind, value)}"


def _missing(loc: Sequence[Key], path: Sequence[Key]) -> str:
    *parent, last = path
    if isinstance(last, int):
        return f"{dotted(parent)} is too short: entry {last + 1} is missing"
    field = _part_at(loc[:-1])[0].model_fields.get(last)
    words = ((field and field.description) or "").split("\n")[0].split(". ")[0].rstrip(".").replace("`", "")
    return f"{dotted(path)} is missing" + (f": {words[0].lower()}{words[1:]}" if words else "")


def _unknown(loc: Sequence[Key], path: Sequence[Key]) -> str:
    key = str(loc[-1])
    part, siblings = _part_at(loc[:-1])
    known = list(part.model_fields)
    hint = _nearest(key, known)
    for name, field in part.model_fields.items():
        if any(key in child.model_fields for child in _parts(field.annotation)):
            hint = f"; it belongs below {name}"
    owners = [_label(sibling) for sibling in siblings if key in sibling.model_fields]
    if owners:
        hint = f"; it goes with {either(owners)}, not with {_label(part)}"
    return f"{dotted(path)} is an unknown key{hint} (known here: {', '.join(known)})"


def _alternatives(value: object, context: Mapping[str, Any], path: Sequence[Key], got: str) -> str:
    given = [str(key) for key in value] if isinstance(value, Mapping) else []
    if "key" in context and isinstance(value, Mapping):  # the value of one key decides
        at, allowed = dotted([*path, context["key"]]), context["values"].split()
        if context["key"] not in given:
            return f"{at} is missing: it must be {either(allowed)}"
        wrong = value[context["key"]]
        return f"{at} must be {either(allowed)}, got {shown(wrong)}{_nearest(wrong, allowed)}"
    known = context.get("keys", "").split()
    found = [key for key in known if key in given]
    if len(found) > 1:
        return f"{dotted(path)} names {' and '.join(found)}; give exactly one of them"
    if known and given:
        got = f", got the key {shown(given[0])}{_nearest(given[0], known)}"
    else:
        got += _nearest(value, [*known, *context.get("words", "").split()])
    return f"{dotted(path)} must be {context['forms']}{got}"


def _part_at(loc: Sequence[Key]) -> tuple[type[BaseModel], list[type[BaseModel]]]:
    """Return the class of the part that loc leads to, and the alternatives that were not chosen there."""
    part: type[BaseModel] = ThreatModel
    options: list[type[BaseModel]] = []
    siblings: list[type[BaseModel]] = []
    for step in loc:
        if isinstance(step, int):
            continue
        chosen = [option for option in options if step == f"@{option.__name__}"]
        if chosen:
            part, siblings, options = chosen[0], [each for each in options if each is not chosen[0]], []
        elif step in part.model_fields:
            options, siblings = list(_parts(part.model_fields[step].annotation)), []
            part = options[0] if len(options) == 1 else part
    return part, siblings


def _parts(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the parts that an annotation allows, as they are met."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _label(part: type[BaseModel]) -> str:
    """Return what chooses the part among its alternatives: `kind: text`, or the key that only it has."""
    kind = part.model_fields.get("kind")
    return f"kind: {get_args(kind.annotation)[0]}" if kind else next(iter(part.model_fields))


def _nearest(value: object, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
    return "".join(f"; did you mean {each}?" for each in close)


def _hint(kind: str, value: object) -> str:
    """Return what to write instead, where the slip is a common one."""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if kind == "float_type" and isinstance(value, str):
        match re.split(r"\s*/\s*", value.strip()):
            case [above, below] if above.isdigit() and below.isdigit() and int(below):
                return f"; write the number itself, {int(above) / int(below):.6g}"
    return ""
