"""A gate, the worst class, the rows that would decide; and 10⁴ reports whose verdict, JSON and exit code agree."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from redan.evidence.bounds import bounded
from redan.evidence.rates import Count, Rate
from redan.evidence.report import Report, RequirementPart, RunPart, Verdict
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.sequences import sequence_lower, sequence_upper
from redan.evidence.statistics import lower_bound, p_at_least, upper_bound
from redan.evidence.verdict import judge, settled

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
ALPHA = 1 - 0.95
WORST = Metric.WORST_CLASS_ROBUST_ACCURACY
FATES = ("robust", "broken", "errors", "undecided", "wrong", "unanswered", "missing")
Class = dict[str, int]  # how many of its rows met each of the fates


def counts(rows: Class, held: list[int] | None = None) -> dict[str, Any]:
    n = {fate: rows.get(fate, 0) for fate in FATES}
    right = n["robust"] + n["broken"] + n["errors"] + n["undecided"]
    return {
        "drawn": sum(n.values()) + sum(held or ()),
        "right": right,
        "unanswered": n["unanswered"],
        "robust": n["robust"],
        "broken": n["broken"],
        "errors": n["errors"] + n["unanswered"],
        "undecided": n["undecided"],
        "missing": n["missing"],
        "held": held,
    }


def attacker(
    *classes: Class, name: str = "anyone", held: list[int] | None = None, doubt: bool = False
) -> dict[str, Any]:
    """An attacker of a report, class by class."""
    by_class = []
    for i, rows in enumerate(classes):
        c = counts(rows)
        parts = {key: c[key] for key in ("drawn", "right", "robust", "errors")}
        by_class.append({"name": f"c{i}", **parts, "undecided": c["undecided"] + c["missing"]})
    whole = counts({fate: sum(rows.get(fate, 0) for rows in classes) for fate in FATES}, held)
    return {
        **{"name": name, "kind": "evasion", "techniques": [], "change": None, "knowledge": None, "attacks": []},
        **{"status": "assessed", "reason": None, "counts": whole, "by_class": by_class, "curve": []},
        **{"why": "", "goal": "untargeted", "impact": None, "strength": "standard", "success_8bit": None},
        "diagnosis": [{"name": "masked", "status": "suspicious", "detail": "blind rows", "blocks_pass": True}]
        if doubt
        else [],
        "retries": [],
        "defended": [],
        "certified": None,
        "transfers": None,
        "poisoning": None,
        "extraction": None,
    }


def run(*, gate: bool = False, planned: int = 1000, family: str = "holm", confidence: float = 0.95) -> dict[str, Any]:
    return {
        **{"id": "run", "folder": "runs/run", "started": "", "seconds": 1.0, "mode": "default", "seed": 0, "rows": 1},
        **{"reproducible": True, "model_stochastic": False},
        **{"gate": gate, "planned": planned, "family": family, "confidence": confidence},
    }


def report(*attackers: dict[str, Any], run: dict[str, Any]) -> Report:
    empty = (
        *("reasons", "requirements", "risks", "preflight", "plan", "standards", "skipped", "errors"),
        *("limits_hit", "shows_not", "classes", "defenses"),
    )
    return Report.model_validate(
        {
            **{"schema_version": 1, "verdict": OPEN, "exit_code": 3, "system": "shop", "attackers": list(attackers)},
            **{key: [] for key in empty},
            **{"run": run, "environment": {}, "digests": {}, "calls": None, "detector": None},
        }
    )


def asked(metric: Metric, direction: Direction, threshold: float) -> Requirement:
    return Requirement.model_validate({"metric": metric, direction.value: threshold})


def robust(threshold: float) -> Requirement:
    return asked(Metric.ROBUST_ACCURACY, Direction.AT_LEAST, threshold)


def worst(threshold: float, direction: Direction = Direction.AT_LEAST) -> Requirement:
    return asked(WORST, direction, threshold)


def one(*classes: Class, requirement: Requirement, gate: bool = False) -> RequirementPart:
    (part,) = judge(report(attacker(*classes), run=run(gate=gate)), [requirement]).requirements
    return part


# -- a gate --------------------------------------------------------------------------------------------------


def test_a_gate_uses_bounds_that_hold_wherever_it_stops() -> None:
    rows = {"robust": 180, "broken": 20}
    low, high = (bound(180, 200, ALPHA, planned=1000) for bound in (sequence_lower, sequence_upper))
    assert low < lower_bound(180, 200, ALPHA) < upper_bound(180, 200, ALPHA) < high
    verdicts = [one(rows, requirement=robust(at), gate=True).verdict for at in (low, low + 1e-9, high, high + 1e-9)]
    assert verdicts == [PASS, OPEN, OPEN, FAIL]
    part = one(rows, requirement=robust(low), gate=True)
    assert part.bound_used == low
    assert part.interval is not None
    assert (part.interval.method, part.interval.sides) == ("confidence-sequence", 2)
    assert part.interval.low == sequence_lower(180, 200, ALPHA / 2, planned=1000)
    assert part.interval.high == sequence_upper(180, 200, ALPHA / 2, planned=1000)


@pytest.mark.parametrize("verdict", [PASS, FAIL])
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_a_gate_is_rarely_wrong(verdict: Verdict, threshold: float) -> None:
    """`judge` after each of 300 rows at the threshold's rate: ever this verdict in 5 % of runs at most, exactly.

    A hit is a robust row for a pass, a broken one for a fail; so many that they decide end the run.
    """
    planned, for_pass = 300, verdict is PASS
    rate = threshold if for_pass else 1 - threshold

    def decides(hits: int, n: int) -> bool:
        rows = {"robust" if for_pass else "broken": hits, "broken" if for_pass else "robust": n - hits}
        whole = report(attacker(rows), run=run(gate=True, planned=planned))
        return judge(whole, [robust(threshold)]).verdict is verdict

    alive, stopped, stop = {0: 1.0}, 0.0, 0
    for n in range(1, planned + 1):
        alive = {hits: alive.get(hits, 0.0) * (1 - rate) + alive.get(hits - 1, 0.0) * rate for hits in range(n + 1)}
        while stop <= n and not decides(stop, n):
            stop += 1
        stopped += sum(alive.pop(hits) for hits in range(stop, n + 1))
    assert 0.3 * ALPHA <= stopped <= ALPHA


def test_a_gate_shares_the_risk_among_its_requirements() -> None:
    rows = {"robust": 180, "broken": 20}
    at = sequence_lower(180, 200, ALPHA, planned=1000)
    pair = [robust(at), asked(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 1 - at + 1e-12)]
    for family, expected in (("holm", OPEN), ("none", PASS)):
        assert judge(report(attacker(rows), run=run(gate=True, family=family)), pair).verdict is expected


def test_a_gate_takes_a_stochastic_model_s_rows_as_fractions() -> None:
    held = [0] * 10 + [100] + [0] * 9 + [100]  # a hundred rows half the time, a hundred always
    whole = report(attacker({"errors": 20}, held=held), run=run(gate=True))
    (part,) = judge(whole, [robust(0.5)]).requirements
    assert part.value == pytest.approx(150 / 220)
    assert part.bound_used == sequence_lower(150, 220, ALPHA, planned=1000)
    assert part.interval is not None
    assert part.interval.high == sequence_upper(170, 220, ALPHA / 2, planned=1000)
    assert (part.verdict, part.interval.method) == (PASS, "confidence-sequence")


def test_what_is_settled_needs_no_more_rows() -> None:
    good, even, gate = {"robust": 200}, {"robust": 60, "broken": 40}, run(gate=True)
    unbuilt = asked(Metric.CERTIFIED_ACCURACY, Direction.AT_LEAST, 0.5)
    skipped = {**attacker(), "counts": None, "status": "not built", "reason": "not built yet"}

    def over(part: dict[str, Any], *requirements: Requirement) -> bool:
        whole = report(part, run=gate)
        found = judge(whole, requirements)
        assert settled(whole.model_copy(update={"requirements": list(found.requirements)})) is found.settled
        return found.settled

    assert over(attacker(good), robust(0.5))
    assert over(attacker({"broken": 200}), robust(0.5))
    assert not over(attacker(even), robust(0.6))
    assert not over(attacker(even), robust(0.1), robust(0.6))
    assert not over(attacker(), robust(0.6))  # no row yet
    assert over(attacker(good), unbuilt, robust(0.5))
    assert not over(attacker(even), unbuilt, robust(0.6))
    assert over(skipped, robust(0.5))
    assert over(attacker(good, doubt=True), robust(0.5))  # no number of rows makes it trusted
    assert not over(attacker(even, doubt=True), robust(0.6))  # it may still fail
    assert over(attacker({"broken": 200}, doubt=True), robust(0.5))
    assert over(attacker(good))


# -- the worst class -------------------------------------------------------------------------------------------


def test_the_worst_class_by_hand() -> None:
    classes = ({"robust": 90, "broken": 10}, {"robust": 45, "broken": 15}, {"robust": 38, "broken": 2})
    part = one(*classes, requirement=worst(0.6))
    assert (part.verdict, part.k, part.n, part.value) == (PASS, 45, 60, 0.75)
    assert part.bound_used == lower_bound(45, 60, ALPHA)
    assert part.interval is not None
    assert part.interval.low == lower_bound(45, 60, ALPHA / 2)
    assert part.interval.high == upper_bound(45, 60, ALPHA / 2 / 3)
    assert "45 of 60 in class c1" in part.reasons[0]
    assert one(*classes, requirement=worst(0.7)).verdict is OPEN
    edge = upper_bound(45, 60, ALPHA / 3)
    assert [one(*classes, requirement=worst(at)).verdict for at in (edge, edge + 1e-9)] == [OPEN, FAIL]
    most = worst(edge, Direction.AT_MOST)
    assert one(*classes, requirement=most).verdict is PASS
    assert one(*classes, requirement=worst(0.5, Direction.AT_MOST)).verdict is FAIL  # all three are above 0.5


def test_a_small_class_can_hold_the_bound_of_a_larger_one_that_is_lower() -> None:
    part = one({"robust": 800, "broken": 200}, {"robust": 9, "broken": 1}, requirement=worst(0.75))
    assert part.bound_used == lower_bound(9, 10, ALPHA)
    assert (part.verdict, part.k, part.n) == (OPEN, 800, 1000)
    assert "800 of 1000 in class c0" in part.reasons[0]
    assert "in class c1, threshold" in part.reasons[0]


@pytest.mark.parametrize("gate", [False, True])
def test_a_class_without_a_row_never_passes(gate: bool) -> None:
    for threshold in (0.0, 0.5):
        part = one({"robust": 500}, {}, requirement=worst(threshold), gate=gate)
        assert (part.verdict, part.k, part.n) == (OPEN, 500, 500)
        assert any("no row of class c1" in reason for reason in part.reasons)
    assert one({"broken": 500}, {}, requirement=worst(0.5), gate=gate).verdict is FAIL
    assert one({}, {}, requirement=worst(0.0), gate=gate).verdict is OPEN


def test_classes_that_were_not_counted_are_said() -> None:
    none = judge(report({**attacker({"robust": 500}), "by_class": []}, run=run()), [worst(0.5)])
    assert "not counted by class" in none.reasons[0]
    held = judge(report(attacker({}, held=[0, 500]), run=run()), [worst(0.5)])
    assert "stochastic" in held.reasons[0]
    assert (none.verdict, held.verdict, none.settled, held.settled) == (OPEN, OPEN, True, True)


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("rates", [(0.6, 0.6, 0.6), (0.5, 0.9, 0.95)])
def test_the_bounds_of_the_worst_class_are_rarely_wrong(rates: tuple[float, ...], gate: bool) -> None:
    """Over all counts of three classes, exactly: each bound is beyond the lowest rate in 20 % at most."""
    sizes, level, low, high = (11, 8, 14), 0.2, 0.0, 0.0
    part = RunPart.model_validate(run(gate=gate, planned=33))
    for ks in itertools.product(*(range(n + 1) for n in sizes)):
        chance = math.prod(binom.pmf(k, n, rate) for k, n, rate in zip(ks, sizes, rates, strict=True))
        if chance < 1e-7:
            continue
        found = bounded(
            Rate(counts=tuple(Count(k=k, n=n) for k, n in zip(ks, sizes, strict=True)), drawn=sum(sizes)), part
        )
        low += chance * (found.lower(level)[0] > min(rates))
        high += chance * (found.upper(level)[0] < min(rates))
    assert max(low, high) <= level
    if not gate:
        assert high > 0.1 * level
        assert low > 0.1 * level or rates[0] == rates[1]  # to be wrong about equal classes, all bounds must be


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=4),
    st.floats(0.05, 0.95),
    st.sampled_from([0.3, 0.05, 0.01]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_p_values_of_the_worst_class_agree_with_its_bounds(
    rows: list[tuple[int, int, int]], threshold: float, level: float, gate: bool
) -> None:
    tallied = tuple(Count(k=k, n=k + more + errors, errors=errors) for k, more, errors in rows)
    found = bounded(Rate(counts=tallied, drawn=1), RunPart.model_validate(run(gate=gate)))
    low, high = found.lower(level)[0], found.upper(level)[0]
    if abs(low - threshold) > 1e-9:
        assert (found.p_value(threshold, above=True) <= level) == (low > threshold)
    if abs(high - threshold) > 1e-9:
        assert (found.p_value(threshold, above=False) <= level) == (high < threshold)


# -- rows that would decide ------------------------------------------------------------------------------------


def test_the_rows_that_would_decide() -> None:
    rows = {"robust": 65, "broken": 35}
    part = one(rows, requirement=robust(0.6))
    first = next(n for n in range(100, 5000) if p_at_least(65 * n // 100, n, 0.6) <= ALPHA)
    assert (part.verdict, part.rows_to_decide) == (OPEN, first)
    assert f"more rows would decide: about {first} at this rate" in part.reasons[0]
    gate = one(rows, requirement=robust(0.6), gate=True).rows_to_decide
    assert gate is not None
    assert gate > first
    for at in (0.5, 0.9):
        assert one(rows, requirement=robust(at)).rows_to_decide is None  # it is decided
    for at, known in ((0.645, False), (0.655, False), (0.644, True), (0.656, True)):
        assert (one(rows, requirement=robust(at)).rows_to_decide is not None) == known, at
    assert one({}, requirement=robust(0.5)).rows_to_decide is None


def test_the_rows_are_those_at_the_level_that_holm_leaves() -> None:
    """Of two that are open each pass has half the risk, and the fail has more as the other one is a fail."""
    rows, alone = {"robust": 65, "broken": 35}, one({"robust": 65, "broken": 35}, requirement=robust(0.6))
    hard = asked(Metric.CLEAN_ACCURACY, Direction.AT_MOST, 0.5)  # all 100 rows are right: a sure fail
    (shared, _) = judge(report(attacker(rows), run=run()), [robust(0.6), hard]).requirements
    first = next(n for n in range(100, 5000) if p_at_least(65 * n // 100, n, 0.6) <= ALPHA / 2)
    assert shared.rows_to_decide == first
    assert alone.rows_to_decide is not None
    assert first > alone.rows_to_decide
    (below, _) = judge(report(attacker(rows), run=run()), [robust(0.7), hard]).requirements
    assert below.rows_to_decide == one(rows, requirement=robust(0.7)).rows_to_decide


def test_open_rows_make_it_more_rows_or_no_number() -> None:
    opened = {"robust": 65, "broken": 25, "errors": 10}
    assert one(opened, requirement=robust(0.7)).rows_to_decide is None  # with the errors robust it is 0.75
    found = one(opened, requirement=robust(0.8)).rows_to_decide
    assert found is not None
    assert found > (one({"robust": 65, "broken": 35}, requirement=robust(0.74)).rows_to_decide or 0)


def test_rows_are_rows_to_draw() -> None:
    """Only half of the rows count toward the success rate, and each class has its share."""
    half = {"robust": 80, "broken": 20, "wrong": 100}
    success = asked(Metric.ATTACK_SUCCESS_RATE, Direction.AT_MOST, 0.25)
    alone = one({"robust": 80, "broken": 20}, requirement=success).rows_to_decide
    assert alone is not None
    assert one(half, requirement=success).rows_to_decide == 2 * alone
    classes = ({"robust": 65, "broken": 35}, {"robust": 270, "broken": 30})
    single = one(classes[0], requirement=robust(0.6)).rows_to_decide
    assert single is not None
    assert one(*classes, requirement=worst(0.6)).rows_to_decide == 4 * single


# -- 10⁴ reports: what is said, what is written and how the program ends --------------------------------------

METRICS = (Metric.CLEAN_ACCURACY, Metric.ROBUST_ACCURACY, WORST, Metric.ATTACK_SUCCESS_RATE, Metric.MEDIAN_DISTANCE)
classes = st.lists(st.dictionaries(st.sampled_from(FATES), st.integers(1, 80), max_size=4), min_size=1, max_size=3)
requirements = st.lists(
    st.builds(
        asked, st.sampled_from(METRICS), st.sampled_from(Direction), st.sampled_from([0, 0.1, 0.5, 0.8, 0.95, 1])
    ),
    max_size=3,
    unique_by=lambda each: (each.metric, each.direction),
)
runs = st.builds(
    run,
    gate=st.booleans(),
    planned=st.sampled_from([50, 1000]),
    family=st.sampled_from(["holm", "none"]),
    confidence=st.sampled_from([0.5, 0.9, 0.95]),
)


def many(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


@many(600)
@given(classes, requirements, runs, st.booleans())
def test_verdict_json_and_exit_code_agree(
    rows: list[Class], wanted: list[Requirement], how: dict[str, Any], doubt: bool
) -> None:
    whole = report(attacker(*rows, doubt=doubt), run=how)
    found = judge(whole, wanted)
    said = [part.verdict for part in found.requirements]
    assert found.verdict is (FAIL if FAIL in said else PASS if said and set(said) == {PASS} else OPEN)
    assert found.exit_code == {PASS: 0, FAIL: 1, OPEN: 3}[found.verdict]
    written = whole.model_copy(
        update={
            "verdict": found.verdict,
            "exit_code": found.exit_code,
            "reasons": list(found.reasons),
            "requirements": list(found.requirements),
        }
    )
    read = Report.model_validate_json(written.model_dump_json())
    assert (read.verdict, read.exit_code, read.verdict.exit_code) == (found.verdict, found.exit_code, found.exit_code)
    assert judge(read) == found
    for part in found.requirements:
        if part.bound_used is None or part.verdict is OPEN:
            assert part.verdict is OPEN
            continue
        above = (part.direction is Direction.AT_LEAST) == (part.verdict is PASS)
        assert part.bound_used >= part.threshold if above else part.bound_used <= part.threshold
        assert part.rows_to_decide is None
        if part.verdict is FAIL:
            assert part.bound_used != part.threshold


@many(500)
@given(
    classes,
    st.sampled_from(METRICS[:-1]),
    st.sampled_from(Direction),
    st.sampled_from(["errors", "undecided", "unanswered", "missing"]),
    st.data(),
    runs,
)
def test_open_rows_never_turn_a_verdict(
    rows: list[Class], metric: Metric, direction: Direction, fate: str, data: st.DataObject, how: dict[str, Any]
) -> None:
    """Rows that turn open leave a verdict or take it away; whatever becomes of open rows later, it stays."""
    wanted = asked(metric, direction, data.draw(st.sampled_from([0.1, 0.5, 0.8, 0.95])))
    at, source = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(["robust", "broken"]))
    moved = data.draw(st.integers(0, rows[at].get(source, 0)))
    opened = [dict(each) for each in rows]
    opened[at] = {**rows[at], source: rows[at].get(source, 0) - moved}
    opened[at][fate] = opened[at].get(fate, 0) + moved
    before, after = (judge(report(attacker(*each), run=how), [wanted]).verdict for each in (rows, opened))
    assert after in (before, OPEN)
    for end in ("robust", "broken"):
        later = [dict(each) for each in opened]
        for each in later:
            each[end] = each.get(end, 0) + sum(each.pop(f, 0) for f in ("errors", "undecided", "unanswered", "missing"))
        if after is not OPEN:
            assert judge(report(attacker(*later), run=how), [wanted]).verdict is after


@many(500)
@given(classes, st.sampled_from(METRICS[:-1]), st.sampled_from(Direction), runs)
def test_a_bound_that_equals_the_threshold_meets_it(
    rows: list[Class], metric: Metric, direction: Direction, how: dict[str, Any]
) -> None:
    whole = report(attacker(*rows), run=how)
    (part,) = judge(whole, [asked(metric, direction, 0.5)]).requirements
    if part.bound_used is None or not all(map(sum, (each.values() for each in rows))):
        return
    missed, met = part.bound_used, part.bound_used
    (again,) = judge(whole, [asked(metric, direction, met)]).requirements
    if part.verdict is FAIL:  # the bound on the other side: to meet it is no failure
        assert again.verdict is not FAIL
        assert judge(whole, [asked(metric, direction, missed)]).exit_code != 1
    else:
        assert (again.verdict, again.bound_used) == (PASS, met)
        beyond = math.nextafter(met, 2 if direction is Direction.AT_LEAST else -1)
        if 0 <= beyond <= 1:
            assert judge(whole, [asked(metric, direction, beyond)]).verdict is not PASS


@many(500)
@given(classes, st.sampled_from(METRICS[:-1]), st.sampled_from(Direction), st.floats(0, 1), runs, st.integers(1, 80))
def test_more_robust_rows_never_make_it_worse(
    rows: list[Class], metric: Metric, direction: Direction, threshold: float, how: dict[str, Any], moved: int
) -> None:
    moved = min(moved, rows[0].get("broken", 0))
    better = [{**rows[0], "robust": rows[0].get("robust", 0) + moved, "broken": rows[0].get("broken", 0) - moved}]
    wanted, rank = asked(metric, direction, threshold), {FAIL: 0, OPEN: 1, PASS: 2}
    before, after = (
        rank[judge(report(attacker(*each), run=how), [wanted]).verdict] for each in (rows, better + rows[1:])
    )
    helps = (metric is not Metric.ATTACK_SUCCESS_RATE) == (direction is Direction.AT_LEAST)
    assert after >= before if helps else after <= before
