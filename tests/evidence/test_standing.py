"""How strong the evidence for an item of a standard is: as strong as the weakest attacker's who was assessed."""

from __future__ import annotations

import pytest

from redan.evidence.log import StandardHead
from redan.evidence.report import AttackerPart, Counts
from redan.evidence.standing import standing, weakest

COUNTS = Counts(drawn=1, right=1, unanswered=0, robust=1, broken=0, errors=0, undecided=0, missing=0, held=None)


def part(name: str, strength: str) -> AttackerPart:
    return AttackerPart(
        name=name,
        kind="evasion",
        why="",
        goal="untargeted",
        impact=None,
        techniques=[],
        change=None,
        knowledge=None,
        status="assessed",
        reason=None,
        strength=strength,
        counts=None if strength == "not tested" else COUNTS,
        attacks=[],
        by_class=[],
        curve=[],
        success_8bit=None,
        diagnosis=[],
        retries=[],
        defended=[],
        certified=None,
        transfers=None,
        poisoning=None,
        extraction=None,
    )


PARTS = [part("a", "standard"), part("b", "heuristic"), part("c", "not tested"), part("d", "certified")]


def head(*attackers: str, itself: bool = False) -> StandardHead:
    return StandardHead(
        id="X.1",
        name="an item",
        text="a text",
        version="1",
        date="2026-01-01",
        source="https://example.org",
        attackers=list(attackers),
        itself=itself,
        shows="what held",
        shows_not="what did not",
    )


@pytest.mark.parametrize(
    ("attackers", "itself", "strength"),
    [
        (("a",), False, "standard"),
        (("a", "b"), False, "heuristic"),
        (("a", "d"), False, "standard"),
        (("d",), False, "certified"),
        (("c",), False, "not tested"),
        (("c",), True, "not tested"),  # what is about an attacker is not shown by a test of something else
        (("a", "c"), False, "standard"),
        ((), False, "not tested"),
        ((), True, "standard"),
    ],
)
def test_strength(attackers: tuple[str, ...], itself: bool, strength: str) -> None:
    (found,) = standing([head(*attackers, itself=itself)], PARTS)
    assert found.strength == strength
    assert (found.shows is None) == (strength == "not tested")


def test_who_was_not_tested_is_named() -> None:
    (found,) = standing([head("a", "c")], PARTS)
    assert (found.shows, found.shows_not) == ("what held", "what did not; nor anything about c")
    (none,) = standing([head("c")], PARTS)
    assert (none.shows, none.shows_not) == (None, "anything: it was not tested")


def test_the_order_of_strength() -> None:
    assert weakest(["certified", "adaptive"]) == "adaptive"
    assert weakest(["adaptive", "standard"]) == "standard"
    assert weakest([]) == "not tested"
