"""The inputs of a run folder, row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import Tensor

from redan.evidence.folder import RunFolder
from redan.evidence.log import BlockLine, RowLine

__all__ = ["saved_inputs"]


def saved_inputs(folder: RunFolder, attacker: str, rows: Collection[int]) -> Iterator[tuple[int, Tensor]]:
    """Some rows of an attacker with the inputs that were saved for them, of which the last counts.

    A retry's input counts where it makes things worse for the model, like its line.
    """
    worst: dict[int, float] = {}
    for segment in folder.segments():
        lines = list(folder.segment(segment))
        wanted = []
        for line in lines:
            if not isinstance(line, RowLine) or line.attacker != attacker or line.beside is not None:
                continue
            if line.row in rows and (line.retry is None or line.share > worst.get(line.row, 0.0)):
                worst[line.row] = line.share
                wanted += [] if line.saved is None else [(line.row, line.saved)]
        if wanted and isinstance(lines[0], BlockLine) and lines[0].inputs is not None:
            inputs = folder.load_inputs(lines[0].inputs, lines[0].sha256)["x"]
            yield from ((row, inputs[saved]) for row, saved in wanted if saved < len(inputs))
