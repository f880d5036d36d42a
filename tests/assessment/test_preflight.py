"""Eight checks: each names its liars, twenty fresh ones of each kind, and lets their honest twins pass."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from redan.assessment.preflight import CHECKS, Finding, Level, Scene, preflight, refuse
from redan.errors import PreflightError, TrainingModeError
from redan.targets import Output, TorchTarget, from_torch
from redan.testing.cases import Case
from redan.testing.liars import LIARS, Liar

VARIANTS = 20
NAMES = (
    *("submodule-modes", "bounds", "finite-answers", "labels", "output-scale", "determinism"),
    *("clean-accuracy", "gradients"),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nets this small are slower on two cores than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fired(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.check for finding in findings if finding.fired}


def looked_at(case: Case) -> tuple[Finding, ...]:
    """What the preflight finds; training mode is refused where the target is made already."""
    try:
        target = from_torch(case.model, bounds=case.bounds, output=case.output)
    except TrainingModeError as error:
        return (Finding("submodule-modes", Level.REFUSE, True, str(error)),)
    return preflight(Scene(target, case.x, case.y))


# -- liars and their twins ------------------------------------------------------------------------------


def test_every_check_but_none_twice_has_a_liar() -> None:
    assert {liar.check for liar in LIARS} == set(NAMES)
    assert len({liar.name for liar in LIARS}) == len(LIARS)


@pytest.mark.parametrize("liar", LIARS, ids=[liar.name for liar in LIARS])
def test_every_liar_is_named(liar: Liar) -> None:
    first = secrets.randbelow(2**31)
    print(f"{liar.name}: seeds from {first}")  # noqa: T201  # the run can be repeated
    for seed in range(first, first + VARIANTS):
        findings = looked_at(liar.make(seed))
        told = [(finding.check, finding.detail) for finding in findings if finding.fired]
        assert liar.check in fired(findings), (liar.name, seed, liar.mechanism(seed), told)


@pytest.mark.parametrize("liar", LIARS, ids=[liar.name for liar in LIARS])
def test_no_honest_twin_is_accused(liar: Liar) -> None:
    first = secrets.randbelow(2**31)
    print(f"{liar.name}: seeds from {first}")  # noqa: T201  # the run can be repeated
    for seed in range(first, first + VARIANTS):
        findings = looked_at(liar.honest(seed))
        told = [(finding.check, finding.detail) for finding in findings if finding.fired]
        assert liar.check not in fired(findings), (liar.name, seed, liar.mechanism(seed), told)
        refuse(findings)


# -- one by one, on a model of three lines ---------------------------------------------------------------


class Pairs(nn.Module):
    """Scores that are sums of two numbers each, changed by a function of the scores."""

    def __init__(self, after: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3).repeat_interleave(2, 1))
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.weight.T
        return z if self.after is None else self.after(z)


def scene(after: Callable[[Tensor], Tensor] | None = None, **changed: object) -> Scene:
    """Ninety rows that are answered right. changed: fields of the target."""
    y = torch.arange(90) % 3
    x = 0.2 + 0.6 * torch.eye(3).repeat_interleave(2, 1)[y]
    x = x + 0.05 * torch.rand(90, 6, generator=torch.Generator().manual_seed(1))
    target = from_torch(Pairs(after).eval(), classes=3)
    return Scene(replace(target, **changed), x, y)  # type: ignore[arg-type]  # any field


def finding(found: tuple[Finding, ...], check: str) -> Finding:
    return next(each for each in found if each.check == check)


def test_an_honest_scene_passes_all_eight_in_order() -> None:
    found = preflight(scene())
    assert tuple(each.check for each in found) == NAMES
    assert len(CHECKS) == 8
    assert [each.status for each in found] == ["pass"] * 8
    assert all(each.detail for each in found)
    refuse(found)


def test_the_first_refusal_ends_the_preflight_and_says_what_to_do() -> None:
    found = preflight(replace(scene(), y=torch.full((90,), 7)))
    assert [each.check for each in found] == ["submodule-modes", "bounds", "finite-answers", "labels"]
    with pytest.raises(PreflightError, match=r"^preflight labels: .*classes 0 to 2; number the classes from 0"):
        refuse(found)


def test_a_submodule_that_went_into_training_after_wrapping_is_named() -> None:
    module = nn.Sequential(Pairs(), nn.Dropout(0.5)).eval()
    target = from_torch(module)
    module[1].train()
    found = preflight(replace(scene(), target=target))
    assert found[-1].check == "submodule-modes"
    assert "1 (Dropout)" in found[-1].detail
    with pytest.raises(TrainingModeError, match="Dropout"):
        from_torch(module)


@pytest.mark.parametrize(
    ("box", "refused"),
    [
        ((0.0, 1.0), False),
        ((0.0, 0.5), True),
        ((0.5, 1.0), True),
        ((0.0, 255.0), True),
        ((-1.0, 1.0), False),
        ((-4.0, 4.0), True),
    ],
)
def test_bounds_that_do_not_fit_the_data(box: tuple[float, float], refused: bool) -> None:
    assert finding(preflight(scene(bounds=box)), "bounds").fired is refused


def test_bounds_are_compared_as_the_data_s_own_type_rounds_them() -> None:
    """0.1 in single precision is above 0.1."""
    small = scene(bounds=(0.0, 0.1))
    x = small.x * (0.1 / float(small.x.max()))
    x[0, 0] = torch.tensor(0.1)
    assert float(x.max()) > 0.1
    assert not finding(preflight(replace(small, x=x)), "bounds").fired
    above = x.clone()
    above[0, 0] = 0.1001
    assert finding(preflight(replace(small, x=above)), "bounds").fired


@pytest.mark.parametrize(("count", "level"), [(1, Level.WARN), (45, Level.WARN), (90, Level.REFUSE)])
def test_rows_without_an_answer(count: int, level: Level) -> None:
    honest = scene()
    some = set(honest.x[:count].sum(1).tolist())

    def spoiled(z: Tensor) -> Tensor:
        bad = torch.tensor([round(v, 4) in {round(s, 4) for s in some} for v in z.sum(1).tolist()])
        return z.masked_fill(bad[:, None], torch.nan)

    found = finding(preflight(scene(spoiled)), "finite-answers")
    assert (found.fired, found.level) == (True, level)
    assert f"{count} of 90 rows got no usable answer (the model answered NaN)" in found.detail


def test_a_model_that_raises_is_not_taken_for_one_with_masked_gradients() -> None:
    """Rows that got no answer have no gradient either; they are errors, and no reason to distrust the others."""

    def raises(z: Tensor) -> Tensor:
        if bool((z[:, 0] > 1.7).any()):
            raise TimeoutError("no answer")
        return z

    honest = scene()
    x = honest.x.clone()
    x[0:30:3, :2] = 0.95  # ten rows of class 0
    found = preflight(replace(scene(raises), x=x))
    assert fired(found) == {"finite-answers"}
    assert "10 of 90 rows" in finding(found, "finite-answers").detail
    assert "TimeoutError: no answer" in finding(found, "finite-answers").detail


@pytest.mark.parametrize(
    ("y", "fires"), [(torch.arange(90) % 3, False), (torch.arange(90) % 3 + 1, True), (torch.arange(90) % 3 - 1, True)]
)
def test_labels_from_nought(y: Tensor, fires: bool) -> None:
    assert finding(preflight(replace(scene(), y=y)), "labels").fired is fires


@pytest.mark.parametrize("declared", [2, 4])
def test_a_model_with_other_scores_than_declared_classes_is_refused(declared: int) -> None:
    found = preflight(scene(classes=declared))
    assert found[-1].check == "labels"
    assert f"answers 3 scores a row, and {declared} classes are declared" in found[-1].detail


def test_classes_without_a_row_are_mentioned() -> None:
    few = scene()
    found = preflight(replace(few, x=few.x[few.y < 2], y=few.y[few.y < 2]))
    assert "1 classes have no drawn row" in finding(found, "labels").detail
    assert fired(found) == set()


def test_probabilities_and_logits_are_told_apart_both_ways() -> None:
    def softmax(z: Tensor) -> Tensor:
        return (4 * z).softmax(1)

    assert fired(preflight(scene(softmax))) == {"output-scale"}
    assert fired(preflight(scene(softmax, output=Output.PROBABILITIES))) == set()
    assert fired(preflight(scene(output=Output.PROBABILITIES))) == {"output-scale"}
    log = scene(lambda z: z.log_softmax(1))
    assert fired(preflight(log)) == set()  # logarithms of probabilities are logits


def test_what_the_owner_expects_is_compared() -> None:
    right = replace(scene(), expected=(0.97, 0.05))
    assert fired(preflight(right)) == set()
    found = preflight(replace(right, expected=(0.8, 0.05)))
    assert "the threat model expects 0.8 within 0.05" in finding(found, "clean-accuracy").detail
    with pytest.raises(PreflightError, match=r"or correct system.expect"):
        refuse(found)


def test_a_model_at_chance_or_below_is_refused() -> None:
    turned = preflight(scene(lambda z: z.roll(1, 1)))
    assert "no row is answered right" in finding(turned, "clean-accuracy").detail
    constant = preflight(scene(lambda z: z * 0 + torch.tensor([1.0, 0.0, 0.0]) + z * 1e-3))
    assert "not above chance: 30 of 90" in finding(constant, "clean-accuracy").detail


def test_an_output_without_a_graph_is_masked() -> None:
    found = finding(preflight(scene(lambda z: z.detach())), "gradients")
    assert (found.fired, found.status) == (True, "warn")
    assert "no gradient in the input at all" in found.detail
    refuse((found,))  # a warning refuses nothing


@pytest.mark.parametrize(("share", "fires"), [(0.04, False), (0.07, True)])
def test_a_few_flat_rows_are_no_masking(share: float, fires: bool) -> None:
    """One row of twenty may be flat."""
    count = round(64 * share)
    flat = scene().x[:count].sum(1)

    def masked(z: Tensor) -> Tensor:
        same = ((z.sum(1)[:, None] - flat).abs() < 1e-4).any(1)
        return torch.where(same[:, None], z.detach() + 0 * z, z)

    assert finding(preflight(scene(masked)), "gradients").fired is fires


def test_gradients_that_are_not_finite_are_masked() -> None:
    found = finding(preflight(scene(lambda z: z + 0 * (z - z).sqrt())), "gradients")
    assert found.fired


def test_a_random_model_is_named_for_that_and_not_for_its_gradients() -> None:
    found = preflight(scene(lambda z: z + 0.05 * torch.randn_like(z)))
    assert fired(found) == {"determinism"}
    assert finding(found, "determinism").status == "switch"
    refuse(found)


@pytest.mark.parametrize(
    "after",
    [lambda z: z - z.mean(0), lambda z: z + 0.2 * z.roll(1, 0), lambda z: z * (1 + 0.001 * len(z))],
    ids=["mean", "neighbor", "size"],
)
@pytest.mark.parametrize("rows", [20, 90])
def test_a_model_that_looks_at_the_rows_beside_is_named(rows: int, after: Callable[[Tensor], Tensor]) -> None:
    """Also where all rows fit into the sample, so that they are always asked together."""
    whole = scene(after)
    found = preflight(replace(whole, x=whole.x[:rows], y=whole.y[:rows]))
    assert finding(found, "determinism").fired


def test_batches_of_any_size_may_round_differently() -> None:
    assert fired(preflight(scene(lambda z: z * (1 + 1e-6 * torch.rand_like(z))))) == set()


@pytest.mark.parametrize("hidden", [0.0, -torch.inf])
def test_scores_of_minus_infinity_are_compared_where_they_are_finite(hidden: float) -> None:
    """A class that is never answered."""

    def never_last(z: Tensor) -> Tensor:
        return torch.cat([z, torch.full_like(z[:, :1], hidden)], 1)

    assert not finding(preflight(scene(never_last, classes=4)), "determinism").fired

    def random(z: Tensor) -> Tensor:
        return never_last(z + torch.randn_like(z) * 0.05)

    assert finding(preflight(scene(random, classes=4)), "determinism").fired


@pytest.mark.parametrize("rows", [2, 3, 65, 300])
def test_any_number_of_rows(rows: int) -> None:
    honest = scene()
    pick = torch.arange(rows) % 90
    found = preflight(replace(honest, x=honest.x[pick], y=honest.y[pick]))
    assert fired(found) <= {"clean-accuracy"}  # two right rows of two are not above chance


def test_the_preflight_leaves_model_and_random_numbers_alone() -> None:
    honest = scene()
    assert isinstance(honest.target, TorchTarget)
    module = honest.target.module
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.random.get_rng_state()
    preflight(honest)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
