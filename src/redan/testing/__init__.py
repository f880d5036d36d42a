"""For tests of attacks and of set-ups: victims whose answers are known, liars, mutants, and `check_attack`.

    check_attack(MyAttack())        the conformance test: one clear error, or what was checked
    LinearVictim, SphereVictim,     models whose nearest wrong answer is known
    GridVictim
    LIARS                           set-ups that lie, each with an honest twin and the check that must name it
    MUTANTS                         attacks that are broken or cheat: DoesNothing, HalfSteps, FlippedSign, …
    VICTIMS                         ways to hide a model's gradients, put around any image classifier

Nothing here needs a test framework.
"""

from redan.testing.cases import Case
from redan.testing.check import Conformance, check_attack
from redan.testing.liars import LIARS, Liar
from redan.testing.masked import VICTIMS, Masked
from redan.testing.mutants import (
    MUTANTS,
    ClaimsSuccess,
    DoesNothing,
    EditsItsInputs,
    FlippedSign,
    HalfSteps,
    LeavesTheSet,
    NotANumber,
)
from redan.testing.victims import Bracket, GridVictim, LinearVictim, SphereVictim, dual_l2, dual_linf
from redan.testing.watch import ConformanceError

__all__ = [
    "LIARS",
    "MUTANTS",
    "VICTIMS",
    "Bracket",
    "Case",
    "ClaimsSuccess",
    "Conformance",
    "ConformanceError",
    "DoesNothing",
    "EditsItsInputs",
    "FlippedSign",
    "GridVictim",
    "HalfSteps",
    "LeavesTheSet",
    "Liar",
    "LinearVictim",
    "Masked",
    "NotANumber",
    "SphereVictim",
    "check_attack",
    "dual_l2",
    "dual_linf",
]
