"""The preflight: each check names its liars and lets their honest twins pass, within what it may spend."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from redan import samples
from redan.assessment.preflight import Budget, Finding, Level, Requirement, Scene, preflight, refuse
from redan.errors import PreflightError, TrainingModeError
from redan.protocols import Access
from redan.targets import Output, TorchTarget, from_torch
from redan.testing.liars import LIARS, Liar

NAMES = (
    *("submodule-modes", "device", "dtype", "bounds", "duplicates", "sample-size"),
    *("output-shape", "finite-answers", "labels", "classes", "output-scale"),
    *("determinism", "state", "batch-mates", "constant-answers", "clean-accuracy", "eight-bit"),
    *("gradients", "gradient-slopes"),
)
CONSEQUENCES = {
    "state": {"determinism", "gradients", "gradient-slopes", "clean-accuracy", "eight-bit"},
    "determinism": {"clean-accuracy", "state"},
    "eight-bit": {"gradient-slopes"},
    "gradients": {"gradient-slopes"},
}
"""What else may be said of a liar, since its lie is the reason for that too."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nets this small are slower on two cores than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fired(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.check for finding in findings if finding.fired}


def finding(found: tuple[Finding, ...], check: str) -> Finding:
    return next(each for each in found if each.check == check)


# -- liars and their twins ------------------------------------------------------------------------------


def judge_variants(liar: Liar, count: int) -> None:
    """Fail unless `count` fresh liars are all named, and nothing is said of their twins."""
    first = secrets.randbelow(2**31)
    print(f"{liar.name}: seeds from {first}")  # noqa: T201  # the run can be repeated
    for seed in range(first, first + count):
        told = preflight(liar.make(seed).scene)
        assert liar.check in fired(told), (liar.name, seed, liar.mechanism(seed), told)
        other = fired(told) - {liar.check} - CONSEQUENCES.get(liar.check, set())
        assert not other, (liar.name, seed, liar.mechanism(seed), told)
        loud = finding(told, liar.check)
        assert loud.detail
        assert loud.remedy
        twin = preflight(liar.honest(seed).scene)
        assert fired(twin) == set(), (liar.name, seed, liar.mechanism(seed), [f for f in twin if f.fired])
        assert tuple(f.check for f in twin) == NAMES


def test_every_check_has_a_liar() -> None:
    assert {liar.check for liar in LIARS} == set(NAMES)
    assert len({liar.name for liar in LIARS}) == len(LIARS)


@pytest.mark.parametrize("liar", LIARS, ids=[liar.name for liar in LIARS])
def test_each_mechanism_is_named_and_its_twin_is_not(liar: Liar) -> None:
    judge_variants(liar, len(liar.mechanisms))


@pytest.mark.slow
@pytest.mark.parametrize("liar", LIARS, ids=[liar.name for liar in LIARS])
def test_twenty_of_each_mechanism_are_named_and_their_twins_are_not(liar: Liar) -> None:
    judge_variants(liar, 20 * len(liar.mechanisms))


@pytest.mark.parametrize("name", ["natural", "robust", "residual"])
@pytest.mark.parametrize("rows", [40, 1000])
def test_nothing_is_said_of_the_shipped_models(name: str, rows: int) -> None:
    images, labels = samples.fashion_mnist()
    target = from_torch(samples.model(name), classes=10)
    scene = Scene(target, torch.from_numpy(images[:rows]), torch.from_numpy(labels[:rows]), image=True)
    assert [f.status for f in preflight(scene)] == ["pass"] * len(NAMES)


# -- what it spends ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metered:
    """A target whose rows each take `cost` seconds of a clock of its own, and a gradient 2.5 times that on top."""

    bare: TorchTarget
    cost: float
    spent: list[float]
    rows: list[int]

    access = Access.GRADIENTS
    differentiable = True
    surrogate = False
    output = Output.LOGITS
    stochastic = False
    dtype = torch.float32
    device = torch.device("cpu")
    bounds = (0.0, 1.0)
    classes = 10

    def __call__(self, x: Tensor) -> Tensor:
        self.spent.append(len(x) * self.cost * (3.5 if x.requires_grad else 1))
        self.rows.append(len(x))
        return self.bare(x)


def metered(cost: float, queries: int | None = None, image_step: float = 0.0) -> tuple[Scene, Metered]:
    """A thousand rows under a clock that moves only while the model answers."""
    images, labels = samples.fashion_mnist()
    target = Metered(from_torch(samples.model("robust")), cost, [], [])
    budget = Budget(queries=queries, clock=lambda: sum(target.spent))
    x = (torch.from_numpy(images) + image_step).clamp(max=1)
    return Scene(target, x, torch.from_numpy(labels), image=True, budget=budget), target


@pytest.mark.usefixtures("fours")
@pytest.mark.parametrize("step", [0.0, 0.001], ids=["8-bit", "finer"])
@pytest.mark.parametrize("cost", [1e-6, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.06, 0.1, 0.13, 0.16])
def test_five_seconds_are_enough_and_honest_models_pass_on_few_rows(cost: float, step: float) -> None:
    scene, target = metered(cost, image_step=step)
    found = preflight(scene)
    assert fired(found) == set()
    assert sum(target.spent) <= 5
    if cost <= 1e-4:
        assert "; the budget" not in finding(found, "clean-accuracy").detail
        assert "0 of 64 rows" in finding(found, "gradients").detail
    if cost > 3e-3:
        assert re.search(r"; the budget bought \d+ of 1000 rows$", finding(found, "clean-accuracy").detail)


@pytest.mark.usefixtures("fours")
@pytest.mark.parametrize("cost", [0.2, 1.0, 30.0])
def test_a_model_slower_than_that_costs_the_floor(cost: float) -> None:
    scene, target = metered(cost, image_step=0.001)
    found = preflight(scene)
    assert fired(found) == set()
    assert sum(target.spent) <= 31 * cost
    assert "the budget bought 8 of 1000 rows" in finding(found, "clean-accuracy").detail
    assert "the budget is spent" in finding(found, "eight-bit").detail


@pytest.mark.usefixtures("fours")
@pytest.mark.parametrize("cost", [0.0, 1e-4])
def test_two_hundred_queries_are_enough(cost: float) -> None:
    scene, target = metered(cost, queries=200, image_step=0.001)
    assert fired(preflight(scene)) == set()
    assert sum(target.rows) <= 200
    assert len(target.rows) <= 20
    plain, unlimited = metered(cost)
    preflight(plain)
    assert sum(unlimited.rows) > 1200


@pytest.mark.parametrize(
    "name", ["random", "batch-dependent", "misleading-gradients", "masked-gradients", "wrong-scale"]
)
def test_a_slow_liar_is_named_too(name: str) -> None:
    """Of some mechanisms few rows tell enough: most variants of these are named even on four rows."""
    liar = next(liar for liar in LIARS if liar.name == name)
    named = 0
    for seed in range(8):
        slow = Budget(clock=map(float, itertools.count()).__next__)
        named += liar.check in fired(preflight(replace(liar.make(seed).scene, budget=slow)))
    assert named >= 5


def test_the_sample_is_drawn_from_all_rows_and_the_same_each_time() -> None:
    """Sorted data would show one class alone."""
    scene, _ = metered(0.1)
    order = scene.y.argsort(stable=True)
    asked: list[list[float]] = []

    def sorted_scene() -> Scene:
        again, target = metered(0.1)
        seen: list[float] = []
        asked.append(seen)
        call = TorchTarget.__call__

        def watched(x: Tensor) -> Tensor:
            seen.extend(x.detach().flatten(1).sum(1).tolist())
            return call(target.bare, x)

        bare = replace(target.bare, module=_Watched(watched).eval())
        return replace(again, target=replace(target, bare=bare), x=scene.x[order], y=scene.y[order])

    first = preflight(sorted_scene())
    assert preflight(sorted_scene()) == first
    assert fired(first) == set()
    assert asked[0] == asked[1]
    assert int(finding(first, "constant-answers").detail.split()[0]) >= 3


class _Watched(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x)


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


def picked(whole: Scene, rows: Tensor) -> Scene:
    return replace(whole, x=whole.x[rows], y=whole.y[rows])


def test_an_honest_scene_passes_in_order() -> None:
    found = preflight(scene())
    assert tuple(each.check for each in found) == NAMES
    assert [each.status for each in found] == ["pass"] * len(NAMES)
    assert all(each.detail for each in found)
    refuse(found)


def test_the_first_refusal_ends_the_preflight_and_says_what_to_do() -> None:
    found = preflight(replace(scene(), y=torch.full((90,), 7)))
    assert tuple(each.check for each in found) == NAMES[: NAMES.index("labels") + 1]
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
    for outside in (0.1001, torch.nan):
        above = x.clone()
        above[0, 0] = outside
        assert finding(preflight(replace(small, x=above)), "bounds").fired


@pytest.mark.parametrize(
    ("data", "model", "fires"),
    [
        (torch.float64, torch.float32, False),
        (torch.float32, torch.float64, False),
        (torch.float32, torch.float16, False),  # at most 0.06 of an 8-bit level
        (torch.float32, torch.bfloat16, True),  # at most half a level
    ],
)
def test_data_that_lose_by_the_model_s_type(data: torch.dtype, model: torch.dtype, fires: bool) -> None:
    honest = scene()
    target = from_torch(Pairs().to(model).eval())
    found = finding(preflight(replace(honest, target=target, x=honest.x.to(data))), "dtype")
    assert found.fired is fires
    assert str(model) in found.detail


def test_two_devices_are_named_with_a_part_of_each() -> None:
    module = nn.Sequential(Pairs(), nn.Linear(3, 3).to("meta")).eval()
    found = preflight(replace(scene(), target=from_torch(module)))[-1]
    assert (found.check, found.status) == ("device", "refuse")
    assert "'1.weight' has no numbers yet (device meta)" in found.detail


@pytest.mark.parametrize(("copies", "fires"), [(4, False), (5, True)])
def test_one_row_in_twenty_may_be_a_copy(copies: int, fires: bool) -> None:
    whole = picked(scene(), torch.cat([torch.arange(90), torch.arange(copies)]))
    found = finding(preflight(whole), "duplicates")
    assert found.fired is fires
    assert f"{copies} of {90 + copies} rows repeat" in found.detail
    assert "under another label" not in found.detail
    torn = replace(whole, y=torch.cat([whole.y[:90], (whole.y[90:] + 1) % 3]))
    assert f"{copies} of them under another label" in finding(preflight(torn), "duplicates").detail


def test_rows_that_differ_in_one_number_are_no_copies() -> None:
    """Also where most of each row is the same, as in pictures with an empty frame."""
    x = torch.zeros(90, 1, 20, 20)
    x[:, 0, 7, 7] = torch.arange(90) / 90
    whole = replace(scene(), x=x, target=from_torch(nn.Sequential(nn.Flatten(), nn.Linear(400, 3)).eval()))
    assert "0 of 90 rows" in finding(preflight(whole), "duplicates").detail


@pytest.mark.parametrize(("rate", "fires"), [(0.966, False), (0.968, True), (1.0, True)])
def test_rows_too_few_to_show_a_rate(rate: float, fires: bool) -> None:
    """0.967 ** 90 is 0.05."""
    found = finding(preflight(replace(scene(), required=Requirement(at_least=rate))), "sample-size")
    assert found.fired is fires
    assert ("draw 93 rows or more" in found.remedy) is (rate == 0.968)
    assert ("no number of rows" in found.remedy) is (rate == 1.0)


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


def test_a_model_that_raises_on_every_row_is_refused_for_that() -> None:
    def raises(z: Tensor) -> Tensor:
        raise OSError("gone")

    found = preflight(scene(raises))[-1]
    assert (found.check, found.status) == ("finite-answers", "refuse")
    assert "OSError: gone" in found.detail


@pytest.mark.parametrize(
    ("y", "fires"), [(torch.arange(90) % 3, False), (torch.arange(90) % 3 + 1, True), (torch.arange(90) % 3 - 1, True)]
)
def test_labels_from_nought(y: Tensor, fires: bool) -> None:
    found = preflight(replace(scene(), y=y))
    assert (found[-1].check == "labels" and found[-1].fired) is fires


@pytest.mark.parametrize("declared", [2, 4])
def test_a_model_with_other_scores_than_declared_classes_is_refused(declared: int) -> None:
    found = preflight(scene(classes=declared))
    assert found[-1].check == "output-shape"
    assert f"answers 3 scores a row, and {declared} classes are declared" in found[-1].detail


def test_answers_that_are_no_tensor_are_refused_by_name() -> None:
    found = preflight(scene(lambda z: {"logits": z}))[-1]  # type: ignore[arg-type, return-value]  # the user's mistake
    assert (found.check, found.status) == ("output-shape", "refuse")
    assert found.detail == "the model answered dict, but a tensor of class scores (N, K) is needed"
    assert found.remedy.startswith("wrap the model")


@pytest.mark.parametrize(("absent", "fires"), [([], False), ([0], True), ([0, 1], True)])
def test_classes_without_a_row_are_named(absent: list[int], fires: bool) -> None:
    whole = scene()
    found = finding(preflight(picked(whole, (~torch.isin(whole.y, torch.tensor(absent))).nonzero()[:, 0])), "classes")
    assert found.fired is fires
    if absent:
        assert f"{len(absent)} of 3 classes have no drawn row ({', '.join(map(str, absent))})" in found.detail


def test_a_class_may_be_missing_by_chance() -> None:
    """With 15 rows of three classes one is missing now and then."""
    whole = scene()
    found = finding(preflight(picked(whole, (whole.y > 0).nonzero()[:15, 0])), "classes")
    assert not found.fired
    assert "by chance" in found.detail


def test_probabilities_and_logits_are_told_apart_both_ways() -> None:
    def softmax(z: Tensor) -> Tensor:
        return (4 * z).softmax(1)

    assert fired(preflight(scene(softmax))) == {"output-scale"}
    assert fired(preflight(scene(softmax, output=Output.PROBABILITIES))) == set()
    assert fired(preflight(scene(output=Output.PROBABILITIES))) == {"output-scale"}
    log = scene(lambda z: z.log_softmax(1))
    assert fired(preflight(log)) == set()  # logarithms of probabilities are logits


@pytest.mark.parametrize(("rows", "fires"), [(90, True), (6, False)])
def test_what_the_owner_expects_is_compared_as_far_as_the_rows_can_tell(rows: int, fires: bool) -> None:
    """Six right rows of six do not contradict an accuracy of 0.6; ninety of ninety do."""
    whole = picked(scene(), torch.arange(rows))
    assert fired(preflight(replace(whole, expected=(0.97, 0.05)))) == set()
    found = preflight(replace(whole, expected=(0.6, 0.05)))
    assert finding(found, "clean-accuracy").fired is fires
    if fires:
        assert "the threat model expects 0.6 within 0.05" in finding(found, "clean-accuracy").detail
        with pytest.raises(PreflightError, match=r"or correct system.expect"):
            refuse(found)


def test_a_model_at_chance_or_below_is_refused() -> None:
    turned = preflight(scene(lambda z: z.roll(1, 1)))
    assert "no row is answered right: 0 of 90" in finding(turned, "clean-accuracy").detail
    third = preflight(replace(scene(), y=torch.arange(90) // 30))
    assert "not above chance: 30 of 90" in finding(third, "clean-accuracy").detail


@pytest.mark.parametrize("small", [1e-3, 1e-9])
def test_constant_answers_are_refused(small: float) -> None:
    found = preflight(scene(lambda z: z * small + torch.tensor([2.0, 0.0, 0.0])))[-1]
    assert (found.check, found.status) == ("constant-answers", "refuse")
    assert ("class 0, and 60 of them" in found.detail) is (small == 1e-3)
    assert ("the same scores" in found.detail) is (small == 1e-9)


@pytest.mark.parametrize(("others", "fires"), [(6, False), (7, True)])
def test_a_rare_class_may_be_missed_by_chance(others: int, fires: bool) -> None:
    """Half of seven rows of other classes are missed with a chance below 1 %; of six, not."""
    whole = scene(lambda z: z * 0.001 + torch.tensor([1.0, 0.0, 0.0]))
    rows = torch.cat([(whole.y == 0).nonzero()[:, 0], (whole.y > 0).nonzero()[:others, 0]])
    assert finding(preflight(picked(whole, rows)), "constant-answers").fired is fires


@pytest.mark.parametrize(
    ("x", "image", "words"),
    [
        (0.25, False, "not declared to be images"),
        (0.25, True, "up to 0.25 levels off the 8-bit grid"),
        (0.0, True, "90 images lie on"),
    ],
)
def test_data_off_the_8_bit_grid_are_told_and_harm_nobody(x: float, image: bool, words: str) -> None:
    honest = scene()
    found = preflight(replace(honest, x=((honest.x * 255).round() + x) / 255, image=image))
    assert fired(found) == set()
    assert words.replace("90", "64") in finding(found, "eight-bit").detail


def test_a_model_that_reads_between_the_levels_is_named() -> None:
    def finer(z: Tensor) -> Tensor:
        return z + 8 * (255 * z - (255 * z).round())

    found = preflight(replace(scene(finer), image=True))
    assert finding(found, "eight-bit").fired
    assert "of 64 get another class" in finding(found, "eight-bit").detail


def test_an_output_without_a_graph_is_masked() -> None:
    found = finding(preflight(scene(lambda z: z.detach())), "gradients")
    assert (found.fired, found.status) == (True, "warn")
    assert "no gradient in the input at all" in found.detail
    refuse((found,))  # a warning refuses nothing


@pytest.mark.parametrize(("count", "fires"), [(6, False), (20, True)])
def test_a_few_flat_rows_are_no_masking(count: int, fires: bool) -> None:
    """One row of twenty may be flat, and chance may bring a few more."""
    flat = scene().x[:count].sum(1)

    def masked(z: Tensor) -> Tensor:
        same = ((z.sum(1)[:, None] - flat).abs() < 1e-4).any(1)
        return torch.where(same[:, None], z.detach() + 0 * z, z)

    assert finding(preflight(scene(masked)), "gradients").fired is fires


def test_gradients_that_are_not_finite_are_masked() -> None:
    found = finding(preflight(scene(lambda z: z + 0 * (z - z).sqrt())), "gradients")
    assert found.fired


def test_a_target_that_answers_scores_alone_is_not_asked_for_gradients() -> None:
    @dataclass(frozen=True, slots=True)
    class Served:
        bare: TorchTarget
        access = Access.SCORES
        output, bounds, classes = Output.LOGITS, (0.0, 1.0), 3
        stochastic = differentiable = surrogate = False
        dtype, device = torch.float32, torch.device("cpu")

        def __call__(self, x: Tensor) -> Tensor:
            assert not x.requires_grad
            return self.bare(x)

    honest = scene()
    assert isinstance(honest.target, TorchTarget)
    found = preflight(replace(honest, target=Served(honest.target)))
    assert [f.status for f in found if f.check.startswith("gradient")] == ["pass", "pass"]
    assert fired(found) == set()


def test_a_random_model_is_named_for_that_and_not_for_its_gradients() -> None:
    found = preflight(scene(lambda z: z + 0.05 * torch.randn_like(z)))
    assert fired(found) == {"determinism"}
    assert finding(found, "determinism").status == "switch"
    refuse(found)


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("phase", range(7))
def test_what_comes_round_every_few_calls_is_state_and_not_company(period: int, phase: int) -> None:
    calls = phase

    def every(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return z.roll(1, 1) if calls % period == 0 else z

    found = preflight(scene(every))
    assert {"determinism", "state"} <= fired(found)
    assert "batch-mates" not in fired(found)


@pytest.mark.parametrize(
    "after",
    [lambda z: z - z.mean(0), lambda z: z + 0.2 * z.roll(1, 0), lambda z: z * (1 + 0.001 * len(z))],
    ids=["mean", "neighbor", "size"],
)
@pytest.mark.parametrize("rows", [20, 90])
def test_a_model_that_looks_at_the_rows_beside_is_named(rows: int, after: Callable[[Tensor], Tensor]) -> None:
    """Also where all rows fit into the sample, so that they are always asked together."""
    found = preflight(picked(scene(after), torch.arange(rows)))
    assert (found[-1].check, found[-1].status) == ("batch-mates", "refuse")
    assert fired(found) == {"batch-mates"}


@pytest.mark.parametrize("digits", [1e-6, 1e-5])
def test_batches_of_any_size_may_round_differently(digits: float) -> None:
    assert fired(preflight(scene(lambda z: z * (1 + digits * torch.rand_like(z))))) == set()


def test_half_precision_inside_may_round_by_the_batch() -> None:
    """Another kernel for another size of the batch: a unit of half precision's rounding."""
    assert fired(preflight(scene(lambda z: z * (1 + 2**-11 * (len(z) % 3))))) == set()


@pytest.mark.parametrize("hidden", [0.0, -torch.inf])
def test_scores_of_minus_infinity_are_compared_where_they_are_finite(hidden: float) -> None:
    """A class that is never answered."""

    def never_last(z: Tensor) -> Tensor:
        return torch.cat([z, torch.full_like(z[:, :1], hidden)], 1)

    assert not finding(preflight(scene(never_last, classes=4)), "determinism").fired

    def random(z: Tensor) -> Tensor:
        return never_last(z + torch.randn_like(z) * 0.05)

    assert finding(preflight(scene(random, classes=4)), "determinism").fired


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 65])
def test_any_number_of_rows(rows: int) -> None:
    """Few rows show little, and accuse nobody."""
    assert fired(preflight(picked(scene(), torch.arange(rows)))) == set()


def test_the_preflight_leaves_model_and_random_numbers_alone() -> None:
    noisy = scene(lambda z: z + 0.05 * torch.randn_like(z))
    assert isinstance(noisy.target, TorchTarget)
    module = noisy.target.module
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.random.get_rng_state()
    first = preflight(noisy)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(7)
    assert preflight(noisy) == first
