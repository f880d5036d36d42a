"""A model behind HTTP: asked by its protocol, many inputs at once, and never looked into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.errors import SettingError
from redan.protocols import Access
from redan.targets.base import Asked, Output, checked_bounds, shown_by
from redan.targets.outputs import as_scores
from redan.wire.client import Client
from redan.wire.ledger import Bill, Ledger
from redan.wire.messages import read_as
from redan.wire.outcome import Answer, Failure
from redan.wire.patience import Patience
from redan.wire.recognition import Recognised
from redan.wire.service import Kind, Service

_KINDS = {
    Output.LOGITS: Kind.SCORES,
    Output.PROBABILITIES: Kind.PROBABILITIES,
    Output.SIGMOIDS: Kind.PROBABILITIES,
    Output.LABELS: Kind.LABELS,
    Output.VALUE: Kind.VALUE,
}
_DATATYPES = {torch.float32: "FP32", torch.float64: "FP64"}
_BELOW = 1e-3  # of the best score that is told: how far a class that was left out is below it at the least


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An endpoint that answers inputs (N, …) in `bounds`. Build it with `from_http`.

    It asks many inputs at once by itself, so blocks of rows gain nothing by running side by side.
    """

    client: Client = field(repr=False)
    bounds: tuple[float, float]
    declared: int | None
    output: Output
    stochastic: bool
    dtype: torch.dtype

    device = torch.device("cpu")
    differentiable = False
    surrogate = False

    @property
    def access(self) -> Access:
        return shown_by(self.output)

    @property
    def classes(self) -> int | None:
        return self.declared

    def __call__(self, x: Tensor) -> Tensor:
        return self.asked(x).scores

    def asked(self, x: Tensor) -> Asked:
        """Answers to inputs (N, …), each asked once, and why rows have none.

        A row that holds NaN or infinity is not sent and has no reason: JSON has no such numbers, and the attack put
        them in. Raises TargetError where the endpoint never answered anybody.
        """
        x = x.detach()
        sent = x.flatten(1).isfinite().all(1).nonzero().flatten()
        pieces = self.client.ask(x[sent].numpy())
        reasons: dict[int, str] = {}
        answered: list[int] = []
        values: list[NDArray[np.float64]] = []
        for piece, outcome in pieces:
            rows = sent[piece.start : piece.stop].tolist()
            match outcome:
                case Answer(values=found):
                    answered += rows
                    values.append(found)
                case Failure():
                    reasons |= dict.fromkeys(rows, f"the endpoint gave no answer ({outcome})")
        if not values:
            return Asked(x.new_full((len(x), self._columns()), torch.nan), reasons)
        numbers = torch.from_numpy(np.concatenate(values)).to(x.dtype)
        some = as_scores(_filled(numbers, self.output), self.output, self.classes)
        scores = some.new_full((len(x), some.shape[1]), torch.nan)
        scores[answered] = some
        return Asked(scores, reasons)

    @property
    def ledger(self) -> Ledger:
        """Where every request is written down before it is sent."""
        return self.client.ledger

    @property
    def bill(self) -> Bill:
        """What the endpoint was sent, as the ledger has it."""
        return self.client.ledger.bill

    @property
    def unknown(self) -> tuple[str, ...]:
        """Ids of requests of earlier, killed runs that the endpoint may have answered; they are in the bill."""
        return self.client.ledger.unknown

    @property
    def recognised(self) -> Recognised:
        """Rounding and left-out classes, found from the answers so far."""
        return self.client.seen.recognised

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should tell about the answers, in sentences."""
        return (*self.client.notes, *self.recognised.notes)

    def settle(self) -> None:
        """Say that evidence of all work so far is on disk: its answers will not be given again."""
        self.client.ledger.settle()

    def close(self) -> None:
        """Let the connections and the ledger's file go."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _columns(self) -> int:
        return self.classes or max(1, self.client.seen.columns or 1)


def from_http(
    service: Service,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    classes: int | None = None,
    output: Output = Output.PROBABILITIES,
    stochastic: bool = False,
    dtype: torch.dtype = torch.float32,
    ledger: Ledger | None = None,
    patience: Patience | None = None,
) -> HttpTarget:
    """A target from an HTTP endpoint; nothing is sent before the first call.

    service: where it is and how it is asked. bounds: the box inputs live in. classes: K, needed with Output.LABELS
    unless the service's response names the classes. output: what the endpoint answers. stochastic: say so if the same
    input may get different answers. dtype: of inputs, float32 or float64. ledger: in memory unless given; with a path
    the run can be killed and go on. patience: how often and how long a failing endpoint is asked again.

    Raises SettingError for impossible values, TargetError where the secret is not in the environment or urllib3 is
    not installed, EvidenceError where the ledger cannot be used.
    """
    bounds = checked_bounds(bounds)
    if dtype not in _DATATYPES:
        raise SettingError(
            f"dtype must be torch.float32 or torch.float64, got {dtype}; choose what the model was fit on"
        )
    reading = read_as(service, _KINDS[output], classes)
    if output is Output.LABELS and reading.count is None:
        raise SettingError("an endpoint that answers class numbers needs classes=K, or response: {classes: […]}")
    client = Client(
        service, reading, ledger=ledger or Ledger(), patience=patience or Patience(), datatype=_DATATYPES[dtype]
    )
    return HttpTarget(client, bounds, reading.count, output, stochastic, dtype)


def _filled(numbers: Tensor, output: Output) -> Tensor:
    """Answers with floors for the classes that were left out, (N, K); the decision stays the endpoint's.

    Of probabilities that exclude each other the floor is the rest of the mass, spread evenly, and no more than the
    smallest that is told; of other scores it is the smallest. Each is a little below the best score.
    """
    missing = numbers.isnan()
    if not bool(missing.any()):
        return numbers
    told = numbers.nan_to_num(nan=0.0)
    best = numbers.nan_to_num(nan=-torch.inf).amax(1)
    floor = numbers.nan_to_num(nan=torch.inf).amin(1)
    if output is Output.PROBABILITIES:
        floor = floor.minimum((1 - told.sum(1)).clamp_min(0) / missing.sum(1).clamp_min(1))
    floor = floor.minimum(best - _BELOW * best.abs().clamp_min(_BELOW))
    return torch.where(missing, floor[:, None], numbers)
