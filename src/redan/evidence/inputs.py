"""The inputs of a run folder, row by row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from torch import Tensor

from redan.evidence.folder import RunFolder
from redan.evidence.log import BlockLine, RowLine

__all__ = ["inputs_of", "saved_inputs"]


def inputs_of(folder: RunFolder, wanted: Callable[[RowLine], bool]) -> Iterator[tuple[RowLine, Tensor]]:
    """Lines of rows that are wanted, in the order of the log, each with the input that was saved for it, if one was."""
    for segment in folder.segments():
        lines = list(folder.segment(segment))
        mine = [line for line in lines if isinstance(line, RowLine) and wanted(line)]
        if mine and isinstance(lines[0], BlockLine) and lines[0].inputs is not None:
            inputs = folder.load_inputs(lines[0].inputs, lines[0].sha256)["x"]
            for line in mine:
                if line.saved is not None and line.saved < len(inputs):
                    yield line, inputs[line.saved]


def saved_inputs(folder: RunFolder, attacker: str, rows: Collection[int]) -> Iterator[tuple[int, Tensor]]:
    """Some rows of an attacker with the inputs that were saved for them, of which the last counts.

    A retry's input counts where it makes things worse for the model, like its line.
    """
    worst: dict[int, float] = {}

    def counts(line: RowLine) -> bool:
        if line.attacker != attacker or line.beside is not None or line.row not in rows:
            return False
        if line.retry is not None and line.share <= worst.get(line.row, 0.0):
            return False
        worst[line.row] = line.share
        return True

    yield from ((line.row, x) for line, x in inputs_of(folder, counts))
