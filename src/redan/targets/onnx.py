"""ONNX models: asked in onnxruntime, and climbed along a conversion to torch that answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from redan.errors import RedanError, SettingError, TargetError
from redan.formats.onnx_session import Session, ask, read_graph, refuse_discrete, start
from redan.formats.onnx_torch import GraphModule, convert, logarithmic
from redan.protocols import Access
from redan.targets.base import Output, checked_bounds, shown_by
from redan.targets.outputs import as_scores
from redan.targets.paired import Paired, paired


@dataclass(frozen=True, slots=True)
class OnnxTarget:
    """A model in onnxruntime that answers (N, K) for inputs (N, …) in `bounds`. Build it with `load_onnx`."""

    session: Session
    bounds: tuple[float, float]
    classes: int | None
    output: Output
    stochastic: bool
    dtype: torch.dtype
    mean: Tensor | None = field(default=None, repr=False)
    std: Tensor | None = field(default=None, repr=False)

    device = torch.device("cpu")
    differentiable = False
    surrogate = False

    @property
    def access(self) -> Access:
        return shown_by(self.output)

    def __call__(self, x: Tensor) -> Tensor:
        answer = ask(self.session, _normalized(self, x.detach()).numpy())
        return as_scores(torch.from_numpy(np.asarray(answer)).to(self.dtype), self.output, self.classes)


class _Converted(nn.Module):
    """The graph in torch, from the target's inputs (N, …) to its scores (N, K)."""

    def __init__(
        self, target: OnnxTarget, graph: GraphModule, type_of_graph: torch.dtype, *, pieces: int | None
    ) -> None:
        super().__init__()
        self.target, self.type_of_graph, self.pieces = target, type_of_graph, pieces
        direct = logarithmic(graph) if target.output is Output.PROBABILITIES else None
        self.graph, self.direct = direct or graph, direct is not None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = _normalized(self.target, x).to(self.type_of_graph)
        answer = self.graph(x) if self.pieces is None else _in_pieces(self.graph, x, self.pieces)
        while answer.dim() > 2 and answer.shape[-1] == 1:
            answer = answer[..., 0]
        answer = answer.to(self.target.dtype)
        if self.direct:
            # The value stops where as_scores stops; the slope goes on, so that shares that are 0 can still be climbed.
            least = float(np.log(torch.finfo(answer.dtype).tiny))
            return answer + (answer.clamp_min(least) - answer).detach()
        return as_scores(answer, self.target.output, self.target.classes)


def _in_pieces(graph: nn.Module, x: Tensor, size: int) -> Tensor:
    parts = []
    for piece in torch.split(x, size):
        full = torch.cat([piece, piece.new_zeros(size - len(piece), *piece.shape[1:])])
        parts.append(graph(full)[: len(piece)])
    return torch.cat(parts)


def _normalized(target: OnnxTarget, x: Tensor) -> Tensor:
    if target.mean is None or target.std is None:
        return x
    channel = (-1, *[1] * (x.dim() - 2))
    return (x - target.mean.reshape(channel)) / target.std.reshape(channel)


def load_onnx(
    path: Path | str,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    classes: int | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    output: Output = Output.LOGITS,
    stochastic: bool = False,
    rows: Tensor | None = None,
    gradients: bool = True,
    scores: str | None = None,
    threads: int = 1,
) -> OnnxTarget | Paired:
    """A target from an ONNX file: its answers are onnxruntime's, on the CPU.

    rows: some real inputs (N, …). With them, the graph is also converted to torch, operator by operator, and where
    the conversion answers these rows as onnxruntime does, the target has gradients. Without them, or with
    gradients=False, it is attacked by its answers alone. bounds: the box inputs live in. normalization: (mean, std)
    per channel, the second axis, applied before the model. output: what the model's numbers are. stochastic: say so if
    the same input may get different answers. scores: the name of the output to ask for, where there are several that it
    could be. threads: of onnxruntime in each call.

    Inputs get the type of the graph's input; float16 is cast to and from float32. Raises TargetError for a file that
    cannot be used or whose conversion differs, NotBuiltError for inputs of whole numbers and, where gradients are
    wanted, for operators that are not converted, SettingError for impossible values.
    """
    path = Path(path)
    bounds = checked_bounds(bounds)
    payload, graph = read_graph(path)
    session = start(path, payload, scores=scores, threads=threads, labels=output is Output.LABELS)
    refuse_discrete(session)
    dtype = torch.float64 if session.dtype == np.float64 else torch.float32
    mean = std = None
    if normalization is not None:
        mean, std = (torch.tensor(part, dtype=dtype) for part in normalization)
        if len(mean) != len(std) or bool((std <= 0).any()):
            raise SettingError("normalization needs as many standard deviations as means, all above 0; check its lists")
    target = OnnxTarget(
        session=session,
        bounds=bounds,
        classes=_classes(session, output) if classes is None else classes,
        output=output,
        stochastic=stochastic,
        dtype=dtype,
        mean=mean,
        std=std,
    )
    if rows is None or not gradients:
        return target
    return _with_gradients(target, path, graph, rows)


def _classes(session: Session, output: Output) -> int | None:
    """As many as the file says; one number a row is that of the second of two classes."""
    match output:
        case Output.LABELS:
            return None
        case Output.LOGITS | Output.PROBABILITIES if session.columns == 1:
            return 2
        case _:
            return session.columns


def _with_gradients(target: OnnxTarget, path: Path, graph: Any, rows: Tensor) -> Paired:
    session = target.session
    if target.output is Output.LABELS:
        raise TargetError(
            f"no gradients for {path.name}: it answers class numbers alone; attack it with knowledge: labels"
        )
    if not len(rows):
        raise SettingError("rows are empty, but the gradients' conversion is checked on them; give a few real inputs")
    numbers = torch.from_numpy(np.empty(0, session.dtype)).dtype
    if session.batch is not None and session.batch < len(rows):
        try:  # most graphs of a fixed number of rows take any, once their reshapes do: then a pass is one pass
            module = convert(graph, session.input, session.output, called=path.name, freed=session.batch)
            return _checked(target, _Converted(target, module, numbers, pieces=None), rows, path.name)
        except TargetError:
            pass
    module = convert(graph, session.input, session.output, called=path.name)
    return _checked(target, _Converted(target, module, numbers, pieces=session.batch), rows, path.name)


def _checked(target: OnnxTarget, module: nn.Module, rows: Tensor, called: str) -> Paired:
    try:
        return paired(target, module, rows, called=called)
    except RedanError:
        raise
    except Exception as error:
        where = " at ".join(["", *getattr(error, "__notes__", ())][:2])
        told = (str(error).strip().splitlines() or [""])[0][:160]
        raise TargetError(
            f"no gradients for {called}: its conversion to torch fails{where} ({type(error).__name__}: {told}); attack "
            "it with knowledge: scores"
        ) from error
