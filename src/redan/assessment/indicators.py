"""Thirteen indicators of a failing attack, each with its evidence: what a run's own numbers cannot tell.

They are the checklist of Athalye, Carlini and Wagner (2018, arXiv:1802.00420, section 3.1) and of Carlini et al. (2019,
arXiv:1902.06705, section 4), and the indicators of attack failure of Pintor et al. (2022, arXiv:2106.09947). Looked at
is a sample of the rows; nothing that they find changes a row's fate. A suspicious one makes a pass impossible and
calls for a retry (`redan.assessment.retries`).
"""

from __future__ import annotations

from collections.abc import Callable

from redan.assessment import indicators_attacks as attacks
from redan.assessment import indicators_gradients as gradients
from redan.assessment.examinee import Examinee
from redan.evidence.log import Indication

INDICATORS: tuple[Callable[[Examinee], Indication], ...] = (
    gradients.zero,
    gradients.shattered,
    gradients.stochastic,
    gradients.unconverged,
    gradients.stage,
    attacks.one_step,
    attacks.not_rising,
    attacks.silent,
    attacks.doubling,
    attacks.unbounded,
    attacks.monotone,
    attacks.black_box,
    attacks.random_search,
)


def examine(examinee: Examinee, tell: Callable[[float], None] | None = None) -> list[Indication]:
    """All indicators in their order; tell is called with the share that is done."""
    found = []
    for at, indicator in enumerate(INDICATORS):
        if tell is not None:
            tell(at / len(INDICATORS))
        found.append(indicator(examinee))
    return found
