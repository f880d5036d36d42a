"""Certified rows: a proven lower bound of the margin, and with it of robust accuracy.

certified ≤ true ≤ attacked: what is proven no attack can break, and what an attack broke is not robust.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.answers import evaluate, micro_batch
from redan.certification.graph import steps_of
from redan.certification.passes import Bounds, intervals, lower, refined
from redan.certification.region import Region, region
from redan.certification.rounding import OWN, Rounding, full_precision
from redan.certification.steps import Step
from redan.engine.intake import checked_rows, count_classes
from redan.engine.run import fits_rows
from redan.errors import NotCertifiableError
from redan.protocols import Bounded
from redan.runners.local import cores, each, pieces
from redan.targets import Output, Target, TorchTarget, as_target
from redan.targets.torch import unchanged


class Method(IntEnum):
    """How a bound was found, cheapest first; each is at least as tight as those before."""

    IBP = 1
    CROWN_IBP = 2
    CROWN = 3


@dataclass(frozen=True, slots=True)
class Certificate:
    """One entry a row, in the order given.

    lower: (N,) float64, the right class's score minus the largest other is at least this everywhere in the set;
    -inf where nothing is known. certified: (N,) bool, lower > 0. method: what found the bound; a row that is
    certified by a cheap one is not tried by the next.
    """

    lower: Tensor
    certified: Tensor
    method: tuple[Method, ...]


def certified(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    within: Bounded,
    bounds: tuple[float, float] | None = None,
    most: Method = Method.CROWN,
    workers: int = 0,
) -> Certificate:
    """Which rows x (N, …) with right classes y (N,) keep their class everywhere in `within`, proven.

    within: Linf, L2 or L1, one radius or one a row. bounds: the box that inputs live in, (0, 1) unless the target
    says otherwise. most: the last method to try. workers: cores, 0 for all. Each row is bounded by itself, so no
    number depends on other rows, nor on the cores.

    The bound holds for the scores that the model computes on a CPU in its own type, rounding included, for any input
    that an attack could be credited with. Raises NotCertifiableError for a model that has no bounds here, and what
    `redan.attack` raises for rows and sets.

    >>> import torch
    >>> from redan.perturbations.norms import Linf
    >>> model = torch.nn.Linear(2, 2, bias=False).eval()
    >>> model.weight.data = torch.eye(2)
    >>> certified(model, torch.tensor([[0.9, 0.1]]), torch.tensor([0]), within=Linf(0.2)).certified
    tensor([True])
    """
    target = _certifiable(as_target(model, bounds))
    inputs, labels = checked_rows(x, y, target)
    fits_rows(within, len(inputs))
    within = within.inside(target.bounds)
    if not len(inputs):
        return Certificate(torch.zeros(0, dtype=OWN), torch.zeros(0, dtype=torch.bool), ())
    with unchanged(target), torch.no_grad():
        count_classes(target, inputs, labels)
        steps, rounding = steps_of(target, inputs.shape[1:]), Rounding(target.dtype)
        clean = evaluate(target, inputs, micro=micro_batch(inputs))
        if target.module(inputs[:1]).shape[-1] != clean.output.shape[-1]:
            raise NotCertifiableError("one number a row has no bounds here; return a score for each of the two classes")
        radii = torch.as_tensor(within.radius, dtype=OWN).expand(len(inputs)).tolist()
        blocks = pieces(len(inputs), 16, workers or cores())

        def row(i: int) -> tuple[float, Method]:
            if not bool(clean.answered[i]):
                return -math.inf, Method.IBP
            around = region(inputs[i : i + 1], within, radii[i])
            return _bounded(steps, rounding, around, int(labels[i]), clean.output[i].to(OWN), most)

        def work(block: range) -> list[tuple[float, Method]]:
            with torch.no_grad():  # a thread's own setting
                return [row(i) for i in block]

        done = dict(each(work, blocks, workers or cores(), lambda: None))
    rows = [row for at in range(len(blocks)) for row in done[at]]
    found = torch.tensor([value for value, _ in rows], dtype=OWN)
    return Certificate(found, found > 0, tuple(method for _, method in rows))


def _transformations(target: Target[Tensor]) -> list[str]:
    """What changes an input before the model sees it, by its name in the code."""
    whole = [target, *(target.module.modules() if isinstance(target, TorchTarget) else ())]
    return [type(stage).__name__ for part in whole for stage in getattr(part, "transformations", ())]


def _certifiable(target: Target[Tensor]) -> TorchTarget:
    """The target, if bounds of it can mean something."""
    before = _transformations(target)
    if before:
        raise NotCertifiableError(
            f"bounds do not follow a transformation of the inputs ({', '.join(before)}), and do not hold behind it; "
            "certify the bare model, which says nothing of what is served"
        )
    if not isinstance(target, TorchTarget):
        kind = type(target).__name__
        raise NotCertifiableError(f"{kind} is no torch module, and only those have bounds; certify the module itself")
    if target.stochastic:
        raise NotCertifiableError("a stochastic model has no one answer to bound; certify it without its noise")
    if target.output is not Output.LOGITS:
        raise NotCertifiableError("probabilities have no bounds here; return logits, without the last softmax")
    if target.dtype not in (torch.float32, torch.float64) or target.device.type != "cpu":
        raise NotCertifiableError(
            f"bounds cover the rounding of float32 and float64 on a CPU, and this model is {target.dtype} on "
            f"{target.device}; move it with model.float().cpu()"
        )
    if torch.is_autocast_enabled("cpu") or not full_precision():
        raise NotCertifiableError(
            "torch may multiply in fewer bits than the model's type has; leave autocast, call "
            "torch.set_float32_matmul_precision('highest'), and unset ONEDNN_DEFAULT_FPMATH_MODE"
        )
    odd = {str(p.dtype) for p in (*target.module.parameters(), *target.module.buffers()) if p.is_floating_point()}
    if odd - {str(target.dtype)}:
        raise NotCertifiableError(f"the model mixes the types {', '.join(sorted(odd))}; convert it to one")
    return target


def _bounded(
    steps: Sequence[Step], rounding: Rounding, around: Region, label: int, clean: Tensor, most: Method
) -> tuple[float, Method]:
    """One row's best bound, and the method that gave it. clean: the model's answer (K,) to the row as it stands."""
    bounds = intervals(steps, around, rounding)
    _same_model(bounds, clean)
    found = torch.maximum(_by_intervals(bounds, label), _by_lines(bounds, label, bends=False))
    others = clean.clone()
    others[label] = -torch.inf
    if found.min() > 0 or most is Method.IBP or not bool(clean[label] > others.max()):
        return float(found.min()), Method.IBP  # a row that is wrong as it stands has nothing to prove
    found = torch.maximum(found, _by_lines(bounds, label))
    if found.min() > 0 or most is Method.CROWN_IBP:
        return float(found.min()), Method.CROWN_IBP
    bounds = refined(steps, around, rounding)
    for bends in (False, True):
        found = torch.maximum(found, _by_lines(bounds, label, bends=bends))
    return float(found.min()), Method.CROWN


def _by_intervals(bounds: Bounds, label: int) -> Tensor:
    """Lower bounds of the label's score less each other's: (K - 1,)."""
    low, high = (part.flatten() for part in bounds.of(len(bounds.steps) - 1))
    others = torch.cat([high[:label], high[label + 1 :]])
    gap = low[label] - others
    gap = gap - 4 * torch.finfo(OWN).eps * (low[label].abs() + others.abs())
    return gap.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def _by_lines(bounds: Bounds, label: int, *, bends: bool = True) -> Tensor:
    """The same by going back: to the input, or to the last steps that bend."""
    classes = bounds.of(len(bounds.steps) - 1).low.numel()
    gaps = -torch.eye(classes, dtype=OWN)
    gaps[:, label] += 1
    keep = torch.arange(classes) != label
    return lower(bounds, len(bounds.steps) - 1, gaps[keep], bends=bends)


def _same_model(bounds: Bounds, clean: Tensor) -> None:
    """Raise NotCertifiableError where the model answers outside its own bounds: then it computes something else."""
    low, high = (part.flatten() for part in bounds.of(len(bounds.steps) - 1))
    if low.shape != clean.shape or bool(((clean < low) | (clean > high)).any()):
        raise NotCertifiableError(
            "the model's answer lies outside the bounds of its own traced graph, so it computes something else than "
            "its modules say; look for state, hooks or quantization, or leave certificates out"
        )
