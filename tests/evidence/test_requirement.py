"""A requirement has one metric, one threshold, and an attacker where the metric is about one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from redan.evidence.requirement import Direction, Metric, Requirement


def test_a_requirement_knows_its_direction_and_threshold() -> None:
    least = Requirement(metric=Metric.ROBUST_ACCURACY, at_least=0.6, against="anyone")
    most = Requirement(metric=Metric.BACKDOOR_SUCCESS, at_most=0, against="supplier")
    assert (least.direction, least.threshold) == (Direction.AT_LEAST, 0.6)
    assert (most.direction, most.threshold) == (Direction.AT_MOST, 0.0)


def test_a_requirement_reads_the_words_of_a_file() -> None:
    told = Requirement.model_validate({"metric": "median_distance", "at_least": 12, "against": "anyone"})
    assert told == Requirement(metric=Metric.MEDIAN_DISTANCE, at_least=12.0, against="anyone")


def test_a_requirement_is_frozen() -> None:
    requirement = Requirement(metric=Metric.CLEAN_ACCURACY, at_least=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        requirement.__setattr__("at_least", 0.1)
    assert hash(requirement) == hash(Requirement(metric=Metric.CLEAN_ACCURACY, at_least=0.5))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"metric": "clean_accuracy"}, "exactly one of at_least and at_most, got neither"),
        ({"metric": "clean_accuracy", "at_least": 0.1, "at_most": 0.2}, "got both"),
        ({"metric": "clean_accuracy", "at_least": 78}, "at_least must lie from 0 to 1 for clean_accuracy, got 78"),
        ({"metric": "clean_accuracy", "at_most": -0.1}, "at_most must lie from 0 to 1"),
        ({"metric": "median_distance", "at_least": -1}, "at_least must not be below 0 for median_distance"),
        ({"metric": "clean_accuracy", "at_least": 0.5, "against": "a"}, "measured without an attacker"),
        ({"metric": "accuracy", "at_least": 0.5}, "metric"),
        ({"metric": "clean_accuracy", "at_least": "0.5"}, "at_least"),
        ({"metric": "clean_accuracy", "at_least": True}, "at_least"),
        ({"metric": "clean_accuracy", "at_least": float("nan")}, "finite"),
        ({"metric": "clean_accuracy", "at_least": 0.5, "unit": "rows"}, "unit"),
    ],
)
def test_a_requirement_that_cannot_be_is_refused(told: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Requirement.model_validate(told)


def test_all_metrics_but_one_are_rates_and_all_but_one_need_an_attacker() -> None:
    assert [metric for metric in Metric if not metric.is_rate] == [Metric.MEDIAN_DISTANCE]
    assert [metric for metric in Metric if not metric.needs_attacker] == [Metric.CLEAN_ACCURACY]
