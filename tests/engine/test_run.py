"""Runs from end to end: what becomes of every row, whatever the model, the attack, the limits and the workers do."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from redan.engine.block import Job
from redan.engine.outcomes import Outcomes, Status
from redan.engine.run import Progress, attack, run
from redan.errors import SettingError, TargetError, TrainingModeError
from redan.evasion.fgsm import FGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.goals import Targeted
from redan.oracle import Capability, Limits, Purse
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access, Attack, Ball, Gradients, in_turn
from redan.referee import Closest, Worst
from redan.rows import Rows
from redan.samples import fashion_mnist
from redan.samples import model as sample
from redan.targets import from_torch
from redan.testing import LinearVictim, dual_linf

VICTIM = LinearVictim.drawn(0, classes=3, shape=(2, 4))
X, Y = VICTIM.rows(40)
BEST = VICTIM.optimum(X, Y, dual_linf).float()
HALF = float(BEST.median())  # a radius that wins half of the rows


class Answers(nn.Module):
    """A model given as a function of the linear victim's scores and the input."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = VICTIM.module()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.linear(x), x)


def job(model: nn.Module | None = None, *attacks: Attack[Any, Any], stochastic: bool = False, **changed: Any) -> Job:
    settings: dict[str, Any] = {
        "target": from_torch((model or VICTIM.module()).eval(), stochastic=stochastic),
        "x": X,
        "y": Y,
        "names": [str(i) for i in range(len(X))],
        "attacks": in_turn(attacks or (PGD(steps=10),)),
        "within": Linf(HALF),
    }
    return Job(**(settings | changed))


def names(outcomes: Outcomes) -> list[str]:
    return [Status(status).name for status in outcomes.status.tolist()]


# -- what becomes of rows -----------------------------------------------------------------------------------


def test_half_of_the_rows_are_won_and_keep_what_won() -> None:
    result = attack(VICTIM.module(), X, Y, PGD(), within=Linf(HALF * 1.001))
    answers = VICTIM.module()(result.adversarial).argmax(1)

    assert torch.equal(result.success, answers != Y)
    assert 15 <= int(result.success.sum()) <= 25
    assert torch.equal(result.adversarial[~result.success], X[~result.success])
    assert bool(result.distance[result.success].max() <= HALF * 1.002)
    assert result.distance[~result.success].tolist() == [math.inf] * int((~result.success).sum())
    assert not result.errors


def test_rows_already_wrong_are_won_for_nothing_and_keep_their_input() -> None:
    y = Y.clone()
    y[:5] = (y[:5] + 1) % 3
    result = attack(VICTIM.module(), X, y, PGD(), within=Linf(1e-6))

    assert result.success.tolist() == [True] * 5 + [False] * 35
    assert result.distance[:5].tolist() == [0.0] * 5
    assert torch.equal(result.adversarial, X)
    assert result.queries[:5].tolist() == [0] * 5


def test_every_row_says_who_broke_it() -> None:
    y = Y.clone()
    y[0] = (y[0] + 1) % 3
    found = run(job(None, FGSM(), PGD(), y=y))

    assert not found.right[0]
    assert found.by[0] == -1
    assert set(names(found)) == {"BROKEN", "ROBUST"}
    assert [a.name for a in found.accounts] == ["FGSM", "PGD"]
    assert found.accounts[0].attempted == 39
    assert found.accounts[1].attempted == 39 - found.accounts[0].broken
    broken = [int((found.by == stage).sum()) for stage in range(2)]
    assert broken == [a.broken for a in found.accounts]
    assert sum(a.queries for a in found.accounts) == int(found.queries.sum())
    assert sum(a.backwards for a in found.accounts) == int(found.backwards.sum())


def test_no_rows() -> None:
    result = attack(VICTIM.module(), X[:0], Y[:0], PGD(), within=Linf(0.1))

    assert result.adversarial.shape == (0, 2, 4)
    assert result.success.shape == (0,)


def test_the_callers_rows_and_model_are_left_alone() -> None:
    x, y, model = X.clone(), Y.clone(), VICTIM.module()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = attack(model, x, y, PGD(), within=Linf(HALF))
    result.adversarial.fill_(0)

    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_model_that_writes_into_its_input_does_not_touch_the_callers_rows() -> None:
    def answer(z: Tensor, x: Tensor) -> Tensor:
        x.sub_(0.1)
        return z

    x = X.clone()
    try:
        result = attack(Answers(answer).eval(), x, Y, Square(queries=5), within=Linf(HALF))
    except TargetError:
        pass
    else:
        assert bool(((result.adversarial - X).abs() <= HALF + 1e-5).all())
    assert torch.equal(x, X)


# -- goals --------------------------------------------------------------------------------------------------


def test_a_target_for_all_rows() -> None:
    result = attack(VICTIM.module(), X, Y, PGD(), within=Linf(HALF * 4), goal=Targeted(1))

    assert bool(result.success.any())
    assert not result.success[Y == 1].any()
    assert (VICTIM.module()(result.adversarial).argmax(1)[result.success] == 1).all()


@pytest.mark.parametrize("options", [{}, {"block": 7}, {"workers": 2}, {"workers": 1}])
def test_a_target_each(options: dict[str, Any]) -> None:
    """However the rows are cut into blocks."""
    target = (Y + 1 + torch.arange(40) % 2) % 3
    result = attack(VICTIM.module(), X, Y, PGD(), within=Linf(HALF * 4), goal=Targeted(target), **options)

    answers = VICTIM.module()(result.adversarial).argmax(1)
    assert int(result.success.sum()) > 20
    assert torch.equal(result.success, answers == target)


# -- rules of keeping ---------------------------------------------------------------------------------------


def test_closest_goes_on_to_nearer_ones() -> None:
    noise = RandomNoise(tries=60)
    first = attack(VICTIM.module(), X, Y, noise, within=Linf(BEST * 5))
    closest = attack(VICTIM.module(), X, Y, noise, within=Linf(BEST * 5), keep=Closest())

    assert closest.success.all()
    assert bool((closest.distance <= first.distance).all())
    assert float(closest.distance.mean()) < 0.9 * float(first.distance.mean())
    assert closest.queries.tolist() == [60] * 40


def test_worst_is_no_error_where_nothing_was_won() -> None:
    """Adversarial training keeps the input with the highest loss, won or not."""
    result = attack(VICTIM.module(), X, Y, PGD(), within=Linf(HALF), keep=Worst())
    answers = VICTIM.module()(result.adversarial).argmax(1)

    assert not result.errors
    assert torch.equal(result.success, answers != Y)
    assert bool((result.adversarial != X).flatten(1).any(1).all())


# -- what may be spent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 37])
def test_the_attackers_capability_ends_every_attack(most: int) -> None:
    """A row that survives an attacker who spent all he has is robust against him."""
    for one in (PGD(steps=100), Square(queries=500), RandomNoise(tries=500)):
        found = run(job(None, one, capability=Capability(queries_per_row=most), within=Linf(BEST * 0.9)))
        assert found.queries.tolist() == [most] * 40
        assert names(found) == ["ROBUST"] * 40


def test_our_limits_leave_rows_undecided() -> None:
    found = run(job(None, PGD(steps=100), within=Linf(BEST * 0.9)), purse=Purse(Limits(queries=500)), block=10)

    assert int(found.queries.sum()) <= 500
    assert names(found) == ["UNDECIDED"] * 40
    assert not found.reasons
    none = run(job(), purse=Purse(Limits(seconds=0.0)))
    assert names(none) == ["UNDECIDED"] * 40


def test_a_limit_that_is_not_reached_decides_nothing() -> None:
    bounded = run(job(), purse=Purse(Limits(queries=10**6, seconds=1e6)))

    assert names(bounded) == names(run(job()))


def test_a_row_won_before_the_limit_stays_won() -> None:
    found = run(job(None, FGSM(), PGD(steps=200), within=Linf(HALF)), purse=Purse(Limits(queries=200)))

    assert set(names(found)) == {"BROKEN", "UNDECIDED"}


# -- models that fail ---------------------------------------------------------------------------------------


def marked(x: Tensor, rows: list[int]) -> Tensor:
    return torch.cdist(x.detach().flatten(1), X[rows].flatten(1)).amin(1) < 1e-3


def nan(z: Tensor, x: Tensor) -> Tensor:
    return z.masked_fill(marked(x, [3, 20])[:, None], torch.nan)


def raising(z: Tensor, x: Tensor) -> Tensor:
    if bool(marked(x, [3, 20]).any()):
        raise ConnectionError("reset by peer")
    return z


@pytest.mark.parametrize(("answer", "reason"), [(nan, "NaN"), (raising, "ConnectionError: reset by peer")])
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_that_the_model_fails_on_are_errors_and_the_run_goes_on(
    answer: Callable[[Tensor, Tensor], Tensor], reason: str, workers: int
) -> None:
    sound = run(job(), workers=1)
    found = run(job(Answers(answer)), workers=workers, block=16)
    others = [i for i in range(40) if i not in (3, 20)]

    assert [i for i, name in enumerate(names(found)) if name == "ERROR"] == [3, 20]
    assert sorted(found.reasons) == [3, 20]
    assert all(reason in said for said in found.reasons.values())
    assert torch.equal(found.x[others], sound.x[others])
    assert torch.equal(found.status[others], sound.status[others])
    assert found.queries[[3, 20]].tolist() == [0, 0]


def test_a_row_that_fails_in_the_middle_of_an_attack_is_an_error_too() -> None:
    """Only changed inputs of row 3 fail: it is not robust, since nobody knows."""

    def answer(z: Tensor, x: Tensor) -> Tensor:
        away = (x.detach() - X[3]).flatten(1).abs().amax(1)
        return z.masked_fill(((away > 0) & (away <= float(BEST[3]) * 0.91))[:, None], torch.nan)

    found = run(job(Answers(answer), within=Linf(BEST * 0.9)))

    assert names(found)[3] == "ERROR"
    assert names(found)[:3] == ["ROBUST"] * 3
    assert found.right[3]


def test_a_win_that_cannot_be_repeated_is_an_error() -> None:
    calls = 0

    def answer(z: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return z if calls <= 4 else z.roll(1, 1) if calls == 5 else z

    found = run(job(Answers(answer), PGD(steps=8), within=Linf(1e-4)), workers=1)

    assert names(found) == ["ERROR"] * 40
    assert all("second time" in reason for reason in found.reasons.values())


# -- attacks that fail --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crashes:
    inner: Attack[Any, Any]

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        self.inner(referee, rows)
        raise ZeroDivisionError("step of 0")


def test_an_attack_that_raises_ends_the_run() -> None:
    with pytest.raises(ZeroDivisionError):
        run(job(None, Crashes(FGSM())))


def test_an_attack_that_raises_is_contained_where_that_is_asked_for() -> None:
    """Its wins stay; the rows it had left are errors, since they were not attacked as planned."""
    found = run(job(None, Crashes(FGSM()), FGSM(), contain=True))

    assert set(names(found)) == {"BROKEN", "ERROR"}
    assert all("Crashes raised ZeroDivisionError: step of 0" in reason for reason in found.reasons.values())
    assert found.accounts[0].reason is not None
    assert found.accounts[1].reason is None


@dataclass(frozen=True, slots=True)
class Spoils:
    """Writes into what it was given."""

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        rows.x0.fill_(0.5)
        goal: Any = rows.goal
        goal.truth.add_(1).remainder_(3)
        rows.ids.zero_()
        rows.draw.drawn.add_(7)


def test_an_attack_does_not_spoil_the_next_one_or_the_judgement() -> None:
    alone = run(job(None, PGD(), y=Y))
    after = run(job(None, Spoils(), PGD(), y=Y))

    assert torch.equal(after.status, alone.status)
    assert torch.equal(after.x, alone.x)
    assert torch.equal(after.share, alone.share)


# -- modes and flags ----------------------------------------------------------------------------------------


def test_a_model_in_training_mode_is_refused_and_left_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.Dropout()).eval()
    model[2].train()
    with pytest.raises(TrainingModeError, match=r"2 \(Dropout\)"):
        attack(model, X, Y, PGD(), within=Linf(0.1))
    assert [part.training for part in model] == [False, False, True]


def test_a_model_that_switches_its_mode_is_found_and_put_back() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = VICTIM.module()

        def forward(self, x: Tensor) -> Tensor:
            self.linear.training = True
            self.linear.get_parameter("bias").requires_grad_(False)
            answer: Tensor = self.linear(x)
            return answer

    model = Moody().eval()
    with pytest.raises(TargetError, match=r"linear.*own state|own state.*linear"):
        attack(model, X, Y, PGD(steps=2), within=Linf(0.1))
    assert not model.linear.training
    assert all(p.requires_grad for p in model.parameters())


def test_modes_are_put_back_also_when_the_run_ends_in_an_error() -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.training = True
            answer: Tensor = VICTIM.module()(x)
            return answer

    model = Moody().eval()
    with pytest.raises(ZeroDivisionError):
        attack(model, X, Y, Crashes(FGSM()), within=Linf(0.1))
    assert not model.training


def test_a_run_inside_inference_mode() -> None:
    """Notebooks and servers switch it on; attacks need gradients all the same."""
    model = VICTIM.module()
    with torch.inference_mode():
        result = attack(model, X.clone(), Y.clone(), PGD(), within=Linf(HALF))
    with torch.no_grad():
        again = attack(model, X, Y, PGD(), within=Linf(HALF))

    assert bool(result.success.any())
    assert torch.equal(result.adversarial, again.adversarial)


# -- stochastic targets -------------------------------------------------------------------------------------


def wrong_by_chance(share: float, reachable: bool) -> nn.Module:
    """Right but for a share of its answers on the clean input; beyond L∞ 0.05 of it always wrong, if reachable."""

    def answer(z: Tensor, x: Tensor) -> Tensor:
        far = torch.cdist(x.detach().flatten(1), X.flatten(1), p=torch.inf).amin(1) > 0.05
        wrong = (torch.rand(len(x)) < share) | (far & reachable)
        nearest = Y[torch.cdist(x.detach().flatten(1), X.flatten(1), p=torch.inf).argmin(1)]
        scores = nn.functional.one_hot((nearest + wrong.long()) % 3, 3).float()
        return scores + 0 * z

    return Answers(answer)


def test_a_lucky_clean_answer_does_not_save_a_row_from_the_attack() -> None:
    """At one draw a fifth of the rows is wrong already; all the rows can be broken for good."""
    found = run(job(wrong_by_chance(0.2, True), RandomNoise(tries=20), stochastic=True, within=Linf(0.1)))

    assert names(found) == ["BROKEN"] * 40
    assert float(found.share.mean()) > 0.95


def test_a_lucky_hit_is_no_error_and_no_win() -> None:
    """Forty questions to a model that is wrong at one draw in fifty: most rows are hit once, none is broken."""
    found = run(job(wrong_by_chance(0.02, False), RandomNoise(tries=40), stochastic=True, within=Linf(0.01)))

    assert "ERROR" not in names(found)
    assert float(found.share.mean()) < 0.15


def test_what_is_not_a_success_has_no_distance() -> None:
    """A saved input that reaches the goal in fewer than half of twenty fresh draws is none."""
    model = from_torch(wrong_by_chance(0.3, False).eval(), stochastic=True)
    result = attack(model, X, Y, RandomNoise(tries=20), within=Linf(0.01))

    assert not result.success.all()
    assert result.distance[~result.success].tolist() == [math.inf] * int((~result.success).sum())
    assert torch.equal(result.adversarial[~result.success], X[~result.success])


def test_a_stochastic_run_can_be_repeated_and_leaves_the_callers_numbers_alone() -> None:
    model = from_torch(wrong_by_chance(0.3, True).eval(), stochastic=True)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = attack(model, X, Y, RandomNoise(tries=5), within=Linf(0.1), workers=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    two = attack(model, X, Y, RandomNoise(tries=5), within=Linf(0.1), workers=2)
    other = attack(model, X, Y, RandomNoise(tries=5), within=Linf(0.1), seed=1)

    assert torch.equal(one.adversarial, two.adversarial)
    assert not torch.equal(one.adversarial, other.adversarial)


# -- radii, seeds, progress ---------------------------------------------------------------------------------


def test_a_radius_a_row() -> None:
    radius = BEST * torch.tensor([0.9, 1.4]).repeat(20)
    result = attack(VICTIM.module(), X, Y, PGD(), within=Linf(radius), block=7)

    assert result.success.tolist() == [False, True] * 20
    with pytest.raises(SettingError, match="40 rows"):
        attack(VICTIM.module(), X, Y, PGD(), within=L2(radius[:5]))


def test_bounds_come_from_the_target() -> None:
    victim = LinearVictim.drawn(0, bounds=(-3.0, 7.0))
    x, y = victim.rows(10)
    best = victim.optimum(x, y, dual_linf).float()
    result = attack(victim.module(), x, y, PGD(), within=Linf(best * 1.1), bounds=(-3, 7))

    assert result.success.all()
    with pytest.raises(SettingError, match="own bounds"):
        attack(from_torch(victim.module()), x, y, PGD(), within=Linf(0.1), bounds=(-3, 7))


def test_another_seed_other_bytes() -> None:
    results = [attack(VICTIM.module(), X, Y, PGD(), within=Linf(HALF * 2), keep=Worst(), seed=s) for s in (0, 0, 1)]

    assert torch.equal(results[0].adversarial, results[1].adversarial)
    assert not torch.equal(results[0].adversarial, results[2].adversarial)


def test_less_knowledge_can_be_declared() -> None:
    with pytest.raises(SettingError, match="knowledge is scores"):
        attack(VICTIM.module(), X, Y, PGD(), within=Linf(0.1), knowledge=Access.SCORES)


def test_progress_goes_up_to_the_end() -> None:
    said: list[Progress] = []
    run(job(), progress=said.append, block=10, workers=1)

    assert said[-1].share == pytest.approx(1.0)
    assert said[-1].settled == said[-1].rows == 40
    assert [p.share for p in said] == sorted(p.share for p in said)


def test_blocks_are_handed_over_as_they_end() -> None:
    ended: list[Outcomes] = []
    found = run(job(), block=10, workers=2, done=ended.append)

    assert sorted(i for outcomes in ended for i in outcomes.index.tolist()) == list(range(40))
    assert found.index.tolist() == list(range(40))


def test_an_error_in_one_worker_ends_the_others() -> None:
    """The run stops asking the model soon after, and the error arrives."""
    asked, lock = 0, threading.Lock()

    def answer(z: Tensor, x: Tensor) -> Tensor:
        nonlocal asked
        with lock:
            asked += 1
        if bool((x == X[7]).flatten(1).all(1).any()):
            raise TargetError("not today")
        return z

    with pytest.raises(TargetError, match="not today"):
        run(job(Answers(answer), Square(queries=2000), within=Linf(BEST * 0.5)), workers=2, block=5)
    assert asked < 1500


def test_an_interrupt_ends_the_run() -> None:
    def done(_: Outcomes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job(None, PGD()), workers=2, block=5, done=done)
    assert torch.get_num_threads() >= 1


class Jittered(torch.nn.Module):
    """A network behind noise that is larger than what an attacker may change."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = sample("natural")

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x + 0.5 * torch.randn_like(x))
        return answer


def test_eot_climbs_what_one_draw_does_not() -> None:
    """What is found is judged without the noise, which breaks most rows by itself."""
    images, labels = fashion_mnist()
    target, inner = from_torch(Jittered().eval(), stochastic=True, classes=10), sample("natural")
    x, y = images[:48], labels[:48]
    height = {}
    for eot in (1, 16):
        found = attack(target, x, y, PGD(steps=10), within=Linf(0.1), eot=eot, keep=Worst())
        with torch.no_grad():
            height[eot] = float(cross_entropy(inner(found.adversarial), torch.as_tensor(y)))
        asked = found.backwards > 0
        assert bool((found.backwards[asked] % eot == 0).all())
    assert height[16] > height[1] + 0.5  # 7.6 beside 5.9 nats, a tenth more or less with the draws


def test_eot_is_refused_where_it_means_nothing() -> None:
    net, x, y = torch.nn.Linear(2, 2).eval(), torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(
        SettingError, match="eot=20 averages the draws of a stochastic model, and the one that is climbed"
    ):
        attack(net, x, y, PGD(), within=Linf(0.1), eot=20)
    with pytest.raises(SettingError, match="eot must be 1 or more, got 0"):
        attack(net, x, y, PGD(), within=Linf(0.1), eot=0)
    noisy = from_torch(Answers(lambda z, _: z + torch.randn_like(z)).eval(), stochastic=True)
    with pytest.raises(SettingError, match="eot=20"):  # gradients are the surrogate's, which is deterministic
        attack(noisy, X, Y, PGD(), within=Linf(0.1), eot=20, surrogates=[VICTIM.module()])
    found = attack(VICTIM.module(), X[:4], Y[:4], PGD(steps=3), within=Linf(0.01), eot=5, surrogates=[noisy])
    assert int(found.queries.max()) <= 1
    assert found.backwards.tolist() == [15] * 4


def test_nothing_is_spent_on_rows_of_the_wanted_class() -> None:
    result = attack(VICTIM.module(), X, Y, Square(queries=50), within=Linf(HALF / 100), goal=Targeted(1))
    assert torch.equal(result.queries > 0, Y != 1)
    assert not bool(result.success[Y == 1].any())
    free = attack(VICTIM.module(), X, Y, Square(queries=50), within=Linf(HALF / 100))
    assert bool((free.queries > 0).all())
