"""Some rows of a finished run, and how an examination asks about them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from redan.answers import Answers, averaged, evaluate, micro_batch
from redan.engine.block import Job, seeded, seen_by
from redan.engine.outcomes import Status
from redan.engine.run import run
from redan.errors import AccessError, BrokenOffError
from redan.losses import margin
from redan.oracle import Purse
from redan.protocols import Attack, Ball, Loss, is_ball, per_row
from redan.rows import Goal, Streams, take
from redan.targets import Target

_SURE = 2  # rows at the least, before anything that was found in a sample means more than chance
_POINT = 0.01  # of the rows drawn: what changes robust accuracy by less is no reason to distrust it


@dataclass(slots=True)
class Examinee:
    """A white-box attacker's job on the rows that an examination looks at.

    mixed: positions of rows of any fate, in the order drawn. standing: positions of rows that the run left standing.
    worth: the share of all rows drawn that one standing row of the sample is worth. Everything asked is paid from
    the run's purse and counted in `forwards` and `backwards`.
    """

    job: Job
    mixed: Tensor
    standing: Tensor
    worth: float
    purse: Purse
    workers: int = 1
    forwards: int = 0
    backwards: int = 0
    _asked: int = 0
    goal: Goal = field(init=False, repr=False)
    within: Ball = field(init=False, repr=False)

    def __post_init__(self) -> None:
        job, everyone = self.job, torch.arange(len(self.job.x), device=self.job.x.device)
        with seeded(job, job.seed):
            clean = evaluate(job.target, job.x, micro=micro_batch(job.x))
            self.goal = job.aim.about(job.y, seen_by(job, job.x, clean).output, everyone)
        inside = job.within.inside(job.target.bounds)
        if not is_ball(inside):
            raise TypeError("only a set with a geometry has gradients to climb in")
        self.within = inside

    def starts(self, rows: Tensor) -> Tensor:
        """A random point of the set for each of the rows, the same ones each time: (n, …)."""
        streams = Streams.start(self.job.seed, list(self.job.names), self.job.x.device).keyed("examination")
        x0, within, draw = take(rows, self.job.x, self.within, streams)
        return within.sample(x0, draw)

    def nearby(self, x: Tensor, rows: Tensor, share: float) -> Tensor:
        """A point of the box for each x (n, …), a share of the radius away in a random direction."""
        normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x)
        (within,) = take(rows, self.within)
        low, high = within.bounds
        return (x + per_row(share * within.radius, x) * within.steepest(normal)).clamp(low, high)

    def ask(
        self,
        x: Tensor,
        rows: Tensor,
        loss: Loss | None = margin,
        *,
        draws: int = 1,
        target: Target[Tensor] | None = None,
    ) -> Answers:
        """The model's answers to x (n, …), a candidate for each of the rows, with gradients averaged over `draws`.

        target: asked instead of the job's. Raises AccessError where the answers have no gradient, BrokenOffError when
        the purse is empty.
        """
        self._pay(len(x) * draws)
        self.forwards += len(x) * draws
        self.backwards += 0 if loss is None else len(x) * draws
        self._asked += 1
        (goal,) = take(rows, self.goal)
        asked = self.job.target if target is None else target
        with seeded(self.job, self.job.seed * 1_000_003 + self._asked):
            return averaged(lambda: evaluate(asked, x, micro=micro_batch(x), goal=goal, loss=loss), draws)

    def slopes(self, rows: Tensor) -> tuple[Tensor, Answers] | None:
        """A random point of the set for each row, and the margin's gradient there; None where there is none at all."""
        x = self.starts(rows)
        try:
            return x, self.ask(x, rows)
        except AccessError:
            return None

    def broken(
        self, attack: Attack[Any, Any], rows: Tensor, *, name: str, radius: float | None = None, again: int = 0
    ) -> Tensor:
        """Which of the rows an attack breaks, judged by the referee as any other: (n,) bool.

        radius: of the set, instead of the attacker's; again: added to the seed. An attack that raises breaks nothing.
        """
        job, at = self.job, rows.tolist()
        found = run(
            replace(
                job,
                x=job.x[rows],
                y=job.y[rows],
                names=[job.names[i] for i in at],
                attacks=((name, attack),),
                within=job.within if radius is None else job.within.sized(radius),
                seed=job.seed + again,
                spared=None,
                contain=True,
            ),
            workers=self.workers,
            purse=self.purse,
        )
        self.forwards += int(found.forwards.sum())
        self.backwards += int(found.backwards.sum())
        self._pay(0)
        return found.right & (found.status == Status.BROKEN)

    def matters(self, rows: int) -> bool:
        """Whether so many standing rows, found to break after all, move robust accuracy by more than a point."""
        return rows >= _SURE and rows * self.worth > _POINT

    def points(self, rows: int) -> str:
        """What so many standing rows of the sample mean for robust accuracy, in words."""
        return f"about {100 * rows * self.worth:.1f} points of robust accuracy"

    def _pay(self, queries: int) -> None:
        if not self.purse.pay(queries, self.job.capability.price):
            raise BrokenOffError("our own limit was reached while the run was examined; raise it and resume the run")
