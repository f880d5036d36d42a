"""What holds the line against evasion: each with its paper, what is served of it, and the attack that knows it.

Not here: what looks for poison among training rows (`redan.registry.detectors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from redan.certification.bounds import Method
from redan.certification.trainable import Relaxation
from redan.certification.verifier import LINEAR_BOUNDS, PATCH_CLEANSER, SMALLEST_CHANGE, SMOOTHING, Verifier
from redan.ensembles.combine import Combine
from redan.errors import SettingError
from redan.hardening import FGSM, FGSM_RS, N_FGSM, PGD_10, TRADES
from redan.registry import defense_makers as makers
from redan.registry.defense_makers import Joins, Proves, Refuses, Trains, Transforms

__all__ = [
    "CERTIFICATES",
    "DEFENSES",
    "ENSEMBLES",
    "REFUSALS",
    "TRAININGS",
    "TRANSFORMATIONS",
    "DefenseEntry",
    "Kind",
    "Retest",
    "defense",
]


class Kind(Enum):
    """Where a defense stands."""

    TRAINING = "training"
    """Before the model is served: it is trained to hold, and served as any other."""
    PREPROCESSING = "preprocessing"
    """In front of the model: inputs are transformed."""
    DETECTOR = "detector"
    """Beside the model: suspicious inputs are refused."""
    ENSEMBLE = "ensemble"
    """Several models answer as one."""
    CERTIFICATE = "certificate"
    """A proof, of the model as it is or of one that is made of it."""


class Retest(Enum):
    """The attack that knows the defense."""

    ALL = "all attacks"
    """What is served is a model like any other, with gradients of its own."""
    BPDA = "BPDA"
    """A stand-in is climbed where the defense hides its gradient (Athalye 2018)."""
    EOT = "EOT"
    """Gradients are averaged over draws of what answers at random (Athalye 2018)."""
    JOINT = "joint attack"
    """One attack on model and detector: accepted, and wrong."""
    WHOLE = "the whole"
    """The common answer is attacked, and what breaks a member is tried on the whole."""
    BRACKET = "certified rows"
    """Certified rows are attacked too: one that breaks is a contradiction."""


_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class DefenseEntry(Generic[_Made]):
    """One defense as lists and docs know it.

    make: builds it with usual settings, from what its kind needs (`redan.registry.defense_makers`). used: how it is
    chosen, on the command line, in a threat model or in Python. techniques: mitigations of MITRE ATLAS. stochastic:
    whether what is served answers at random. differentiable: whether it has a gradient of its own, so that an attack
    needs no stand-in. verifier: of a certificate, its kind of proof in the words of ISO/IEC 24029-2.
    """

    name: str
    kind: Kind
    make: _Made
    paper: str
    used: str
    retests: tuple[Retest, ...]
    techniques: tuple[str, ...]
    stochastic: bool = False
    differentiable: bool = True
    verifier: Verifier | None = None


_HARDENED, _ENSEMBLE, _VALIDATED = ("AML.M0003",), ("AML.M0006",), ("AML.M0008",)  # MITRE ATLAS
_RESTORED, _DETECTED = ("AML.M0010",), ("AML.M0015",)
_ALL, _JOINT, _BRACKET = (Retest.ALL,), (Retest.JOINT,), (Retest.BRACKET,)
_GOWAL, _XU = "Gowal 2018, arXiv:1810.12715", "Xu 2018, arXiv:1704.01155"


def _trained(name: str, make: Trains, paper: str, used: str | None = None) -> DefenseEntry[Trains]:
    """A method of `redan harden`, unless it is used otherwise."""
    return DefenseEntry(name, Kind.TRAINING, make, paper, used or f"redan harden --method {name}", _ALL, _HARDENED)


TRAININGS: tuple[DefenseEntry[Trains], ...] = (
    _trained("fgsm-at", makers.adversarial(FGSM), "Goodfellow 2015, arXiv:1412.6572"),
    _trained("pgd-at", makers.adversarial(PGD_10), "Madry 2018, arXiv:1706.06083"),
    _trained("fgsm-rs", makers.adversarial(FGSM_RS), "Wong 2020, arXiv:2001.03994"),
    _trained("n-fgsm", makers.adversarial(N_FGSM), "de Jorge 2022, arXiv:2202.01181"),
    _trained("trades", lambda within: TRADES(within=within), "Zhang 2019, arXiv:1901.08573"),
    _trained("awp", makers.awp, "Wu 2020, arXiv:2004.05884"),
    _trained("ibp", makers.bounded(Relaxation.INTERVALS), _GOWAL),
    _trained("crown-ibp", makers.bounded(Relaxation.LINES), "Zhang 2020, arXiv:1906.06316"),
    _trained("noise", makers.noise, "Cohen 2019, arXiv:1902.02918"),
    _trained("smoothadv", makers.smoothadv, "Salman 2019, arXiv:1906.04584"),
    DefenseEntry(
        "adp",
        Kind.TRAINING,
        makers.adp,
        "Pang 2019, arXiv:1901.08846",
        "redan.ensembles.ADP",
        (Retest.WHOLE,),
        (*_HARDENED, *_ENSEMBLE),
    ),
)
"""Each makes an objective of `redan.hardening.harden`, for a set."""


def _transformed(
    name: str,
    make: Transforms,
    paper: str,
    said: str,
    retests: tuple[Retest, ...],
    *,
    stochastic: bool = False,
    differentiable: bool = False,
) -> DefenseEntry[Transforms]:
    return DefenseEntry(
        name,
        Kind.PREPROCESSING,
        make,
        paper,
        f"system.defenses: [{{{name}: {said}}}]",
        retests,
        _RESTORED,
        stochastic,
        differentiable,
    )


TRANSFORMATIONS: tuple[DefenseEntry[Transforms], ...] = (
    _transformed("bit-depth", makers.transformation("bit-depth", bits=3), _XU, "{bits: 3}", (Retest.BPDA,)),
    _transformed("median", makers.transformation("median", size=2), _XU, "{size: 2}", _ALL, differentiable=True),
    _transformed(
        "non-local-means",
        makers.transformation("non-local-means"),
        "Buades 2005",
        "{}",
        _ALL,
        differentiable=True,
    ),
    _transformed(
        "jpeg",
        makers.transformation("jpeg", quality=75),
        "Dziugaite 2016, arXiv:1608.00853",
        "{quality: 75}",
        (Retest.BPDA,),
    ),
    _transformed(
        "total-variation",
        makers.transformation("total-variation"),
        "Guo 2018, arXiv:1711.00117",
        "{}",
        (Retest.BPDA, Retest.EOT),
        stochastic=True,
    ),
    _transformed(
        "resize-pad",
        makers.transformation("resize-pad", smallest=25, side=28),
        "Xie 2018, arXiv:1711.01991",
        "{smallest: 25, side: 28}",
        (Retest.EOT,),
        stochastic=True,
        differentiable=True,
    ),
    _transformed("thermometer", makers.transformation("thermometer"), "Buckman 2018", "{}", (Retest.BPDA,)),
)
"""Each makes a transformation of images in the box [0, 1]."""


REFUSALS: tuple[DefenseEntry[Refuses], ...] = (
    DefenseEntry(
        "feature-squeezing",
        Kind.DETECTOR,
        makers.squeezing,
        _XU,
        "system.detector: {feature_squeezing: {}}",
        (Retest.JOINT, Retest.BPDA),
        _DETECTED,
        differentiable=False,
    ),
    DefenseEntry(
        "nearest-rows",
        Kind.DETECTOR,
        makers.nearest,
        "Sun 2022, arXiv:2204.06507",
        "system.detector: {nearest_rows: {k: 50}}",
        _JOINT,
        _DETECTED,
    ),
    DefenseEntry(
        "mahalanobis",
        Kind.DETECTOR,
        makers.gaussians,
        "Lee 2018, arXiv:1807.03888",
        "system.detector: {mahalanobis: {}}",
        _JOINT,
        _DETECTED,
    ),
)
"""Each makes a detector, of clean training rows and a network."""


def _several(
    name: str, how: Combine, retests: tuple[Retest, ...], *, differentiable: bool = True
) -> DefenseEntry[Joins]:
    return DefenseEntry(
        name,
        Kind.ENSEMBLE,
        makers.joined(how),
        "a baseline",
        f"system.model: {{ensemble: {{members: […], combine: {how.name.lower()}}}}}",
        retests,
        _ENSEMBLE,
        differentiable=differentiable,
    )


ENSEMBLES: tuple[DefenseEntry[Joins], ...] = (
    _several("mean-logits", Combine.LOGITS, (Retest.WHOLE,)),
    _several("mean-probabilities", Combine.PROBABILITIES, (Retest.WHOLE,)),
    _several("votes", Combine.VOTES, (Retest.WHOLE, Retest.BPDA), differentiable=False),
)
"""Each makes one target of several."""


def _proven(
    name: str,
    make: Proves,
    paper: str,
    used: str,
    verifier: Verifier,
    *,
    retests: tuple[Retest, ...] = _BRACKET,
    techniques: tuple[str, ...] = _VALIDATED,
    stochastic: bool = False,
    differentiable: bool = True,
) -> DefenseEntry[Proves]:
    by = f"redan certify {used}"
    return DefenseEntry(
        name, Kind.CERTIFICATE, make, paper, by, retests, techniques, stochastic, differentiable, verifier
    )


CERTIFICATES: tuple[DefenseEntry[Proves], ...] = (
    _proven("interval-bounds", makers.by_bounds(Method.IBP), _GOWAL, "--method bounds", LINEAR_BOUNDS),
    _proven("crown", makers.by_bounds(Method.CROWN), "Zhang 2018, arXiv:1811.00866", "--method bounds", LINEAR_BOUNDS),
    _proven(
        "smallest-change",
        makers.by_search,
        "Kantchelian 2016, arXiv:1509.07892",
        "--method exact",
        SMALLEST_CHANGE,
        differentiable=False,
    ),
    _proven(
        "smoothing",
        makers.by_smoothing,
        "Cohen 2019, arXiv:1902.02918",
        "--method smoothing --sigma 0.25",
        SMOOTHING,
        retests=(Retest.BRACKET, Retest.BPDA, Retest.EOT),
        techniques=_HARDENED + _VALIDATED,
        stochastic=True,
        differentiable=False,
    ),
    _proven(
        "patch-cleanser",
        makers.by_masks,
        "Xiang 2022, arXiv:2108.09135",
        "--patch 5",
        PATCH_CLEANSER,
        techniques=_RESTORED + _VALIDATED,
        differentiable=False,
    ),
)
"""Each tells which rows are right and proven to stay so."""

DEFENSES: tuple[DefenseEntry[Any], ...] = (*TRAININGS, *TRANSFORMATIONS, *REFUSALS, *ENSEMBLES, *CERTIFICATES)


def defense(name: str) -> DefenseEntry[Any]:
    """The defense of that name. Raises SettingError with the known names."""
    found = [each for each in DEFENSES if each.name == name]
    if not found:
        known = ", ".join(each.name for each in DEFENSES)
        raise SettingError(f"there is no defense named '{name}'; redan knows {known}")
    return found[0]
