"""From JSON to numbers, strictly: what does not fit is a `Misfit` with a reason, never a guess."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.wire.service import Kind, Reading

_TIE = 1e-6  # of a score: how far one that ties with the decision is put below it
_LARGEST = float(np.finfo(np.float32).max)
_SLACK = 1e-6  # how far rounding may take a probability out of [0, 1]


class Garbled(Exception):
    """An answer that is no JSON: cut off, or not JSON at all. It may be right the next time."""


class Misfit(Exception):
    """An answer that is JSON and not what was to come. It would be the same the next time."""


def parsed(body: bytes) -> Any:
    """The JSON of an answer. Raises Garbled; NaN and infinities are no JSON (RFC 8259) and a Misfit."""
    try:
        return _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise Garbled(f"{len(body)} bytes that are no whole JSON") from error


def _no_number(text: str) -> float:
    raise Misfit(f"{text} where a number is needed")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def rows_read(found: object, rows: int, reading: Reading) -> NDArray[np.float64]:
    """Answers to `rows` inputs, one entry each: (N,) or (N, K).

    An entry is a number, a list of numbers, a class's name, {class: score} with all classes, {label} or {label,
    score}, or a list of {label, score}: the best few classes, where those left out become NaN. Of scores that tie,
    the one told first stays ahead, by a millionth. Raises Misfit.
    """
    if not isinstance(found, list) or len(found) != rows:
        raise Misfit(f"{_shape(found)} where a list of {rows} answers is needed")
    read = [_entry(one, reading) for one in found]
    widths = {-1 if isinstance(one, float) else len(one) for one in read}
    if len(widths) > 1:
        raise Misfit("rows of different lengths")
    numbers = np.array(read, dtype=np.float64)
    _check(numbers, reading)
    return numbers


def paired(labels: object, scores: object, reading: Reading) -> object:
    """Labels and scores that lie apart, as lists of {label, score}; nested alike. Raises Misfit."""
    if isinstance(labels, list) and isinstance(scores, list):
        if len(labels) != len(scores):
            raise Misfit(f"{len(labels)} labels and {len(scores)} scores")
        return [paired(label, score, reading) for label, score in zip(labels, scores, strict=True)]
    return {"label": labels, "score": scores}


def _entry(one: object, reading: Reading) -> float | list[float]:
    labels = reading.kind is Kind.LABELS
    match one:
        case {"label": label, "score": score} if not labels:
            return _best_few([(label, score)], reading)
        case {"label": label} if labels:
            return _label(label, reading)
        case dict() if labels and len(one) == 1:
            return _label(next(iter(one.values())), reading)
        case dict() if not labels:
            return _named(one, reading)
        case [{"label": _, "score": _}, *_] if not labels:
            return _best_few([_pair(part) for part in one], reading)
        case list() if labels and len(one) == 1:
            return _label(one[0], reading)
        case list():
            return [_number(part) for part in one]
        case _:
            return _label(one, reading) if labels else _number(one)


def _number(one: object) -> float:
    if (type(one) is float or type(one) is int) and abs(one) <= _LARGEST:
        return float(one)
    raise Misfit(f"{_shape(one)} where a number is needed")


def _label(one: object, reading: Reading) -> float:
    """The number of a class, told by its number or name."""
    if isinstance(one, bool):
        return float(one)
    if isinstance(one, str):
        names = _names(reading)
        if one not in names:
            raise Misfit(f"the class {_quoted(one)}, which is none of those declared")
        return float(names.index(one))
    return _number(one)


def _names(reading: Reading) -> Sequence[str]:
    if reading.names is not None:
        return reading.names
    if reading.count is not None:
        return [str(number) for number in range(reading.count)]
    raise Misfit("classes by name, and no classes were declared; declare response: {classes: […]}")


def _named(scores: dict[str, object], reading: Reading) -> list[float]:
    names = _names(reading)
    missing, more = [n for n in names if n not in scores], [n for n in scores if n not in names]
    if missing or more:
        which = (
            f"no score for the class {_quoted(missing[0])}" if missing else f"a score for {_quoted(more[0])}, no class"
        )
        raise Misfit(which)
    return [_number(scores[name]) for name in names]


def _pair(part: object) -> tuple[object, object]:
    match part:
        case {"label": label, "score": score}:
            return label, score
        case _:
            raise Misfit(f"{_shape(part)} where a label with its score is needed")


def _best_few(pairs: Sequence[tuple[object, object]], reading: Reading) -> list[float]:
    names = _names(reading)
    scores = [math.nan] * len(names)
    best: int | None = None
    for label, score in pairs:
        at = _label(label, reading)
        if not (at.is_integer() and 0 <= at < len(names)):
            raise Misfit(f"the class {at:g}, where classes are 0 to {len(names) - 1}")
        index, number = int(at), _number(score)
        if not math.isnan(scores[index]):
            raise Misfit(f"two scores for the class {_quoted(names[index])}")
        scores[index] = number
        if best is None or number > scores[best]:
            best = index
    for index, number in enumerate(scores):
        if best is not None and index != best and number == scores[best]:
            scores[index] = number - _TIE * max(abs(number), _TIE)
    return scores


def _check(numbers: NDArray[np.float64], reading: Reading) -> None:
    if reading.kind in (Kind.LABELS, Kind.PROBABILITIES):
        _check_range(numbers[~np.isnan(numbers)], numbers.ndim == 2, reading)
    wide, count = numbers.ndim == 2, reading.count
    columns = numbers.shape[1] if wide else 1
    a_class_each = reading.kind in (Kind.SCORES, Kind.PROBABILITIES) or (reading.kind is Kind.LABELS and wide)
    if a_class_each and count is not None and columns != count and (columns, count) != (1, 2):
        raise Misfit(f"{columns} scores a row where {count} are needed")


def _check_range(known: NDArray[np.float64], wide: bool, reading: Reading) -> None:
    if reading.kind is Kind.PROBABILITIES:
        if known.size and not (known.min() >= -_SLACK and known.max() <= 1 + _SLACK):
            worst = known[np.abs(known - 0.5).argmax()]
            raise Misfit(f"{worst:g} where a probability is needed; are these logits?")
        return
    most = 1 if wide else None if reading.count is None else reading.count - 1
    whole = bool((known == np.floor(known)).all() and (known >= 0).all())
    if not whole or (most is not None and bool((known > most).any())):
        raise Misfit(f"{known.max():g} where a class from 0 to {'K - 1' if most is None else most} is needed")


def _quoted(text: str) -> str:
    return json.dumps(text[:40])


def _shape(found: object) -> str:
    match found:
        case list():
            return f"a list of {len(found)}"
        case dict():
            return f"an object with {', '.join(_quoted(str(key)) for key in list(found)[:3]) or 'no keys'}"
        case str():
            return f"the text {_quoted(found)}"
        case None:
            return "null"
        case _:
            return str(found)[:40]
