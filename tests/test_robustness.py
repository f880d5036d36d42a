"""Robust accuracy: k of n with its exact interval, equal to the attacks run one by one by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from redan.certification.bounds import Method
from redan.engine.run import attack
from redan.errors import NotBuiltError, NotCertifiableError, RedanError, SettingError
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.cascade import Restarts, Sweep
from redan.evasion.fab import FAB
from redan.evasion.fast_cascade import FastCascade, FastCascadeL2
from redan.evasion.fmn import FMN
from redan.evasion.hopskipjump import HopSkipJump
from redan.evasion.spatial import SpatialGrid
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.evidence.statistics import interval
from redan.losses import dlr, targeted_dlr
from redan.oracle import Capability, Limits
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Bounded
from redan.robustness import Mode, RobustAccuracy, attacks_of, eot_of, robust_accuracy
from redan.targets import Output, from_function, from_torch
from redan.testing.victims import LinearVictim, dual_linf

VICTIM = LinearVictim.drawn(11, classes=4, shape=(12,))


def scored(
    model: nn.Module, x: Tensor, y: Tensor, radius: float = 0.02, mode: str = "quick", most: int | None = None
) -> RobustAccuracy:
    """most: queries a row."""
    capability = None if most is None else Capability(queries_per_row=most)
    return robust_accuracy(model, x, y, within=Linf(radius), mode=mode, seed=3, capability=capability)


def test_k_of_n_with_the_exact_interval() -> None:
    x, y = VICTIM.rows(40)
    away = VICTIM.optimum(x, y, dual_linf).sort().values
    radius = float(away[24] + away[25]) / 2  # 25 rows can be broken, and 15 cannot
    score = scored(VICTIM.module(), x, y, radius, "default")
    assert (score.n, score.clean, score.errors, score.undecided) == (40, 40, 0, 0)
    assert score.k == 15
    assert score.value == 15 / 40
    exact = interval(15, 40)
    assert (score.low, score.high) == (exact.low, exact.high)
    assert sum(score.by.values()) == 25
    assert list(score.by) == ["fast-cascade"]
    assert score.queries == score.forwards >= score.backwards > 0


def test_rows_that_are_wrong_already_are_not_robust() -> None:
    x, y = VICTIM.rows(40)
    y[:10] = (y[:10] + 1) % 4
    score = scored(VICTIM.module(), x, y, 1e-6)
    assert (score.clean, score.k, score.value) == (30, 30, 0.75)


def test_it_is_the_chain_of_its_attacks_by_hand() -> None:
    x, y = VICTIM.rows(32)
    score = scored(VICTIM.module(), x, y, mode="default")
    left, by = torch.arange(32), {}
    for name, each in attacks_of(Mode.DEFAULT, Linf(0.02), Access.GRADIENTS, 4):
        result = attack(VICTIM.module(), x[left], y[left], each, within=Linf(0.02), seed=3)
        by[name] = int(result.success.sum())
        left = left[~result.success]
    assert score.k == len(left)
    assert sum(score.by.values()) == sum(by.values()) == 32 - score.k


class _Fails(nn.Module):
    """A model that raises for rows with a mark, or answers NaN."""

    def __init__(self, nan: bool) -> None:
        super().__init__()
        self.inner, self.nan = VICTIM.module(), nan

    def forward(self, x: Tensor) -> Tensor:
        bad = x[:, -1] > 0.9
        if bool(bad.any()) and not self.nan:
            raise ConnectionError("reset")
        answers: Tensor = self.inner(x)
        return answers.masked_fill(bad[:, None], torch.nan)


@pytest.mark.parametrize("nan", [False, True])
def test_errors_widen_the_interval_on_both_sides(nan: bool) -> None:
    x, y = VICTIM.rows(40)
    x[:6, -1] = 1.0
    score = scored(_Fails(nan).eval(), x, y, 1e-6)
    assert (score.n, score.errors, score.clean) == (40, 6, 34)
    assert (score.k, score.value) == (34, 34 / 40)
    assert (score.low, score.high) == (interval(34, 40).low, interval(40, 40).high)


def test_rows_cut_off_by_our_limits_widen_it_too() -> None:
    x, y = VICTIM.rows(32)
    score = robust_accuracy(VICTIM.module(), x, y, within=Linf(1e-6), mode="quick", limits=Limits(queries=64))
    assert score.undecided == 32
    assert (score.k, score.low, score.high) == (0, 0.0, 1.0)


@pytest.mark.slow
def test_a_random_model_is_scored_by_means() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = VICTIM.module()

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.inner(x)
            return z + 0.5 * torch.randn_like(z)

    x, y = VICTIM.rows(12)
    target = from_torch(Noisy().eval(), classes=4, stochastic=True)
    score, again = (robust_accuracy(target, x, y, within=Linf(0.01), mode="quick") for _ in range(2))
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert (score.value, score.low, score.high) == (again.value, again.low, again.high)
    cut = robust_accuracy(target, x, y, within=Linf(0.01), mode="quick", limits=Limits(queries=24))
    assert cut.undecided >= 11
    assert cut.value < 0.1  # rows that our limits cut off never help
    assert (cut.low, cut.high) == (0.0, 1.0)


def test_what_is_proven_is_not_attacked_and_stands() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 4)).eval()
    x = torch.rand(40, 12)
    y = model(x).argmax(1)
    radius = 0.03
    plain = robust_accuracy(model, x, y, within=Linf(radius))
    both = robust_accuracy(model, x, y, within=Linf(radius), certify=Method.CROWN)
    assert plain.certified is None
    assert both.certified is not None
    assert 0 < both.certified <= both.k == plain.k < 40
    assert both.outcomes.queries.count_nonzero() == 40 - both.certified
    assert both.queries < plain.queries
    with pytest.raises(NotCertifiableError):
        robust_accuracy(nn.Sequential(model, nn.SiLU()).eval(), x, y, within=Linf(radius), certify=Method.IBP)


# -- modes ----------------------------------------------------------------------------------------------


def test_modes_grow() -> None:
    sizes = {mode: len(attacks_of(mode, Linf(0.1), Access.GRADIENTS, 10)) for mode in Mode}
    assert sizes == {
        Mode.QUICK: 1,
        Mode.DEFAULT: 1,
        Mode.AUDIT: 2,
        Mode.AUTOATTACK: 4,
        Mode.AUTOATTACK_PLUS: 6,
        Mode.AUTOATTACK_RAND: 2,
    }
    x, y = VICTIM.rows(8)
    values = [scored(VICTIM.module(), x, y, mode=mode, most=1700).value for mode in ("quick", "default", "audit")]
    assert values == sorted(values, reverse=True)


def test_quick_is_the_fast_cascade_cut_short() -> None:
    for within, cascade in ((Linf(0.1), FastCascade), (L2(1.0), FastCascadeL2)):
        modes = {
            mode: attacks_of(mode, within, Access.GRADIENTS, 10) for mode in (Mode.QUICK, Mode.DEFAULT, Mode.AUDIT)
        }
        assert modes[Mode.QUICK] == (("fast-cascade", cascade(thorough=False)),)
        assert modes[Mode.DEFAULT] == (("fast-cascade", cascade()),)
        assert modes[Mode.AUDIT][0] == modes[Mode.DEFAULT][0]
    assert modes[Mode.AUDIT][1] == ("square", SquareL2(queries=5000))


def test_l1_has_its_own_forms() -> None:
    names = attacks_of(Mode.DEFAULT, L1(1.0), Access.GRADIENTS, 10)
    targeted = Sweep(APGDL1(loss=targeted_dlr), targets=9)
    assert names == (("apgd-ce", APGDL1()), ("fmn", FMN()), ("apgd-t", targeted), ("square", SquareL1(queries=1000)))
    assert attacks_of(Mode.QUICK, L1(1.0), Access.GRADIENTS, 10) == (("apgd-ce", APGDL1(steps=50)),)
    x, y = VICTIM.rows(16)
    tried = ((0.0, "quick"), (0.05, "default"), (1.0, "default"))
    scores = [robust_accuracy(VICTIM.module(), x, y, within=L1(radius), mode=mode).value for radius, mode in tried]
    assert scores[0] == 1
    assert scores[1] > scores[2] == 0


def test_l0_without_gradients_is_refused_by_name() -> None:
    x, y = VICTIM.rows(4)
    with pytest.raises(NotBuiltError, match="no L0 attack without gradients is built yet"):
        robust_accuracy(VICTIM.module(), x, y, within=L0(2), knowledge=Access.SCORES)


def test_in_l0_more_coordinates_break_more() -> None:
    x, y = VICTIM.rows(16)
    scores = [robust_accuracy(VICTIM.module(), x, y, within=L0(count), mode="quick").value for count in (0, 1, 12)]
    assert scores[0] == 1
    assert scores[0] >= scores[1] >= scores[2] == 0


def test_pictures_are_shifted_whatever_is_known() -> None:
    within = Spatial(0, 0.25)
    for knowledge in Access:
        ((name, made),) = attacks_of(Mode.DEFAULT, within, knowledge, 4, Capability(queries_per_row=9))
        assert (name, made) == ("spatial-grid", SpatialGrid(queries=9))


def test_autoattack_is_its_authors_protocol() -> None:
    """Components, steps, targets, restarts and queries of set_version in the authors' code."""
    standard, plus, rand = Mode.AUTOATTACK, Mode.AUTOATTACK_PLUS, Mode.AUTOATTACK_RAND
    targeted, fab = Sweep(APGD(steps=100, loss=targeted_dlr), targets=9), Sweep(FAB(steps=100), targets=9)
    square = ("square", Square(queries=5000))
    assert attacks_of(standard, Linf(0.1), Access.GRADIENTS, 10) == (
        ("apgd-ce", APGD(steps=100)), ("apgd-t", targeted), ("fab-t", fab), square,
    )  # fmt: skip
    assert attacks_of(plus, Linf(0.1), Access.GRADIENTS, 10) == (
        ("apgd-ce", Restarts(APGD(steps=100), 5)),
        ("apgd-dlr", Restarts(APGD(steps=100, loss=dlr), 5)),
        ("fab", FAB(steps=100, restarts=5, candidates=9)),
        square,
        ("apgd-t", targeted),
        ("fab-t", fab),
    )
    assert dict(attacks_of(standard, L1(9.0), Access.GRADIENTS, 10))["apgd-t"] == Sweep(
        APGDL1(steps=100, loss=targeted_dlr), targets=5
    )
    assert attacks_of(rand, L2(1.0), Access.GRADIENTS, 10) == (("apgd-ce", APGD()), ("apgd-dlr", APGD(loss=dlr)))
    assert (eot_of(rand, 1), eot_of(rand, 50), eot_of(standard, 1)) == (20, 50, 1)


@pytest.mark.parametrize(
    ("mode", "most"),
    [
        ("autoattack", 1200),
        pytest.param("autoattack", None, marks=pytest.mark.slow),
        pytest.param("autoattack-plus", None, marks=pytest.mark.slow),
    ],
)
def test_autoattack_runs(mode: str, most: int | None) -> None:
    x, y = VICTIM.rows(12)
    found = scored(VICTIM.module(), x, y, mode=mode, most=most)
    assert found.value <= scored(VICTIM.module(), x, y, mode="quick").value
    assert set(found.by) >= {"apgd-ce", "apgd-t", "fab-t", "square"}


def test_autoattack_for_stochastic_models_takes_twenty_draws() -> None:
    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = VICTIM.module()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z: torch.Tensor = self.inner(x)
            return z + 0.5 * torch.randn_like(z)

    x, y = VICTIM.rows(2)
    target = from_torch(Noisy().eval(), classes=4, stochastic=True)
    found = robust_accuracy(target, x, y, within=Linf(0.01), mode="autoattack-rand")
    assert found.backwards > 0
    assert found.backwards % 20 == 0
    with pytest.raises(SettingError, match="declared deterministic"):
        scored(VICTIM.module(), x, y, mode="autoattack-rand")


@pytest.mark.parametrize(
    ("within", "knowledge", "words"),
    [
        (L0(2), Access.GRADIENTS, "defined in Linf, L2 and L1, not in L0; use mode audit"),
        (Spatial(5, 0), Access.GRADIENTS, "not in Spatial"),
        (Linf(0.1), Access.SCORES, "needs the model's own gradients"),
    ],
)
def test_autoattack_where_it_is_not_defined_is_refused(within: Bounded, knowledge: Access, words: str) -> None:
    with pytest.raises(NotBuiltError, match=words):
        attacks_of(Mode.AUTOATTACK, within, knowledge, 10)


def test_an_unknown_mode_is_refused() -> None:
    x, y = VICTIM.rows(4)
    with pytest.raises(ValueError, match="fast"):
        scored(VICTIM.module(), x, y, mode="fast")


@pytest.mark.parametrize("within", [L1(0.2), L0(2)])
def test_labels_alone_are_not_attacked_in_l1_and_l0_yet(within: L1 | L0) -> None:
    x, y = VICTIM.rows(4)
    with pytest.raises(NotBuiltError, match=f"no attack on labels alone is built in {type(within).__name__} yet; use"):
        robust_accuracy(VICTIM.module(), x, y, within=within, knowledge=Access.LABELS)


@pytest.mark.parametrize(("mode", "queries"), [(Mode.QUICK, 1000), (Mode.DEFAULT, 5000), (Mode.AUDIT, 20_000)], ids=str)
@pytest.mark.parametrize("within", [Linf(0.1), L2(0.3)])
def test_labels_are_attacked_by_hopskipjump_with_all_that_may_be_spent(
    mode: Mode, queries: int, within: Linf | L2
) -> None:
    assert attacks_of(mode, within, Access.LABELS, 4) == (("hop-skip-jump", HopSkipJump(queries=queries)),)
    capability = Capability(queries_per_row=150)
    assert attacks_of(mode, within, Access.LABELS, 4, capability) == (("hop-skip-jump", HopSkipJump(queries=150)),)


@pytest.mark.parametrize("within", [Linf(0.1), L2(0.3)])
def test_a_model_that_answers_labels_alone_gets_a_figure(within: Linf | L2) -> None:
    """Classes without scores, as an endpoint or LinearSVC answers them: never fewer robust rows than with gradients."""
    x, y = VICTIM.rows(16)
    blind = from_function(
        lambda rows: VICTIM.module()(torch.from_numpy(rows)).argmax(1).numpy(), output=Output.LABELS, classes=4
    )
    few = Capability(queries_per_row=300)
    score = robust_accuracy(blind, x, y, within=within, capability=few)
    best = robust_accuracy(VICTIM.module(), x, y, within=within)

    assert best.k <= score.k < score.clean
    assert score.by["hop-skip-jump"] == score.clean - score.k
    assert score.backwards == 0
    assert int(score.outcomes.queries.max()) <= 300


@pytest.mark.parametrize("mode", [Mode.QUICK, Mode.DEFAULT, Mode.AUDIT])
@pytest.mark.parametrize(("within", "kind"), [(Linf(0.02), Square), (L2(0.08), SquareL2), (L1(0.2), SquareL1)])
def test_scores_are_attacked_by_square_with_all_that_may_be_spent(
    mode: Mode, within: Linf | L2 | L1, kind: type[Square] | type[SquareL2] | type[SquareL1]
) -> None:
    capability = Capability(queries_per_row=70)
    assert attacks_of(mode, within, Access.SCORES, 4, capability) == (("square", kind(queries=70)),)
    x, y = VICTIM.rows(16)
    score = robust_accuracy(
        VICTIM.module(), x, y, within=within, mode=mode, knowledge=Access.SCORES, capability=capability
    )
    assert score.backwards == 0
    assert int(score.outcomes.queries.max()) <= 70
    robust = score.outcomes.status == 0
    assert bool((score.outcomes.queries[robust] == 70).all())


# -- what must not matter, and what must ------------------------------------------------------------------


def test_more_radius_is_never_more_robust() -> None:
    x, y = VICTIM.rows(32)
    values = [scored(VICTIM.module(), x, y, radius).value for radius in (0.001, 0.01, 0.02, 0.05, 0.2)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_workers_and_blocks_change_nothing() -> None:
    x, y = VICTIM.rows(32)
    found = [
        robust_accuracy(VICTIM.module(), x, y, within=Linf(0.02), mode="quick", workers=workers, block=block)
        for workers, block in itertools.product((1, 2), (7, 32))
    ]
    assert len({(score.k, score.queries, score.backwards) for score in found}) == 1
    assert all(torch.equal(score.outcomes.x, found[0].outcomes.x) for score in found)


def test_a_target_keeps_its_own_bounds() -> None:
    x, y = VICTIM.rows(8)
    target = from_torch(VICTIM.module(), classes=4)
    with pytest.raises(SettingError, match="the target's own bounds"):
        robust_accuracy(target, x, y, within=Linf(0.1), bounds=(0, 2))


def test_a_model_in_training_mode_is_refused() -> None:
    x, y = VICTIM.rows(8)
    with pytest.raises(RedanError, match="in training mode"):
        scored(VICTIM.module().train(), x, y)
