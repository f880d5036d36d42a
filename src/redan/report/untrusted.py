"""Text from a report as a page may show it: names, reasons and ids come from files that somebody else wrote.

Each view escapes for its own format. What no format can escape is taken out here, once for all of them: control
characters (XML has no way to write them), lone surrogates (UTF-8 has none), and signs that only change how their
neighbors are read, so that a name could turn a sentence around.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from redan.evidence.report import Report

__all__ = ["cleaned", "visible"]

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # scripts and emoji need them
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn"})


def visible(text: str) -> str:
    """The text on one line; each character that cannot be seen is shown as U+FFFD.

    >>> visible("anyone\\nwith a\\x00camera")
    'anyone with a\N{REPLACEMENT CHARACTER}camera'
    """
    return "".join(map(_seen, re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]+", " ", text)))


def _seen(sign: str) -> str:
    hidden = unicodedata.category(sign) in _HIDDEN and sign not in _JOINERS
    return "\N{REPLACEMENT CHARACTER}" if hidden else sign


def cleaned(report: Report) -> Report:
    """The same report, every text in it made `visible`, whatever field it is in."""
    return Report.model_validate(_walked(report.model_dump()))


def _walked(value: Any) -> Any:
    match value:
        case str():
            return visible(value)
        case list():
            return [_walked(each) for each in value]
        case dict():
            return {_walked(key): _walked(each) for key, each in value.items()}
        case _:
            return value
