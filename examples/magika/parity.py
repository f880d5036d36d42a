"""Magika's model in redan: the same scores as Magika gives, and why it is not attacked yet.

Run it with `python examples/magika/parity.py`. Exit code 1 if a score differs.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import magika
import numpy as np
from numpy.typing import NDArray

from redan.errors import RedanError
from redan.formats.onnx_session import ask, open_session
from redan.targets.onnx import load_onnx

MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
LENGTH, BLOCK, PADDING = 1024, 4096, 256


def contents() -> Mapping[str, bytes]:
    """Contents of several kinds, made here."""
    table = "".join(f"{i},{i * i},{'even' if i % 2 == 0 else 'odd'}\n" for i in range(200))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("table.csv"), table, zipfile.ZIP_DEFLATED)
    return {
        "a program": Path(__file__).read_bytes(),
        "a page": b"<!DOCTYPE html>\n<html><head><title>x</title></head><body><p>words</p></body></html>\n" * 3,
        "a record": json.dumps([{"id": i, "name": f"row {i}"} for i in range(80)], indent=1).encode(),
        "a table": ("number,square,kind\n" + table).encode(),
        "an archive": archive.getvalue(),
        "a squeezed table": gzip.compress(table.encode(), mtime=0),
        "a picture": picture(24, 24),
        "noise": np.random.default_rng(0).bytes(5000),
    }


def picture(width: int, height: int) -> bytes:
    """A gray gradient as PNG (ISO/IEC 15948)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    lines = b"".join(b"\0" + bytes((10 * row + column) % 256 for column in range(width)) for row in range(height))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def features(content: bytes) -> NDArray[np.int32]:
    """What the model reads of a file: the first and the last 1,024 bytes of its text, 256 where there are none."""
    first = content[:BLOCK].lstrip()[:LENGTH]
    last = content[-BLOCK:].rstrip()[-LENGTH:]
    row = np.full(2 * LENGTH, PADDING, np.int32)
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[2 * LENGTH - len(last) :] = np.frombuffer(last, np.uint8)
    return row


def main() -> int:
    """Ask both about each content, and the model as a target of attacks."""
    theirs, session = magika.Magika(), open_session(MODEL)
    apart = 0.0
    for name, content in contents().items():
        (row,) = ask(session, features(content)[None])  # one by one, as Magika does: other batches round otherwise
        found = theirs.identify_bytes(content)
        apart = max(apart, abs(float(row.max()) - found.score))
        sys.stdout.write(f"{name:<17} {found.dl.label:<12} Magika {found.score:.6f}, redan {row.max():.6f}\n")
    sys.stdout.write(f"largest difference: {apart:.1e}\n")
    try:
        load_onnx(MODEL)
    except RedanError as refusal:
        sys.stdout.write(f"as a target: {refusal}\n")
    return int(apart > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
