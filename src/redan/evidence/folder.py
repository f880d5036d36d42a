"""The run folder: an append-only log of one JSON object a line, and the inputs that were made."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from redan.errors import EvidenceError

LOG, REPORT, MODEL = "log.jsonl", "report.json", "threat-model.yaml"


def digest(content: bytes) -> str:
    """sha256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's evidence. What was written is never changed."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, out: Path) -> RunFolder:
        """A new folder `out/<UTC time>-<six hex digits>`. Raises EvidenceError if it cannot be written."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        try:
            (out / name / "inputs").mkdir(parents=True)
        except OSError as error:
            raise EvidenceError(
                f"the run folder {out / name} cannot be made ({error.strerror}); choose another with --out or run.out"
            ) from error
        return cls(out / name)

    def append(self, *records: Mapping[str, Any]) -> None:
        """A line more for each record, on disk before this returns."""
        text = "".join(
            json.dumps(r, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n" for r in records
        )
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> Iterator[dict[str, Any]]:
        """The log's lines, one at a time; a last line that was cut short is left out."""
        with (self.path / LOG).open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise EvidenceError(
                        f"line {number} of {self.path / LOG} is not JSON; the evidence was changed, run again"
                    ) from error

    def write(self, name: str, content: bytes) -> str:
        """A whole file, there or not there, and its digest."""
        target = self.path / name
        part = target.with_name(target.name + ".part")
        part.write_bytes(content)
        part.replace(target)
        return digest(content)

    def save_inputs(self, name: str, tensors: Mapping[str, torch.Tensor]) -> str:
        """Tensors as safetensors under inputs/, and the file's digest."""
        return self.write(f"inputs/{name}", save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    def load_inputs(self, name: str, expected: str) -> dict[str, torch.Tensor]:
        """Saved tensors. Raises EvidenceError if the file is gone or its bytes are not those that were logged."""
        path = self.path / "inputs" / name
        if Path(name).name != name or not path.is_file():
            raise EvidenceError(f"{path} is missing; the evidence is not complete, run again")
        if file_digest(path) != expected:
            raise EvidenceError(f"{path} is not the file that was logged; the evidence was changed, run again")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise EvidenceError(f"{path} cannot be read ({error}); run again") from error

    def remove_inputs(self, name: str) -> None:
        """Forget saved tensors: the threat model keeps none."""
        (self.path / "inputs" / name).unlink()
