"""The ledger: what it was told is what it tells after any cut, and nothing is asked twice that was answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redan.errors import EvidenceError
from redan.wire import Answer, Failure, Ledger, Reason
from redan.wire.outcome import Refusal, Told


def answer(*numbers: float) -> Answer:
    return Answer(np.array([numbers]))


def values(ledger: Ledger, digest: str) -> list[float] | None:
    found = ledger.question(digest, 1).outcome
    return found.values[0].tolist() if isinstance(found, Answer) else None


def asked(ledger: Ledger, digest: str, outcome: Answer | Failure | Refusal | None, *, last: bool = False) -> str:
    question = ledger.question(digest, 1)
    name = ledger.intend(question)
    if outcome is not None:
        ledger.conclude(name, question, outcome, last=last)
    return name


def test_an_intent_is_on_disk_before_anything_can_be_sent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    name = ledger.intend(ledger.question("d", 3))
    last = json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[-1])
    assert last == {"id": name, "intent": "d", "rows": 3}
    ledger.close()


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=4))
def test_answers_come_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l"
    first = Ledger(path)
    asked(first, "d", answer(*numbers))
    first.close()
    second = Ledger(path)
    found = second.question("d", 1).outcome
    second.close()
    assert isinstance(found, Answer)
    assert np.array_equal(found.values[0], np.array(numbers), equal_nan=True)


def test_answers_are_given_again_in_order_until_they_run_out(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    for number in (1.0, 2.0):
        asked(first, "same", answer(number))
    assert values(first, "same") is None  # only to the next sitting
    first.close()
    second = Ledger(tmp_path / "l")
    assert [values(second, "same") for _ in range(3)] == [[1.0], [2.0], None]
    assert values(second, "other") is None
    assert second.bill.replayed == 2
    assert second.bill.sent == 2
    second.close()


def test_what_is_settled_is_billed_and_not_given_again(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    asked(first, "a", answer(1.0))
    first.settle()
    asked(first, "b", answer(2.0))
    first.close()
    second = Ledger(tmp_path / "l")
    assert values(second, "a") is None
    assert values(second, "b") == [2.0]
    assert second.bill.answered == 2
    second.settle()
    second.close()
    third = Ledger(tmp_path / "l")
    assert values(third, "b") is None
    third.close()


def test_settling_ends_what_was_to_be_given_again_in_this_sitting(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    asked(first, "a", answer(1.0))
    first.close()
    second = Ledger(tmp_path / "l")
    second.settle()
    assert values(second, "a") is None
    second.close()


def test_an_intent_without_an_outcome_is_unknown_and_billed_and_its_question_goes_on(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    asked(first, "a", Failure(Reason.SERVER, "", 500))
    question = first.question("b", 2)
    first.conclude(first.intend(question), question, Failure(Reason.TIMEOUT, ""))
    lost = first.intend(question)
    first.close()
    second = Ledger(tmp_path / "l")
    assert second.unknown == (lost,)
    bill = second.bill
    assert (bill.sent, bill.unknown, bill.failed, bill.rows) == (3, 1, {"server error": 1, "timeout": 1}, 5)
    again = second.question("b", 2)
    assert (again.key, again.tries, again.failures) == (lost.rpartition(".")[0], 2, 1)
    second.conclude(second.intend(again), again, answer(1.0))
    second.close()
    third = Ledger(tmp_path / "l")
    assert values(third, "b") == [1.0]
    assert third.unknown == (lost,)
    third.close()


def test_a_row_that_failed_for_good_has_failed_when_asked_again_and_a_bad_token_has_not(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    asked(first, "row", Failure(Reason.SERVER, "boom", 500), last=True)
    asked(first, "token", Failure(Reason.DENIED, "", 401), last=True)
    asked(first, "down", Failure(Reason.UNREACHABLE, "refused"), last=True)
    assert (first.bill.sent, first.bill.unsent) == (2, 1)
    first.close()
    second = Ledger(tmp_path / "l")
    assert second.question("row", 1).outcome == Failure(Reason.SERVER, "boom", 500)
    for digest in ("token", "down"):
        question = second.question(digest, 1)
        assert question.outcome is None
        assert question.failures == 0
    second.close()


def test_what_the_endpoint_says_of_itself_stands_for_good(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    question = first.question("description", 0)
    first.conclude(first.intend(question), question, Told({"tensor": "x"}))
    first.settle()
    assert first.question("description", 0).outcome == Told({"tensor": "x"})
    first.close()
    second = Ledger(tmp_path / "l")
    assert second.question("description", 0).outcome == Told({"tensor": "x"})
    assert second.question("description", 0).outcome == Told({"tensor": "x"})
    assert second.bill.rows == 0
    second.close()


OUTCOMES = st.sampled_from(
    [
        answer(0.25, 0.75),
        Refusal(429, 1.0),
        Failure(Reason.RESET, "gone"),
        Failure(Reason.UNREACHABLE, "refused"),
        None,
    ]
)


@given(st.lists(st.tuples(st.sampled_from("abc"), OUTCOMES), max_size=8), st.floats(0, 1))
def test_after_any_cut_the_bill_adds_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Answer | Failure | Refusal | None]], share: float
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l"
    first = Ledger(path)
    for digest, outcome in steps:
        asked(first, digest, outcome)
    before = first.bill
    first.close()
    whole = path.read_bytes()
    for size in (len(whole), int(len(whole) * share)):
        path.write_bytes(whole[:size])
        again = Ledger(path)
        bill = again.bill
        again.close()
        assert bill.sent == bill.answered + bill.refused + sum(bill.failed.values()) - bill.unsent + bill.unknown
        assert bill.sent <= len(steps)
        if size == len(whole):
            assert bill == before
        assert all(json.loads(line) for line in path.read_bytes().splitlines())
        Ledger(path).close()  # and what was cut off has not glued itself to what came after


@pytest.mark.parametrize(
    "line", [b"not json", b'{"id": "x"}', b'{"id": "x.1", "answer": [1]}', b'{"id": "a", "intent": 1}']
)
def test_a_line_that_is_none_of_ours_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "l"
    path.write_bytes(line + b"\n")
    with pytest.raises(EvidenceError, match="line 1 of the ledger"):
        Ledger(path)


def test_a_ledger_belongs_to_one_endpoint(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    first.belongs("one")
    first.belongs("one")
    first.close()
    second = Ledger(tmp_path / "l")
    second.belongs("one")
    with pytest.raises(EvidenceError, match="begun for another endpoint"):
        second.belongs("two")
    second.close()


def test_two_processes_cannot_share_a_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    code = f"from redan.wire import Ledger; Ledger({str(tmp_path / 'l')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "in use by another run" in done.stderr
    ledger.close()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    Ledger(tmp_path / "deep" / "l").close()
    assert os.stat(tmp_path / "deep" / "l").st_mode & 0o077 == 0


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger.close()
    ledger.close()
    with pytest.raises(EvidenceError, match="is closed"):
        ledger.intend(ledger.question("a", 1))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "l")


def test_in_memory_it_keeps_count_all_the_same() -> None:
    ledger = Ledger()
    asked(ledger, "a", answer(1.0))
    asked(ledger, "a", Refusal(429, None))
    assert (ledger.bill.sent, ledger.bill.answered, ledger.bill.refused) == (2, 1, 1)
    ledger.settle()
    ledger.close()


def test_a_ledger_of_memory_goes_on_in_a_file(tmp_path: Path) -> None:
    earlier = Ledger(tmp_path / "l")
    earlier.belongs("one")
    asked(earlier, "a", answer(1.0))
    lost = asked(earlier, "b", None)
    earlier.close()
    ledger = Ledger()
    ledger.belongs("one")
    question = ledger.question("description", 0)
    ledger.conclude(ledger.intend(question), question, Told({"tensor": "x"}))
    asked(ledger, "a", answer(2.0))
    asked(ledger, "c", Failure(Reason.RESET, ""))
    ledger.question("description", 0)
    ledger.attach(tmp_path / "l")
    assert ledger.unknown == (lost,)
    assert values(ledger, "a") == [1.0]  # the file's, and not what was asked in memory
    assert values(ledger, "a") is None
    bill = ledger.bill
    assert (bill.sent, bill.answered, bill.failed, bill.unknown) == (5, 3, {"connection lost": 1}, 1)
    with pytest.raises(EvidenceError, match="already"):
        ledger.attach(tmp_path / "m")
    ledger.close()
    later = Ledger(tmp_path / "l")
    assert later.question("description", 0).outcome == Told({"tensor": "x"})
    assert later.bill == replace(bill, replayed=1)
    later.close()


def test_a_ledger_of_memory_does_not_go_on_in_the_file_of_another_endpoint(tmp_path: Path) -> None:
    earlier = Ledger(tmp_path / "l")
    earlier.belongs("one")
    earlier.close()
    ledger = Ledger()
    ledger.belongs("two")
    with pytest.raises(EvidenceError, match="begun for another endpoint"):
        ledger.attach(tmp_path / "l")
    ledger.close()
