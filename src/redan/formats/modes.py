"""The mode of a module: one in training mode is refused, and never switched."""

from __future__ import annotations

from torch import nn

from redan.errors import TrainingModeError


def _named(name: str, part: nn.Module) -> str:
    return f"{name or 'the module itself'} ({type(part).__name__})"


def refuse_training(model: nn.Module) -> None:
    """Raise TrainingModeError, naming up to three submodules in training mode."""
    training = [_named(name, part) for name, part in model.named_modules() if part.training]
    if training:
        more = f" and {len(training) - 3} more" if len(training) > 3 else ""
        raise TrainingModeError(
            f"{len(training)} submodule(s) are in training mode: {', '.join(training[:3])}{more}; "
            "call model.eval() before (redan never switches a mode by itself)"
        )
