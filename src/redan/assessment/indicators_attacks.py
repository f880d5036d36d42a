"""Indicators that attacks fail for a reason of their own (Carlini et al. 2019, arXiv:1902.06705; Pintor et al. 2022,
arXiv:2106.09947).

Rows that break after all count by what they mean for robust accuracy: less than a point is no reason to distrust it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from redan.assessment.examinee import Examinee
from redan.assessment.indicators_gradients import not_applicable, told
from redan.engine.block import Job
from redan.errors import AccessError
from redan.evasion.cascade import Cascade, Restarts
from redan.evasion.descent import Descent
from redan.evasion.fgsm import FGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import climb
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evidence.log import Indication
from redan.evidence.statistics import p_at_least
from redan.losses import margin
from redan.perturbations.balls import farthest
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack, Cost, Labels, needs, wide
from redan.rows import Rows, Streams, take

_SURE, _STUCK = 0.01, 0.05  # of the rows may be stuck; few rows must show more at 1 %
_FEW = 0.05  # of the rows: by how much one attack must beat another
_STEPS = 20
_ROUNDING = 1e-5  # of the margin
_SQUARE: dict[type, Attack[Any, Any]] = {
    Linf: Square(queries=200),
    L2: SquareL2(queries=200),
    L1: SquareL1(queries=200),
}
_SHORT: Attack[Any, Any] = Cascade((Descent(steps=_STEPS), Descent(steps=_STEPS, loss=margin)))
_LONG: Attack[Any, Any] = Restarts(Descent(steps=100, random_start=True, loss=margin), 2)
_IN_L0 = "in L0 no step is a short one, and nothing is climbed"
_NONE_STANDS = "no row was left standing"


def _climbable(examinee: Examinee) -> bool:
    return not isinstance(examinee.within, L0)


def one_step(examinee: Examinee) -> Indication:
    """One long step that breaks rows which many short ones do not."""
    name, rows = "one-step-beats-iteration", examinee.mixed
    if not _climbable(examinee):
        return not_applicable(name, _IN_L0)
    once = examinee.broken(FGSM(), rows, name="one step")
    often = examinee.broken(_SHORT, rows, name="iteration")
    alone, behind = int((once & ~often).sum()), int((often & ~once).sum())
    detail = f"one step breaks {int(once.sum())} of {len(rows)} rows and iteration {int(often.sum())}"
    return told(name, alone - behind > max(1, _FEW * len(rows)), detail)


class _Climb(NamedTuple):
    """What a plain climb of the margin met on its way: (n,) each, but for the points."""

    first: Tensor
    highest: Tensor
    reached: Tensor  # a point inside the set had the goal
    where: Tensor  # the last such point, or x0


def _climbed(examinee: Examinee) -> _Climb | None:
    """A climb over the rows left standing that is not told when it succeeds; None where nothing can be climbed."""
    rows = examinee.standing
    x0, goal, within = take(rows, examinee.job.x, examinee.goal, examinee.within)
    draw = Streams.start(0, [str(row) for row in rows.tolist()], x0.device)
    about = Rows(torch.arange(len(rows), device=x0.device), x0, goal, within, draw)
    x, first = x0, x0.new_zeros(len(rows))
    highest, reached, where = x0.new_full((len(rows),), -math.inf), torch.zeros_like(first, dtype=torch.bool), x0
    try:
        for i in range(_STEPS):
            answers = examinee.ask(x, rows, draws=examinee.job.draws)
            first = answers.loss if i == 0 else first
            highest = torch.maximum(highest, answers.loss)
            hit = answers.answered & goal.reached(answers.output) & within.contains(x, x0)
            reached, where = reached | hit, torch.where(wide(hit, x), x, where)
            x = climb(x, answers.gradient.nan_to_num(), (1 + math.cos(math.pi * i / _STEPS)) / 2, about)
    except AccessError:
        return None
    return _Climb(first, highest, reached, where)


@dataclass(frozen=True)
class Shown:
    """Points found elsewhere, shown to the referee: one for each of the inputs x0 (n, …), which tell the rows apart."""

    x0: Tensor
    points: Tensor

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(1, 0)

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Any]) -> None:
        place = {_bytes(x): at for at, x in enumerate(self.x0)}
        referee.reached(self.points[[place[_bytes(x)] for x in rows.x0]], rows)


def _bytes(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().numpy().tobytes()


def not_rising(examinee: Examinee) -> Indication:
    """Climbs that do not climb: no step raises the margin above its start."""
    name = "loss-not-rising"
    if not _climbable(examinee) or not len(examinee.standing):
        return not_applicable(name, _NONE_STANDS if _climbable(examinee) else _IN_L0)
    found = _climbed(examinee)
    if found is None:
        return not_applicable(name, "the answers have no gradient in the input")
    n, stuck = len(found.first), int((found.highest <= found.first).sum())
    detail = f"the margin of {stuck} of {n} standing rows does not rise in {_STEPS} steps"
    return told(name, p_at_least(stuck, n, _STUCK) <= _SURE, detail)


def silent(examinee: Examinee) -> Indication:
    """Points that break the model on the way of a climb, on rows that are said to stand."""
    name = "silent-success"
    if examinee.job.target.stochastic:
        return not_applicable(name, "one answer of a stochastic model is no success")
    if not _climbable(examinee) or not len(examinee.standing):
        return not_applicable(name, _NONE_STANDS if _climbable(examinee) else _IN_L0)
    found = _climbed(examinee)
    if found is None:
        return not_applicable(name, "the answers have no gradient in the input")
    shown = Shown(examinee.job.x[examinee.standing], found.where)
    again, hits = examinee.broken(shown, examinee.standing, name="judged"), found.reached
    beyond = found.highest > _ROUNDING * found.first.abs()  # in other company an answer may differ in its last digits
    unseen = int((hits & beyond & ~again).sum())
    detail = f"a climb that nobody judged met the goal on {int(hits.sum())} of {len(hits)} standing rows"
    return told(name, unseen > 0 or examinee.matters(int(hits.sum())), detail)


def doubled(job: Job) -> Attack[Any, Any]:
    """The attacks of a job that climb, once more, and longer climbs: it takes another seed to be more."""
    again = [attack for _, attack in job.attacks if needs(attack).access == Access.GRADIENTS]
    return Cascade(tuple(again) if isinstance(job.within, L0) else (*again, _LONG))


def doubling(examinee: Examinee) -> Indication:
    """The same attacks again, and longer climbs, on rows that stood."""
    name, rows = "doubling-helps", examinee.standing
    if not len(rows):
        return not_applicable(name, _NONE_STANDS)
    broken = int(examinee.broken(doubled(examinee.job), rows, name="doubled", again=1).sum())
    detail = f"twice the effort breaks {broken} of {len(rows)} standing rows: {examinee.points(broken)}"
    return told(name, examinee.matters(broken), detail)


def unbounded(examinee: Examinee) -> Indication:
    """A set as wide as the box, in which every input can become any other."""
    name, rows = "unbounded-does-not-break", examinee.mixed
    if not _climbable(examinee):
        return not_applicable(name, _IN_L0)
    radius = float(farthest(examinee.within, examinee.job.x[rows]).max())
    held = int((~examinee.broken(Cascade((Descent(steps=50), Descent(steps=50, loss=margin))), rows,
                                 name="unbounded", radius=radius)).sum())  # fmt: skip
    detail = f"{len(rows) - held} of {len(rows)} rows break in a set as wide as the box"
    return told(name, p_at_least(held, len(rows), _STUCK) <= _SURE, detail)


def monotone(examinee: Examinee) -> Indication:
    """More room for the same climb that breaks fewer rows, or less room that breaks rows that stood."""
    name, rows, radius = "not-monotone", examinee.mixed, examinee.job.within.radius
    if not _climbable(examinee) or isinstance(radius, Tensor):
        return not_applicable(name, _IN_L0 if not _climbable(examinee) else "each row has a radius of its own")
    found = [
        int(examinee.broken(_SHORT, rows, name="monotone", radius=times * radius).sum()) for times in (0.5, 1.0, 2.0)
    ]
    fewer = max(found[0] - found[1], found[1] - found[2])
    told_rows = ", ".join(f"{count}" for count in found)
    detail = f"at half, one and two radii a climb breaks {told_rows} of {len(rows)} rows"
    stood = examinee.standing
    if len(stood):
        nearer = int(examinee.broken(_SHORT, stood, name="monotone", radius=radius / 2).sum())
        detail += f"; at half a radius {nearer} of {len(stood)} that stood"
        return told(name, fewer > max(1, _FEW * len(rows)) or examinee.matters(nearer), detail)
    return told(name, fewer > max(1, _FEW * len(rows)), detail)


def black_box(examinee: Examinee) -> Indication:
    """Square, which sees no gradient, on rows that attacks with gradients left standing."""
    name, rows, square = "black-box-beats-gradients", examinee.standing, _SQUARE.get(type(examinee.within))
    if square is None or not len(rows):
        return not_applicable(name, _NONE_STANDS if square is not None else "Square has no form in this set")
    broken = int(examinee.broken(square, rows, name="black box").sum())
    detail = f"Square with 200 queries breaks {broken} of {len(rows)} standing rows: {examinee.points(broken)}"
    return told(name, examinee.matters(broken), detail)


def random_search(examinee: Examinee) -> Indication:
    """Random points of the set, on rows that attacks with gradients left standing."""
    name, rows = "random-beats-gradients", examinee.standing
    if not len(rows):
        return not_applicable(name, _NONE_STANDS)
    broken = int(examinee.broken(RandomNoise(tries=50), rows, name="random search").sum())
    detail = f"50 random points break {broken} of {len(rows)} standing rows: {examinee.points(broken)}"
    return told(name, examinee.matters(broken), detail)
