"""The three protocols: what is sent, and that of what comes back all that fits is read and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redan.errors import SettingError, TargetError
from redan.wire import Kind, Protocol, Reading, Service
from redan.wire.messages import Messages, messages, read_as
from redan.wire.reading import Garbled, Misfit

X = np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)
NAMES = ("cat", "dog", "owl")
URL = "http://127.0.0.1:1"


def built(
    protocol: Protocol,
    kind: Kind = Kind.SCORES,
    count: int | None = None,
    told: dict[str, str] | None = None,
    **chosen: Any,
) -> Messages:
    service = Service(url=URL, protocol=protocol, model="m", **chosen)
    return messages(service, read_as(service, kind, count), told=told or {}, datatype="FP32")


def mapping(request: object, response: dict[str, Any], kind: Kind = Kind.SCORES, rows: int = 1) -> Messages:
    return built(Protocol.MAPPING, kind, request=request, response=response, rows_per_request=rows)


def read(how: Messages, answer: object, rows: int = 1) -> list[Any]:
    found: list[Any] = how.decode(json.dumps(answer).encode(), rows).tolist()
    return found


# -- what is sent ------------------------------------------------------------------------------------------


def test_open_inference_sends_one_flat_tensor_under_the_name_that_the_model_tells() -> None:
    how = built(Protocol.OIP_V2, told={"tensor": "pixels", "datatype": "FP64"}, response={"output": "scores"})
    assert json.loads(how.encode(X)) == {
        "inputs": [{"name": "pixels", "shape": [2, 2], "datatype": "FP64", "data": X.ravel().tolist()}],
        "outputs": [{"name": "scores"}],
    }


def test_what_is_declared_goes_before_what_the_model_tells() -> None:
    how = built(Protocol.OIP_V2, told={"tensor": "pixels", "datatype": "INT8"}, request={"datatype": "FP32"})
    assert json.loads(how.encode(X))["inputs"][0]["datatype"] == "FP32"
    with pytest.raises(TargetError, match="takes INT8, but inputs are changed by fractions"):
        built(Protocol.OIP_V2, told={"datatype": "INT8"})
    with pytest.raises(TargetError, match="takes .31mX, but"):
        built(Protocol.OIP_V2, told={"datatype": "\x1b[31mX"})


def test_mlflow_sends_inputs() -> None:
    assert json.loads(built(Protocol.MLFLOW).encode(X)) == {"inputs": X.tolist()}


def test_a_mapping_fills_its_template_and_nothing_else() -> None:
    template = {"a": ['say "$row" aloud'], "deep": [{"x": "$row"}], "n": None}
    how = mapping(template, {"scores": "s"})
    assert json.loads(how.encode(X[:1])) == {"a": ['say "$row" aloud'], "deep": [{"x": X[0].tolist()}], "n": None}
    assert json.loads(mapping(["$rows"], {"scores": ""}, rows=2).encode(X)) == [X.tolist()]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_arrive_as_the_very_same(numbers: list[float]) -> None:
    x = np.array([numbers], dtype=np.float32)
    for how in (built(Protocol.MLFLOW), mapping({"inputs": "$rows"}, {"scores": ""})):
        sent = np.array(json.loads(how.encode(x))["inputs"], dtype=np.float32)
        assert (sent == x).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_request_holds_what_json_has_no_word_for(bad: float) -> None:
    for how in (built(Protocol.MLFLOW), built(Protocol.OIP_V2), mapping("$row", {"scores": ""})):
        with pytest.raises(ValueError):
            how.encode(np.array([[bad]]))


# -- what comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[1.0, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6.0]]], ids=["flat", "nested"])
def test_open_inference_reads_flat_and_nested_data(data: list[Any]) -> None:
    answer = {"outputs": [{"name": "o", "shape": [2, 3], "datatype": "FP32", "data": data}]}
    assert read(built(Protocol.OIP_V2), answer, 2) == [[1, 2, 3], [4, 5, 6]]


def test_open_inference_reads_labels_by_number_and_by_name() -> None:
    def answer(data: list[object]) -> dict[str, Any]:
        return {"outputs": [{"name": "o", "shape": [2], "datatype": "BYTES", "data": data}]}

    by_name = built(Protocol.OIP_V2, Kind.LABELS, response={"classes": NAMES})
    assert read(by_name, answer(["owl", "cat"]), 2) == [2, 0]
    assert read(built(Protocol.OIP_V2, Kind.LABELS, 3), answer([2, 0]), 2) == [2, 0]


def test_open_inference_picks_the_output_that_is_named() -> None:
    outputs = [{"name": n, "shape": [1, 2], "data": [n == "b", 2]} for n in "ab"]
    outputs[1]["data"] = [1, 2]
    answer = {"outputs": outputs}
    assert read(built(Protocol.OIP_V2, response={"output": "b"}), answer) == [[1, 2]]
    with pytest.raises(Misfit, match="2 outputs where a single output is needed"):
        read(built(Protocol.OIP_V2), answer)


@pytest.mark.parametrize(
    "output",
    [
        {"shape": [2, 3], "data": [1, 2, 3, 4, 5]},
        {"shape": [1, 3], "data": [1, 2, 3]},
        {"shape": [2, 3, 1], "data": [1, 2, 3, 4, 5, 6]},
        {"shape": [2, 3], "data": [[1, 2, 3], 4, 5, 6]},
        {"shape": [2, 3]},
        {"data": [1, 2, 3, 4, 5, 6]},
        {"shape": [2, "3"], "data": [1, 2, 3, 4, 5, 6]},
        {"shape": [2, 3], "data": [1, 2, 3, 4, 5, None]},
    ],
)
def test_open_inference_takes_no_output_that_does_not_fit_its_shape(output: dict[str, Any]) -> None:
    with pytest.raises(Misfit):
        read(built(Protocol.OIP_V2), {"outputs": [output]}, 2)


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([[1, 2.5, 3]], [[1, 2.5, 3]]),
        ([{"owl": 3, "cat": 1, "dog": 2}], [[1, 2, 3]]),
        ({"output": [[1, 2, 3]]}, [[1, 2, 3]]),
    ],
)
def test_mlflow_reads_lists_and_named_scores(predictions: object, expected: list[Any]) -> None:
    assert read(built(Protocol.MLFLOW, response={"classes": NAMES}), {"predictions": predictions}) == expected


@pytest.mark.parametrize("predictions", [[1], ["dog"], [{"label": "dog"}], [{"prediction": 1}], [[1]], [True]])
def test_labels_come_in_many_forms(predictions: object) -> None:
    how = built(Protocol.MLFLOW, Kind.LABELS, response={"classes": NAMES})
    assert read(how, {"predictions": predictions}) == [1]


def test_without_names_classes_are_named_by_their_numbers() -> None:
    assert read(built(Protocol.MLFLOW, count=2), {"predictions": [{"1": 0.9, "0": 0.1}]}) == [[0.1, 0.9]]


def test_the_best_few_keep_their_scores_and_the_rest_is_left_out() -> None:
    how = mapping({"x": "$row"}, {"scores": "0", "classes": NAMES})
    (row,) = read(how, [[{"label": "owl", "score": 0.7}, {"label": "cat", "score": 0.2}]])
    assert row[0] == 0.2
    assert math.isnan(row[1])
    assert row[2] == 0.7


def test_labels_and_scores_may_lie_apart() -> None:
    how = mapping({"x": "$row"}, {"scores": "r.*.p", "labels": "r.*.name", "classes": NAMES})
    assert read(how, {"r": [{"name": n, "p": p} for n, p in (("dog", 0.6), ("cat", 0.3), ("owl", 0.1))]}) == [
        [0.3, 0.6, 0.1]
    ]


def test_of_scores_that_tie_the_one_told_first_is_the_decision() -> None:
    how = mapping({"x": "$row"}, {"scores": "", "classes": NAMES})
    (row,) = read(how, [{"label": "owl", "score": 0.5}, {"label": "cat", "score": 0.5}])
    assert np.nanargmax(np.float32(row)) == 2
    assert row[0] == pytest.approx(0.5, rel=2e-6)


def test_a_path_goes_through_keys_positions_and_all_entries() -> None:
    how = mapping({"x": "$rows"}, {"scores": "a.1.*.s"}, rows=2)
    assert read(how, {"a": [0, [{"s": [1, 2]}, {"s": [3, 4]}]]}, 2) == [[1, 2], [3, 4]]
    others: list[dict[str, Any]] = [{}, {"a": []}, {"a": [0, {"s": 1}]}, {"a": [0, [{"t": 1}, {"t": 1}]]}]
    for wrong in others:
        with pytest.raises(Misfit, match="nothing at a.1"):
            read(how, wrong, 2)


def test_a_value_is_one_number() -> None:
    assert read(mapping({"x": "$row"}, {"value": "price"}, Kind.VALUE), {"price": 12.5}) == [12.5]


ANSWERS = [
    (built(Protocol.MLFLOW, count=3), 2),
    (built(Protocol.OIP_V2, count=3), 2),
    (mapping({"x": "$rows"}, {"scores": "predictions"}, rows=2), 2),
    (mapping({"x": "$row"}, {"labels": "label", "classes": NAMES}, Kind.LABELS), 1),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["predictions", "outputs", "label", "score", "shape", "data", "0"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(ANSWERS))
def test_any_json_is_read_or_refused_and_never_more_than_that(answer: object, how: tuple[Messages, int]) -> None:
    protocol, rows = how
    try:
        found = protocol.decode(json.dumps(answer).encode(), rows)
    except (Misfit, Garbled):
        return
    assert len(found) == rows
    assert np.isfinite(found[~np.isnan(found)]).all()


@given(st.binary(max_size=40), st.sampled_from(ANSWERS))
def test_any_bytes_are_refused_by_name(body: bytes, how: tuple[Messages, int]) -> None:
    with pytest.raises((Misfit, Garbled)):
        how[0].decode(body, how[1])


@given(st.integers(min_value=0, max_value=200))
def test_every_cut_of_an_answer_is_noticed(at: int) -> None:
    whole = json.dumps({"predictions": [[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]]}).encode()
    with pytest.raises(Garbled):
        built(Protocol.MLFLOW).decode(whole[: at % len(whole)], 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"predictions": [[NaN, 1, 2]]}', "NaN where a number is needed"),
        ('{"predictions": [[1e999, 1, 2]]}', "inf where a number is needed"),
        ('{"predictions": [[1, 2]]}', "2 scores a row where 3 are needed"),
        ('{"predictions": [[1, 2, 3], [1, 2, 3]]}', "a list of 2 where a list of 1 answers"),
        ('{"predictions": [["1", 2, 3]]}', "the text"),
        ('{"predictions": [[true, 2, 3]]}', "True where a number is needed"),
        ('{"predictions": [{"cat": 1, "dog": 2}]}', 'no score for the class "owl"'),
        ('{"predictions": [{"cat": 1, "dog": 2, "owl": 3, "emu": 4}]}', 'a score for "emu", no class'),
        ('{"predictions": [[{"label": "emu", "score": 1}]]}', 'the class "emu", which is none of those declared'),
        ('{"predictions": [[{"label": "cat", "score": 1}, {"label": "cat", "score": 1}]]}', "two scores"),
        ('{"prediction": []}', "no predictions"),
        ("[]", "no predictions"),
    ],
)
def test_a_misfit_says_why(text: str, why: str) -> None:
    with pytest.raises(Misfit) as raised:
        built(Protocol.MLFLOW, response={"classes": NAMES}).decode(text.encode(), 1)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(Kind.PROBABILITIES, [[-3.2, 4.0, 0.1]]), (Kind.LABELS, [3]), (Kind.LABELS, [-1]), (Kind.LABELS, [0.5])],
)
def test_numbers_out_of_their_range_are_no_answer(kind: Kind, wrong: list[Any]) -> None:
    with pytest.raises(Misfit):
        read(built(Protocol.MLFLOW, kind, 3), {"predictions": wrong})


def test_deep_json_is_refused_and_does_no_harm() -> None:
    with pytest.raises(Garbled):
        built(Protocol.MLFLOW).decode(b'{"predictions": ' + b"[" * 200_000, 1)


# -- what is declared --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "response", "why"),
    [
        ({"x": 1}, {"scores": ""}, "it holds none"),
        ({"x": "$row", "y": "$rows"}, {"scores": ""}, r"it holds \$row, \$rows"),
        ({"x": "$image"}, {"scores": ""}, r"no other text with a \$"),
        ({"x": "$row"}, {}, "has no path"),
        ({"x": "$row"}, {"score": "a"}, "unknown key score"),
        ({"x": "$row"}, {"scores": ["a"]}, "scores must be a path"),
        ({"x": "$row"}, {"scores": "", "classes": ["a", "a"]}, "two different names"),
        ({"x": "$row"}, {"scores": "", "value": ""}, "maps a value"),
        ({"x": "$row"}, {"labels": ""}, "maps labels, but the model's output is declared as scores"),
        ({"x": "$row", "z": {1, 2}}, {"scores": ""}, "cannot be written as JSON"),
    ],
)
def test_a_mapping_that_cannot_be_meant_so_is_refused(request_: Any, response: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        mapping(request_, response)


def test_what_contradicts_is_refused() -> None:
    with pytest.raises(SettingError, match=r'"\$row" stands for one input, but rows_per_request is 2'):
        mapping({"x": "$row"}, {"scores": ""}, rows=2)
    with pytest.raises(SettingError, match="names 3 classes, but 4 are declared"):
        built(Protocol.MLFLOW, count=4, response={"classes": NAMES})
    with pytest.raises(SettingError, match="unknown key tensors; this protocol knows tensor, datatype"):
        built(Protocol.OIP_V2, request={"tensors": "x"})


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"url": "ftp://h", "protocol": Protocol.MLFLOW}, "http:// or https://"),
        ({"url": "http://me:secret@h", "protocol": Protocol.MLFLOW}, "no user or password"),
        ({"url": URL, "protocol": Protocol.OIP_V2}, "give model="),
        ({"url": URL, "protocol": Protocol.MAPPING, "request": {}}, "both its request and its response"),
        ({"url": URL, "protocol": Protocol.MLFLOW, "concurrency": 0}, "above 0"),
        ({"url": URL, "protocol": Protocol.MLFLOW, "auth_header": "X: y\r\n"}, "name of an HTTP header"),
    ],
)
def test_a_service_that_cannot_be_is_refused(chosen: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why) as raised:
        Service(**chosen)
    assert "secret@" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("https://h/base/?key=k", Protocol.OIP_V2, "https://h/base/v2/models/a%2Fb/infer?key=k"),
        ("https://h", Protocol.MLFLOW, "https://h/invocations"),
        ("https://h/x/invocations", Protocol.MLFLOW, "https://h/x/invocations"),
    ],
)
def test_addresses(url: str, protocol: Protocol, address: str) -> None:
    service = Service(url=url, protocol=protocol, model="a/b")
    assert service.address == address
    assert "key=k" not in service.shown + repr(service)


def test_reading_is_a_value() -> None:
    assert Reading(Kind.SCORES) == Reading(Kind.SCORES, None, None)
