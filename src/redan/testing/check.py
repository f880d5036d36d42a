"""The conformance test for attacks: `check_attack(MyAttack())` tries one on victims whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redan.perturbations.norms import L2, Linf
from redan.protocols import Attack, Ball, needs
from redan.testing.checks import CHECKS
from redan.testing.trial import MakeBall, Trial
from redan.testing.watch import ConformanceError, EndlessError


@dataclass(frozen=True, slots=True)
class Conformance:
    """What `check_attack` looked at, and found in order. sets: the perturbation sets; checks: their names."""

    attack: str
    sets: tuple[str, ...]
    checks: tuple[str, ...]
    reach: float | None


def _found(trial: Trial) -> Iterator[str]:
    """Everything that is wrong, a line each; an attack that does not end is not tried any further."""
    for check in CHECKS:
        try:
            yield from (f"{check.__name__} in {trial.name}: {problem}" for problem in check(trial))
        except EndlessError as error:
            yield f"{check.__name__} in {trial.name}: {error}"
            return
        except ConformanceError as error:
            yield f"{check.__name__} in {trial.name}: {error}"
        except Exception as error:  # an attack may raise anything: each is a finding
            yield f"{check.__name__} in {trial.name}: raised {type(error).__name__}: {error}"


def check_attack(
    attack: Attack[Any, Any],
    *,
    within: Sequence[MakeBall] | None = None,
    reach: float | None = 1.25,
    seed: int = 0,
) -> Conformance:
    """Try an attack on small victims whose answers are known, and raise if it breaks the contract.

    It is run on one row and on none, on rows all wrong already and none attackable, on two to six classes, images
    that are not square and plain vectors, in float64, with a radius a row, in other boxes, with 1, 2 and 37
    queries a row; twice with one seed, in another order, pool and number of workers; on a model that fails on
    some rows. It must never beat the optimum of a linear victim, and must end when no row is left.

    within: what makes each set, called with a radius (one, or one a row); by default Linf and L2, or the one that
    the attack's signature asks for. reach: on a two-class linear victim every row must be broken in a set this
    many times as large as the smallest that can; None for what promises nothing (random noise).
    Settings that cost little are enough: a few hundred queries rather than 5,000.

    Raises ConformanceError, one line for each failed check.

    >>> from redan.evasion.bim import BIM
    >>> check_attack(BIM(steps=3)).sets
    ('Linf', 'L2')
    """
    name, kind = type(attack).__name__, needs(attack).within
    balls: Sequence[MakeBall] = within or ((Linf, L2) if kind is Ball else (kind,))
    trials = [Trial(attack, ball, seed, reach) for ball in balls]
    failed = [problem for trial in trials for problem in _found(trial)]
    if failed:
        lines = "\n  ".join(dict.fromkeys(failed))
        raise ConformanceError(f"{name} fails the conformance test:\n  {lines}")
    return Conformance(name, tuple(t.name for t in trials), tuple(check.__name__ for check in CHECKS), reach)
