"""Robust accuracy: which attacks a mode runs, and the number with its exact interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.certification.bounds import Method, certified
from redan.engine.block import Job
from redan.engine.intake import checked_rows, count_classes, row_names
from redan.engine.outcomes import Outcomes, Status
from redan.engine.run import Progress, checked_eot, fits_rows, run
from redan.errors import NotBuiltError, SettingError
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.cascade import Restarts, Sweep
from redan.evasion.fab import FAB
from redan.evasion.fast_cascade import FastCascade, FastCascadeL2
from redan.evasion.fmn import FMN
from redan.evasion.hopskipjump import HopSkipJump
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.sigma_zero import SigmaZero
from redan.evasion.spatial import SpatialGrid
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evidence.bootstrap import bootstrap_bounds
from redan.evidence.statistics import interval
from redan.goals import Aim, Untargeted
from redan.losses import dlr, targeted_dlr
from redan.oracle import Capability, Limits, Purse
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, Bounded
from redan.registry.attacks import entry
from redan.targets import Target, as_target

Named = tuple[str, Attack[Any, Any]]


class Mode(StrEnum):
    """How much is tried."""

    QUICK = "quick"
    DEFAULT = "default"
    AUDIT = "audit"
    AUTOATTACK = "autoattack"
    """AutoAttack's standard version, to the letter: for a number beside others' (Croce and Hein 2020)."""
    AUTOATTACK_PLUS = "autoattack-plus"
    AUTOATTACK_RAND = "autoattack-rand"
    """Its version for stochastic models: gradients averaged over 20 draws."""


_MOVES = (Linf, L2, L1, L0, Spatial)
_APGD: dict[type, type[APGD] | type[APGDL1]] = {Linf: APGD, L2: APGD, L1: APGDL1}
_FAST: dict[type, type[FastCascade] | type[FastCascadeL2]] = {Linf: FastCascade, L2: FastCascadeL2}
_SQUARE: dict[type, type[Square] | type[SquareL2] | type[SquareL1]] = {Linf: Square, L2: SquareL2, L1: SquareL1}
_BY_PROTOCOL = (Mode.AUTOATTACK, Mode.AUTOATTACK_PLUS, Mode.AUTOATTACK_RAND)
_RAND_DRAWS = 20
_SQUARE_QUERIES = {Mode.QUICK: 500, Mode.DEFAULT: 1000, Mode.AUDIT: 5000}
_LABEL_QUERIES = {Mode.QUICK: 1000, Mode.DEFAULT: 5000, Mode.AUDIT: 20_000}


def attacks_of(
    mode: Mode,
    within: Bounded,
    knowledge: Access,
    classes: int,
    capability: Capability | None = None,
    *,
    surrogates: bool = False,
) -> tuple[Named, ...]:
    """The attacks of a mode, in the order they run, with their names.

    With gradients, in Linf and L2: quick is the fast cascade cut short, default the whole of it (in Linf Square has
    2,000 queries on the nearest rows), and audit adds 5,000 queries of Square on all rows that are left. In L1
    quick is APGD on cross-entropy, 50 steps; default is APGD on cross-entropy, FMN (coming from outside the ball,
    it finds answers that no climb inside it does), APGD at each of min(9, K - 1) classes on the targeted DLR loss,
    100 steps each, and Square with 1,000 queries; audit is the same with 5,000. With scores: Square, with all the
    queries that the attacker may spend. With labels alone, in Linf and L2: HopSkipJump with all of them; where he
    has no limit, with 1,000, 5,000 or 20,000 by the mode, which are the budgets of its paper (Chen 2020, table II).
    In L0 sigma-zero, and in default and audit FMN. With surrogates (whose the gradients are): MI-FGSM, and in
    default and audit its variance-tuned and its translation-invariant, diverse forms. Shifts and turns are tried on
    a grid, whatever is known. autoattack, autoattack-plus and autoattack-rand are the authors' protocol in
    Linf, L2 and L1, with the steps, targets, restarts and queries of their code. Raises NotBuiltError where a mode has
    no attacks.
    """
    kind = type(within)
    most = capability.queries_per_row if capability else None
    if kind not in _MOVES:
        raise NotBuiltError(f"the {kind.__name__} attacks are not built yet")
    if mode in _BY_PROTOCOL:
        return _autoattack(mode, kind, knowledge, classes, surrogates=surrogates)
    if kind is Spatial:
        return (("spatial-grid", SpatialGrid(queries=most or 774)),)
    if knowledge < Access.SCORES:
        return _by_labels(mode, kind, most)
    if kind is L0:
        return _sparse(mode, knowledge)
    if surrogates:
        return _transferred(mode)
    queries = _SQUARE_QUERIES[mode] if knowledge == Access.GRADIENTS or most is None else most
    square = ("square", _SQUARE[kind](queries=queries))
    if knowledge == Access.SCORES:
        return (square,)
    if kind in _FAST:
        cascade = ("fast-cascade", _FAST[kind](thorough=mode is not Mode.QUICK))
        return (cascade, square) if mode is Mode.AUDIT else (cascade,)
    if mode is Mode.QUICK:
        return (("apgd-ce", APGDL1(steps=50)),)
    targeted = Sweep(APGDL1(loss=targeted_dlr), targets=min(9, classes - 1))
    return ("apgd-ce", APGDL1()), ("fmn", FMN()), ("apgd-t", targeted), square


def _by_labels(mode: Mode, kind: type, most: int | None) -> tuple[Named, ...]:
    if kind not in (Linf, L2):
        raise NotBuiltError(
            f"no attack on labels alone is built in {kind.__name__} yet; use a change in linf or l2, or knowledge: "
            "scores if the model answers them"
        )
    return (("hop-skip-jump", HopSkipJump(queries=most or _LABEL_QUERIES[mode])),)


def _autoattack(mode: Mode, kind: type, knowledge: Access, classes: int, *, surrogates: bool) -> tuple[Named, ...]:
    """The authors' protocol, with our attacks (github.com/fra31/auto-attack, version standard, plus or rand)."""
    if kind not in _APGD:
        raise NotBuiltError(f"AutoAttack is defined in Linf, L2 and L1, not in {kind.__name__}; use mode audit")
    if knowledge < Access.GRADIENTS or surrogates:
        raise NotBuiltError("AutoAttack needs the model's own gradients; use mode audit for this attacker")
    apgd, ways = _APGD[kind], min(9, classes - 1)
    if mode is Mode.AUTOATTACK_RAND:
        return ("apgd-ce", apgd()), ("apgd-dlr", apgd(loss=dlr))
    narrow = kind is L1 and mode is Mode.AUTOATTACK
    targeted = ("apgd-t", Sweep(apgd(loss=targeted_dlr), targets=min(5, ways) if narrow else ways))
    fab, square = ("fab-t", Sweep(FAB(steps=100), targets=ways)), ("square", _SQUARE[kind](queries=5000))
    if mode is Mode.AUTOATTACK:
        return ("apgd-ce", apgd()), targeted, fab, square
    every = FAB(steps=100, restarts=5, candidates=classes - 1)
    climbs = ("apgd-ce", Restarts(apgd(), 5)), ("apgd-dlr", Restarts(apgd(loss=dlr), 5))
    return *climbs, ("fab", every), square, targeted, fab


def eot_of(mode: Mode, eot: int) -> int:
    """The draws a gradient is averaged over, unless more are asked for: 20 in AutoAttack's rand, else 1."""
    return max(eot, _RAND_DRAWS) if mode is Mode.AUTOATTACK_RAND else eot


def _sparse(mode: Mode, knowledge: Access) -> tuple[Named, ...]:
    if knowledge < Access.GRADIENTS:
        raise NotBuiltError("no L0 attack without gradients is built yet; use knowledge: gradients")
    if mode is Mode.QUICK:
        return (("sigma-zero", SigmaZero(steps=100)),)
    steps = 300 if mode is Mode.DEFAULT else 1000
    return ("sigma-zero", SigmaZero(steps=steps)), ("fmn", FMN(steps=steps))


def _transferred(mode: Mode) -> tuple[Named, ...]:
    if mode is Mode.QUICK:
        return (("mi-fgsm", MomentumFGSM()),)
    return tuple((name, entry(name, Linf).make()) for name in ("mi-fgsm", "vmi-fgsm", "ti-di-mi-fgsm"))


@dataclass(frozen=True, slots=True)
class RobustAccuracy:
    """Rows, of all drawn, answered right on the clean and on every saved input.

    value: k / n. low, high: exact 95 % Clopper–Pearson interval (for a stochastic model a bootstrap over rows),
    widened by the rows that errored or stayed undecided: they count as broken below and as robust above.
    forwards, backwards, queries: billed to the attacker. by: rows broken by each attack. certified: rows proven to
    stand, which no attack was spent on, so that certified / n ≤ the truth ≤ value; None where no proof was asked for.
    """

    value: float
    low: float
    high: float
    n: int
    k: int
    clean: int
    errors: int
    undecided: int
    queries: int
    forwards: int
    backwards: int
    by: dict[str, int]
    certified: int | None
    outcomes: Outcomes


def robust_accuracy(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    within: Bounded,
    mode: Mode | str = Mode.DEFAULT,
    bounds: tuple[float, float] | None = None,
    goal: Aim | None = None,
    seed: int = 0,
    knowledge: Access = Access.GRADIENTS,
    capability: Capability | None = None,
    limits: Limits | None = None,
    eot: int = 1,
    certify: Method | None = None,
    ids: Sequence[object] | None = None,
    workers: int = 0,
    block: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> RobustAccuracy:
    """Robust accuracy of a model on rows x (N, …) with right classes y (N,), against the attacks of a mode.

    The arguments are those of `attack`; mode: quick, default, audit or one of AutoAttack's (see `attacks_of`). certify:
    bounds to try first, up to this method; rows that they prove are not attacked (`redan.certified` says which models
    have bounds, and raises NotCertifiableError for others).

    >>> import torch
    >>> from redan.perturbations.norms import Linf
    >>> model = torch.nn.Linear(2, 2).eval()
    >>> score = robust_accuracy(model, torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), within=Linf(0.1), mode="quick")
    >>> score.n
    4
    """
    target = as_target(model, bounds)
    aim = goal or Untargeted()
    inputs, labels = checked_rows(x, y, target, aim.task)
    fits_rows(within, len(inputs))
    spared = None
    if certify is not None:
        if not isinstance(aim, Untargeted):
            raise SettingError("certify proves that a class stays; leave it out with another goal than Untargeted()")
        spared = certified(target, inputs, labels, within=within, most=certify, workers=workers).certified
    outcomes = aim.task.outcomes(count_classes(target, inputs, labels, aim.task))
    job = Job(
        target=target,
        x=inputs,
        y=labels,
        names=row_names(inputs, ids),
        attacks=attacks_of(Mode(mode), within, min(knowledge, target.access), outcomes, capability),
        within=within,
        aim=aim,
        knowledge=min(knowledge, target.access),
        capability=capability or Capability(),
        seed=seed,
        eot=checked_eot(eot_of(Mode(mode), eot), target),
        spared=spared,
    )
    found = run(job, workers=workers, block=block, purse=Purse(limits or Limits()), progress=progress)
    return _score(found, job)


def _score(found: Outcomes, job: Job) -> RobustAccuracy:
    n = len(found.index)
    robust = found.right & (found.status == Status.ROBUST)
    errors, undecided = int((found.status == Status.ERROR).sum()), int((found.status == Status.UNDECIDED).sum())
    k = int(robust.sum())
    open_rows = errors + int((found.right & (found.status == Status.UNDECIDED)).sum())
    if job.target.stochastic:
        judged = (found.status != Status.ERROR) & (found.status != Status.UNDECIDED)
        held = (1 - found.share)[judged].clamp(0, 1)
        bins = (held * 20).round().long().bincount(minlength=21).tolist()
        rest = n - len(held)
        value = float(held.sum()) / max(1, n)
        low = bootstrap_bounds([bins[0] + rest, *bins[1:]], 0.025)[0]
        high = bootstrap_bounds([*bins[:-1], bins[-1] + rest], 0.025)[1]
    else:
        value = k / max(1, n)
        low, high = interval(k, n).low, interval(k + open_rows, n).high
    return RobustAccuracy(
        value=value,
        low=low,
        high=high,
        n=n,
        k=k,
        clean=int(found.right.sum()),
        errors=errors,
        undecided=undecided,
        queries=int(found.queries.sum()),
        forwards=int(found.forwards.sum()),
        backwards=int(found.backwards.sum()),
        by={account.name: account.broken for account in found.accounts},
        certified=None if job.spared is None else int(job.spared.sum()),
        outcomes=found,
    )
