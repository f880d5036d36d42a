"""Metered access: what each query costs and answers, what failure costs, and what is never computed."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from redan import answers as home
from redan import samples
from redan.answers import evaluate, micro_batch, share, smallest
from redan.errors import AccessError, TargetError
from redan.goals import Untargeted
from redan.losses import cross_entropy, margin
from redan.oracle import Capability, Limits, Oracle, Purse
from redan.runners.local import one_thread_each
from redan.targets import StandIn, Target, from_torch
from redan.testing import LinearVictim

VICTIM = LinearVictim.drawn(3, classes=3, shape=(4,))
X, Y = VICTIM.rows(6)


def plain(x: Tensor) -> Tensor:
    answer: Tensor = VICTIM.module()(x)
    return answer


class Calls(nn.Module):
    """Remembers how many rows each call asked, and answers by a function."""

    def __init__(self, answer: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.inner = VICTIM.module()
        self.answer = answer or self.inner
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.answer(x)


def oracle(
    model: nn.Module | None = None,
    *,
    cap: int | None = None,
    limits: Limits | None = None,
    size: int = 6,
    micro: int = 64,
) -> Oracle:
    target = from_torch(VICTIM.module() if model is None else model.eval())
    purse = Purse(limits or Limits())
    return Oracle(target, size, 3, capability=Capability(queries_per_row=cap), purse=purse, micro=micro)


def ids(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


# -- what a query is ----------------------------------------------------------------------------------------


def test_a_query_is_one_input_and_one_forward_pass() -> None:
    one = oracle()
    one.ask(X[[0, 1, 1]], ids(0, 1, 1))

    assert one.queries.tolist() == [1, 2, 0, 0, 0, 0]
    assert one.forwards.tolist() == one.queries.tolist()
    assert not bool(one.backwards.any())


def test_a_gradient_is_one_query_one_forward_one_backward() -> None:
    one = oracle()
    one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)

    assert one.queries.tolist() == one.forwards.tolist() == one.backwards.tolist() == [1] * 6


class Noisy(nn.Module):
    """Weights that change with each call: the k-th answer is k times the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = VICTIM.module(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        answer: Tensor = self.inner(x) * self.calls
        return answer


def noisy(cap: int | None = None, limits: Limits | None = None) -> Oracle:
    target = from_torch(Noisy().eval(), stochastic=True)
    purse = Purse(limits or Limits())
    return Oracle(target, 6, 3, capability=Capability(queries_per_row=cap), purse=purse, micro=64, eot=4)


def test_eot_averages_gradients_and_bills_every_draw() -> None:
    once, mean = oracle(), noisy()
    single = once.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)
    answers = mean.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)

    for part in ("output", "loss", "gradient"):  # the mean of 1, 2, 3 and 4 times
        assert torch.allclose(getattr(answers, part), 2.5 * getattr(single, part), rtol=1e-5)
    assert mean.queries.tolist() == mean.backwards.tolist() == [4] * 6
    assert noisy().ask(X, torch.arange(6)).answered.all()
    mean.ask(X, torch.arange(6))
    assert mean.queries.tolist() == [5] * 6  # scores are one answer


def test_a_draw_that_fails_whole_is_no_answer() -> None:
    """It knows neither how many scores there are nor how many gradients a row."""

    def answer(fails: int) -> Callable[[Tensor], Tensor]:
        calls = iter(range(100))

        def forward(x: Tensor) -> Tensor:
            if next(calls) == fails:
                raise RuntimeError("out of luck")
            return plain(x)

        return forward

    for fails in (0, 1, 2):
        target = from_torch(Calls(answer(fails)).eval(), stochastic=True)
        one = Oracle(target, 6, 3, capability=Capability(), purse=Purse(Limits()), micro=64, eot=3)
        answers = one.ask(X[:1], ids(4), goal=Untargeted(Y[:1]), loss=lambda z, _: z)
        assert answers.gradient.shape == (1, 3, 4)
        assert not bool(answers.answered.any())
        assert "out of luck" in one.reasons[4]


def test_eot_keeps_to_what_may_be_spent() -> None:
    one = noisy(cap=7)
    assert bool(one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin).answered.all())
    second = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)
    assert not bool(second.answered.any())
    assert one.queries.tolist() == [4] * 6
    assert not bool(one.gone().any())  # three single answers are left

    cut = noisy(limits=Limits(queries=23))
    assert not bool(cut.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin).answered.any())
    assert bool(cut.gone().all())


def test_gradients_of_all_classes_are_one_query_and_a_backward_each() -> None:
    one = oracle()
    answers = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=lambda z, _: z)

    assert answers.gradient.shape == (6, 3, 4)
    assert torch.allclose(answers.gradient, VICTIM.weights.expand(6, 3, 4))
    assert one.queries.tolist() == [1] * 6
    assert one.backwards.tolist() == [3] * 6


def test_a_row_alone_is_asked_with_company_and_billed_once() -> None:
    model = Calls()
    one = oracle(model)
    answers = one.ask(X[:1], ids(4), goal=Untargeted(Y[:1]), loss=margin)

    assert min(model.sizes) > 1
    assert one.queries.tolist() == [0, 0, 0, 0, 1, 0]
    assert answers.output.shape == (1, 3)
    assert answers.gradient.shape == (1, 4)
    assert answers.loss.shape == (1,)


def test_the_gradient_is_the_derivative() -> None:
    answers = oracle().ask(X, torch.arange(6), goal=Untargeted(Y), loss=cross_entropy)
    scores = VICTIM.module()(X).detach()
    by_hand = (scores.softmax(1) - torch.eye(3)[Y]) @ VICTIM.weights

    assert torch.allclose(answers.gradient, by_hand, atol=1e-5)
    assert torch.allclose(answers.output, scores)
    assert torch.allclose(answers.loss, cross_entropy(scores, Untargeted(Y)))
    assert not answers.output.requires_grad
    assert not answers.gradient.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_the_callers_grad_mode_does_not_matter(mode: Callable[[], torch.no_grad]) -> None:
    with mode():
        answers = oracle().ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)
        plain = oracle().ask(X, torch.arange(6))

    assert bool(answers.gradient.any())
    assert not plain.output.requires_grad


def products(work: Callable[[], object]) -> int:
    """How many matrix products some work takes, forward and backward."""
    with torch.profiler.profile() as profile:
        work()
    return sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm"))


def test_nothing_is_computed_for_the_weights() -> None:
    """Three layers: three products forward and three backward; with the weights' gradients it would be six."""
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x, y = torch.rand(16, 64), torch.zeros(16, dtype=torch.int64)
    every = torch.arange(16)

    assert products(lambda: oracle(model, size=16).ask(x, every)) == 3
    assert products(lambda: oracle(model, size=16).ask(x, every, goal=Untargeted(y), loss=margin)) == 6
    assert all(p.grad is None for p in model.parameters())


def test_a_frozen_model_is_attacked_as_well() -> None:
    model = VICTIM.module().requires_grad_(False)
    answers = oracle(model).ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)

    assert bool(answers.gradient.any())


# -- what the attacker may spend ----------------------------------------------------------------------------


def test_a_row_over_its_capability_gets_no_answer() -> None:
    one = oracle(cap=2)
    every = torch.arange(6)
    one.ask(X, every)
    one.ask(X[:3], every[:3])
    answers = one.ask(X, every, goal=Untargeted(Y), loss=margin)

    assert answers.answered.tolist() == [False] * 3 + [True] * 3
    assert bool(answers.output[:3].isnan().all())
    assert answers.loss[:3].tolist() == [-math.inf] * 3
    assert not bool(answers.gradient[:3].any())
    assert bool(answers.gradient[3:].any(1).all())
    assert one.queries.tolist() == [2] * 6
    assert one.gone().tolist() == [True] * 6
    assert not one.cut.any()
    assert not one.reasons


@pytest.mark.parametrize("cap", [1, 2, 37])
def test_many_candidates_a_row_stop_at_the_capability_too(cap: int) -> None:
    one = oracle(cap=cap)
    every = ids(*[0] * 100, *[1] * 3)
    answers = one.ask(X[:1].expand(103, 4), every)

    assert one.queries.tolist() == [cap, min(3, cap), 0, 0, 0, 0]
    assert answers.answered[:cap].all()
    assert not answers.answered[cap:100].any()


def test_nobody_admitted_asks_nothing_of_the_model() -> None:
    model = Calls()
    one = oracle(model, cap=0)
    answers = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=lambda z, _: z)

    assert not model.sizes
    assert answers.output.shape == (6, 3)
    assert not bool(answers.answered.any())


# -- what we may spend --------------------------------------------------------------------------------------


def test_our_limit_on_queries_cuts_rows_off() -> None:
    one = oracle(limits=Limits(queries=10))
    one.ask(X, torch.arange(6))
    answers = one.ask(X[:5], torch.arange(5))

    assert not bool(answers.answered.any())
    assert one.cut.tolist() == [True] * 5 + [False]
    assert int(one.queries.sum()) == 6
    one.ask(X[5:], ids(5))
    assert one.cut.all()  # once the limit is hit, nothing is answered any more


def test_our_limit_on_seconds_cuts_rows_off() -> None:
    one = oracle(limits=Limits(seconds=0.0))

    assert not bool(one.ask(X, torch.arange(6)).answered.any())
    assert one.cut.all()


def test_a_purse_is_shared_and_can_be_closed() -> None:
    purse = Purse(Limits(queries=5))

    assert purse.pay(3)
    assert purse.hit is None
    assert not purse.pay(3)
    assert purse.hit == "queries"
    stopped = Purse(Limits())
    stopped.stop()
    stopped.stop("something else")
    assert stopped.hit == "interrupted"
    assert not stopped.pay(0)


# -- models that fail ---------------------------------------------------------------------------------------


def nan_for(rows: Tensor) -> Callable[[Tensor], Tensor]:
    def answer(x: Tensor) -> Tensor:
        bad = (x[:, None] == X[rows]).all(2).any(1)
        return plain(x).masked_fill(bad[:, None], torch.nan)

    return answer


def raises_for(rows: Tensor) -> Callable[[Tensor], Tensor]:
    def answer(x: Tensor) -> Tensor:
        if bool((x[:, None] == X[rows]).all(2).any()):
            raise ConnectionError("reset by peer\nTraceback: secrets")
        return plain(x)

    return answer


@pytest.mark.parametrize(
    ("fails", "reason"),
    [(nan_for, "the model answered NaN"), (raises_for, "the model raised ConnectionError: reset by peer")],
)
@pytest.mark.parametrize("bad", [[2], [0, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]])
def test_rows_that_the_model_fails_on_are_errors_and_the_others_are_answered(
    fails: Callable[[Tensor], Callable[[Tensor], Tensor]], reason: str, bad: list[int]
) -> None:
    one = oracle(Calls(fails(torch.tensor(bad))))
    sound = oracle().ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)
    answers = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)
    good = [i for i in range(6) if i not in bad]

    assert answers.answered.tolist() == [i in good for i in range(6)]
    assert one.reasons == dict.fromkeys(bad, reason)
    assert one.failed.tolist() == [i in bad for i in range(6)]
    assert torch.equal(answers.output[good], sound.output[good])
    assert torch.equal(answers.gradient[good], sound.gradient[good])
    assert not bool(answers.gradient[bad].any())
    assert answers.loss[bad].tolist() == [-math.inf] * len(bad)
    assert one.queries.tolist() == [1] * 6
    again = one.ask(X, torch.arange(6))
    assert again.answered.tolist() == answers.answered.tolist()
    assert one.queries.tolist() == [1 + (i in good) for i in range(6)]


def test_one_bad_row_in_many_is_found_by_halving() -> None:
    model = Calls(raises_for(ids(3)))
    x = torch.rand(64, 4)
    x[40] = X[3]
    one = oracle(model, size=64)
    one.ask(x, torch.arange(64))

    assert list(one.reasons) == [40]
    assert len(model.sizes) <= 2 * 6 + 2


def test_a_bad_row_is_named_by_its_position_in_the_pool() -> None:
    one = oracle(Calls(nan_for(ids(2))), cap=5)
    one.ask(X[[5, 2, 0]], ids(5, 2, 0))

    assert one.reasons == {2: "the model answered NaN"}


def test_a_number_that_the_attack_spoiled_is_not_the_models_fault() -> None:
    one = oracle()
    x = X.clone()
    x[1, 0], x[2, 0] = torch.nan, torch.inf
    answers = one.ask(x, torch.arange(6), goal=Untargeted(Y), loss=margin)

    assert not bool(answers.answered[1])
    assert not one.reasons
    assert not one.failed.any()
    assert bool(answers.gradient.isfinite().all())


@pytest.mark.parametrize(
    "answer",
    [lambda x: x[:, 0], lambda x: x[:2], lambda x: x[:, None, :3], lambda x: x[:, :2]],
    ids=["one number", "too few rows", "too many dimensions", "too few classes"],
)
def test_answers_of_another_shape_are_refused(answer: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(TargetError, match=r"needed, \(N, K\)"):
        oracle(Calls(answer)).ask(X, torch.arange(6))


@pytest.mark.parametrize("cut", [lambda x: VICTIM.module()(x).detach(), lambda x: VICTIM.module()(x.detach())])
def test_a_model_without_a_gradient_is_refused_by_name(cut: Callable[[Tensor], Tensor]) -> None:
    """Also where the weights keep the graph alive, and only the input is cut off."""
    with pytest.raises(AccessError, match="no gradient in its input"):
        oracle(Calls(cut)).ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)


def test_gradients_that_say_nothing_are_counted_and_become_zero() -> None:
    def answer(x: Tensor) -> Tensor:
        flat = plain(x)
        slope = torch.where(torch.arange(len(x)) < 2, 0.0, 1.0)
        steep = torch.where(torch.arange(len(x)) == 5, torch.inf, 1.0)
        return flat.detach() + (flat - flat.detach()) * (slope * steep)[:, None]

    one = oracle(Calls(answer))
    answers = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=margin)

    assert one.blind.tolist() == [1, 1, 0, 0, 0, 1]
    assert answers.gradient.any(1).tolist() == [False, False, True, True, True, False]


def test_a_model_that_writes_into_its_input_does_no_harm() -> None:
    """`x -= mean` in a forward: refused, or answered from a copy; never into the rows."""

    def answer(x: Tensor) -> Tensor:
        x -= 0.1
        return plain(x)

    x = X.clone()
    try:
        answers = oracle(Calls(answer)).ask(x, torch.arange(6))
    except TargetError:
        pass
    else:
        assert torch.allclose(answers.output, VICTIM.module()(X - 0.1))
    assert torch.equal(x, X)


# -- micro-batches ------------------------------------------------------------------------------------------


def test_micro_batches_hold_no_more_than_fit() -> None:
    assert micro_batch(torch.empty(1, 3, 32, 32)) == 256
    assert 2 <= micro_batch(torch.empty(1, 3, 2048, 2048)) <= max(8, smallest())
    assert micro_batch(torch.empty(0, 5)) == 256


@pytest.mark.parametrize("micro", [8, 16, 64])
def test_no_pass_is_larger_than_the_micro_batch_nor_of_one_row(micro: int) -> None:
    model = Calls()
    evaluate(from_torch(model.eval()), torch.rand(37, 4), micro=micro)

    assert min(model.sizes) > 1
    assert max(model.sizes) <= max(micro, smallest())


@pytest.mark.parametrize("name", ["robust", "residual"])
def test_the_micro_batch_does_not_change_a_byte(name: str) -> None:
    """Kernels for two or three rows round otherwise than those for many: the oracle never runs them."""
    images, labels = samples.fashion_mnist()
    x, goal = torch.from_numpy(images[:50]), Untargeted(torch.from_numpy(labels[:50]))
    target: Target[Tensor] = from_torch(samples.model(name))
    with one_thread_each():
        whole = evaluate(target, x, micro=50, goal=goal, loss=cross_entropy)
        for micro in (2, 3, 7, 16, 33):
            parts = evaluate(target, x, micro=micro, goal=goal, loss=cross_entropy)
            assert torch.equal(parts.output, whole.output)
            assert torch.equal(parts.gradient, whole.gradient)
        for size in (1, 2, 3, 5):
            index = torch.arange(size)
            part = evaluate(target, x[:size], micro=50, goal=goal.take(index), loss=cross_entropy)
            assert torch.equal(part.gradient, whole.gradient[:size])


def test_no_rows_are_no_question() -> None:
    model = Calls()
    one = oracle(model)
    answers = one.ask(X[:0], ids(), goal=Untargeted(Y[:0]), loss=margin)

    assert (answers.output.shape, answers.gradient.shape) == ((0, 3), (0, 4))
    assert not model.sizes


# -- fresh draws --------------------------------------------------------------------------------------------


def test_share_asks_again_and_again() -> None:
    model = Calls()
    often, reasons = share(from_torch(model.eval(), stochastic=True), X, Untargeted((Y + 1) % 3), 20, 64)

    assert often.tolist() == [1.0] * 6
    assert len(model.sizes) == 20
    assert not reasons


def test_share_of_a_coin() -> None:
    torch.manual_seed(0)
    model = Calls(lambda x: torch.stack([torch.rand(len(x)) - 0.7, torch.zeros(len(x)), torch.zeros(len(x)) - 1], 1))
    often, _ = share(
        from_torch(model.eval(), stochastic=True), X[:4].repeat(50, 1), Untargeted(torch.ones(200)), 20, 64
    )

    assert float(often.mean()) == pytest.approx(0.3, abs=0.04)
    assert len(set(often.tolist())) > 3


def test_constants_are_what_tests_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_LARGEST_MICRO", 40)

    assert micro_batch(torch.empty(1, 3)) == 40


def test_no_batch_that_is_asked_runs_the_kernels_of_small_ones() -> None:
    """From `smallest` on the number of rows changes no byte of a product; it is a property of the machine."""
    fewest, draw = smallest(), torch.Generator().manual_seed(1)
    assert 4 <= fewest <= 32
    weight, rows = torch.randn(64, 784, generator=draw), torch.randn(80, 784, generator=draw)
    with one_thread_each():
        whole = torch.nn.functional.linear(rows, weight)
        for size in range(fewest, 80, 7):
            assert torch.equal(torch.nn.functional.linear(rows[:size], weight), whole[:size])


def two_gaps(output: Tensor, goal: object) -> Tensor:
    """A loss with two columns, of a model that answers three classes."""
    return output[:, 1:] - output[:, :1]


def test_a_loss_of_some_columns_is_billed_by_the_column() -> None:
    one = oracle()
    answers = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=two_gaps)

    assert answers.loss.shape == (6, 2)
    assert answers.gradient.shape == (6, 2, 4)
    assert one.backwards.tolist() == [2] * 6


def test_columns_of_rows_that_are_not_admitted_are_minus_infinity() -> None:
    one = oracle(cap=1)
    one.ask(X[:3], torch.arange(3))
    answers = one.ask(X, torch.arange(6), goal=Untargeted(Y), loss=two_gaps)

    assert answers.loss.shape == (6, 2)
    assert bool((answers.loss[:3] == -math.inf).all())
    assert bool(answers.loss[3:].isfinite().all())
    assert answers.gradient.shape == (6, 2, 4)
    assert not bool(answers.gradient[:3].any())


class Allergic(nn.Module):
    """Raises for the last of the rows."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x == X[5]).all(1).any()):
            raise ValueError("cannot")
        scores: Tensor = VICTIM.module()(x)
        return scores


def test_columns_of_rows_that_the_model_fails_on_are_minus_infinity() -> None:
    answers = oracle(Allergic().eval()).ask(X, torch.arange(6), goal=Untargeted(Y), loss=two_gaps)

    assert answers.answered.tolist() == [True] * 5 + [False]
    assert answers.loss[5].tolist() == [-math.inf] * 2
    assert bool(answers.loss[:5].isfinite().all())
    assert not bool(answers.gradient[5].any())


def test_a_gradient_that_shares_its_memory_may_be_written_to() -> None:
    """A sum's gradient is one number, expanded; where it says nothing it is put to 0."""

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.sum(1, keepdim=True)
            return torch.cat([total * torch.inf, -total], 1)

    answers = evaluate(
        from_torch(Sum().eval()), torch.rand(6, 3), micro=8, goal=Untargeted(torch.ones(6).long()), loss=margin
    )
    answers.gradient[:2] = 0
    assert answers.gradient.is_contiguous()


def test_another_target_may_be_climbed_and_the_same_answers() -> None:
    """Scores are the target's own in it and after it; gradients are the other's within it alone."""
    meter, other = oracle(), StandIn(from_torch(VICTIM.module()), lambda x: -plain(x))
    goal = Untargeted(Y)
    own = meter.ask(X, ids(0, 1, 2, 3, 4, 5), goal=goal, loss=margin)
    with meter.climbing(other):
        turned = meter.ask(X, ids(0, 1, 2, 3, 4, 5), goal=goal, loss=margin)
        assert torch.equal(meter.ask(X, ids(0, 1, 2, 3, 4, 5)).output, own.output)
    after = meter.ask(X, ids(0, 1, 2, 3, 4, 5), goal=goal, loss=margin)
    assert torch.equal(turned.output, own.output)
    assert torch.allclose(turned.gradient, -own.gradient)
    assert torch.equal(after.gradient, own.gradient)
    assert meter.queries.tolist() == [4] * 6


def test_without_another_target_its_own_is_climbed() -> None:
    meter = oracle()
    with meter.climbing(None):
        within = meter.ask(X, ids(0, 1, 2, 3, 4, 5), goal=Untargeted(Y), loss=margin)
    outside = oracle().ask(X, ids(0, 1, 2, 3, 4, 5), goal=Untargeted(Y), loss=margin)
    assert torch.equal(within.gradient, outside.gradient)
