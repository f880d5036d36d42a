"""The run folder, on any filesystem: a log in segments that are written once, and the inputs that were made.

log/000001.jsonl     one JSON object a line; a segment is there whole, or not there
inputs/000001.safetensors
threat-model.yaml    as it was read
report.json          when the run is done; everything in it follows from the log
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load, save

from redan.errors import EvidenceError
from redan.evidence.log import Line, dumped, parsed

REPORT, MODEL = "report.json", "threat-model.yaml"
_SEGMENT = re.compile(r"(\d{6})\.jsonl")


def digest(content: bytes) -> str:
    """sha256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_url(where: str) -> bool:
    """Whether a run folder's place is an fsspec URL, and not a path."""
    return "://" in where


def _opened(where: str) -> tuple[AbstractFileSystem, str]:
    try:
        files, root = url_to_fs(where)
    except (ValueError, ImportError, OSError) as error:
        raise EvidenceError(
            f"the run folder's address cannot be used ({error}); give a folder, or the URL of a filesystem that fsspec "
            "knows and that is installed"
        ) from error
    return files, root.rstrip("/")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's evidence. What was written is never changed."""

    url: str
    """As it was given: a path, or an fsspec URL."""
    files: AbstractFileSystem
    root: str

    @property
    def id(self) -> str:
        return self.root.rsplit("/", 1)[-1]

    @classmethod
    def create(cls, out: str | Path) -> RunFolder:
        """A new folder `out/<UTC time>-<six hex digits>`. Raises EvidenceError if it cannot be written."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        url = f"{out}{'' if str(out).endswith('/') else '/'}{name}"
        folder = cls(url, *_opened(url))
        try:
            for part in ("log", "inputs"):
                folder.files.makedirs(f"{folder.root}/{part}", exist_ok=True)
        except OSError as error:
            raise EvidenceError(
                f"the run folder {url} cannot be made ({error.strerror or error}); choose another with --out or run.out"
            ) from error
        return folder

    @classmethod
    def open(cls, where: str | Path) -> RunFolder:
        """A run folder that is there. Raises EvidenceError if there is none."""
        url = str(where).rstrip("/")
        folder = cls(url, *_opened(url))
        if not folder.segments():
            raise EvidenceError(f"{url} is no run folder: it has no log; give the folder that redan assess named")
        return folder

    def segments(self) -> Sequence[str]:
        """The log's files in the order they were written."""
        try:
            self.files.invalidate_cache()
            names = [str(path).rsplit("/", 1)[-1] for path in self.files.ls(f"{self.root}/log", detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if _SEGMENT.fullmatch(name))

    def append(self, *lines: Line, name: str | None = None) -> None:
        """One segment more, on disk before this returns. name: as `fresh` gave it."""
        if lines:
            self.write(f"log/{name or self.fresh()}.jsonl", b"".join(dumped(line) for line in lines))

    def fresh(self) -> str:
        """The name of the next segment, and of the inputs that go with it."""
        segments = self.segments()
        return f"{int(segments[-1][:6]) + 1 if segments else 1:06d}"

    def lines(self) -> Iterator[Line]:
        """The log, one line at a time; a last line of a segment that was cut short is left out."""
        for segment in self.segments():
            yield from self.segment(segment)

    def segment(self, name: str) -> Iterator[Line]:
        """One segment's lines."""
        with self.files.open(f"{self.root}/log/{name}", "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield parsed(line)
                except ValueError as error:
                    raise EvidenceError(
                        f"line {number} of {self.url}/log/{name} is not a line of evidence; it was changed, run again"
                    ) from error

    def write(self, name: str, content: bytes) -> str:
        """A whole file, there or not there, and its digest."""
        path = f"{self.root}/{name}"
        if isinstance(self.files, LocalFileSystem):  # an object store does by itself what a rename does here
            part = Path(f"{path}.part")
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        else:
            self.files.pipe_file(path, content)
        return digest(content)

    def read(self, name: str) -> bytes:
        """A whole file. Raises EvidenceError if it is not there."""
        try:
            content: bytes = self.files.cat_file(f"{self.root}/{name}")
        except OSError as error:
            raise EvidenceError(f"{self.url}/{name} is missing; the evidence is not complete, run again") from error
        return content

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return bool(self.files.exists(f"{self.root}/{name}"))

    def save_inputs(self, name: str, tensors: Mapping[str, torch.Tensor]) -> str:
        """Tensors as safetensors under inputs/, and the file's digest."""
        return self.write(f"inputs/{name}", save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    def load_inputs(self, name: str, expected: str) -> dict[str, torch.Tensor]:
        """Saved tensors. Raises EvidenceError if the file is gone or its bytes are not those that were logged."""
        if "/" in name or name in ("", ".", ".."):
            raise EvidenceError(f"{self.url}: the log names inputs outside its folder; the evidence was changed")
        content = self.read(f"inputs/{name}")
        if digest(content) != expected:
            raise EvidenceError(
                f"{self.url}/inputs/{name} is not the file that was logged; the evidence was changed, run again"
            )
        try:
            return load(content)
        except SafetensorError as error:
            raise EvidenceError(f"{self.url}/inputs/{name} cannot be read ({error}); run again") from error

    def remove_inputs(self, name: str) -> None:
        """Forget saved tensors: the threat model keeps none."""
        self.files.rm_file(f"{self.root}/inputs/{name}")
