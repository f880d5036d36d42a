"""Reads a threat-model file: YAML in, a checked `ThreatModel` out, or one clear sentence a problem.

The dialect is YAML as `yaml.safe_load` reads it, with four differences that keep values what they look like:
a key may not be given twice, only true and false are truth values (yes, no, on, off are text), dates stay
text, and 1e-3 is a number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import ValidationError

from redan.errors import ThreatModelError
from redan.threat.parts import shown
from redan.threat.problems import Problem, dotted, problems
from redan.threat.schema import ThreatModel

__all__ = ["VERSION", "Loaded", "read"]

VERSION = 1
"""The version of the file's format that this redan reads."""
SHOWN = 10
"""How many problems one message lists: who sees more at once reads none."""


class Loaded(NamedTuple):
    """A threat model, and the file that it came from."""

    model: ThreatModel
    """What the file says; its paths are as written, relative to `folder`."""
    folder: Path
    """The folder of the file, absolute."""
    digest: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    content: bytes
    """The file's bytes."""
    path: Path
    """The file, absolute."""


def read(path: str | PathLike[str]) -> Loaded:
    """Read and check a threat-model file.

    Raises ThreatModelError if it cannot be read or says anything that redan does not know; the message names
    the line and the key, what is wrong and what is allowed, for ten problems at the most.
    """
    path = Path(path)
    content = _bytes(path)
    try:
        root, document = _parse(path, content)
        try:
            model = ThreatModel.model_validate(document)
        except ValidationError as error:
            raise _refusal(path, problems(error, root)) from None
    except RecursionError:
        raise ThreatModelError(f"{path} is nested too deeply to be a threat model") from None
    return Loaded(model, path.absolute().parent, hashlib.sha256(content).hexdigest(), content, path.absolute())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ThreatModelError(f"{path} does not exist; give the path of a threat-model file") from None
    except IsADirectoryError:
        raise ThreatModelError(f"{path} is a folder; give the path of a threat-model file") from None
    except PermissionError:
        raise ThreatModelError(f"{path} may not be read by this user; change its permissions") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no file system can have
        raise ThreatModelError(f"{path} cannot be read: {error}") from None


def _parse(path: Path, content: bytes) -> tuple[yaml.Node, dict[str, object]]:
    """Return the YAML nodes, which know their lines, and the document that they make."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(path, [Problem(line, "the file is not UTF-8 text; save the file as UTF-8")]) from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise ThreatModelError(f"{path} is empty; a threat model starts with redan: {VERSION}")
        slips = list(_slips(root, (), (), set()))
        if slips:
            raise _refusal(path, slips)
        document: object = loader.construct_document(root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refusal(path, [Problem(line, "the file holds a character that YAML does not allow")]) from None
    except yaml.MarkedYAMLError as error:
        raise _refusal(path, [_syntax(error)]) from None
    except ValueError:
        raise ThreatModelError(f"{path} holds a number that cannot be read; write it in decimal digits") from None
    if not isinstance(document, dict):
        got = shown(document)
        raise _refusal(path, [Problem(1, f"the file must be a mapping that starts with redan: {VERSION}, got {got}")])
    version = document.get("redan")
    if type(version) is not int or version != VERSION:  # True == 1, and no version
        _, line = next(((k, k.start_mark.line + 1) for k, _ in root.value if k.value == "redan"), (None, 1))
        got = "it is missing" if version is None else f"got {shown(version)}"
        sentence = f"redan must be {VERSION}, the version of the format that this redan reads, {got}"
        raise _refusal(path, [Problem(line, sentence)])
    return root, document


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, less what turns plain words into something else."""


_BOOL, _FLOAT, _TIMESTAMP = (f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "timestamp"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in {_BOOL, _TIMESTAMP}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _slips(
    node: yaml.Node, path: tuple[str | int, ...], above: tuple[yaml.Node, ...], done: set[int]
) -> Iterator[Problem]:
    """Yield each key that is given twice, and each part that holds itself; done: nodes that were looked at."""
    if any(node is each for each in above):
        yield Problem(node.start_mark.line + 1, f"{dotted(path)} holds itself (*alias within its &anchor)")
    if id(node) in done:  # an alias: its anchor was looked at
        return
    done.add(id(node))
    above = (*above, node)
    match node:
        case yaml.MappingNode():
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if (key.tag, name) in lines:
                    first = lines[key.tag, name]
                    yield Problem(line, f"{dotted((*path, name))} is given twice, first in line {first}; keep one")
                lines.setdefault((key.tag, name), line)
                yield from _slips(value, (*path, name), above, done)
        case yaml.SequenceNode():
            for i, value in enumerate(node.value):
                yield from _slips(value, (*path, i), above, done)


def _syntax(error: yaml.MarkedYAMLError) -> Problem:
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    # names of tags, anchors and aliases are not shown: a secret without quotes can look like one
    words = re.sub(r"(alias|anchor|tag handle|tag) '[^']*'", r"\1", error.problem or "it cannot be read")
    words = words.replace("'<stream end>'", "the end of the file").replace("'<scalar>'", "a value")
    words = re.sub(r"'<([a-z ]+)>'", r"\1", words)
    if "constructor for the tag" in words:
        words = "a tag (!) that is not read here; write text, numbers, lists and mappings"
    if "\\t" in words:
        words += "; indent with spaces, not with tabs"
    if words.startswith("but "):
        words = f"{error.context}, {words}"
    elif start and error.context and start.line + 1 != line:
        words += f" ({error.context} that starts in line {start.line + 1})"
    return Problem(line, f"the file is not valid YAML: {words}")


def _refusal(path: Path, found: Sequence[Problem]) -> ThreatModelError:
    if len(found) == 1:
        return ThreatModelError(f"{path}, line {found[0].line}: {found[0].sentence}")
    some = f"; the first {SHOWN} are" if len(found) > SHOWN else ""
    listed = [f"  line {line}: {sentence}" for line, sentence in found[:SHOWN]]
    return ThreatModelError("\n".join([f"{path} has {len(found)} problems{some}:", *listed]))
