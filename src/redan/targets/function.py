"""Any function on arrays as a target: the model is asked, and never looked into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redan.errors import SettingError, TargetError
from redan.protocols import Access
from redan.targets.base import Output, checked_bounds, shown_by
from redan.targets.outputs import as_scores

_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    """A function from an array (N, …) to an array of answers. Build it with `from_function`."""

    answer: Callable[[NDArray[Any]], ArrayLike] = field(repr=False)
    bounds: tuple[float, float]
    classes: int | None
    output: Output
    stochastic: bool
    dtype: torch.dtype

    device = torch.device("cpu")
    differentiable = False
    surrogate = False

    @property
    def access(self) -> Access:
        return shown_by(self.output)

    def __call__(self, x: Tensor) -> Tensor:
        found = np.asarray(self.answer(x.detach().numpy()))
        if found.dtype == object or not (np.issubdtype(found.dtype, np.number) or found.dtype == bool):
            raise TargetError(
                f"the model answered an array of {found.dtype}, but numbers are needed; return scores (N, K), or class "
                "numbers with output=Output.LABELS"
            )
        return as_scores(torch.from_numpy(found.astype(x.detach().numpy().dtype)), self.output, self.classes)


def from_function(
    function: Callable[[NDArray[Any]], ArrayLike],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    classes: int | None = None,
    output: Output = Output.PROBABILITIES,
    stochastic: bool = False,
    dtype: torch.dtype = torch.float32,
) -> FunctionTarget:
    """A target from any function that answers arrays of inputs (N, …): a runtime, a client, another language.

    output: what it answers: scores (N, K) or (N,), or class numbers (N,), for which `classes` must be given. bounds:
    the box inputs live in. stochastic: say so if the same input may get different answers. dtype: of the arrays it
    is given, float32 or float64. It is attacked by its answers alone. Raises SettingError for impossible values.

    >>> target = from_function(lambda x: x.sum(1) > 1, classes=2, output=Output.LABELS)
    >>> target(torch.tensor([[0.1, 0.2], [0.9, 0.9]])).argmax(1).tolist()
    [0, 1]
    """
    bounds = checked_bounds(bounds)
    if output is Output.LABELS and classes is None:
        raise SettingError("a function that answers class numbers needs classes=K; a row of zeros does not tell K")
    if dtype not in _DTYPES:
        raise SettingError(
            f"dtype must be torch.float32 or torch.float64, got {dtype}; choose what the model was fit on"
        )
    return FunctionTarget(function, bounds, classes, output, stochastic, dtype)
