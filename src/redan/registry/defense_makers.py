"""How defenses against evasion are built, with usual settings, from what each kind of them needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor, nn

from redan.certification.bounds import Method, certified
from redan.certification.certified_training import CertifiedTraining
from redan.certification.patch_cleanser import certify_patches, usual_masks
from redan.certification.region import region
from redan.certification.smoothing import Smoothing
from redan.certification.stopping import robust_at
from redan.certification.trainable import Relaxation
from redan.certification.trees import smallest_change
from redan.ensembles.adp import ADP
from redan.ensembles.combine import Combine
from redan.ensembles.members import Members
from redan.ensembles.served import Together, together
from redan.errors import NotCertifiableError, SettingError, TargetError
from redan.formats.forest import Forest
from redan.hardening import AWP, Adversarial, Certified, Inner, Noise, SmoothAdv
from redan.hardening.objectives import Batch, Loss, Objective
from redan.perturbations.norms import L2, Linf
from redan.preprocessing.catalog import transformation_of
from redan.preprocessing.feature_squeezing import FeatureSqueezing, color_squeezers, grey_squeezers
from redan.preprocessing.transformation import Transformation
from redan.rejection.detector import Detector, Scored
from redan.rejection.features import Features
from redan.rejection.mahalanobis import mahalanobis
from redan.rejection.nearest import nearest_rows
from redan.targets import Target, TorchTarget

_NEIGHBORS = 50
_NOISE = 2  # standard deviations of noise in a radius, where none is said


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """What detectors are made of. x, y: clean training rows (N, …) and their classes (N,)."""

    target: TorchTarget
    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Claim:
    """What certificates are asked: are rows x (N, …), whose classes are y (N,), right all over `within`?

    forest: of a target that is made of trees. For patches the radius is the side of a square in pixels.
    """

    target: Target[Tensor]
    x: Tensor
    y: Tensor
    within: Linf | L2
    forest: Forest | None = None

    @property
    def radius(self) -> float:
        return float(self.within.radius)


Trains: TypeAlias = Callable[[Linf | L2], Objective]
Transforms: TypeAlias = Callable[[], Transformation]
Refuses: TypeAlias = Callable[[Fitted], Detector]
Joins: TypeAlias = Callable[[Sequence[nn.Module | Target[Tensor]]], Together]
Proves: TypeAlias = Callable[[Claim], Tensor]
"""Which rows are right and proven to stay so: (N,) bool."""

# -- training ----------------------------------------------------------------------------------------------


def adversarial(inner: Inner, alpha: float = 0.0) -> Trains:
    """Training on rows that an inner attack moved; alpha: the weight of clean ones."""
    return lambda within: Adversarial(within=within, inner=inner, alpha=alpha)


def awp(within: Linf | L2) -> Objective:
    return AWP(objective=Adversarial(within=within))


def bounded(relaxation: Relaxation) -> Trains:
    """Training by bounds. Raises SettingError for a set that is not L∞."""

    def make(within: Linf | L2) -> Objective:
        if not isinstance(within, Linf):
            raise SettingError("training by bounds is for changes in linf; take smoothadv, or a set in linf")
        radius, box = float(within.radius), within.bounds
        return Certified(settings=CertifiedTraining(radius=radius, bounds=box, relaxation=relaxation))

    return make


def noise(within: Linf | L2) -> Objective:
    return Noise(sigma=usual_sigma(within))


def smoothadv(within: Linf | L2) -> Objective:
    return SmoothAdv(within=within, sigma=usual_sigma(within))


def usual_sigma(within: Linf | L2) -> float:
    """Of noise, where none is said: half of an L2 radius, a whole L∞ one."""
    return float(within.radius) / (_NOISE if isinstance(within, L2) else 1)


def adp(_: Linf | L2) -> Objective:
    """Members that differ, whatever the set. Raises TargetError for a model that has none."""
    rows = ADP()

    def objective(model: nn.Module, batch: Batch) -> Loss:
        if not isinstance(model, Members):
            raise TargetError("training for diversity needs several members; give redan.ensembles.Members")
        return Loss(rows(model.each(batch.x), batch.y).mean())

    return objective


# -- what is served with a model ---------------------------------------------------------------------------


def transformation(name: str, **settings: object) -> Transforms:
    """A transformation of images by its name in a threat model."""
    return partial(transformation_of, name, settings)


def squeezing(fitted: Fitted) -> Detector:
    """How far answers move when details are squeezed out, of images."""
    return squeezed(fitted.target, usual_squeezers(fitted.x.shape[1], fitted.target.bounds))


def squeezed(target: Target[Tensor], squeezers: Sequence[Transformation]) -> Scored:
    """Xu et al.'s distance between the answers to raw and squeezed inputs, which is climbed by stand-ins (BPDA)."""
    return Scored(
        score=FeatureSqueezing(target=target, squeezers=tuple(squeezers)).scores,
        stochastic=target.stochastic or any(each.stochastic for each in squeezers),
        surrogate=target.surrogate or not all(each.differentiable for each in squeezers),
    )


def usual_squeezers(channels: int, bounds: tuple[float, float]) -> tuple[Transformation, ...]:
    """Those of the authors, for grey images or for colored ones."""
    return (grey_squeezers if channels == 1 else color_squeezers)(bounds)


def nearest(fitted: Fitted) -> Detector:
    return nearest_rows(Features(target=fitted.target), fitted.x, k=min(_NEIGHBORS, len(fitted.x)))


def gaussians(fitted: Fitted) -> Detector:
    return mahalanobis(Features(target=fitted.target), fitted.x, fitted.y)


def joined(how: Combine) -> Joins:
    """Several models that answer as one."""
    return partial(together, combine=how)


# -- certificates ------------------------------------------------------------------------------------------


def by_bounds(most: Method) -> Proves:
    """Bounds of a torch module's scores, up to this method."""
    return lambda claim: certified(claim.target, claim.x, claim.y, within=claim.within, most=most).certified


def by_smoothing(claim: Claim) -> Tensor:
    """Of the vote under noise, in L2. Raises NotCertifiableError for another set."""
    if not isinstance(claim.within, L2):
        raise NotCertifiableError("smoothing certifies L2 balls; take the one around the cube, of radius ε√d")
    settings = Smoothing(sigma=_NOISE * claim.radius)
    return robust_at(claim.target, claim.x, claim.radius, settings).certified(claim.y, claim.radius)


def by_search(claim: Claim) -> Tensor:
    """The smallest change of trees. Raises NotCertifiableError where there are none."""
    if claim.forest is None:
        raise NotCertifiableError("the smallest change is that of trees, and there are none; take smoothing")
    found = smallest_change(
        claim.forest, claim.x, claim.y, norm=type(claim.within), bounds=claim.target.bounds, model=claim.target
    )
    allowed = [region(claim.x[i : i + 1], claim.within, claim.radius).radius for i in range(len(claim.x))]
    return found.lower > found.lower.new_tensor(allowed)


def by_masks(claim: Claim) -> Tensor:
    """Of the model inside PatchCleanser."""
    masks = usual_masks(claim.x.shape[-2], claim.x.shape[-1], int(claim.radius), claim.target.bounds)
    found = certify_patches(claim.target, claim.x, masks)
    return found.certified & (found.prediction == claim.y.cpu())
