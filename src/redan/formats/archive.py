"""A saved program's zip archive, read once into memory: what was inspected is what is loaded, byte for byte."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from redan.errors import TargetError

_LARGER = 64 * 2**20
"""Bytes that an archive may unpack to beyond four times its own size: torch packs little but text."""


def members(path: Path) -> dict[str, bytes]:
    """The archive's files by name, without the folder that torch puts around them all.

    Raises TargetError where there is no file, no zip archive, two files of one name, or far more inside than its
    size tells: two readers could see two archives in such a file.
    """
    if not path.is_file():
        raise TargetError(f"there is no model file {path}; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if sum(info.file_size for info in infos) > 4 * path.stat().st_size + _LARGER:
                raise TargetError(f"{path.name} unpacks to far more than its size; save the model again with torch")
            found = {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise TargetError(f"{path.name} is no archive that torch writes ({error}); save the model again") from error
    if len(found) != len(infos):
        raise TargetError(f"{path.name} is no archive that torch writes: two files share a name; save the model again")
    if len({name.partition("/")[0] for name in found}) == 1:
        return {name.partition("/")[2]: data for name, data in found.items()}
    return found


def names(path: Path) -> set[str]:
    """The names of the archive's files, without the folder around them; none of what is no archive.

    Nothing is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return set()


def written(files: Mapping[str, bytes]) -> io.BytesIO:
    """The files as an archive that torch reads."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"model/{name}", data)
    stream.seek(0)
    return stream
