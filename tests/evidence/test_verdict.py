"""`judge`: by hand, against scipy's binomial test, and by what must hold of any counts at all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from redan.evidence.certified import CertifiedPart
from redan.evidence.extraction_rates import EXTRACTION_RATES
from redan.evidence.poison_rates import POISON_RATES
from redan.evidence.report import AttackerPart, Counts, Diagnosis, Doubt, Report, RunPart, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.statistics import lower_bound, upper_bound
from redan.evidence.verdict import judge

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
RATES = (Metric.CLEAN_ACCURACY, Metric.ROBUST_ACCURACY, Metric.ATTACK_SUCCESS_RATE)
OF_MODELS = (*POISON_RATES, *EXTRACTION_RATES)
_OTHERS = {Metric.WORST_CLASS_ROBUST_ACCURACY, Metric.CERTIFIED_ACCURACY}  # with tests of their own
UNBUILT = [metric for metric in Metric if metric not in {*RATES, *OF_MODELS, *_OTHERS}]
MANY = settings(max_examples=200, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Fates:
    """What became of the rows, each row counted once."""

    robust: int = 0
    broken: int = 0
    errors: int = 0  # right on the clean input, then not judged
    undecided: int = 0
    wrong: int = 0  # on the clean input
    unanswered: int = 0
    missing: int = 0  # never reached

    @property
    def counts(self) -> Counts:
        right = self.robust + self.broken + self.errors + self.undecided
        return Counts(
            drawn=right + self.wrong + self.unanswered + self.missing,
            right=right,
            unanswered=self.unanswered,
            robust=self.robust,
            broken=self.broken,
            errors=self.errors + self.unanswered,
            undecided=self.undecided,
            missing=self.missing,
            held=None,
        )

    def moved(self, source: str, to: str, rows: int) -> Fates:
        return replace(self, **{source: getattr(self, source) - rows, to: getattr(self, to) + rows})


def attacker(
    fates: Fates | Counts | None, name: str = "anyone", reason: str | None = None, doubt: bool | None = None
) -> AttackerPart:
    """An attacker as a report has them; doubt: a diagnosis, and whether it blocks a pass."""
    return AttackerPart(
        name=name,
        kind="evasion",
        why="open to all",
        goal="untargeted",
        impact=None,
        techniques=[],
        change="linf: 0.1",
        knowledge="gradients",
        status="assessed" if fates else "not built",
        reason=reason,
        strength="standard",
        counts=fates.counts if isinstance(fates, Fates) else fates,
        attacks=[],
        retries=[],
        defended=[],
        certified=None,
        transfers=None,
        poisoning=None,
        extraction=None,
        by_class=[],
        curve=[],
        success_8bit=None,
        diagnosis=[]
        if doubt is None
        else [
            Diagnosis(
                name="masked", status=Doubt.SUSPICIOUS if doubt else Doubt.OK, detail="blind rows", blocks_pass=doubt
            )
        ],
    )


def report(*attackers: AttackerPart, confidence: float = 0.95, family: str = "holm") -> Report:
    run = RunPart(
        id="run",
        folder="runs/run",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        mode="default",
        seed=0,
        rows=1,
        planned=1,
        gate=False,
        confidence=confidence,
        family=family,
        reproducible=True,
        model_stochastic=False,
    )
    return Report(
        schema_version=1,
        verdict=OPEN,
        exit_code=3,
        reasons=[],
        system="shop",
        defenses=[],
        detector=None,
        classes=["a", "b"],
        requirements=[],
        attackers=list(attackers),
        risks=[],
        preflight=[],
        plan=[],
        standards=[],
        skipped=[],
        errors=[],
        limits_hit=[],
        calls=None,
        shows_not=[],
        run=run,
        environment={},
        digests={},
    )


def required(metric: Metric, direction: Direction, threshold: float, against: str | None = None) -> Requirement:
    return Requirement.model_validate({"metric": metric, direction.value: threshold, "against": against})


def robust(threshold: float, against: str | None = None) -> Requirement:
    return required(Metric.ROBUST_ACCURACY, Direction.AT_LEAST, threshold, against)


def one(fates: Fates, requirement: Requirement, *, doubt: bool | None = None) -> Verdict:
    return judge(report(attacker(fates, doubt=doubt)), [requirement]).verdict


fates = st.builds(Fates, *[st.integers(0, 60)] * 7)
requirements = st.builds(
    required,
    st.sampled_from(RATES),
    st.sampled_from(Direction),
    st.one_of(st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0]), st.floats(0, 1)),
)
families = st.lists(requirements, max_size=5, unique_by=lambda each: (each.metric, each.direction))
confidences = st.sampled_from([0.6, 0.9, 0.95, 0.999])


# -- by hand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "requirement", "expected"),
    [
        (Fates(robust=90, broken=10), robust(0.8), PASS),  # bound 0.836
        (Fates(robust=90, broken=10), robust(0.84), OPEN),
        (Fates(robust=90, broken=10), robust(0.944), OPEN),  # the bound above is 0.9447
        (Fates(robust=90, broken=10), robust(0.945), FAIL),
        (Fates(robust=90, errors=10), robust(0.8), PASS),
        (Fates(robust=90, errors=10), robust(0.99), OPEN),  # all of them may be robust
        (Fates(robust=90, undecided=10), robust(0.99), OPEN),
        (Fates(robust=90, missing=10), robust(0.8), PASS),
        (Fates(robust=90, missing=10), robust(0.99), OPEN),
        (Fates(robust=90, wrong=10), robust(0.99), FAIL),  # wrong rows are not robust
        (Fates(robust=90, unanswered=10), robust(0.99), OPEN),
        (Fates(robust=5), robust(0.5), PASS),  # 0.05 ** (1 / 5) is 0.549
        (Fates(robust=5), robust(0.55), OPEN),
        (Fates(errors=100), robust(0.01), OPEN),
        (Fates(broken=100), robust(0.01), OPEN),  # 1 - 0.05 ** (1 / 100) is 0.0295
        (Fates(broken=100), robust(0.03), FAIL),
        (Fates(robust=1), robust(0.0), PASS),
        (Fates(robust=1000), robust(1.0), OPEN),  # no count shows a rate of 1
        (Fates(), robust(0.0), OPEN),  # no row, no verdict
        (Fates(robust=90, wrong=10), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.8), PASS),
        (Fates(broken=90, wrong=10), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.8), PASS),
        (Fates(errors=90, wrong=10), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.8), PASS),
        (Fates(robust=50, unanswered=50), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.8), OPEN),
        (Fates(robust=50, missing=50), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.8), OPEN),
        (Fates(robust=50, wrong=50), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.8), FAIL),
        (Fates(robust=95, broken=5), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.11), PASS),
        (Fates(robust=95, broken=5, wrong=99), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.11), PASS),
        (Fates(robust=95, errors=5), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.10), OPEN),
        (Fates(robust=95, missing=5), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.10), OPEN),
        (Fates(robust=50, broken=50), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.3), FAIL),
        (Fates(robust=50, errors=50), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.3), OPEN),
        (Fates(wrong=50), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.3), OPEN),  # of no row
        (Fates(robust=10, broken=90), required(Metric.ROBUST_ACCURACY, Direction.AT_MOST, 0.2), PASS),
        (Fates(robust=90, broken=10), required(Metric.ROBUST_ACCURACY, Direction.AT_MOST, 0.2), FAIL),
    ],
)
def test_verdicts_by_hand(rows: Fates, requirement: Requirement, expected: Verdict) -> None:
    found = judge(report(attacker(rows)), [requirement])
    assert found.verdict is expected
    assert [part.verdict for part in found.requirements] == [expected]
    assert found.exit_code == {PASS: 0, FAIL: 1, OPEN: 3}[expected]
    assert (found.reasons == ()) == (expected is PASS)


def test_at_equality_a_bound_meets() -> None:
    alpha = 1 - 0.95
    exact_low, exact_high = lower_bound(90, 100, alpha), upper_bound(90, 100, alpha)
    rows = Fates(robust=90, broken=10)
    assert one(rows, robust(exact_low)) is PASS
    assert one(rows, robust(exact_low + 1e-9)) is OPEN
    assert one(rows, robust(exact_high)) is OPEN  # a fail must be beyond it
    assert one(rows, robust(exact_high + 1e-9)) is FAIL
    at_most = [required(Metric.ROBUST_ACCURACY, Direction.AT_MOST, at) for at in (exact_high, exact_low)]
    assert [one(rows, each) for each in at_most] == [PASS, OPEN]


def test_a_requirement_tells_what_it_rests_on() -> None:
    rows = Fates(robust=80, broken=10, errors=3, undecided=1, wrong=4, unanswered=1, missing=1)
    (part,) = judge(report(attacker(rows)), [robust(0.5)]).requirements
    assert (part.k, part.n, part.value, part.errors, part.undecided) == (80, 100, 0.8, 4, 2)
    assert part.bound_used == pytest.approx(lower_bound(80, 100, 0.05))
    assert part.interval is not None
    assert part.interval.low == pytest.approx(lower_bound(80, 100, 0.025))
    assert part.interval.high == pytest.approx(upper_bound(86, 100, 0.025))
    assert (part.interval.confidence, part.interval.method, part.interval.sides) == (0.95, "clopper-pearson", 2)
    assert (part.metric, part.direction, part.threshold) == (Metric.ROBUST_ACCURACY, Direction.AT_LEAST, 0.5)
    (success,) = judge(
        report(attacker(rows)), [required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.5)]
    ).requirements
    assert (success.k, success.n) == (10, 96)  # of those right on the clean input, and the one that may have been


def test_no_requirement_is_nothing_to_pass() -> None:
    found = judge(report(attacker(Fates(robust=100))), [])
    assert found.verdict is OPEN
    assert "no requirements" in found.reasons[0]


@pytest.mark.parametrize("metric", UNBUILT)
def test_a_metric_that_is_not_built_is_inconclusive_by_name(metric: Metric) -> None:
    requirement = required(metric, Direction.AT_LEAST, 0.0, "anyone")
    found = judge(report(attacker(Fates(robust=1000))), [requirement])
    assert found.verdict is OPEN
    assert f"{metric} is not built yet" in found.reasons[0]
    assert found.requirements[0].value is None


@pytest.mark.parametrize("metric", [metric for metric in OF_MODELS if metric not in RATES])
def test_a_metric_over_models_says_nothing_of_an_attacker_who_changes_inputs(metric: Metric) -> None:
    requirement = required(metric, Direction.AT_LEAST, 0.0, "anyone")
    found = judge(report(attacker(Fates(robust=1000))), [requirement])
    assert found.verdict is OPEN
    assert f"{metric} is not measured against an attacker of kind evasion" in found.reasons[0]
    assert (found.requirements[0].value, found.settled) == (None, True)


def test_an_attacker_who_is_not_built_is_inconclusive_and_named() -> None:
    supplier = attacker(None, "supplier", "attackers of kind poisoning are not built yet")
    found = judge(report(attacker(Fates(robust=1000)), supplier), [robust(0.5, "anyone")])
    assert found.verdict is OPEN
    assert found.requirements[0].verdict is PASS
    assert found.reasons == ("supplier: attackers of kind poisoning are not built yet",)
    against = judge(report(supplier), [robust(0.5, "supplier")])
    assert against.requirements[0].verdict is OPEN
    assert "not built yet" in against.requirements[0].reasons[0]


def test_a_fail_beats_everything_that_is_open() -> None:
    supplier = attacker(None, "supplier", "not built yet")
    broken = attacker(Fates(broken=100), doubt=True)
    unbuilt = required(Metric.CERTIFIED_ACCURACY, Direction.AT_LEAST, 0.5, "anyone")
    found = judge(report(supplier, broken), [unbuilt, robust(0.5, "anyone")])
    assert found.verdict is FAIL
    assert any("miss the threshold" in reason for reason in found.reasons)


def test_doubt_blocks_a_pass_and_no_fail() -> None:
    good, bad = Fates(robust=100), Fates(broken=100)
    assert [one(good, robust(0.5), doubt=doubt) for doubt in (None, False, True)] == [PASS, PASS, OPEN]
    assert [one(bad, robust(0.5), doubt=doubt) for doubt in (None, False, True)] == [FAIL, FAIL, FAIL]
    found = judge(report(attacker(good, doubt=True)), [robust(0.5)])
    assert "blind rows" in found.reasons[0]
    clean = required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.5)
    assert one(good, clean, doubt=True) is PASS  # clean accuracy needs no attack


def test_which_attacker_a_requirement_is_about() -> None:
    strong, weak = attacker(Fates(broken=100), "strong"), attacker(Fates(robust=100), "weak")
    both = report(strong, weak)
    assert judge(both, [robust(0.5, "weak")]).verdict is PASS
    assert judge(both, [robust(0.5, "strong")]).verdict is FAIL
    assert "several attackers" in judge(both, [robust(0.5)]).reasons[0]
    assert "no attacker named 'nobody'" in judge(both, [robust(0.5, "nobody")]).reasons[0]
    assert judge(report(weak), [robust(0.5)]).verdict is PASS


def test_holm_shares_the_risk_and_none_does_not() -> None:
    rows = attacker(Fates(robust=90, broken=10))
    at = lower_bound(90, 100, 0.05)
    pair = [robust(at), required(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 1 - at)]
    assert judge(report(rows, family="none"), pair).verdict is PASS
    assert judge(report(rows, family="holm"), pair).verdict is OPEN
    sure = [pair[0], required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.5)]
    assert judge(report(rows, family="holm"), sure).verdict is PASS  # the sure one leaves the other its level


# -- against an independent test ---------------------------------------------------------------------------


def p_values(rows: Fates, requirement: Requirement) -> tuple[float, float] | None:
    """By scipy's binomial: how surprising the counts are if a pass, or a fail, were undeserved."""
    c = rows.counts
    unseen = rows.unanswered + rows.missing
    open_rows = rows.errors + rows.undecided + unseen
    low, high, n = {
        Metric.CLEAN_ACCURACY: (c.right, c.right + unseen, c.drawn),
        Metric.ROBUST_ACCURACY: (c.robust, c.robust + open_rows, c.drawn),
        Metric.ATTACK_SUCCESS_RATE: (c.broken, c.broken + open_rows, c.right + unseen),
    }[requirement.metric]
    if n == 0:
        return None
    above = float(binom.sf(low - 1, n, requirement.threshold))
    below = float(binom.cdf(high, n, requirement.threshold))
    return (above, below) if requirement.direction is Direction.AT_LEAST else (below, above)


def stepped_down(found: Sequence[float], alpha: float, shared: bool) -> tuple[list[bool], bool]:
    """Holm's procedure as its paper writes it: which are rejected; and whether a comparison was too close to call."""
    order = sorted(range(len(found)), key=lambda i: found[i])
    rejected, close = [False] * len(found), False
    for done, i in enumerate(order):
        level = alpha / (len(found) - done) if shared else alpha
        close |= abs(found[i] - level) < 1e-9
        if found[i] > level and shared:
            break
        rejected[i] = found[i] <= level
    return rejected, close


@MANY
@given(fates, families, confidences, st.sampled_from(["holm", "none"]))
def test_verdicts_are_those_of_binomial_tests(
    rows: Fates, asked: list[Requirement], confidence: float, family: str
) -> None:
    found = judge(report(attacker(rows), confidence=confidence, family=family), asked)
    both = [p_values(rows, each) or (1.0, 1.0) for each in asked]
    (passes, near), (fails, near_too) = (
        stepped_down([pair[i] for pair in both], 1 - confidence, family == "holm") for i in (0, 1)
    )
    if near or near_too:
        return
    for part, passed, failed in zip(found.requirements, passes, fails, strict=True):
        if part.threshold == 0 and part.direction is Direction.AT_LEAST and part.n:
            assert part.verdict is PASS  # whatever the level: no rate is below 0
            continue
        if part.threshold == 1 and part.direction is Direction.AT_MOST and part.n:
            assert part.verdict is PASS
            continue
        assert part.verdict is (FAIL if failed else PASS if passed else OPEN), part


@MANY
@given(fates, families, confidences, st.sampled_from([None, False, True]))
def test_verdict_exit_code_and_reasons_agree(
    rows: Fates, asked: list[Requirement], confidence: float, doubt: bool | None
) -> None:
    whole = report(attacker(rows, doubt=doubt), confidence=confidence)
    found = judge(whole, asked)
    verdicts = [part.verdict for part in found.requirements]
    expected = FAIL if FAIL in verdicts else OPEN if OPEN in verdicts or not verdicts else PASS
    assert found.verdict is expected
    assert found.exit_code == {PASS: 0, FAIL: 1, OPEN: 3}[expected]
    assert bool(found.reasons) == (expected is not PASS)
    for part in found.requirements:
        assert part.reasons
        words = {PASS: "shown to meet", FAIL: "shown to miss", OPEN: ""}[part.verdict]
        assert words in part.reasons[0]
        if part.verdict is not PASS:
            assert any(str(part.metric) in reason and part.reasons[0] in reason for reason in found.reasons)
        if part.bound_used is not None and part.verdict is not OPEN:
            above = (part.direction is Direction.AT_LEAST) == (part.verdict is PASS)
            assert part.bound_used >= part.threshold if above else part.bound_used <= part.threshold
        if part.interval is not None and part.value is not None:
            assert 0 <= part.interval.low <= part.value <= part.interval.high <= 1
    own = whole.model_copy(update={"requirements": list(found.requirements)})
    assert judge(own) == judge(own, asked) == found


# -- open rows never help ----------------------------------------------------------------------------------

OPENED = [("robust", "errors"), ("robust", "undecided"), ("broken", "errors"), ("broken", "undecided")]
CLEAN_OPENED = [(source, to) for source in ("robust", "broken", "wrong") for to in ("unanswered", "missing")]


@MANY
@given(fates, requirements, st.sampled_from([*OPENED, *CLEAN_OPENED]), st.integers(1, 60))
def test_rows_that_turn_open_never_help(rows: Fates, asked: Requirement, way: tuple[str, str], moved: int) -> None:
    source, to = way
    moved = min(moved, getattr(rows, source))
    before, after = one(rows, asked), one(rows.moved(source, to, moved), asked)
    grown = source == "wrong" and asked.metric is Metric.ATTACK_SUCCESS_RATE and before is OPEN
    if not grown:  # the rate's own rows became more: what was open may be decided either way by the others
        assert after in (before, OPEN)


@MANY
@given(fates, requirements)
def test_a_verdict_survives_any_fate_of_the_open_rows(rows: Fates, asked: Requirement) -> None:
    verdict = one(rows, asked)
    if verdict is OPEN:
        return
    some = rows.errors + rows.undecided
    for share in (0, some // 2, some):
        settled = replace(rows, robust=rows.robust + share, broken=rows.broken + some - share, errors=0, undecided=0)
        assert one(settled, asked) is verdict
        for fate in ("robust", "broken"):
            whole = settled.moved("unanswered", fate, rows.unanswered).moved("missing", fate, rows.missing)
            assert one(whole, asked) is verdict
    clean_only = asked.metric is not Metric.ATTACK_SUCCESS_RATE
    if clean_only and not some:
        wrong = rows.moved("unanswered", "wrong", rows.unanswered).moved("missing", "wrong", rows.missing)
        assert one(wrong, asked) is verdict


@MANY
@given(fates, requirements, st.integers(1, 60))
def test_better_counts_never_make_a_worse_verdict(rows: Fates, asked: Requirement, moved: int) -> None:
    better = rows.moved("broken", "robust", min(moved, rows.broken))
    rank = {FAIL: 0, OPEN: 1, PASS: 2}
    up = asked.metric is not Metric.ATTACK_SUCCESS_RATE
    helps = up == (asked.direction is Direction.AT_LEAST)
    difference = rank[one(better, asked)] - rank[one(rows, asked)]
    assert difference >= 0 if helps else difference <= 0


@MANY
@given(fates, requirements, families, confidences)
def test_another_requirement_never_helps_a_pass(
    rows: Fates, asked: Requirement, more: list[Requirement], confidence: float
) -> None:
    whole = report(attacker(rows), confidence=confidence)
    others = [each for each in more if (each.metric, each.direction) != (asked.metric, asked.direction)]
    alone, together = judge(whole, [asked]), judge(whole, [asked, *others])
    assert together.requirements[0].verdict in (alone.verdict, OPEN)
    if together.verdict is PASS:
        assert alone.verdict is PASS


# -- a stochastic model ------------------------------------------------------------------------------------


def stochastic(held: dict[int, int], *, errors: int = 0, undecided: int = 0, missing: int = 0) -> AttackerPart:
    """An attacker of a model whose rows held so often, of 20 times each."""
    bins = [held.get(i, 0) for i in range(21)]
    rows = sum(bins)
    counts = Counts(
        drawn=rows + errors + undecided + missing,
        right=rows + errors + undecided,
        unanswered=0,
        robust=bins[20],
        broken=rows - bins[20],
        errors=errors,
        undecided=undecided,
        missing=missing,
        held=bins,
    )
    return attacker(counts)


def test_a_stochastic_model_is_judged_by_the_mean_of_its_rows() -> None:
    (part,) = judge(report(stochastic({20: 50, 10: 50})), [robust(0.5)]).requirements
    assert part.value == pytest.approx(0.75)
    assert part.interval is not None
    assert part.interval.method == "bootstrap"
    assert part.interval.low < 0.75 < part.interval.high
    assert part.verdict is PASS
    assert judge(report(stochastic({20: 50, 10: 50})), [robust(0.75)]).verdict is OPEN
    assert judge(report(stochastic({20: 50, 10: 50})), [robust(0.9)]).verdict is FAIL
    assert judge(report(stochastic({5: 100, 6: 100})), [robust(0.5)]).verdict is FAIL


def test_a_stochastic_model_s_open_rows_count_against_either_verdict() -> None:
    for kind in ("errors", "undecided", "missing"):
        assert judge(report(stochastic({20: 100}, **{kind: 100})), [robust(0.6)]).verdict is OPEN
        assert judge(report(stochastic({0: 100}, **{kind: 100})), [robust(0.4)]).verdict is OPEN
        (part,) = judge(report(stochastic({20: 100}, **{kind: 100})), [robust(0.6)]).requirements
        assert part.value == pytest.approx(0.5)
        assert part.n == 200


held_rows = st.dictionaries(st.integers(0, 20), st.integers(1, 20), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(held_rows, st.integers(0, 10), st.integers(0, 10), st.floats(0, 1))
def test_a_stochastic_model_s_open_rows_never_help(
    held: dict[int, int], errors: int, undecided: int, threshold: float
) -> None:
    opened = judge(report(stochastic(held, errors=errors, undecided=undecided)), [robust(threshold)]).verdict
    for fate in (0, 20):
        settled = {**held, fate: held.get(fate, 0) + errors + undecided}
        settled_verdict = judge(report(stochastic(settled)), [robust(threshold)]).verdict
        if opened is not OPEN:
            assert settled_verdict is opened


def test_a_stochastic_model_gets_the_strictest_level() -> None:
    part = stochastic({20: 60, 10: 40})
    clean = required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, 0.5)
    alone, shared = (judge(report(part), asked).requirements[0] for asked in ([robust(0.7)], [robust(0.7), clean]))
    assert alone.bound_used is not None
    assert shared.bound_used is not None
    assert shared.bound_used < alone.bound_used


def test_a_stochastic_requirement_that_is_not_met_leaves_the_others_their_strict_level() -> None:
    """Else the two together miss with more than alpha: alpha / 2 and alpha."""
    at = lower_bound(90, 100, 0.05)
    part = stochastic({20: 50, 10: 50})
    assert part.counts is not None
    counts = part.counts.model_copy(update={"right": 90, "drawn": 100})
    asked = [robust(0.99), required(Metric.CLEAN_ACCURACY, Direction.AT_LEAST, at)]
    found = judge(report(part.model_copy(update={"counts": counts})), asked)
    assert found.requirements[0].verdict is not PASS
    assert found.requirements[1].verdict is OPEN


def test_a_few_rows_that_always_held_show_no_certainty() -> None:
    assert judge(report(stochastic({20: 5})), [robust(0.9)]).verdict is OPEN  # 5 of 5 shows 0.549


def test_judging_is_deterministic_for_a_stochastic_model() -> None:
    whole = report(stochastic({20: 31, 7: 13, 0: 4}))
    assert judge(whole, [robust(0.6)]) == judge(whole, [robust(0.6)])


def test_every_verdict_has_its_own_exit_code() -> None:
    assert [verdict.exit_code for verdict in (PASS, FAIL, OPEN)] == [0, 1, 3]
    assert len({a.exit_code for a, _ in itertools.permutations(Verdict, 2)}) == 3


# -- certified accuracy ----------------------------------------------------------------------------------


def certified(k: int, broken: int, missing: int = 0, contradicted: int = 0, reason: str | None = None) -> Report:
    """A report of a hundred rows, of which k are certified and so many shown to break."""
    part = CertifiedPart(
        norm="linf",
        radius=0.1,
        completeness="incomplete",
        certainty="deterministic",
        verifier="a verifier",
        drawn=100,
        right=100 - broken,
        certified=k,
        broken=broken,
        open=100 - k - broken - missing,
        missing=missing,
        contradicted=contradicted,
        reason=reason,
        seconds=0.0,
    )
    return report(attacker(Fates(robust=100)).model_copy(update={"certified": part}))


@pytest.mark.parametrize(
    ("found", "direction", "threshold", "verdict"),
    [
        (certified(90, 10), Direction.AT_LEAST, 0.8, Verdict.PASS),
        (certified(90, 0), Direction.AT_LEAST, 0.97, OPEN),  # open rows may be robust
        (certified(85, 12), Direction.AT_LEAST, 0.97, Verdict.FAIL),  # 12 are not
        (certified(90, 0, missing=10), Direction.AT_LEAST, 0.88, OPEN),
        (certified(5, 95), Direction.AT_MOST, 0.2, Verdict.PASS),
        (certified(5, 0), Direction.AT_MOST, 0.2, OPEN),
        (certified(60, 0), Direction.AT_MOST, 0.2, Verdict.FAIL),
        (certified(99, 0, contradicted=1), Direction.AT_LEAST, 0.1, OPEN),
        (certified(0, 0, reason="no layers"), Direction.AT_LEAST, 0.1, OPEN),
    ],
)
def test_certified_rows_are_a_lower_bound_and_rows_not_broken_an_upper_one(
    found: Report, direction: Direction, threshold: float, verdict: Verdict
) -> None:
    judgment = judge(found, [required(Metric.CERTIFIED_ACCURACY, direction, threshold, "anyone")])
    assert judgment.verdict is verdict
