"""What is proven of a few rows at several radii: one prover for each kind of proof, with one shape of answer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch
from redan.assessment.scaled_trees import scaled
from redan.certification.bounds import certified
from redan.certification.patch_cleanser import Masks, certify_patches, covering, usual_masks
from redan.certification.region import region
from redan.certification.smoothing import Smoothing
from redan.certification.stopping import robust_at
from redan.certification.trees import smallest_change
from redan.certification.verifier import LINEAR_BOUNDS, PATCH_CLEANSER, SMALLEST_CHANGE, SMOOTHING, Verifier
from redan.errors import NotCertifiableError
from redan.formats.forest import Forest
from redan.formats.forest_readers import load_forest
from redan.perturbations.norms import L2, Linf
from redan.targets import Affine, FunctionTarget, Target

__all__ = ["Bounds", "Cleanser", "Exact", "Proven", "Prover", "Smoothed", "exact", "right_rows", "through_scale"]

Norm: TypeAlias = type[Linf] | type[L2]


class Proven(NamedTuple):
    """What is known of n rows at R radii.

    certified: (R, n) bool, right and proven to stay so. broken: (R, n) bool, shown not to; what is neither is open.
    right: (R, n) bool, as the rows stand. asked: (R,) answers that a proof by answers took, 0 of others.
    seconds: (R,).
    """

    certified: Tensor
    broken: Tensor
    right: Tensor
    asked: Sequence[int]
    seconds: Sequence[float]


class Prover(Protocol):
    """A kind of proof, of one model."""

    @property
    def verifier(self) -> Verifier:
        """The standard's words for it."""
        ...

    def most(self, radii: Sequence[float]) -> int:
        """The answers that one row takes at the most; of proofs from layers, the clean one."""
        ...

    def __call__(self, x: Tensor, y: Tensor, radii: Sequence[float]) -> Proven:
        """Rows x (n, …), their classes y (n,), and radii from the smallest to the largest -> what is proven."""
        ...


def right_rows(target: Target[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Which rows x (n, …) the model answers right as they stand: (n,) bool; one that it failed on is not."""
    found = evaluate(target, x, micro=micro_batch(x))
    return (found.answered & (found.output.nan_to_num(nan=-torch.inf).argmax(1) == y)).cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of a torch module's scores.

    A row that was not certified at some radius is not tried at a larger one: that would cost most, and bring nothing
    but by chance. Rows that are wrong as they stand are broken.
    """

    target: Target[Tensor]
    norm: Norm
    workers: int = 0
    verifier: Verifier = field(default=LINEAR_BOUNDS, init=False)

    def most(self, radii: Sequence[float]) -> int:
        return 1 if radii else 0

    def __call__(self, x: Tensor, y: Tensor, radii: Sequence[float]) -> Proven:
        right = right_rows(self.target, x, y)
        left, found, seconds = right.clone(), [], []
        for radius in radii:
            start, rows = time.monotonic(), left.nonzero().flatten()
            within = self.norm(radius, self.target.bounds)
            try:
                left[rows] = certified(self.target, x[rows], y[rows], within=within, workers=self.workers).certified
            except NotCertifiableError as error:
                raise NotCertifiableError(f"{error}; method smoothing needs answers alone") from error
            found.append(left.clone())
            seconds.append(time.monotonic() - start)
        alike = right.expand(len(radii), -1)
        return Proven(torch.stack(found), ~alike, alike, [0] * len(radii), seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed:
    """The smoothed classifier of a model, in L2, by the sequential test; right are rows that it is shown to answer so.

    Nothing is shown of the others. A row that was not certified at some radius is not tried at a larger one.
    """

    target: Target[Tensor]
    settings: Smoothing
    seed: int = 0
    workers: int = 0
    verifier: Verifier = field(default=SMOOTHING, init=False)

    def most(self, radii: Sequence[float]) -> int:
        return (1 + len(radii)) * (self.settings.selection + self.settings.draws)

    def __call__(self, x: Tensor, y: Tensor, radii: Sequence[float]) -> Proven:
        left, found, asked, seconds = torch.ones(len(x), dtype=torch.bool), [], [], []
        for radius in (0.0, *radii):
            start, rows = time.monotonic(), left.nonzero().flatten()
            shown = robust_at(self.target, x[rows], radius, self.settings, seed=self.seed, workers=self.workers)
            left[rows] = shown.certified(y[rows], radius)
            found.append(left.clone())
            asked.append(int(shown.samples.sum()))
            seconds.append(time.monotonic() - start)
        right, *rest = found
        asked[1] += asked[0]  # whoever wants a certificate asks both
        seconds[1] += seconds[0]
        none = torch.zeros(len(rest), len(x), dtype=torch.bool)
        return Proven(torch.stack(rest), none, right.expand(len(rest), -1), asked[1:], seconds[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanser:
    """The classifier that PatchCleanser makes of a model of images. Radii are sides of square patches, in pixels.

    image: height and width.
    """

    target: Target[Tensor]
    image: tuple[int, int]
    verifier: Verifier = field(default=PATCH_CLEANSER, init=False)

    def most(self, radii: Sequence[float]) -> int:
        masks = [len(covering(*self.image, self.masks(int(size)))) for size in radii]
        return sum(each * (each + 1) // 2 for each in masks)

    def __call__(self, x: Tensor, y: Tensor, radii: Sequence[float]) -> Proven:
        found, right, seconds = [], [], []
        for size in radii:
            start = time.monotonic()
            proof = certify_patches(self.target, x, self.masks(int(size)))
            right.append(proof.prediction == y.cpu())
            found.append(proof.certified & right[-1])
            seconds.append(time.monotonic() - start)
        asked = [self.most([size]) * len(x) for size in radii]
        return Proven(torch.stack(found), ~torch.stack(right), torch.stack(right), asked, seconds)

    def masks(self, size: int) -> Masks:
        """Those for patches of this side."""
        return usual_masks(*self.image, size, self.target.bounds)


# -- trees -------------------------------------------------------------------------------------------------


_NO_SLACK = torch.zeros(1, dtype=torch.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exact:
    """The smallest change of trees: one search a row answers for all radii, and its seconds are every radius's.

    forest: in the units of the target's inputs. asked: the target that the search asks, where rounding on the way to
    the trees must not move it over a cut. slack: (d,) how far that rounding moves a cut of each column at the most;
    certified rows keep it away. A row is broken where the target itself answers wrong at what was found.
    """

    target: Target[Tensor]
    forest: Forest
    norm: Norm
    asked: Target[Tensor] | None = None
    slack: Tensor = _NO_SLACK
    seconds: float = 60.0
    verifier: Verifier = field(default=SMALLEST_CHANGE, init=False)

    def most(self, radii: Sequence[float]) -> int:
        return 1 if radii else 0

    def __call__(self, x: Tensor, y: Tensor, radii: Sequence[float]) -> Proven:
        start = time.monotonic()
        right = right_rows(self.target, x, y)
        rows = right.nonzero().flatten()
        shape = (len(radii), len(x))
        found, broken = torch.zeros(shape, dtype=torch.bool), (~right).repeat(len(radii), 1)
        if len(rows):
            nearest = smallest_change(
                self.forest,
                x[rows],
                y[rows],
                norm=self.norm,
                bounds=self.target.bounds,
                model=self.target if self.asked is None else self.asked,
                seconds=self.seconds,
            )
            wrong = self._attained(nearest.x.to(x.dtype), x[rows], y[rows])
            slack = torch.linalg.vector_norm(self.slack, ord=math.inf if self.norm is Linf else 2)
            for at, radius in enumerate(radii):
                within = self.norm(radius, self.target.bounds)
                allowed = [region(x[i : i + 1], within, radius).radius for i in rows.tolist()]
                found[at, rows] = nearest.lower > torch.tensor(allowed, dtype=torch.float64) + slack
                broken[at, rows] = wrong <= radius
        took = time.monotonic() - start
        return Proven(found, broken, right.expand(shape), [0] * len(radii), [took] * len(radii))

    def _attained(self, found: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The distance (n,) at which the target itself is seen to answer wrong; infinite where it is not.

        Asked at what was found, and a little beyond, where that lies on a cut that rounding hides.
        """
        low, high = self.target.bounds
        beyond = (found + 2 * self.slack.to(x.dtype) * (found - x).sign()).clamp(low, high)
        away = torch.full((len(x),), math.inf, dtype=torch.float64)
        for point in (beyond, found):
            length = self.norm(0.0, self.target.bounds).distance(point.double(), x.double())
            away = torch.where(right_rows(self.target, point, y), away, length.cpu())
        return away


def exact(target: Target[Tensor], path: Path, x: Tensor, norm: Norm) -> Exact:
    """The prover of a native file of trees, whose target this is; x: real rows (N, d), as the target takes them.

    Raises NotCertifiableError for a target that does more than scale columns, and what
    `redan.formats.forest_readers.load_forest` raises.
    """
    match target:
        case FunctionTarget():
            return Exact(target=target, forest=load_forest(path, x.numpy()), norm=norm)
        case Affine(target=FunctionTarget() as inner):
            rows = (x * target.scale + target.shift).to(inner.dtype)
            return through_scale(target, load_forest(path, rows.numpy()), norm)
    raise NotCertifiableError(
        f"the trees are served inside {type(target).__name__}, and the exact search knows trees alone; certify what is "
        "served with method smoothing, or leave the defense out"
    )


def through_scale(target: Affine, forest: Forest, norm: Norm) -> Exact:
    """The prover of a target that scales columns for a forest."""
    found = scaled(target, forest)
    return Exact(target=target, forest=found.forest, norm=norm, asked=found.asked, slack=found.slack)
