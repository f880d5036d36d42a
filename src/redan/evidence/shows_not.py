"""What an assessment does not show, whatever it found."""

from __future__ import annotations

__all__ = ["shows_not"]

_OF_ALL = (
    "Robust accuracy is what these attacks did not break; another attack can only lower it. It is no proof.",
    "Nothing is shown about changes outside the declared sets, nor about rows unlike those that were drawn.",
)

_OF_POISON = (
    "Victims are trained as the threat model's training function does it, on the rows that it names; another training "
    "may be poisoned more easily. Intervals over victims assume that their rates scatter alike on both sides.",
)

_OF_COPIES = (
    "A copy is as good as its extractor, its surrogate's form and the rows that were asked: an attacker with better "
    "ones copies more for the same money. Intervals over copies assume that their rates scatter alike on both sides.",
)

_OF_DETECTORS = (
    "An attacker who sees scores is shown how suspicious an input is, and scores where it is refused: more than most "
    "deployments show. One with surrogates has models without a detector. A row that is refused counts as held against "
    "an attack and as wrong without one; what a refusal costs whoever is refused is not counted.",
)


def shows_not(*, poison: bool, copies: bool, detector: bool) -> list[str]:
    """Sentences about every assessment, and about those with attackers who poison or copy, or with a detector."""
    return [
        *_OF_ALL,
        *(_OF_POISON if poison else ()),
        *(_OF_COPIES if copies else ()),
        *(_OF_DETECTORS if detector else ()),
    ]
