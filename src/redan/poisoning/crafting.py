"""What poisoners that craft inputs share: the surrogate, the rows they may take, and rows put back within a budget.

Crafting is done in float32 on the CPU or wherever the surrogate lies; only rows that really differ are put back, so
every other row stays as it was bit by bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.data.samples import Samples
from redan.errors import DataError, SetError, SettingError, TargetError
from redan.formats.modes import refuse_training
from redan.perturbations.norms import Linf
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import affordable

Fit: TypeAlias = Callable[[Samples, int], nn.Module]
"""Training as the attacker imitates it: `fit(samples, seed)` gives a trained module in evaluation mode."""

Surrogate: TypeAlias = nn.Module | Fit
"""A trained module in evaluation mode, or a `Fit` that trains one on the clean samples."""

RowFunction: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""A trigger: rows (N, …) in, rows (N, …) out; the rows given are not changed."""


def trained(surrogate: Surrogate, samples: Samples, seed: int) -> nn.Module:
    """The surrogate as a module in evaluation mode, trained where it has to be.

    Raises TrainingModeError if any submodule is in training mode, TargetError for what is no module.
    """
    model = surrogate if isinstance(surrogate, nn.Module) else surrogate(samples, seed)
    if not isinstance(model, nn.Module):
        raise TargetError(
            f"the surrogate's fit gave {type(model).__name__}, and gradients need a torch module; return an nn.Module"
        )
    refuse_training(model)
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws that a module makes by itself (dropout) follow the seed inside; outside, the caller's go on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed % 2**63)
        yield


def fresh(network: nn.Module) -> nn.Module:
    """A copy to train; the network given is not changed."""
    return copy.deepcopy(network)


def home(model: nn.Module) -> torch.device:
    """Where the module's first parameter lies."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def floats(x: NDArray[Any], within: Linf, device: torch.device | None = None) -> Tensor:
    """Rows (N, …) as float32. Raises DataError where they are no floating-point numbers, or outside the box."""
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"crafting needs rows of floating-point numbers, and these are {x.dtype}; scale them into {within.bounds}"
        )
    made = torch.tensor(x, dtype=torch.float32, device=device)
    if len(made) and not (float(made.min()) >= within.bounds[0] and float(made.max()) <= within.bounds[1]):
        raise DataError(
            f"rows lie between {float(made.min()):.4g} and {float(made.max()):.4g}, outside the bounds "
            f"{within.bounds}; give the bounds of the rows"
        )
    return made


def labels(y: NDArray[Any], device: torch.device | None = None) -> Tensor:
    """Class numbers (N,) as int64."""
    return torch.tensor(y.astype(np.int64), device=device)


def box(radius: float, bounds: tuple[float, float]) -> Linf:
    """The set a poison moves in. Raises SettingError unless the radius is above 0 and the box has a width."""
    if not radius > 0:
        raise SettingError(f"a poison's radius must be above 0, got {radius}; it is in units of the bounds")
    return Linf(radius, bounds)


def positive(values: Mapping[str, float]) -> None:
    """Raise SettingError for a setting, by its name, that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise SettingError(f"{name} must be above 0, got {value}; give a larger one")


def open_rows(samples: Samples, budget: Budget, label: int) -> NDArray[np.int64]:
    """Positions of the rows of one class that may be changed: (M,), ascending.

    Raises SettingError where there is none, or the budget has no row.
    """
    controlled = budget.controlled(samples)
    at: NDArray[np.int64] = controlled[samples.y[controlled] == label]
    if not len(at):
        raise SettingError(f"the attacker controls no row of class {label}; name another class or other sources")
    affordable(samples, budget)
    return at


def put(
    samples: Samples, at: NDArray[np.int64], crafted: Tensor, *, within: Linf, around: Tensor | None = None
) -> Poisoned:
    """The samples with the crafted rows (M, …) at the positions `at`, their labels as they were.

    around: what the radius is measured from, by default the clean rows. Raises SetError where a row left the set;
    rows that did not change are not listed.
    """
    clean = floats(samples.x[at], within)
    crafted = crafted.detach().cpu()
    outside = ~within.contains(crafted, clean if around is None else around.cpu())
    if bool(outside.any()):
        raise SetError(
            f"{int(outside.sum())} crafted row(s) left the radius {within.radius} or the box {within.bounds}; "
            "the poisoner must project its rows"
        )
    differ = (crafted != clean).flatten(1).any(1).numpy()
    order = np.argsort(at[differ])
    x = samples.x.copy()
    x[at[differ]] = crafted.numpy()[differ].astype(x.dtype)
    return Poisoned(samples=replace(samples, x=x), changed=at[differ][order])
