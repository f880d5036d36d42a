"""What is tried beside a mode's own attacks because of what is served: a detector, or several models as one.

Any attack on classes is a joint attack where the goal is `Undetected`; those here are made for the two conditions.
"""

from __future__ import annotations

from collections.abc import Sequence

from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.cascade import Sweep
from redan.evasion.ladder import Ladder
from redan.evasion.orthogonal_pgd import BalancedPGD, OrthogonalPGD
from redan.losses import margin
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Access, Bounded, needs
from redan.rejection import Lagrangian
from redan.robustness import Mode, Named
from redan.threat.model import Combine, Ensemble, Members, Model

__all__ = ["JOINT", "LEVELED", "joint_attacks", "leveled_attacks"]

JOINT: dict[str, str] = {
    "balanced-pgd": "redan's own",
    "orthogonal-pgd": "Bryniarski 2022, arXiv:2106.15023",
    "lagrangian": "Carlini and Wagner 2017, arXiv:1705.07263",
}
"""Attacks on a model and its detector at once, and their papers."""
LEVELED = "-leveled"
"""What the name of an attack ends with that climbs an ensemble as if all members were as sure."""
_STEPS = {Mode.QUICK: 50, Mode.AUDIT: 200}
_TARGETS = {Mode.QUICK: 3}
_WEIGHTS = {Mode.QUICK: (1.0, 10.0)}


def joint_attacks(mode: Mode, within: Bounded) -> tuple[Named, ...]:
    """The attacks of a mode on a model and its detector at once, in L∞, L2 and L1; none in other sets.

    Each of the nearest wrong classes is tried: one may lie where inputs are refused, and another not. quick is 50 steps
    at 3 classes and two weights of the sum; audit is 200 steps; all others are 100 steps at 9 classes and four weights.
    Balanced PGD climbs in a quarter and a half of the radius too, for most of a large ball may lie where it is refused.
    """
    if not isinstance(within, Linf | L2 | L1):
        return ()
    steps, targets = _STEPS.get(mode, 100), _TARGETS.get(mode, 9)
    inner = APGDL1(steps=steps, loss=margin) if isinstance(within, L1) else APGD(steps=steps, loss=margin)
    weights = _WEIGHTS.get(mode)
    return (
        ("balanced-pgd", Sweep(Ladder(attack=BalancedPGD(steps=steps)), targets=targets)),
        ("orthogonal-pgd", Sweep(OrthogonalPGD(steps=steps), targets=targets)),
        ("lagrangian", Lagrangian(attack=inner) if weights is None else Lagrangian(attack=inner, weights=weights)),
    )


def leveled_attacks(model: Model, attacks: Sequence[Named]) -> tuple[Named, ...]:
    """Those of the attacks that climb gradients, once more for an ensemble whose mean has a gradient of its own.

    A member that is much surer than the others hides them from it (`redan.ensembles.leveled`). A vote is climbed in
    leads already, and models that answer no classes have none.
    """
    match model:
        case Ensemble(ensemble=Members(combine=combine)) if combine is not Combine.VOTES:
            return tuple((name + LEVELED, each) for name, each in attacks if needs(each).access is Access.GRADIENTS)
    return ()
