"""What every attack is checked for: one function a check, its first line the promise, its answers what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from redan.engine.run import AttackResult
from redan.oracle import Capability
from redan.protocols import Attack, Ball, cost
from redan.referee import Closest
from redan.rows import Rows
from redan.testing.trial import ROWS, Problems, Trial, ordinary

Check = Callable[[Trial], Problems]


def one_row(trial: Trial) -> Problems:
    """A pool of one."""
    yield from ordinary(trial, trial.victim(), count=1)


@dataclass(frozen=True, slots=True)
class _OnNone:
    """Hands an attack none of the rows."""

    attack: Attack[Any, Any]

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        nobody = torch.zeros_like(rows.ids, dtype=torch.bool)
        self.attack(referee, rows.take(nobody))


def no_rows(trial: Trial) -> Problems:
    """None at all: from the caller, and as the part of a cascade that has nothing left to do."""
    yield from ordinary(trial, trial.victim(), count=0)
    yield from ordinary(trial, trial.victim(), attack=_OnNone(trial.attack))


def all_wrong_already(trial: Trial) -> Problems:
    """Rows that are answered wrong before any attack: won at distance 0, unchanged, for nothing."""
    victim = trial.victim()
    x, y = victim.rows(ROWS, trial.seed)
    result = trial.run(victim, x, 1 - y, 0.1)
    if not bool(result.success.all()) or bool(result.distance.any()) or not torch.equal(result.adversarial, x):
        yield "rows that were wrong already are not all won at distance 0 with their own input"
    if bool(result.queries.any()):
        yield "rows that were wrong already cost queries"


def none_attackable(trial: Trial) -> Problems:
    """A radius of 0, and one a little too small."""
    victim = trial.victim()
    x, y = victim.rows(ROWS, trial.seed)
    best = trial.optimum(victim, x, y)
    for radius in (0.0, best * 0.99):
        result = trial.run(victim, x, y, radius)
        if bool(result.success.any()) or not torch.equal(result.adversarial, x) or result.errors:
            yield "rows that cannot be broken in the set were broken, changed or lost"


def three_classes(trial: Trial) -> Problems:
    """Three classes, and six."""
    yield from ordinary(trial, trial.victim(classes=3))
    yield from ordinary(trial, trial.victim(classes=6))


def shapes(trial: Trial) -> Problems:
    """Images that are not square, or one pixel high; a single number; more dimensions."""
    for shape in ((2, 3, 5), (3, 1, 4), (1,), (2, 2, 2, 2)):
        yield from ordinary(trial, trial.victim(shape=shape))


def float64(trial: Trial) -> Problems:
    """Double precision."""
    yield from ordinary(trial, trial.victim(dtype=torch.float64))


def one_radius_a_row(trial: Trial) -> Problems:
    """Radii from none to ample, one a row, so that some rows can be won and some cannot."""
    yield from ordinary(trial, trial.victim(), factor=torch.linspace(0, 2, ROWS))


def other_bounds(trial: Trial) -> Problems:
    """Boxes other than [0, 1]."""
    for bounds in ((-2.0, 5.0), (0.0, 255.0)):
        yield from ordinary(trial, trial.victim(bounds=bounds))


def capability(trial: Trial) -> Problems:
    """An attacker with 1, 2 or 37 queries a row spends no more, and the attack ends."""
    victim = trial.victim()
    x, y = victim.rows(ROWS, trial.seed)
    radius = trial.optimum(victim, x, y) * 0.99
    for most in (1, 2, 37):
        result = trial.run(victim, x, y, radius, capability=Capability(queries_per_row=most))
        if int(result.queries.max()) > most or result.errors:
            yield f"with {most} queries a row up to {int(result.queries.max())} were spent"
    yield from ordinary(trial, victim, capability=Capability(queries_per_row=3))


def cost_as_told(trial: Trial) -> Problems:
    """`cost`, where the attack has one, is the most that a row costs."""
    for classes in (2, 4):
        told = cost(trial.attack, classes)
        if told is None:
            return
        victim = trial.victim(classes=classes)
        x, y = victim.rows(ROWS, trial.seed)
        result = trial.run(victim, x, y, trial.optimum(victim, x, y) * 0.99)
        spent = int(result.queries.max()), int(result.backwards.max())
        if spent[0] > told.queries or spent[1] > told.backwards:
            yield f"of {classes} classes a row cost {spent[0]} queries and {spent[1]} backward passes; {told} was told"


def _differs(one: AttackResult, other: AttackResult, index: Tensor | None = None) -> bool:
    """Whether two results, the second's rows in the order `index`, differ in any byte."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("adversarial", "success", "distance", "queries")]
    return not all(torch.equal(a if index is None else a[index], b) for a, b in pairs)


def same_seed_same_bytes(trial: Trial) -> Problems:
    """The seed decides, and nothing else: not torch's generator, which is left as it was."""
    victim = trial.victim(classes=3)
    x, y = victim.rows(ROWS, trial.seed)
    radius = trial.optimum(victim, x, y) * 1.5
    with torch.random.fork_rng(devices=[]):
        first = trial.run(victim, x, y, radius, keep=Closest())
        torch.random.manual_seed(trial.seed + 1)
        before = torch.random.get_rng_state()
        second = trial.run(victim, x, y, radius, keep=Closest())
        if not torch.equal(before, torch.random.get_rng_state()):
            yield "it draws from torch's global generator: draw from rows.draw"
    if _differs(first, second):
        yield "two runs with the same seed differ: draw every random number from rows.draw, and keep no state"


def _ways() -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """Other ways to run the same rows: (how, which of them in which order, options)."""
    everyone = torch.arange(ROWS)
    yield "in another order", everyone.flip(0), {}
    yield "with half of the rows away", everyone[::2], {}
    yield "in blocks of one", everyone[::4], {"block": 1}
    yield "with two workers", everyone, {"workers": 2, "block": 7}


def pool(trial: Trial) -> Problems:
    """A row's result does not depend on the other rows, their order, or the cores."""
    victim = trial.victim(classes=3, bounds=(-1.0, 1.0))
    x, y = victim.rows(ROWS, trial.seed)
    radius = trial.optimum(victim, x, y) * torch.linspace(0.8, 1.4, ROWS, dtype=x.dtype)
    whole = trial.run(victim, x, y, radius)
    for how, index, options in _ways():
        part = trial.run(victim, x[index], y[index], radius[index], **options)
        if _differs(whole, part, index):
            yield f"{how} the bytes differ: compute row by row, and draw from rows.draw"


def optimum(trial: Trial) -> Problems:
    """Nothing beats margin ÷ dual norm, however far the set reaches."""
    for classes in (2, 4):
        yield from ordinary(trial, trial.victim(classes=classes), factor=3.0, keep=Closest())


def reach(trial: Trial) -> Problems:
    """Every row of a two-class linear victim is broken in a set `reach` times as large as the smallest that can."""
    if trial.reach is None:
        return
    wide: dict[str, Any] = {"bounds": (-3.0, 5.0), "dtype": torch.float64}
    for options in ({}, wide):
        victim = trial.victim(shape=(16,), **options)
        x, y = victim.rows(2 * ROWS, trial.seed)
        won = int(trial.run(victim, x, y, trial.optimum(victim, x, y) * trial.reach).success.sum())
        if won < len(x):
            yield (
                f"{won} of {len(x)} rows of a linear model in the box {victim.bounds} were broken at {trial.reach:g} "
                "times the distance that suffices: look for a wrong sign, a step or set of the wrong size, a last "
                "iterate not shown"
            )


class _Pushover(nn.Module):
    """Right on the rows it knows, wrong on everything else."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.x, self.y = x.flatten(1), y

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        nearest = (flat.detach()[:, None] - self.x).abs().sum(2).argmin(1)
        known = (flat == self.x[nearest]).all(1)
        side = torch.where((self.y[nearest] == 1) == known, 1.0, -1.0).to(x.dtype)
        slope = (flat - flat.detach()).sum(1)  # 0, with a gradient
        return torch.stack([-side + slope, side - slope], 1)


def all_won_at_once(trial: Trial) -> Problems:
    """A victim that is wrong on any change: every row is won, and the attack ends."""
    victim = trial.victim()
    x, y = victim.rows(ROWS, trial.seed)
    result = trial.run(victim, x, y, 0.1, model=_Pushover(x, y).eval())
    if trial.reach is not None and not bool(result.success.all()):
        yield f"only {int(result.success.sum())} of {len(x)} rows of a model that is wrong on any change were won"


class _Failing(nn.Module):
    """A victim that answers NaN for every change of the first row it knows, and raises for the second.

    It knows a row by its nearest clean input, if the second nearest is twice as far: attacks may move rows anywhere.
    met: rows on which it failed.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.model, self.x = model, x.flatten(1)
        self.met: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.detach().flatten(1)
        near = (flat[:, None] - self.x).abs().sum(2).topk(2, dim=1, largest=False)
        nearest = torch.where(2 * near.values[:, 0] <= near.values[:, 1], near.indices[:, 0], -1)
        if bool((nearest == 1).any()):
            self.met.add(1)
            raise ValueError("413: payload too large")
        strange = (nearest == 0) & (flat != self.x[0]).any(1)
        if bool(strange.any()):
            self.met.add(0)
        answer: Tensor = self.model(x).masked_fill(strange[:, None], torch.nan)
        return answer


def failing_rows(trial: Trial) -> Problems:
    """Rows that the model fails on are errors with a reason, and change nothing for the others."""
    victim = trial.victim()
    x, y = victim.rows(ROWS, trial.seed)
    radius = trial.optimum(victim, x, y) / 2
    others = torch.arange(2, ROWS)
    sound = trial.run(victim, x[others], y[others], radius[others])
    model = _Failing(victim.module(), x)
    result = trial.run(victim, x, y, radius, model=model.eval())
    if set(result.errors) != model.met:
        yield f"rows {sorted(model.met)} should be the errors, not {sorted(result.errors)}"
    if bool(result.success[:2].any()) or not torch.equal(result.queries[2:], sound.queries):
        yield "rows that the model failed on were won, or changed how often others were asked"


def model_left_alone(trial: Trial) -> Problems:
    """Weights, buffers, modes, flags and gradients are what they were."""
    victim = trial.victim()
    x, y = victim.rows(ROWS, trial.seed)
    model = victim.module()
    before = copy.deepcopy(model.state_dict())
    trial.run(victim, x, y, trial.optimum(victim, x, y), model=model)
    touched = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    moved = [name for name, p in model.named_parameters() if p.grad is not None or not p.requires_grad]
    if touched or moved or model.training:
        yield f"the model changed: {', '.join(touched + moved) or 'its mode'}"


CHECKS: tuple[Check, ...] = (
    one_row,
    no_rows,
    all_wrong_already,
    none_attackable,
    three_classes,
    shapes,
    float64,
    one_radius_a_row,
    other_bounds,
    capability,
    cost_as_told,
    same_seed_same_bytes,
    pool,
    optimum,
    reach,
    all_won_at_once,
    failing_rows,
    model_left_alone,
)
