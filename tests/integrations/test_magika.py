"""examples/magika: Magika's model answers in redan as it does in Magika, and is refused as a target."""

from __future__ import annotations

import io
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redan.errors import NotBuiltError
from redan.formats.onnx_session import ask, open_session, read_graph
from redan.formats.onnx_torch import convert
from redan.targets.onnx import load_onnx

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "magika" / "parity.py"

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """The names of the example."""
    return runpy.run_path(str(PROGRAM))


@pytest.fixture(scope="module")
def theirs() -> Any:
    return import_module("magika").Magika()


def raw(theirs: Any, content: bytes) -> list[float]:
    """All class scores, through Magika's own reading of the content and its own session."""
    kind = import_module("magika.types.model").ModelFeatures
    seekable = import_module("magika.types.seekable").Seekable
    setting = theirs._model_config
    features = theirs._extract_features_from_seekable(
        seekable(io.BytesIO(content)),
        setting.beg_size,
        setting.mid_size,
        setting.end_size,
        setting.padding_token,
        setting.block_size,
        setting.use_inputs_at_offsets,
    )
    assert isinstance(features, kind)
    scores: list[float] = theirs._get_raw_predictions([(Path("-"), features)])[0]
    return scores


def test_every_score_of_every_content_is_magikas(program: dict[str, Any], theirs: Any) -> None:
    session = open_session(program["MODEL"])
    assert (session.shape, session.dtype.name, session.columns) == ((None, 2048), "int32", 214)
    graph = read_graph(program["MODEL"])[1]
    module = convert(graph, session.input, session.output, called="Magika")
    contents = {**program["contents"](), "short": b"#!/bin/sh\necho\n", "blank at both ends": b" \n\t import os\n" * 9}
    for content in contents.values():
        row = program["features"](content)[None]
        expected = np.array([raw(theirs, content)], np.float32)
        assert np.array_equal(ask(session, row), expected)
        np.testing.assert_allclose(module(torch.from_numpy(row)).numpy(), expected, atol=2e-3)  # its variance cancels
    assert len(contents) == 10


def test_a_batch_is_answered_as_its_rows(program: dict[str, Any]) -> None:
    session = open_session(program["MODEL"])
    rows = np.stack([program["features"](content) for content in program["contents"]().values()])
    one_by_one = np.concatenate([ask(session, rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(ask(session, rows), one_by_one, atol=1e-4)
    assert ask(session, rows).argmax(1).tolist() == one_by_one.argmax(1).tolist()


def test_its_bytes_are_refused_in_one_sentence(program: dict[str, Any]) -> None:
    with pytest.raises(NotBuiltError, match=r"is int32 \(N, 2048\), whole numbers such as bytes") as refused:
        load_onnx(program["MODEL"])
    assert not re.search(r"[.!?] [A-Z]|\n", str(refused.value))


def test_the_example_runs() -> None:
    found = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    kinds = ["python", "html", "json", "csv", "zip", "gzip", "png", "randombytes"]
    assert [re.split(r"  +", line)[1].split()[0] for line in lines[:8]] == kinds
    assert lines[8] == "largest difference: 0.0e+00"
    assert lines[9].startswith("as a target: the input of model.onnx is int32 (N, 2048)")
