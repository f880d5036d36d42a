"""What `certify` is asked, and which prover answers it: sets of attackers, or radii and patches of the caller's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from torch import Tensor

from redan.assessment.certificates import Subject
from redan.assessment.provers import Bounds, Cleanser, Prover, Smoothed, exact
from redan.assessment.session import Prepared
from redan.certification.smoothing import Smoothing
from redan.errors import NotCertifiableError, SettingError, ThreatModelError
from redan.perturbations.norms import L2, Linf
from redan.targets import Affine
from redan.threat.attackers import Evasion
from redan.threat.changes import Change, L2Change, LinfChange
from redan.threat.model import Ensemble, Http, Trees
from redan.threat.schema import ThreatModel

__all__ = ["Asked", "How", "Norm", "Question", "check", "named", "notes", "prover_of", "questions", "set_of"]

Norm: TypeAlias = type[Linf] | type[L2]
_NAMES: Mapping[Norm, Literal["linf", "l2"]] = {Linf: "linf", L2: "l2"}


class How(StrEnum):
    """How rows are certified."""

    AUTO = "auto"
    """Exact for trees, bounds for torch modules."""
    BOUNDS = "bounds"
    """Intervals and linear relaxations of a torch module (`redan.certified`)."""
    EXACT = "exact"
    """The smallest change of trees."""
    SMOOTHING = "smoothing"
    """The vote of any model's answers under Gaussian noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the caller chose: as in `redan.assessment.certifying.certify`."""

    method: How = How.AUTO
    radii: tuple[float, ...] = ()
    patches: tuple[int, ...] = ()
    smoothing: Smoothing | None = None
    workers: int = 0

    @property
    def subject(self) -> Subject:
        """What the certificates are of."""
        if self.patches:
            return Subject.DEFENDED
        return Subject.SERVED if self.smoothing is None else Subject.SMOOTHED

    def __post_init__(self) -> None:
        if self.patches and (self.radii or self.method is not How.AUTO):
            raise SettingError("patches have a size, a method and no radius of their own; give patches alone")
        if (self.method is How.SMOOTHING) != (self.smoothing is not None):
            raise SettingError(
                "smoothing needs a sigma, its noise, and no other method takes one; give both or neither"
            )
        sizes = (*self.radii, *self.patches)
        if any(not 0 < size < math.inf for size in sizes):
            told = ", ".join(f"{size:g}" for size in sizes)
            raise SettingError(
                f"radii and patches are finite and above 0, got {told}; leave them out for the attackers'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Radii of one kind of set, smallest first. covers: for each, the attackers whose whole set it holds."""

    norm: str
    radii: tuple[float, ...]
    attackers: tuple[str, ...]
    covers: tuple[tuple[str, ...], ...]
    prover: Prover

    @property
    def most(self) -> int:
        """The answers that one row takes at the most."""
        return self.prover.most(self.radii)


def check(model: ThreatModel, asked: Asked) -> None:
    """Raise for what cannot be certified, before the model is asked anything."""
    if not asked.patches and not any(set_of(attacker.change) for attacker in _evaders(model)):
        raise ThreatModelError(
            "no evasion attacker of the file changes inputs within linf or l2, so there is no set to certify; add one, "
            "or give the size of a patch"
        )
    if model.system.detector is not None:
        raise NotCertifiableError(
            "a model with system.detector may refuse, and certificates are about what is answered; certify a file "
            "without the detector: what is proven of its model holds for every input that the detector lets through"
        )
    kind, by_answers = model.system.model, asked.method is How.SMOOTHING or bool(asked.patches)
    if isinstance(kind, Http) and not by_answers:
        raise NotCertifiableError(
            "an endpoint shows answers and no layers, so it has no bounds; certify the model's own file, or its "
            "smoothed model with method smoothing, which asks hundreds of answers a row and more"
        )
    if isinstance(kind, Ensemble) and not by_answers:
        raise NotCertifiableError(
            "an ensemble is several models, and bounds are of one; take method smoothing, which asks answers alone, or "
            "certify each member in a file of its own"
        )
    if asked.method is How.EXACT and not isinstance(kind, Trees):
        raise NotCertifiableError(
            "the exact search is for trees (XGBoost's and LightGBM's own files); leave the method to auto, or take "
            "smoothing"
        )


def notes(model: ThreatModel, asked: Asked, found: list[Question]) -> Iterator[str]:
    """Whom nothing is certified against, and radii that no row could have."""
    left = [f"{a.name} ({next(iter(type(a.change).model_fields))})" for a in _evaders(model) if not set_of(a.change)]
    if left and not asked.patches:
        yield f"nothing is certified against {', '.join(left)}"
    noise = asked.smoothing
    if noise is None:
        return
    most = noise.radius(noise.alpha ** (1 / noise.draws))
    over = sorted({radius for question in found for radius in question.radii if radius > most})
    if over:
        told = ", ".join(f"{radius:.4g}" for radius in over)
        yield (
            f"no row can have the radius {told}: sigma {noise.sigma:g} and {noise.draws:,} samples show {most:.2g} at "
            "the most; a larger sigma reaches farther"
        )


def questions(ready: Prepared, asked: Asked, x: Tensor) -> Iterator[Question]:
    """One for each norm. In L2 alone, where noise is added: an L∞ radius is that of the L2 ball around its cube.

    Raises NotCertifiableError for a model of which the method can prove nothing.
    """
    target = ready.built.target
    if asked.patches:
        if x.dim() != 4:
            raise NotCertifiableError("patches are of images (N, C, H, W), and rows are none; leave the patch out")
        sizes = tuple(sorted({float(size) for size in asked.patches}))
        cleanser = Cleanser(target=target, image=(x.shape[-2], x.shape[-1]))
        yield Question(norm="patch", radii=sizes, attackers=(), covers=((),) * len(sizes), prover=cleanser)
        return
    held: dict[Norm, dict[str, float]] = {}
    for attacker in _evaders(ready.loaded.model):
        found = set_of(attacker.change)
        if found is None:
            continue
        norm, radius = found
        if asked.smoothing is not None and norm is Linf:
            norm, radius = L2, radius * math.sqrt(math.prod(x.shape[1:]))
        held.setdefault(norm, {})[attacker.name] = radius
    for norm, own in held.items():
        radii = tuple(sorted(set(asked.radii or own.values())))
        yield Question(
            norm=_NAMES[norm],
            radii=radii,
            attackers=tuple(own),
            covers=tuple(tuple(name for name, within in own.items() if within <= radius) for radius in radii),
            prover=prover_of(ready, asked, x, norm),
        )


def _evaders(model: ThreatModel) -> list[Evasion]:
    return [attacker for attacker in model.attackers if isinstance(attacker, Evasion)]


def set_of(change: Change) -> tuple[Norm, float] | None:
    """The norm and the radius of a change that certificates can be about."""
    match change:
        case LinfChange(linf=radius):
            return Linf, radius
        case L2Change(l2=radius):
            return L2, radius
    return None


def named(norm: Norm) -> Literal["linf", "l2"]:
    """What a file calls a norm."""
    return _NAMES[norm]


def prover_of(ready: Prepared, asked: Asked, x: Tensor, norm: Norm) -> Prover:
    """What proves rows x (N, …) of the file's model. Raises NotCertifiableError for a model that has no proofs."""
    loaded, target = ready.loaded, ready.built.target
    if asked.smoothing is not None:
        seed = loaded.model.statistics.seed
        return Smoothed(target=target, settings=asked.smoothing, seed=seed, workers=asked.workers)
    match loaded.model.system.model:
        case Trees(trees=path) if asked.method is not How.BOUNDS:
            return exact(target, loaded.folder / path, x, norm)
    if isinstance(target, Affine):
        raise NotCertifiableError(
            "columns are scaled on their way to the model, and bounds know the module alone; give system.inputs.bounds "
            "and scale inside the module, or take method smoothing"
        )
    return Bounds(target=target, norm=norm, workers=asked.workers)
