"""A torchmetrics metric: robust accuracy beside accuracy, batch by batch, over any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from redan.errors import NotBuiltError
from redan.evidence.statistics import Interval, check_share, lower_bound, upper_bound
from redan.oracle import Limits
from redan.protocols import Ball
from redan.robustness import Mode, robust_accuracy
from redan.targets import Target, as_target

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise ImportError("the metric needs the package torchmetrics; run: pip install 'redan[torchmetrics]'") from error

__all__ = ["RobustAccuracy"]


class RobustAccuracy(Metric):  # type: ignore[misc]  # torchmetrics is an extra, unknown to mypy where it is missing
    """Share of rows that are answered right on the clean input and on every input that an attack found.

    `update(model, x, y)` attacks a batch: the model is an argument, so that the metric holds no copy of its weights.
    The state is three counts, which add up over batches and processes: a row's fate does not depend on its batch.
    `compute()` is k / n; `interval()` says how sure it is. The settings are those of `redan.robust_accuracy`; limits
    are for each batch, and rows that they cut off count as broken.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    robust: Tensor
    total: Tensor
    unknown: Tensor

    def __init__(
        self,
        *,
        within: Ball,
        mode: Mode | str = Mode.DEFAULT,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.within, self.mode, self.bounds, self.seed = within, Mode(mode), bounds, seed
        self.limits, self.workers = limits, workers
        for name in ("robust", "total", "unknown"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, model: nn.Module | Target[Tensor], x: Tensor, y: Tensor) -> None:
        """Attack rows x (N, …) with right classes y (N,) and count those that hold.

        Raises TrainingModeError if the model trains, and NotBuiltError for a target whose answers vary.
        """
        target = as_target(model, self.bounds)
        if target.stochastic:
            raise NotBuiltError(
                "the metric counts rows, and a stochastic model's rows are no counts; call redan.robust_accuracy on "
                "all rows at once"
            )
        score = robust_accuracy(
            target,
            x,
            y,
            within=self.within,
            mode=self.mode,
            seed=self.seed,
            limits=self.limits,
            workers=self.workers,
        )
        self.robust += score.k
        self.total += score.n
        self.unknown += score.errors + score.undecided

    def compute(self) -> Tensor:
        """k / n, in [0, 1]; 0 without rows."""
        return self.robust / self.total.clamp_min(1)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Exact two-sided interval over all rows of all processes.

        Rows that errored or were cut off count as broken below and as robust above.
        """
        check_share("confidence", confidence)
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            k, n, unknown = int(self.robust), int(self.total), int(self.unknown)
        tail = (1 - confidence) / 2
        return Interval(lower_bound(k, n, tail), upper_bound(k + unknown, n, tail), confidence)
