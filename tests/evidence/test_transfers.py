"""Counts of inputs that were shown between models, with their intervals, in words and as a table."""

from __future__ import annotations

from redan.evidence.statistics import interval
from redan.evidence.transfers import WHOLE, TransferLine, transfer_part
from redan.report import transfer_words

NAMES = [WHOLE, "member 1 alone", "member 2 alone"]
LINE = TransferLine(
    attacker="anyone",
    names=NAMES,
    shown=[[10, 10, 8], [12, 12, 9], [0, 0, 0]],
    broken=[[10, 9, 2], [6, 12, 3], [0, 0, 0]],
)


def test_every_pair_has_its_rate_and_no_model_one_on_itself() -> None:
    part = transfer_part(LINE, 0.9)
    assert [(rate.found_on, rate.asked) for rate in part.rates] == [(a, b) for a in NAMES for b in NAMES if a != b]
    rate = part.rates[1]
    exact = interval(2, 8, 0.9)
    assert (rate.broken, rate.rows, rate.rate, rate.low, rate.high) == (2, 8, 0.25, exact.low, exact.high)
    assert part.rates[-1].rate is None
    assert (part.rates[-1].low, part.rates[-1].high) == (0.0, 1.0)


def test_the_table_has_a_row_for_what_inputs_were_found_on() -> None:
    table = transfer_words.table(transfer_part(LINE, 0.95))
    assert table.heads == ("found on", *NAMES)
    assert [row[0] for row in table.rows] == NAMES
    assert table.rows[0][1] == "–"
    assert table.rows[1][3].replace("\N{NO-BREAK SPACE}", " ") == "33.3 % (3 of 9)"
    assert table.rows[2][1:] == ("–", "–", "–")


def test_the_words_name_the_pairs_and_the_bound() -> None:
    said = " ".join(transfer_words.headline(transfer_part(LINE, 0.95)))
    assert "3 of 9, from member 1 alone to member 2 alone" in said
    assert "9 of 10 break member 1 alone, 2 of 8 break member 2 alone" in said
    assert "more would carry over" in said


def test_what_was_not_measured_says_why() -> None:
    none = TransferLine(attacker="anyone", names=NAMES, shown=[], broken=[], reason="no inputs were kept")
    part = transfer_part(none, 0.95)
    assert (part.rates, transfer_words.table(part).rows) == ([], ())
    assert [*transfer_words.headline(part)] == [
        "how far inputs carry over between the members was not measured: no inputs were kept"
    ]
