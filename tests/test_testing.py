"""The public testing room: victims know their optimum, liars lie and their twins do not, and the conformance test
finds each fault by the name of the promise that it breaks.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import redan
from redan.answers import evaluate
from redan.errors import RedanError
from redan.evasion.apgd import APGD
from redan.evasion.bim import BIM
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD, climb
from redan.evasion.square import Square, SquareL2
from redan.goals import Untargeted
from redan.losses import cross_entropy, margin
from redan.oracle import Oracle
from redan.perturbations.norms import L2, Linf
from redan.protocols import Ball, Cost, Gradients, Labels, settings
from redan.rows import Rows
from redan.runners.local import one_thread_each
from redan.targets import Output
from redan.testing import (
    LIARS,
    MUTANTS,
    Case,
    ClaimsSuccess,
    ConformanceError,
    DoesNothing,
    EditsItsInputs,
    FlippedSign,
    GridVictim,
    HalfSteps,
    LeavesTheSet,
    Liar,
    LinearVictim,
    NotANumber,
    SphereVictim,
    check_attack,
    dual_l2,
    dual_linf,
)
from redan.testing.checks import CHECKS

# -- victims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 3.0)])
def test_linear_rows_are_right_and_in_the_middle(classes: int, dtype: torch.dtype, bounds: tuple[float, float]) -> None:
    victim = LinearVictim.drawn(1, classes=classes, shape=(2, 3), bounds=bounds, dtype=dtype)
    x, y = victim.rows(50, 4)
    width = bounds[1] - bounds[0]
    best = victim.optimum(x, y, dual_l2) / width

    assert (x.dtype, x.shape, y.dtype) == (dtype, (50, 2, 3), torch.int64)
    assert torch.equal(victim.module()(x).argmax(1), y)
    assert float(best.min()) >= 0.02
    assert float(best.max()) <= 0.3
    assert bool(((x - sum(bounds) / 2).abs() <= width / 6).all())
    assert len(y.bincount()) == classes
    assert torch.equal(victim.rows(50, 4)[0], x)
    assert not torch.equal(victim.rows(50, 5)[0], x)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("dual", [dual_linf, dual_l2])
def test_the_linear_optimum_is_one(classes: int, dual: Any) -> None:
    """A step a little longer in the best direction is wrong; a step a little shorter in any class's is not."""
    victim = LinearVictim.drawn(1, classes=classes, dtype=torch.float64)
    x, y = victim.rows(30)
    best = victim.optimum(x, y, dual)
    model = victim.module()
    apart = victim.weights - victim.weights[y][:, None]  # (N, K, D)
    unit = apart.sign() if dual is dual_linf else apart / apart.norm(dim=2, keepdim=True).clamp_min(1e-12)

    beyond = [model(x + 1.001 * best[:, None] * unit[:, k]).argmax(1) != y for k in range(classes)]
    short = [model(x + 0.999 * best[:, None] * unit[:, k]).argmax(1) != y for k in range(classes)]
    assert torch.stack(beyond).any(0).all()
    assert not torch.stack(short).any()


def test_a_victims_module_is_its_own() -> None:
    victim = LinearVictim.drawn(0)
    module = victim.module()
    for parameter in module.parameters():
        parameter.data.zero_()

    assert bool(victim.weights.any())
    assert bool(victim.module().get_parameter("weights").any())
    assert not victim.module().training


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_spheres_surface_is_where_it_says(norm: str) -> None:
    victim = SphereVictim(dtype=torch.float64)
    x, y = victim.rows(40)
    away = x - 0.5
    inside = (y == 0)[:, None]
    assert torch.equal(victim.module()(x).argmax(1), y)
    assert y.bincount().tolist() == [20, 20]

    for factor, crosses in ((1.001, True), (0.999, False)):
        if norm == "l2":
            step = victim.l2(x)[:, None] * factor * away / away.norm(dim=1, keepdim=True)
            moved = torch.where(inside, away + step, away - step)
        else:
            size = victim.linf(x)[:, None] * factor
            moved = torch.where(inside, away + size * away.sign(), away.sign() * (away.abs() - size).clamp_min(0))
        assert bool(((victim.module()(0.5 + moved).argmax(1) != y) == crosses).all())


@pytest.mark.parametrize("order", [math.inf, 2.0])
def test_the_grid_brackets_the_optimum(order: float) -> None:
    victim = GridVictim.drawn(0)
    x, y = victim.rows(12)
    low, high = victim.optimum(x, y, order)
    model = victim.module()
    draw = torch.Generator().manual_seed(0)
    samples = torch.rand(20_000, 2, generator=draw)
    answers = model(samples).argmax(1)

    assert bool((low <= high).all())
    assert float((high - low).max()) < 0.05
    for i in range(len(x)):
        away = torch.linalg.vector_norm((samples - x[i]).double(), ord=order, dim=1)
        wrong = away[answers != y[i]]
        assert bool((wrong >= low[i]).all())
        assert float(wrong.min()) >= float(high[i]) - 0.02


# -- liars --------------------------------------------------------------------------------------------------

FRESH = int.from_bytes(os.urandom(3), "big")


def slowly(value: object) -> Any:
    """One more value of a parameter, for the tests of minutes."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models answer no faster with more."""
    with one_thread_each():
        yield


def scores(case: Case, x: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = case.model(x)
    return answer


def some_train(case: Case) -> bool:
    return any(part.training for part in case.model.modules())


def kept(case: Case) -> list[Tensor]:
    return [*case.model.parameters(), *(b for b in case.model.buffers() if b.is_floating_point())]


def not_loaded(case: Case) -> bool:
    return any(tensor.is_meta for tensor in kept(case))


def of_several_types(case: Case) -> bool:
    return {tensor.dtype for tensor in kept(case)} | {case.x.dtype} != {torch.float32}


def outside_or_cramped(case: Case) -> bool:
    (low, high), least, most = case.bounds, float(case.x.min()), float(case.x.max())
    return least < low or most > high or most - least < (high - low) / 10


def repeated(case: Case) -> bool:
    return len({row.numpy().tobytes() for row in case.x}) < 0.94 * len(case.x)


def not_enough(case: Case) -> bool:
    """Whether so many rows in a row would all hold too easily by chance."""
    required = case.required
    return required is not None and required.at_least ** len(case.x) > 1 - required.confidence


def other_shape(case: Case) -> bool:
    shape = scores(case, case.x[:11]).shape
    return len(shape) != 2 or shape[0] != 11 or shape[1] != (case.classes or shape[1])


def some_fail(case: Case) -> bool:
    return not bool(evaluate(case.target, case.x, micro=64).answered.all())


def unknown_labels(case: Case) -> bool:
    if case.y.dtype != torch.int64 or case.y.shape != case.x.shape[:1]:
        return True
    sound = torch.stack([row for row in case.x if bool(row.isfinite().all())])[:2]
    return int(case.y.min()) < 0 or int(case.y.max()) >= scores(case, sound).shape[1]


def lacks_classes(case: Case) -> bool:
    """A quarter of them: one of ten may be missing among a hundred rows."""
    classes = scores(case, case.x[:2]).shape[1]
    return classes - len(set(case.y.tolist())) >= classes / 4


def wrong_scale(case: Case) -> bool:
    z = scores(case, case.x)
    like = bool((z >= 0).all()) and torch.allclose(z.sum(1), torch.ones(len(z)), atol=1e-4)
    return like == (case.output is Output.LOGITS)


def apart(first: Tensor, *others: Tensor) -> bool:
    """Whether any of the others differs from the rows that `first` begins with."""
    scale = float(first.abs().max())
    return max(float((first[: len(other)] - other).abs().max()) for other in others) > 1e-4 * scale


def changes(case: Case) -> bool:
    """From call to call."""
    return apart(*(scores(case, case.x) for _ in range(5)))


def changes_whatever_is_drawn(case: Case) -> bool:
    """From call to call, though all draw the same random numbers."""
    found = []
    for _ in range(5):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.append(scores(case, case.x))
    return apart(*found)


def minds_company(case: Case) -> bool:
    """Rows alone, beside few and in another order, each compared with the first answer."""
    turned = scores(case, case.x.flip(0)).flip(0)
    return apart(scores(case, case.x), turned, *(scores(case, case.x[:few]) for few in (40, 16, 2)))


def answers_one_class(case: Case) -> bool:
    return len(set(scores(case, case.x).argmax(1).tolist())) == 1


def unlike_what_is_said(case: Case) -> bool:
    right = float((scores(case, case.x).argmax(1) == case.y).float().mean())
    return right < 0.6 or (case.expected is not None and abs(right - case.expected[0]) > 0.15)


def minds_rounding(case: Case) -> bool:
    low, high = case.bounds
    steps = ((case.x - low) / (high - low) * 255).round() / 255
    before, after = scores(case, case.x), scores(case, steps * (high - low) + low)
    return float((before - after).abs().mean()) > 0.05 * float((before - before.mean(0)).abs().mean())


def slope_of(case: Case, loss: Any) -> tuple[Tensor | None, Tensor]:
    """The gradient and the loss of 64 rows."""
    x, goal = case.x[:64].clone().requires_grad_(), Untargeted(case.y[:64])
    value = loss(case.target(x), goal)
    return torch.autograd.grad(value.sum(), x, allow_unused=True)[0], value.detach()


def says_nothing(case: Case) -> bool:
    """Gradients that are not there, or that are 0."""
    found = [slope_of(case, loss)[0] for loss in (cross_entropy, margin)]
    return any(slope is None or float(slope.flatten(1).any(1).float().mean()) < 0.5 for slope in found)


def promises_too_much(case: Case) -> bool:
    """Gradients that promise another rise than a small step brings."""
    slope, before = slope_of(case, margin)
    assert slope is not None
    step = 0.002 * (case.bounds[1] - case.bounds[0])
    with torch.no_grad():
        rise = margin(case.target(case.x[:64] + step * slope.sign()), Untargeted(case.y[:64])) - before
    share = rise / (step * slope.abs().flatten(1).sum(1))
    return float(((share > 0.5) & (share < 1.5)).float().mean()) < 0.7


PROBES: dict[str, Callable[[Case], bool]] = {
    "submodule-modes": some_train,
    "device": not_loaded,
    "dtype": of_several_types,
    "bounds": outside_or_cramped,
    "duplicates": repeated,
    "sample-size": not_enough,
    "output-shape": other_shape,
    "finite-answers": some_fail,
    "labels": unknown_labels,
    "classes": lacks_classes,
    "output-scale": wrong_scale,
    "determinism": changes,
    "state": changes_whatever_is_drawn,
    "batch-mates": minds_company,
    "constant-answers": answers_one_class,
    "clean-accuracy": unlike_what_is_said,
    "eight-bit": minds_rounding,
    "gradients": says_nothing,
    "gradient-slopes": promises_too_much,
}


def test_every_check_has_a_liar_of_three_mechanisms() -> None:
    assert {liar.check for liar in LIARS} == set(PROBES)
    assert len({liar.name for liar in LIARS}) == len(LIARS)
    for liar in LIARS:
        assert len(liar.mechanisms) >= 3
        assert len({liar.mechanism(seed) for seed in range(len(liar.mechanisms))}) == len(liar.mechanisms)


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.name)
def test_liars_lie_and_their_twins_do_not(liar: Liar) -> None:
    """Each mechanism with a fresh seed, which a failure prints."""
    probe = PROBES[liar.check]
    for seed in range(FRESH, FRESH + len(liar.mechanisms)):
        assert probe(liar.make(seed)), (seed, liar.mechanism(seed))
        assert not probe(liar.honest(seed)), (seed, liar.mechanism(seed))


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.name)
@pytest.mark.parametrize("more", [0, slowly(1)])
def test_twins_are_honest_in_everything(liar: Liar, more: int) -> None:
    """One of its mechanisms, another in each run."""
    seed = FRESH + more
    for check, probe in PROBES.items():
        assert not probe(liar.honest(seed)), (seed, liar.mechanism(seed), check)


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.name)
def test_a_seed_draws_the_same_case_again_and_another_seed_another(liar: Liar) -> None:
    one, two, other = liar.make(3), liar.make(3), liar.make(3 + len(liar.mechanisms))

    assert torch.equal(one.x, two.x)
    assert torch.equal(one.y, two.y)
    assert (one.bounds, one.output) == (two.bounds, two.output)
    assert one.x.shape != other.x.shape or not torch.equal(one.x, other.x)


def test_no_name_gives_a_liar_away() -> None:
    """A check sees the target alone: liars and twins are made of the same classes."""
    for liar in LIARS:
        for seed in range(len(liar.mechanisms)):
            kinds = [
                [type(part).__name__ for part in case.model.modules()] for case in (liar.make(seed), liar.honest(seed))
            ]
            assert kinds[0] == kinds[1]


# -- the conformance test finds mutants ---------------------------------------------------------------------


@pytest.mark.parametrize("one", [BIM(steps=4), slowly(PGD(steps=10)), slowly(APGD(steps=10))], ids=settings)
@pytest.mark.parametrize(
    ("mutant", "says"),
    [
        (DoesNothing, "reach in Linf: 0 of 24"),
        (HalfSteps, "reach in L2: 0 of 24"),
        (FlippedSign, "reach in Linf: 0 of 24"),
        (LeavesTheSet, "reach in L2: 0 of 24"),
        (ClaimsSuccess, "returned something"),
        (EditsItsInputs, "wrote into the rows it was given"),
        (NotANumber, "candidates hold NaN"),
    ],
)
def test_each_mutant_is_named(mutant: Any, says: str, one: Any) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_attack(mutant(one), within=[L2 if "L2" in says else Linf])
    assert says in str(caught.value)


FEW_WON = r"reach in \w+: [0-4] of 24"  # the attack itself wins 12 and more


@pytest.mark.parametrize(
    ("mutant", "says"),
    [
        (DoesNothing, FEW_WON),
        (HalfSteps, FEW_WON),
        (FlippedSign, FEW_WON),
        (LeavesTheSet, FEW_WON),
        (ClaimsSuccess, "returned something"),
        (EditsItsInputs, "wrote into the rows it was given"),
        (NotANumber, "candidates hold NaN"),
    ],
)
@pytest.mark.parametrize("one", [Square(queries=25), slowly(SquareL2(queries=40))], ids=settings)
def test_mutants_of_attacks_by_scores_are_found_too(mutant: Any, says: str, one: Any) -> None:
    with pytest.raises(ConformanceError, match=says):
        check_attack(mutant(one), reach=1.9)


def test_every_mutant_is_in_the_table() -> None:
    assert set(MUTANTS) == {
        DoesNothing,
        HalfSteps,
        FlippedSign,
        LeavesTheSet,
        ClaimsSuccess,
        EditsItsInputs,
        NotANumber,
    }


# -- and other faults, each by the promise it breaks --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Faulty:
    """FGSM in three steps, with room for a fault."""

    def start(self, rows: Rows[Tensor, Ball]) -> Tensor:
        return rows.x0

    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        return climb(x, gradient, 0.5, rows)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = self.start(rows)
        for _ in range(3):
            gradient = referee.gradient(x, rows, cross_entropy).gradient
            rows, x, gradient = referee.survivors(rows, x, gradient)
            x = self.step(x, gradient, rows)
        referee.reached(x, rows)


class GlobalNumbers(Faulty):
    def start(self, rows: Rows[Tensor, Ball]) -> Tensor:
        return rows.within.project(rows.x0 + 0.02 * torch.randn_like(rows.x0), rows.x0)


class LooksAround(Faulty):
    def start(self, rows: Rows[Tensor, Ball]) -> Tensor:
        return rows.within.project(rows.x0 + 1e-3 * rows.x0.mean(), rows.x0)


class SinglePrecision(Faulty):
    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        return climb(x, gradient, 0.5, rows).float()


class SquareImages(Faulty):
    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        return climb(x, gradient, 0.5, rows).transpose(-1, -2)


class ImagesOnly(Faulty):
    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        return climb(x, gradient + 0 * gradient.mean((1, 2, 3), keepdim=True), 0.5, rows)


class OneRadius(Faulty):
    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        return x + float(rows.within.radius) * rows.within.steepest(gradient)


class UnitBox(Faulty):
    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        return climb(x, gradient, 0.5, rows).clamp(0, 1)


class FirstRow(Faulty):
    def start(self, rows: Rows[Tensor, Ball]) -> Tensor:
        if float(rows.x0[0].flatten()[0]) > 10:
            raise ValueError("not in these units")
        return rows.x0


class TwoAtLeast(Faulty):
    def start(self, rows: Rows[Tensor, Ball]) -> Tensor:
        spread = (rows.x0 - rows.x0.mean(0)).square().sum(0) / (len(rows) - 1)
        return rows.x0 + 0 * spread


class OldResult(Faulty):
    """Forgets that x must be taken along with the rows."""

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.x0
        for _ in range(3):
            gradient = referee.gradient(x, rows, cross_entropy).gradient
            x = climb(x, gradient, 0.5, rows)
            (rows,) = referee.survivors(rows)
        referee.reached(x, rows)


class NeverDrops(Faulty):
    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.x0
        for _ in range(6):
            x = climb(x, referee.gradient(x, rows, cross_entropy).gradient, 0.5, rows)
        referee.reached(x, rows)


class NeverEnds(Faulty):
    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        while True:
            (rows,) = referee.survivors(rows)
            referee.reached(rows.within.sample(rows.x0, rows.draw), rows)


class WaitsForAWin(Faulty):
    """Ends where all is won, but not where no query is left."""

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x, todo = rows.x0, torch.ones(len(rows), dtype=torch.bool)
        while bool(todo.any()):
            gradient, _, reached = referee.gradient(x, rows, cross_entropy)
            x, todo = climb(x, gradient, 0.5, rows), todo & ~reached


class Cheap(Faulty):
    def cost(self, classes: int) -> Cost:
        return Cost(2, 2)


class NoLastIterate(Faulty):
    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.x0
        gradient = referee.gradient(x, rows, cross_entropy).gradient
        climb(x, gradient, 1.0, rows)


@dataclass(frozen=True, slots=True)
class Learns(Faulty):
    """Goes on where it stood at the last call."""

    calls: list[int] = field(default_factory=list)

    def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        self.calls.append(1)
        return climb(x, gradient, 0.5 / (1 + len(self.calls) / 100), rows)


class TrustsLosses(Faulty):
    """Falls over when a row gets no answer."""

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        x = rows.x0
        for _ in range(3):
            gradient, loss, _ = referee.gradient(x, rows, cross_entropy)
            if not bool(loss.isfinite().all()):
                raise FloatingPointError("loss is not finite")
            rows, x, gradient = referee.survivors(rows, x, gradient)
            x = climb(x, gradient, 0.5, rows)
        referee.reached(x, rows)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (GlobalNumbers(), "same_seed_same_bytes in Linf: it draws from torch's global generator"),
        (GlobalNumbers(), "two runs with the same seed differ"),
        (Learns(), "two runs with the same seed differ"),
        (LooksAround(), "pool in Linf: with half of the rows away the bytes differ"),
        (SinglePrecision(), "float64 in Linf: candidates are torch.float32"),
        (SquareImages(), "shapes in Linf: the attack showed inputs"),
        (ImagesOnly(), "shapes in Linf: raised IndexError"),
        (OneRadius(), "one_radius_a_row in Linf: raised"),
        (UnitBox(), "reach in Linf"),
        (FirstRow(), "other_bounds in Linf: raised ValueError: not in these units"),
        (FirstRow(), "no_rows in Linf: raised IndexError"),
        (TwoAtLeast(), "one_row in Linf: candidates hold NaN"),
        (OldResult(), "take x along with the rows"),
        (NeverDrops(), "rows were asked again after they were decided"),
        pytest.param(NeverEnds(), "the attack goes on although no row is left", marks=pytest.mark.slow),
        pytest.param(WaitsForAWin(), "had not ended; give it a number of steps", marks=pytest.mark.slow),
        (Cheap(), "cost_as_told in Linf: of 2 classes a row cost 4 queries"),
        (NoLastIterate(), "reach in Linf: 0 of 24"),
        (TrustsLosses(), "failing_rows in Linf: raised FloatingPointError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Faulty) else "",
)
def test_each_fault_is_named(fault: Faulty, says: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_attack(fault, within=[Linf])
    assert says in str(caught.value)


def test_without_a_fault_it_conforms() -> None:
    assert check_attack(Faulty()).checks == tuple(check.__name__ for check in CHECKS)


def test_an_attack_that_holds_the_model_and_changes_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []
    original = LinearVictim.module

    def module(self: LinearVictim) -> nn.Module:
        made.append(original(self))
        return made[-1]

    class Trains(Faulty):
        def step(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
            for parameter in made[-1].parameters():
                parameter.data.mul_(0.999)
            return climb(x, gradient, 0.5, rows)

    monkeypatch.setattr(LinearVictim, "module", module)
    with pytest.raises(ConformanceError, match="model_left_alone in Linf: the model changed: weights, bias"):
        check_attack(Trains(), within=[Linf])


# -- and faults of the house's own --------------------------------------------------------------------------


def test_a_referee_that_believes_everything_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linf, "contains", lambda _, x, *__: torch.ones(len(x), dtype=torch.bool))

    with pytest.raises(ConformanceError, match=r"nearer than the nearest wrong answer|outside the set"):
        check_attack(LeavesTheSet(PGD(steps=5)), within=[Linf], reach=None)


def test_an_oracle_that_does_not_count_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Oracle, "_admit", lambda _, ids, __: torch.ones_like(ids, dtype=torch.bool))
    monkeypatch.setattr(Oracle, "gone", lambda self: self.failed | self.cut)

    with pytest.raises(ConformanceError, match=r"capability in L2: with 1 queries a row up to \d+ were spent"):
        check_attack(PGD(steps=5), within=[L2])


def test_a_projection_into_a_larger_set_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = L2.project
    monkeypatch.setattr(L2, "project", lambda self, x, x0: original(replace(self, radius=self.radius * 1.2), x, x0))

    with pytest.raises(ConformanceError, match="reach in L2"):
        check_attack(PGD(steps=5), within=[L2])


# -- how it is called ---------------------------------------------------------------------------------------


def test_the_report_says_what_was_looked_at() -> None:
    report = check_attack(BIM(steps=3), reach=1.05, seed=4)

    assert (report.attack, report.sets, report.reach) == ("BIM", ("Linf", "L2"), 1.05)
    assert "pool" in report.checks
    with pytest.raises(AttributeError):
        setattr(report, "attack", "other")  # noqa: B010  # mypy would refuse the plain way


def test_noise_promises_nothing() -> None:
    with pytest.raises(ConformanceError, match="reach"):
        check_attack(RandomNoise(tries=2))
    assert check_attack(RandomNoise(tries=2), reach=None).reach is None


def test_the_sets_come_from_the_signature_or_from_the_caller() -> None:
    class OnLabels:
        def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, L2]) -> None:
            referee.reached(rows.within.sample(rows.x0, rows.draw), rows)

    assert check_attack(OnLabels(), reach=None).sets == ("L2",)
    assert check_attack(BIM(steps=3), within=[L2]).sets == ("L2",)


def test_the_error_is_one_of_ours_and_lists_each_failure() -> None:
    with pytest.raises(RedanError) as caught:
        check_attack(DoesNothing(PGD()))
    lines = str(caught.value).splitlines()

    assert lines[0].startswith("DoesNothing fails")
    assert any(line.strip().startswith("reach in Linf") for line in lines)
    assert any(line.strip().startswith("reach in L2") for line in lines)


def test_every_check_says_what_it_promises() -> None:
    assert all(check.__doc__ and check.__doc__.endswith(".") for check in CHECKS)
    assert redan.testing.check_attack is check_attack
