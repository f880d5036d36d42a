"""The methods of `redan harden`: each is an objective, and how epochs are compared while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from redan.certification.certified_training import CertifiedTraining
from redan.certification.trainable import Relaxation
from redan.errors import SettingError
from redan.hardening import (
    AWP,
    FGSM,
    FGSM_RS,
    N_FGSM,
    TRADES,
    Adversarial,
    Certified,
    CertifiedValidation,
    Noise,
    Objective,
    SmoothAdv,
    ThroughNoise,
    Validation,
)
from redan.hardening.validation import Validates
from redan.perturbations.norms import L2, Linf
from redan.registry.defense_makers import usual_sigma

__all__ = ["EXPLAINED", "Method", "Recipe", "recipe"]


class Method(StrEnum):
    """How a model is hardened."""

    PGD_AT = "pgd-at"
    FGSM_RS = "fgsm-rs"
    N_FGSM = "n-fgsm"
    FGSM_AT = "fgsm-at"
    TRADES = "trades"
    AWP = "awp"
    IBP = "ibp"
    CROWN_IBP = "crown-ibp"
    NOISE = "noise"
    SMOOTHADV = "smoothadv"


EXPLAINED = {
    Method.PGD_AT: "adversarial training, 10 steps of PGD: where to begin (Madry 2018)",
    Method.FGSM_RS: "one step from a random start: a fifth of the price (Wong 2020)",
    Method.N_FGSM: "one step from strong noise: collapses later (de Jorge 2022)",
    Method.FGSM_AT: "one step from the row itself: cheap, and collapses most easily",
    Method.TRADES: "trades clean accuracy for robust accuracy (Zhang 2019)",
    Method.AWP: "pgd-at with perturbed weights: overfits less (Wu 2020)",
    Method.IBP: "provable in linf, from new weights: takes many epochs (Gowal 2018)",
    Method.CROWN_IBP: "the same, its bounds tighter early on, and dearer (Zhang 2020)",
    Method.NOISE: "Gaussian noise, for a model that is smoothed (Cohen 2019)",
    Method.SMOOTHADV: "noise and an attack through it, for the same (Salman 2019)",
}
"""A line of words for each method, of 68 characters at the most."""

RATE, RATE_OF_BOUNDS = 2e-3, 5e-4  # Adam's; the second is Shi's for training by bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A method within one set. rate: the learning rate where none is said. sigma: of its noise, None without. bounds:
    of training by bounds, which begins from weights that are drawn for it."""

    objective: Objective
    rate: float
    sigma: float | None = None
    bounds: CertifiedTraining | None = None

    def validation(self, x: Tensor, y: Tensor, within: Linf | L2) -> Validates:
        """How epochs are compared on held-out rows: by PGD; through the noise; by what bounds prove."""
        if self.bounds is not None:
            return CertifiedValidation(x=x, y=y, settings=self.bounds)
        if self.sigma is not None:
            return Validation(x=x, y=y, within=within, inner=ThroughNoise(sigma=self.sigma))
        return Validation(x=x, y=y, within=within)


def recipe(method: Method, within: Linf | L2, sigma: float | None = None) -> Recipe:
    """A method's recipe. sigma: of the noise, for the two that have one; by default half of the radius in L2 and the
    radius in L∞. Raises SettingError for a set or a setting that the method does not know."""
    noisy = method in (Method.NOISE, Method.SMOOTHADV)
    if sigma is not None and not noisy:
        raise SettingError(f"--sigma is for noise and smoothadv, and the method is {method}; leave it out")
    own = usual_sigma(within) if sigma is None else sigma
    match method:
        case Method.PGD_AT:
            return Recipe(objective=Adversarial(within=within), rate=RATE)
        case Method.FGSM_RS:
            return Recipe(objective=Adversarial(within=within, inner=FGSM_RS), rate=RATE)
        case Method.N_FGSM:
            return Recipe(objective=Adversarial(within=within, inner=N_FGSM), rate=RATE)
        case Method.FGSM_AT:
            return Recipe(objective=Adversarial(within=within, inner=FGSM), rate=RATE)
        case Method.TRADES:
            return Recipe(objective=TRADES(within=within), rate=RATE)
        case Method.AWP:
            return Recipe(objective=AWP(objective=Adversarial(within=within)), rate=RATE)
        case Method.NOISE:
            return Recipe(objective=Noise(sigma=own), rate=RATE, sigma=own)
        case Method.SMOOTHADV:
            return Recipe(objective=SmoothAdv(within=within, sigma=own), rate=RATE, sigma=own)
        case Method.IBP | Method.CROWN_IBP:
            if not isinstance(within, Linf):
                raise SettingError(
                    f"{method} bounds changes in linf, and this attacker's is in l2; take smoothadv, or an attacker in "
                    "linf"
                )
            how = Relaxation.INTERVALS if method is Method.IBP else Relaxation.LINES
            bounds = CertifiedTraining(radius=float(within.radius), bounds=within.bounds, relaxation=how)
            return Recipe(objective=Certified(settings=bounds), rate=RATE_OF_BOUNDS, bounds=bounds)
