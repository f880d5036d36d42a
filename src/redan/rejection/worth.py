"""What a detector is worth: robust accuracy at a false-positive rate, against attacks that know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from redan.answers import evaluate, micro_batch, share
from redan.engine.block import JUDGING_DRAWS, Job
from redan.engine.intake import checked_rows, row_names
from redan.engine.outcomes import Outcomes, Status
from redan.engine.run import checked_eot, fits_rows, run
from redan.errors import SettingError
from redan.evidence.gain import MARGIN, Gain, Held, gained, paired
from redan.evidence.paired import Comparison
from redan.evidence.statistics import Interval, interval
from redan.goals import Aim, Untargeted
from redan.goals.task import Task
from redan.protocols import Attack, Bounded, in_turn
from redan.rejection.goal import Undetected
from redan.rejection.refusing import Refusing, refused
from redan.targets import Target


class Rate(NamedTuple):
    """k of n rows, with the exact two-sided interval of the rate."""

    k: int
    n: int
    interval: Interval

    @property
    def value(self) -> float:
        return self.k / max(1, self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """A detector's worth on rows that nothing was fit to or calibrated on.

    clean_bare, clean: right without an attack; with the detector, accepted too. refused: clean rows that are refused.
    bare: rows of the bare model that hold against the naive attacks. naive: rows that hold with the detector, when it
    is shown what those found against the bare model. joint: rows that hold against these inputs and the joint attacks.
    compared: bare, then joint, row by row. undecided: rows on which one of the runs failed or was cut off: they count
    as broken in every rate, and in the verdict as what speaks against it.
    """

    false_positive_rate: float | None
    clean_bare: Rate
    clean: Rate
    refused: Rate
    bare: Rate
    naive: Rate
    joint: Rate
    compared: Comparison
    undecided: int
    verdict: Gain


def worth(
    served: Refusing,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    within: Bounded,
    naive: Sequence[Attack[Any, Any]],
    joint: Sequence[Attack[Any, Any]],
    aim: Aim | None = None,
    margin: float = MARGIN,
    level: float = 0.05,
    seed: int = 0,
    eot: int = 1,
    workers: int = 0,
) -> Worth:
    """Attack the model bare and with its detector, on rows x (N, …) of classes y (N,), and compare row by row.

    naive: attacks on the bare model, as strong as there are: what they miss is counted for it. joint: attacks that
    are called with the goal `Undetected`; any on classes, `Lagrangian`, `OrthogonalPGD` and `BalancedPGD`, best with
    `Sweep`: the nearest wrong class may lie where inputs are refused, and another one not. aim: what is wanted of the
    classes. margin: a gain that is not worth having, as a share of the rows. level: the chance of each wrong verdict.
    eot: draws of a stochastic target that a gradient is averaged over.

    A gain is shown against these attacks; no attack proves that none does better. Rows hold as `Undetected` says.
    Raises SettingError without attacks of either kind or for an aim that is not about classes, DataError for rows that
    do not fit.
    """
    wanted = aim or Untargeted()
    if not naive or not joint or wanted.task is not Task.CLASS:
        raise SettingError(
            f"a detector's worth needs naive and joint attacks and a goal about classes, got {len(naive)} and "
            f"{len(joint)} attacks and {type(wanted).__name__}; without a joint attack no defense has a number"
        )
    inputs, labels = checked_rows(x, y, served)
    fits_rows(within, len(inputs))
    names, draws = row_names(inputs), checked_eot(eot, served)

    def attacked(target: Target[Tensor], attacks: Sequence[Attack[Any, Any]], aim: Aim) -> Outcomes:
        job = Job(
            target=target,
            x=inputs,
            y=labels,
            names=names,
            attacks=in_turn(attacks),
            within=within,
            aim=aim,
            knowledge=target.access,
            seed=seed,
            eot=draws,
        )
        return run(job, workers=workers)

    bare = attacked(served.target, naive, wanted)
    known = attacked(served, joint, Undetected(wanted))
    passed, clean_refused, failed = _shown(served, bare.x, inputs, labels, wanted)
    holds_bare = bare.right & (bare.status == Status.ROBUST)
    holds_naive = known.right & ~passed & ~failed
    holds_joint = holds_naive & (known.status == Status.ROBUST)
    open_bare, open_known = _open(bare), (_open(known) & (known.right & ~passed)) | failed
    verdict = gained(
        Held(holds_bare.tolist(), open_bare.tolist()),
        Held(holds_joint.tolist(), open_known.tolist()),
        level=level,
        margin=margin,
    )
    return Worth(
        false_positive_rate=served.rate,
        clean_bare=_rate(bare.right),
        clean=_rate(known.right),
        refused=_rate(clean_refused),
        bare=_rate(holds_bare),
        naive=_rate(holds_naive),
        joint=_rate(holds_joint),
        compared=paired(holds_bare.tolist(), holds_joint.tolist()),
        undecided=int((open_bare | open_known).sum()),
        verdict=verdict,
    )


def _shown(served: Refusing, found: Tensor, x: Tensor, y: Tensor, aim: Aim) -> tuple[Tensor, Tensor, Tensor]:
    """Of what was found against the bare model, accepted and wrong; of clean rows, refused; and failures: (N,) each."""
    micro = micro_batch(x)
    with torch.inference_mode(False):
        clean = evaluate(served, x, micro=micro)
        goal = Undetected(aim).about(y, clean.output)
        often, reasons = share(served, found, goal, JUDGING_DRAWS if served.stochastic else 1, micro)
    failed = ~clean.answered
    failed[sorted(reasons)] = True
    return often >= 0.5, clean.answered & refused(clean.output), failed


def _open(found: Outcomes) -> Tensor:
    return (found.status == Status.ERROR) | (found.status == Status.UNDECIDED)


def _rate(held: Tensor) -> Rate:
    k, n = int(held.sum()), len(held)
    return Rate(k, n, interval(k, n))
