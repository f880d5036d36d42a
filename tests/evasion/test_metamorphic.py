"""What must not change a result, and what must change it in one direction only, on the shipped models."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan import answers, samples
from redan.engine.run import AttackResult, attack
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.bim import BIM
from redan.evasion.cascade import Cascade, Restarts, Sweep
from redan.evasion.fgsm import FGSM
from redan.evasion.hopskipjump import HopSkipJump
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.losses import cross_entropy, targeted_dlr
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Attack, Ball, Gradients, settings
from redan.referee import Closest, Worst
from redan.rows import Rows

ROWS = 32
LINF, TWO, ONE = Linf(0.1), L2(1.5), L1(12.0)


@cache
def model(name: str) -> nn.Module:
    return samples.model(name)


@cache
def rows(count: int = ROWS) -> tuple[Tensor, Tensor]:
    images, labels = samples.fashion_mnist()
    return torch.from_numpy(images[100 : 100 + count]), torch.from_numpy(labels[100 : 100 + count])


def attacked(one: Attack[Any, Any], within: Ball, name: str = "robust", **options: Any) -> AttackResult:
    x, y = rows()
    return attack(model(name), x, y, one, within=within, **options)


def same(one: AttackResult, other: AttackResult, index: Tensor | None = None) -> bool:
    """Whether two results agree in every byte; the second's rows are those at `index` of the first."""
    at = slice(None) if index is None else index
    columns = ("adversarial", "success", "distance", "queries", "forwards", "backwards")
    return all(torch.equal(getattr(one, column)[at], getattr(other, column)) for column in columns)


def contains(more: AttackResult, less: AttackResult) -> bool:
    """Whether every row that the lesser attack won was won by the greater, with the same input."""
    won = less.success
    return bool(more.success[won].all()) and torch.equal(more.adversarial[won], less.adversarial[won])


# -- nothing done, nothing lost -----------------------------------------------------------------------------


@pytest.mark.parametrize("one", [PGD(steps=0, random_start=False), BIM(steps=0), RandomNoise(tries=0), Cascade(())])
def test_no_steps_are_the_clean_accuracy(one: Attack[Any, Any]) -> None:
    x, y = rows()
    wrong = model("robust")(x).argmax(1) != y
    result = attacked(one, LINF)

    assert torch.equal(result.success, wrong)
    assert torch.equal(result.adversarial, x)


@pytest.mark.parametrize("within", [Linf(0.0), L2(0.0), L1(0.0), L0(0)])
@pytest.mark.parametrize("one", [PGD(), APGD(steps=10), RandomNoise(tries=5), FGSM()])
def test_no_radius_is_the_clean_accuracy(one: Attack[Any, Any], within: Ball) -> None:
    x, y = rows()

    assert torch.equal(attacked(one, within).success, model("robust")(x).argmax(1) != y)


# -- more never raises robust accuracy: exactly -------------------------------------------------------------


@pytest.mark.parametrize("one", [PGD(steps=4), Square(queries=15), Cascade((PGD(steps=2), Square(queries=10)))])
def test_more_restarts_contain_fewer(one: Attack[Any, Any]) -> None:
    results = [attacked(Restarts(one, times), LINF) for times in (1, 2, 4)]

    assert contains(results[1], results[0])
    assert contains(results[2], results[1])


@pytest.mark.parametrize("one", [PGD(steps=4), RandomNoise(tries=2), Cascade((PGD(steps=2), RandomNoise(tries=2)))])
def test_a_restart_starts_elsewhere(one: Attack[Any, Any]) -> None:
    """Twice the same random numbers would be no restart."""
    shown: list[Tensor] = []

    class Tells:
        def __call__(self, referee: Any, rows: Any) -> None:
            shown.append(rows.within.sample(rows.x0, rows.draw))
            one(referee, rows)

    for wrapped in (Tells(), Cascade((Tells(),))):
        shown.clear()
        attacked(Restarts(wrapped, 3), LINF, capability=Capability(queries_per_row=1000), keep=Closest(), workers=1)
        assert not torch.equal(shown[0], shown[1])
        assert not torch.equal(shown[1], shown[2])


def test_a_longer_cascade_contains_a_shorter() -> None:
    parts: list[Attack[Any, Any]] = [FGSM(), PGD(steps=5), Square(queries=50), PGD(steps=10)]
    results = [attacked(Cascade(tuple(parts[:count])), LINF) for count in range(1, 5)]

    assert all(contains(more, less) for less, more in pairwise(results))


def test_an_attack_in_a_cascade_draws_what_it_draws_alone() -> None:
    """Whatever ran before it, and however many numbers that drew."""
    first = attacked(Cascade((RandomNoise(tries=3),)), LINF)
    alone = attacked(Cascade((PGD(steps=5),)), LINF)
    after = attacked(Cascade((RandomNoise(tries=3), PGD(steps=5))), LINF)
    fresh = after.success & ~first.success

    assert bool(fresh.any())
    assert torch.equal(after.adversarial[fresh], alone.adversarial[fresh])


@pytest.mark.parametrize(("less", "more"), [(PGD(steps=3, rate=0.2), PGD(steps=9, rate=0.2))])
def test_more_steps_contain_fewer(less: Attack[Any, Any], more: Attack[Any, Any]) -> None:
    for within in (LINF, TWO):
        assert contains(attacked(more, within), attacked(less, within))


def test_more_tries_contain_fewer() -> None:
    assert contains(attacked(RandomNoise(tries=40), Linf(0.3)), attacked(RandomNoise(tries=10), Linf(0.3)))


@pytest.mark.parametrize("one", [PGD(steps=60), Square(queries=80), APGD(steps=50)])
def test_more_capability_contains_less(one: Attack[Any, Any]) -> None:
    results = [attacked(one, LINF, capability=Capability(queries_per_row=most)) for most in (1, 37, 1000)]

    assert all(contains(more, less) for less, more in pairwise(results))
    assert same(results[-1], attacked(one, LINF))


def test_more_targets_contain_fewer() -> None:
    results = [attacked(Sweep(APGD(steps=5, loss=targeted_dlr), targets), LINF) for targets in (1, 3, 9)]

    assert all(contains(more, less) for less, more in pairwise(results))


# -- more never raises robust accuracy: within a row --------------------------------------------------------


@pytest.mark.parametrize("one", [PGD(steps=10), APGD(steps=10), FGSM(), Square(queries=60)])
def test_a_larger_set_breaks_more(one: Attack[Any, Any]) -> None:
    """An attack climbs otherwise in another set, so not row by row; and the farthest breaks many more."""
    won = [int(attacked(one, Linf(radius)).success.sum()) for radius in (0.0, 0.02, 0.05, 0.1, 0.2)]

    assert all(more >= less - 1 for less, more in pairwise(won))
    assert won[-1] > won[0] + 7


def test_steps_in_l1_are_no_weak_copy() -> None:
    """The steepest step of L1 moves one coordinate; sparse ones break many more rows, and APGD-L1 most."""
    steepest, sparse, adaptive = (
        int(attacked(one, L1(10.0)).success.sum()) for one in (_Steepest(), PGD(steps=20), APGDL1(steps=60))
    )

    assert steepest + 3 <= sparse < adaptive


@dataclass(frozen=True, slots=True)
class _Steepest:
    """PGD that takes the set's own steepest step."""

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L1]) -> None:
        x = rows.x0
        for _ in range(20):
            gradient = referee.gradient(x, rows, cross_entropy).gradient
            rows, x, gradient = referee.survivors(rows, x, gradient)
            x = rows.within.project(x + 0.125 * rows.within.radius * rows.within.steepest(gradient), rows.x0)
        referee.reached(x, rows)


def test_iterating_is_no_weaker_than_one_step_and_both_than_noise() -> None:
    noise, one, many = (int(attacked(a, LINF).success.sum()) for a in (RandomNoise(tries=20), FGSM(), PGD(steps=20)))

    assert noise < one <= many + 1


# -- what must not change a byte ----------------------------------------------------------------------------

BYTES: list[Any] = [
    ("robust", PGD(steps=8), LINF),
    ("robust", PGD(steps=8), TWO),
    ("residual", APGD(steps=8), LINF),
    ("robust", APGD(steps=12), TWO),
    ("robust", Square(queries=40), LINF),
    ("natural", SquareL2(queries=40), TWO),
    ("robust", PGD(steps=8), ONE),
    ("robust", APGDL1(steps=12), ONE),
    ("natural", SquareL1(queries=40), ONE),
    ("robust", RandomNoise(tries=5), L0(150)),
    ("robust", Restarts(PGD(steps=4), 2), LINF),
    ("natural", Sweep(APGD(steps=4, loss=targeted_dlr), 2), TWO),
    ("robust", Cascade((FGSM(), APGD(steps=5), Square(queries=20))), LINF),
    ("natural", HopSkipJump(queries=150, first=40), TWO),
]
SLOWLY = (1, 3, 4, 6, 8, 10, 13)  # near to others of them
EACH = pytest.mark.parametrize(
    ("name", "one", "within"),
    [pytest.param(*each, marks=[pytest.mark.slow] * (number in SLOWLY)) for number, each in enumerate(BYTES)],
    ids=settings,
)


@EACH
def test_order_and_company_do_not_change_a_byte(name: str, one: Attack[Any, Any], within: Ball) -> None:
    x, y = rows()
    whole = attacked(one, within, name)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))

    assert same(whole, attack(model(name), x[order], y[order], one, within=within), order)
    some = order[:11]
    assert same(whole, attack(model(name), x[some], y[some], one, within=within), some)
    assert same(whole, attack(model(name), x[3:4], y[3:4], one, within=within), torch.tensor([3]))


@EACH
def test_blocks_and_workers_do_not_change_a_byte(name: str, one: Attack[Any, Any], within: Ball) -> None:
    whole = attacked(one, within, name, workers=1)

    assert same(whole, attacked(one, within, name, workers=2, block=9))
    assert same(whole, attacked(one, within, name, workers=1, block=13))


@EACH
def test_the_micro_batch_does_not_change_a_byte(
    monkeypatch: pytest.MonkeyPatch, name: str, one: Attack[Any, Any], within: Ball
) -> None:
    whole = attacked(one, within, name, workers=1)
    for most in (3, 10):
        monkeypatch.setattr(answers, "_LARGEST_MICRO", most)
        assert same(whole, attacked(one, within, name, workers=1))


@pytest.mark.parametrize("within", [LINF, TWO])
@pytest.mark.parametrize("keep", [Closest(), Worst()])
def test_no_rule_of_keeping_changes_that(within: Ball, keep: Any) -> None:
    x, y = rows()
    whole = attacked(PGD(steps=6), within, keep=keep, workers=1)
    order = torch.arange(ROWS).flip(0)

    assert same(whole, attack(model("robust"), x[order], y[order], PGD(steps=6), within=within, keep=keep), order)
    assert same(whole, attacked(PGD(steps=6), within, keep=keep, workers=2, block=7))


def test_names_decide_the_random_numbers_and_nothing_else_does() -> None:
    x, y = rows()
    given = [f"image {i}" for i in range(ROWS)]
    one, two = (attack(model("robust"), x, y, PGD(steps=3), within=LINF, ids=given, keep=Worst()) for _ in range(2))
    other = attacked(PGD(steps=3), LINF, keep=Worst())

    assert same(one, two)
    assert not torch.equal(one.adversarial, other.adversarial)


def test_equal_rows_draw_different_numbers() -> None:
    x, y = rows()
    twice = attack(
        model("robust"), x[[0, 0]], y[[0, 0]], RandomNoise(tries=50), within=LINF, keep=Worst(), workers=1
    ).adversarial

    assert not torch.equal(twice[0], twice[1])


def test_other_units_are_the_same_attack() -> None:
    """Inputs from 0 to 255 and a radius 255 times as large: the same rows, but for rounding."""

    class Bytes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = model("robust")(x / 255)
            return answer

    x, y = rows()
    units = attack(Bytes().eval(), x * 255, y, PGD(steps=10), within=Linf(25.5), bounds=(0, 255), ids=range(ROWS))
    plain = attack(model("robust"), x, y, PGD(steps=10), within=LINF, ids=range(ROWS))

    assert int((units.success != plain.success).sum()) <= 1
