"""Any JSON endpoint, by two mappings: a template for the request, paths for the response.

`request` is the JSON to send, in which the text "$row" stands for one input as nested lists, or "$rows" for a list
of inputs. `response` says where the answers lie: `scores`, `labels` or `value`, each a path of keys and positions
with dots ("result.0.scores"; "*" goes through every entry of a list; "" is the whole). `scores` and `labels` together
are the best few classes with their scores. `classes`: the names of the classes, in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import SettingError
from redan.wire.reading import Misfit, paired, parsed, rows_read
from redan.wire.service import Reading, Service

_KEYS = ("scores", "labels", "value", "classes")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping, made ready: the request's text before and after the inputs, and the paths."""

    before: str
    after: str
    single: bool
    paths: Mapping[str, tuple[str, ...]]
    reading: Reading

    def encode(self, x: NDArray[Any]) -> bytes:
        """A request for inputs (N, …); one input where the template says "$row"."""
        inputs = x[0].tolist() if self.single else x.tolist()
        return (self.before + json.dumps(inputs, allow_nan=False) + self.after).encode()

    def decode(self, body: bytes, rows: int) -> NDArray[np.float64]:
        """Answers (N,) or (N, K). Raises Garbled or Misfit."""
        answer = parsed(body)
        found = {key: _walked(answer, path, path) for key, path in self.paths.items()}
        both = len(found) == 2
        values = paired(found["labels"], found["scores"], self.reading) if both else next(iter(found.values()))
        return rows_read([values] if self.single else values, rows, self.reading)


def mapped(service: Service, reading: Reading) -> Mapped:
    """The mapping of a service. Raises SettingError where it cannot be meant so."""
    response = service.response or {}
    unknown = sorted(set(response) - set(_KEYS))
    paths = {key: _path(key, response[key]) for key in _KEYS[:3] if key in response}
    if unknown or not paths or ("value" in paths and len(paths) > 1):
        wrong = f"the unknown key {unknown[0]}" if unknown else f"{' and '.join(paths) or 'no path'}"
        raise SettingError(
            f"the endpoint's response has {wrong}; say where answers lie by one of scores, labels and value, or by "
            "scores and labels together, and add classes for their names"
        )
    slots = _slots(service.request)
    if slots not in (["$row"], ["$rows"]):
        raise SettingError(
            f'the endpoint\'s request must hold "$row" or "$rows" once, and no other text with a $ in front; it holds '
            f"{', '.join(slots) or 'none'}"
        )
    (slot,) = slots
    if slot == "$row" and service.rows_per_request > 1:
        raise SettingError(
            f'"$row" stands for one input, but rows_per_request is {service.rows_per_request}; write "$rows"'
        )
    try:
        text = json.dumps(service.request, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingError(f"the endpoint's request cannot be written as JSON: {error}; use plain values") from error
    before, after = text.split(json.dumps(slot))
    return Mapped(before, after, slot == "$row", paths, reading)


def _slots(template: object) -> list[str]:
    """Every text in a template that begins with "$"."""
    match template:
        case Mapping():
            return [slot for part in template.values() for slot in _slots(part)]
        case str():
            return [template] if template.startswith("$") else []
        case Sequence():
            return [slot for part in template for slot in _slots(part)]
        case _:
            return []


def _path(key: str, path: object) -> tuple[str, ...]:
    if not isinstance(path, str):
        raise SettingError(f'the endpoint\'s response: {key} must be a path such as "result.scores", got {path!r}')
    return tuple(path.split(".")) if path else ()


def _walked(answer: object, path: tuple[str, ...], whole: tuple[str, ...]) -> object:
    if not path:
        return answer
    first, rest = path[0], path[1:]
    match answer:
        case list() if first == "*":
            return [_walked(part, rest, whole) for part in answer]
        case list() if first.isdecimal() and int(first) < len(answer):
            return _walked(answer[int(first)], rest, whole)
        case dict() if first in answer:
            return _walked(answer[first], rest, whole)
        case _:
            raise Misfit(f"nothing at {'.'.join(whole)}")
