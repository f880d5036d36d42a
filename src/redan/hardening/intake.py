"""What a training is given, checked before the first step: the optimizer, the first batch, the folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from redan.errors import DataError, SettingError, TargetError
from redan.hardening.batches import Data
from redan.hardening.objectives import Objective, is_armed
from redan.hardening.passes import served


def adam(model: nn.Module) -> Optimizer:
    """The optimizer where none is given: Adam with a rate of 0.002. Raises TargetError where nothing can be trained."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise TargetError("the model has no parameters that can be trained; call requires_grad_(True) on it")
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=2e-3, fused=fused)


def placed(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A batch on the model's device, in its parameters' type."""
    like = next(p for p in model.parameters() if p.is_floating_point())
    y = y.to(like.device) if y.is_floating_point() else y.to(like.device, torch.int64)
    return x.to(like.device, like.dtype), y


def first_batch(model: nn.Module, rows: Data, objective: Objective, seed: int) -> tuple[Tensor, Tensor]:
    """The training's first batch, whose rows must lie in the box that the objective attacks in, and get logits."""
    first = next(rows.batches(0, seed), None)
    if first is None:
        raise DataError("the training rows have no batch; give some rows")
    x, y = placed(model, *first)
    if is_armed(objective):
        low, high = objective.within.bounds
        if not (float(x.min()) >= low and float(x.max()) <= high):
            raise DataError(
                f"the first batch lies between {float(x.min()):.4g} and {float(x.max()):.4g}, outside of the box "
                f"({low}, {high}); scale rows into it and normalize inside of the model, or give the set other bounds"
            )
    with served(model) as bare, torch.no_grad():
        answers = bare(x[:2])
    shape = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
    if not isinstance(answers, Tensor) or answers.dim() != 2:
        raise TargetError(
            f"the model answered {shape}, and logits (N, K) are needed; wrap it so that its forward returns "
            "the logits alone"
        )
    return x, y


def opened(folder: Path | str | None, resume: bool, state: str) -> Path | None:
    """The folder, made if need be. Raises SettingError where it holds a training that nobody asked to resume."""
    if folder is None:
        if resume:
            raise SettingError("there is nothing to resume from without a folder; give folder=")
        return None
    place = Path(folder)
    if not resume and (place / state).exists():
        raise SettingError(f"{place} holds a training already; give resume=True to go on with it, or another folder")
    place.mkdir(parents=True, exist_ok=True)
    return place
