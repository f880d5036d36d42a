"""The process that makes poison and trains victims; `trainers` starts it. It answers one frame for each it is sent.

It runs the user's own training code, which is trusted as the threat-model file is, with one thread: a victim's bytes
do not depend on how many processes there are. Whatever that code prints goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import torch

from redan.assessment.inspection import inspected
from redan.assessment.victim import Done, clean_victim, victim, votes
from redan.assessment.workshop import Workshop, reason
from redan.errors import ThreatModelError
from redan.formats.isolated_child import read_frame, write_frame

__all__ = ["TASKS", "main"]

TASKS: Mapping[str, Callable[..., Done]] = MappingProxyType(
    {"clean": clean_victim, "victim": victim, "inspect": inspected, "votes": votes}
)
"""What can be asked for, by name: a function of the workshop and of the frame's arguments."""


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    shop: Workshop | None = None
    while True:
        try:
            header, _ = read_frame(requests)
        except EOFError:  # nobody asks any more
            return
        try:
            shop = shop or Workshop(Path(header["threat_model"]))
            if shop.digest != header["digest"]:
                raise ThreatModelError(
                    "the threat-model file changed while the run went on; put it back and go on with --resume, or "
                    "start a new run"
                )
            done = TASKS[header["task"]](shop, **header["arguments"])
        except Exception as error:  # told to whoever asked
            write_frame(replies, {"error": reason(error)[:2000]})
        else:
            write_frame(replies, {"told": done.told, "names": list(done.arrays)}, list(done.arrays.values()))


def main() -> None:
    """Serve the frames that come on stdin until it is closed."""
    torch.set_num_threads(1)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _serve(requests, replies)


def told(header: Mapping[str, Any], arrays: list[Any]) -> Done:
    """A reply as what it was made of."""
    return Done(dict(header["told"]), dict(zip(header["names"], arrays, strict=True)))


if __name__ == "__main__":
    main()
