"""redan shows the owner of a machine-learning model how attackers break it, proves it, and helps to hold the line.

>>> import redan
>>> redan.Linf(0.1)
Linf(radius=0.1, bounds=(0.0, 1.0))

Everything here is loaded on first use, so `import redan` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "attack": "engine.run",
    "AttackResult": "engine.run",
    "fit": "engine.fit",
    "Stamp": "evasion.universal",
    "robust_accuracy": "robustness",
    "RobustAccuracy": "robustness",
    "Mode": "robustness",
    "certified": "certification.bounds",
    "Certificate": "certification.bounds",
    "assess": "assessment",
    "certify": "assessment.certifying",
    "judge": "evidence.verdict",
    "targets": "",
    "samples": "",
    "poisoning": "",
    "extraction": "",
    "defenses": "",
    "testing": "",
    "errors": "",
    "Linf": "perturbations.norms",
    "L2": "perturbations.norms",
    "L1": "perturbations.sparse",
    "L0": "perturbations.sparse",
    "Spatial": "perturbations.spatial",
    "Untargeted": "goals",
    "Deviate": "goals",
    "FlipLabels": "goals",
    "Targeted": "goals",
    "First": "referee",
    "Closest": "referee",
    "Worst": "referee",
    "Capability": "oracle",
    "Limits": "oracle",
    "FGSM": "evasion.fgsm",
    "BIM": "evasion.bim",
    "PGD": "evasion.pgd",
    "APGD": "evasion.apgd",
    "APGDL1": "evasion.apgd_l1",
    "Square": "evasion.square",
    "SquareL2": "evasion.square",
    "SquareL1": "evasion.square",
    "RandomNoise": "evasion.noise",
    "UAP": "evasion.universal",
    "UniversalPGD": "evasion.universal",
    "SpatialGrid": "evasion.spatial",
    "MomentumFGSM": "evasion.momentum",
    "Translated": "evasion.treatments",
    "Diverse": "evasion.treatments",
    "Scaled": "evasion.treatments",
    "Variance": "evasion.treatments",
    "DDN": "evasion.ddn",
    "FMN": "evasion.fmn",
    "PDPGD": "evasion.pdpgd",
    "SigmaZero": "evasion.sigma_zero",
    "DeepFool": "evasion.deepfool",
    "FAB": "evasion.fab",
    "HopSkipJump": "evasion.hopskipjump",
    "JSMA": "evasion.jsma",
    "LBFGS": "evasion.lbfgs",
    "CarliniWagnerL2": "evasion.carlini_wagner",
    "CarliniWagnerL0": "evasion.carlini_wagner_l0",
    "CarliniWagnerLinf": "evasion.carlini_wagner_linf",
    "EAD": "evasion.ead",
    "Cascade": "evasion.cascade",
    "Restarts": "evasion.cascade",
    "Sweep": "evasion.cascade",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from redan import defenses as defenses
    from redan import errors as errors
    from redan import extraction as extraction
    from redan import poisoning as poisoning
    from redan import samples as samples
    from redan import targets as targets
    from redan import testing as testing
    from redan.assessment import assess as assess
    from redan.assessment.certifying import certify as certify
    from redan.certification.bounds import Certificate as Certificate
    from redan.certification.bounds import certified as certified
    from redan.engine.fit import fit as fit
    from redan.engine.run import AttackResult as AttackResult
    from redan.engine.run import attack as attack
    from redan.evasion.apgd import APGD as APGD
    from redan.evasion.apgd_l1 import APGDL1 as APGDL1
    from redan.evasion.bim import BIM as BIM
    from redan.evasion.carlini_wagner import CarliniWagnerL2 as CarliniWagnerL2
    from redan.evasion.carlini_wagner_l0 import CarliniWagnerL0 as CarliniWagnerL0
    from redan.evasion.carlini_wagner_linf import CarliniWagnerLinf as CarliniWagnerLinf
    from redan.evasion.cascade import Cascade as Cascade
    from redan.evasion.cascade import Restarts as Restarts
    from redan.evasion.cascade import Sweep as Sweep
    from redan.evasion.ddn import DDN as DDN
    from redan.evasion.deepfool import DeepFool as DeepFool
    from redan.evasion.ead import EAD as EAD
    from redan.evasion.fab import FAB as FAB
    from redan.evasion.fgsm import FGSM as FGSM
    from redan.evasion.fmn import FMN as FMN
    from redan.evasion.hopskipjump import HopSkipJump as HopSkipJump
    from redan.evasion.jsma import JSMA as JSMA
    from redan.evasion.lbfgs import LBFGS as LBFGS
    from redan.evasion.momentum import MomentumFGSM as MomentumFGSM
    from redan.evasion.noise import RandomNoise as RandomNoise
    from redan.evasion.pdpgd import PDPGD as PDPGD
    from redan.evasion.pgd import PGD as PGD
    from redan.evasion.sigma_zero import SigmaZero as SigmaZero
    from redan.evasion.spatial import SpatialGrid as SpatialGrid
    from redan.evasion.square import Square as Square
    from redan.evasion.square import SquareL1 as SquareL1
    from redan.evasion.square import SquareL2 as SquareL2
    from redan.evasion.treatments import Diverse as Diverse
    from redan.evasion.treatments import Scaled as Scaled
    from redan.evasion.treatments import Translated as Translated
    from redan.evasion.treatments import Variance as Variance
    from redan.evasion.universal import UAP as UAP
    from redan.evasion.universal import Stamp as Stamp
    from redan.evasion.universal import UniversalPGD as UniversalPGD
    from redan.evidence.verdict import judge as judge
    from redan.goals import Deviate as Deviate
    from redan.goals import FlipLabels as FlipLabels
    from redan.goals import Targeted as Targeted
    from redan.goals import Untargeted as Untargeted
    from redan.oracle import Capability as Capability
    from redan.oracle import Limits as Limits
    from redan.perturbations.norms import L2 as L2
    from redan.perturbations.norms import Linf as Linf
    from redan.perturbations.sparse import L0 as L0
    from redan.perturbations.sparse import L1 as L1
    from redan.perturbations.spatial import Spatial as Spatial
    from redan.referee import Closest as Closest
    from redan.referee import First as First
    from redan.referee import Worst as Worst
    from redan.robustness import Mode as Mode
    from redan.robustness import RobustAccuracy as RobustAccuracy
    from redan.robustness import robust_accuracy as robust_accuracy


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'redan' has no attribute {name!r}")
    value = (
        getattr(importlib.import_module(f"redan.{home}"), name) if home else importlib.import_module(f"redan.{name}")
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
