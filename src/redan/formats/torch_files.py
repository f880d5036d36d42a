"""Programs that PyTorch saved: TorchScript and torch.export, as modules in evaluation mode."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redan.errors import TargetError, TrainingModeError
from redan.formats.archive import members, written
from redan.formats.inspected import (
    computes_only,
    evaluates,
    evaluates_exported,
    plain_export,
    runs_nothing_unseen,
)

_DYNAMIC = "export it again with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"


def load_torchscript(path: Path | str, *, trust: bool = False) -> nn.Module:
    """A TorchScript module (`torch.jit.save`) on the CPU, as it was saved: it must be in evaluation mode.

    The file is inspected before and after it is read, so that nothing in it can touch a file or run while it is loaded
    (`redan.formats.inspected`); trust: leave that out. Frozen modules are fine: their weights are constants of the
    code, and gradients flow to the input all the same. Answers may be asked for in several threads, unless the
    module's own forward writes into itself.

    Raises TargetError for a file that cannot be read or is refused, TrainingModeError for one saved in training mode.
    """
    path = Path(path)
    files = members(path)
    if "constants.pkl" not in files:
        raise TargetError(_other(path, files, "TorchScript"))
    try:
        if not trust:
            runs_nothing_unseen(files)
        module = _loaded(files)
        if not trust:
            computes_only(module)
        for part in module.modules():
            if not hasattr(part, "training"):
                part.__dict__["training"] = (
                    False  # freezing takes the flag away, and is done to evaluating modules only
                )
        _refuse_training(module)
        evaluates(module)
    except (TargetError, TrainingModeError) as error:
        raise type(error)(f"{path.name}: {error}") from error
    return module


def _loaded(files: dict[str, bytes]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is ", DeprecationWarning)
        try:
            found: nn.Module = torch.jit.load(written(files), map_location="cpu")  # type: ignore[no-untyped-call]  # torch's
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TargetError(f"torch cannot read it ({reason[:150]}); save it again with this torch") from error
    return found


def _refuse_training(module: nn.Module) -> None:
    training = [name or "the module itself" for name, part in module.named_modules() if part.training]
    if training:
        raise TrainingModeError(
            f"{len(training)} part(s) were saved in training mode ({', '.join(training[:3])}); call model.eval() "
            "before the model is scripted or traced, and save it again"
        )


def load_export(path: Path | str, *, trust: bool = False) -> nn.Module:
    """A program of torch.export (`torch.export.save`) on the CPU, as a module for any number of rows.

    A program that takes a fixed number of rows, or a range of them, is run on pieces of that size, the last one filled
    up with copies; gradients flow through. The file is inspected before it is read, since torch.export.load unpickles
    and evaluates what stands in it (`redan.formats.inspected`); trust: leave that out.

    Raises TargetError for a file that cannot be read or is refused, TrainingModeError for a program exported in
    training mode.
    """
    path = Path(path)
    files = members(path)
    if "constants.pkl" in files or "data.pkl" in files:
        raise TargetError(_other(path, files, "torch.export"))
    try:
        program, module = _exported(files if trust else plain_export(files))
        evaluates_exported(program)
        least, most = _rows(program)
    except (TargetError, TrainingModeError) as error:
        raise type(error)(f"{path.name}: {error}") from error
    for part in module.modules():
        part.training = False  # the flag means nothing here: modes were recorded, and have been looked at
    sized = Sized(module, least, most)
    sized.training = False
    return sized


def _exported(files: dict[str, bytes]) -> tuple[torch.export.ExportedProgram, nn.Module]:
    try:
        program = torch.export.load(written(files))
        return program, program.module()
    except Exception as error:  # whatever a damaged file makes of torch's own reader
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TargetError(f"torch cannot read it ({reason[:150]}); export it again with this torch") from error


def _rows(program: torch.export.ExportedProgram) -> tuple[int, int]:
    """How many rows the program takes, from and to."""
    wanted, given = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    if len(wanted) != 1 or len(given) != 1:
        raise TargetError(
            f"the program takes {len(wanted)} inputs and gives {len(given)} outputs, but one of each is "
            "needed; export a wrapper whose forward takes the rows and returns the scores"
        )
    (rows,) = (node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name == wanted[0])
    if not isinstance(rows, Tensor) or rows.dim() == 0:
        raise TargetError("the program's input is no array of rows; export a forward that takes rows (N, …)")
    match rows.shape[0]:
        case int(fixed):
            return fixed, fixed
        case symbolic:
            symbol = symbolic.node.expr
    if not symbol.is_symbol or symbol not in program.range_constraints:
        raise TargetError(f"the program takes {symbol} rows, which not every number is; {_DYNAMIC}")
    allowed = program.range_constraints[symbol]
    return max(1, _bounded(allowed.lower)), _bounded(allowed.upper)


def _bounded(number: Any) -> int:
    return int(number) if number.is_number and abs(number) < sys.maxsize else sys.maxsize


class Sized(nn.Module):
    """A program that takes from `least` to `most` rows, for any number of them: rows (N, …) to scores (N, K)."""

    def __init__(self, program: nn.Module, least: int, most: int) -> None:
        super().__init__()
        self.program, self.least, self.most = program, least, most

    def forward(self, x: Tensor) -> Tensor:
        if self.least <= len(x) <= self.most or not len(x):
            answer: Tensor = self.program(x)
            return answer
        return torch.cat([self._piece(x[start : start + self.most]) for start in range(0, len(x), self.most)])

    def _piece(self, x: Tensor) -> Tensor:
        filled = x[torch.arange(max(len(x), self.least), device=x.device) % len(x)]
        answer: Tensor = self.program(filled)
        return answer[: len(x)]


@dataclass(frozen=True, slots=True)
class _Kind:
    marks: tuple[str, ...]
    remedy: str


_KINDS = (
    _Kind(("constants.pkl",), "it is TorchScript: name it under torchscript, or call load_torchscript"),
    _Kind(("models/model.json",), "it is a program of torch.export: name it under export, or call load_export"),
    _Kind(("data.pkl",), "it is a pickled checkpoint: name it under checkpoint, or call load_checkpoint"),
)


def _other(path: Path, files: dict[str, bytes], wanted: str) -> str:
    """What to do with a file of another kind."""
    for kind in _KINDS:
        if all(mark in files for mark in kind.marks):
            return f"{path.name} is not {wanted}; {kind.remedy}"
    return f"{path.name} is not {wanted}, nor any other file that torch writes; check the path"
