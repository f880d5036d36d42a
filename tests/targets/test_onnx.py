"""ONNX files in onnxruntime: what is asked and answered, and what is refused before anything is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from redan.engine.run import attack
from redan.errors import NotBuiltError, SettingError, TargetError
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.formats.onnx_session import ask, open_session
from redan.perturbations.norms import Linf
from redan.protocols import Access
from redan.targets import Output, Paired
from redan.targets.onnx import OnnxTarget, load_onnx

WEIGHT = np.array([[2.0, -1.0], [0.0, 1.0], [-1.0, 3.0]])
BIAS = np.array([0.5, -0.5])
ROWS = np.array([[0.1, 0.2, 0.3], [0.9, 0.5, 0.0], [0.4, 0.4, 0.4], [1.0, 0.0, 1.0], [0.0, 0.6, 0.2]])

Shape = Sequence[int | str]


def saved(
    path: Path,
    nodes: Sequence[Any],
    *,
    shape: Shape = ("N", 3),
    outputs: Sequence[tuple[str, Shape]] = (("scores", ("N", 2)),),
    stored: dict[str, NDArray[Any]] | None = None,
    numbers: type[np.generic] = np.float32,
    **more: Any,
) -> Path:
    """A file with these nodes, from the input "x", with WEIGHT and BIAS beside them."""
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(numbers))
    tensors = {"weight": WEIGHT.astype(numbers), "bias": BIAS.astype(numbers)} if stored is None else stored
    graph = onnx.helper.make_graph(
        nodes,
        "tested",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info(name, kind, lengths) for name, lengths in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    versions = [onnx.helper.make_opsetid("", 17), *more.pop("versions", ())]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=versions, ir_version=9, **more).SerializeToString())
    return path


def linear(path: Path, **settings: Any) -> Path:
    """x @ WEIGHT + BIAS."""
    import onnx

    return saved(path, [onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["scores"])], **settings)


def one_sentence(error: BaseException) -> bool:
    text = str(error)
    return "; " in text and not re.search(r"[.!?] [A-Z]", text) and "\n" not in text


def test_without_the_packages_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(TargetError, match=r"pip install 'redan\[onnx\]'"):
        load_onnx(tmp_path / "model.onnx")


def test_nothing_is_imported_before_it_is_needed() -> None:
    program = "import sys, redan, redan.targets.onnx; print({'onnx', 'onnxruntime'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.extras
@pytest.mark.parametrize(
    ("numbers", "dtype", "near"),
    [(np.float32, torch.float32, 1e-6), (np.float64, torch.float64, 1e-14), (np.float16, torch.float32, 2e-3)],
)
def test_scores_are_the_graphs_in_its_own_numbers(
    tmp_path: Path, numbers: type[np.generic], dtype: torch.dtype, near: float
) -> None:
    target = load_onnx(linear(tmp_path / "m.onnx", numbers=numbers), bounds=(0, 2))
    assert isinstance(target, OnnxTarget)
    assert (target.dtype, target.classes, target.bounds, target.access) == (dtype, 2, (0.0, 2.0), Access.SCORES)
    answer = target(torch.tensor(ROWS, dtype=dtype))
    assert answer.dtype == dtype
    assert float((answer - torch.tensor(ROWS @ WEIGHT + BIAS)).abs().max()) < near


@pytest.mark.extras
def test_normalization_is_applied_before_the_model(tmp_path: Path) -> None:
    x = torch.tensor(ROWS, dtype=torch.float32)
    settings = {"normalization": ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0])}
    plain = load_onnx(linear(tmp_path / "m.onnx"))
    scaled = (x - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1.0, 2.0])
    for rows in (None, x):
        target = load_onnx(tmp_path / "m.onnx", rows=rows, **settings)  # type: ignore[arg-type]  # one dictionary
        torch.testing.assert_close(target(x), plain(scaled))
    with pytest.raises(SettingError, match="above 0"):
        load_onnx(tmp_path / "m.onnx", normalization=([0.0], [0.0]))


@pytest.mark.extras
def test_probabilities_are_answered_as_logarithms(tmp_path: Path) -> None:
    import onnx

    nodes = [
        onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["logits"]),
        onnx.helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    target = load_onnx(saved(tmp_path / "m.onnx", nodes), output=Output.PROBABILITIES)
    expected = torch.tensor(ROWS @ WEIGHT + BIAS).log_softmax(1).float()
    torch.testing.assert_close(target(torch.tensor(ROWS, dtype=torch.float32)), expected)


@pytest.mark.extras
def test_one_number_a_row_is_the_second_classs(tmp_path: Path) -> None:
    import onnx

    x = torch.tensor(ROWS, dtype=torch.float32)
    logit = torch.tensor(ROWS @ WEIGHT[:, :1] + BIAS[0], dtype=torch.float32)
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["logit"]),
        onnx.helper.make_node("Sigmoid", ["logit"], ["share"]),
    ]
    stored: dict[str, NDArray[Any]] = {
        "weight": WEIGHT[:, :1].astype(np.float32),
        "bias": BIAS[:1].astype(np.float32),
    }
    path = saved(tmp_path / "m.onnx", nodes, outputs=[("logit", ("N", 1)), ("share", ("N", 1))], stored=stored)
    for rows in (None, x):
        logits = load_onnx(path, scores="logit", rows=rows)
        shares = load_onnx(path, scores="share", rows=rows, output=Output.PROBABILITIES)
        assert (logits.classes, shares.classes) == (2, 2)
        torch.testing.assert_close(logits(x).softmax(1)[:, 1:], logit.sigmoid())
        torch.testing.assert_close(shares(x).exp()[:, 1:], logit.sigmoid())
        value = load_onnx(path, scores="logit", rows=rows, output=Output.VALUE)
        torch.testing.assert_close(value(x), logit)


@pytest.mark.extras
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_fixed_number_of_rows_is_asked_in_pieces(tmp_path: Path, count: int) -> None:
    path = linear(tmp_path / "m.onnx", shape=(2, 3), outputs=[("scores", (2, 2))])
    x = torch.tensor(ROWS, dtype=torch.float32)[:count]
    expected = torch.tensor(ROWS @ WEIGHT + BIAS, dtype=torch.float32)[:count]
    torch.testing.assert_close(load_onnx(path)(x), expected)
    climbed = load_onnx(path, rows=torch.tensor(ROWS, dtype=torch.float32))
    assert isinstance(climbed, Paired)
    torch.testing.assert_close(climbed.module(x), expected)


@pytest.mark.extras
def test_scores_at_one_place_of_a_picture_are_scores(tmp_path: Path) -> None:
    import onnx

    nodes = [
        onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["flat"]),
        onnx.helper.make_node("Unsqueeze", ["flat", "axes"], ["scores"]),
    ]
    stored: dict[str, NDArray[Any]] = {
        "weight": WEIGHT.astype(np.float32),
        "bias": BIAS.astype(np.float32),
        "axes": np.array([2, 3]),
    }
    path = saved(tmp_path / "m.onnx", nodes, outputs=[("scores", ("N", 2, 1, 1))], stored=stored)
    x = torch.tensor(ROWS, dtype=torch.float32)
    assert load_onnx(path)(x).shape == (5, 2)
    assert load_onnx(path, rows=x)(x.requires_grad_()).shape == (5, 2)


@pytest.mark.extras
def test_several_threads_get_the_same_answers(tmp_path: Path) -> None:
    target = load_onnx(linear(tmp_path / "m.onnx"))
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(target, [x] * 40))
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.mark.extras
def test_without_gradients_it_is_attacked_by_its_answers(tmp_path: Path) -> None:
    """The nearest change that turns a linear model's decision is its margin over the dual norm: 0.5 / 11 and more."""
    target = load_onnx(linear(tmp_path / "m.onnx"), rows=torch.tensor(ROWS), gradients=False)
    x = torch.tensor(ROWS, dtype=torch.float32)
    y = target(x).argmax(1)
    margin = np.abs((ROWS @ WEIGHT + BIAS) @ [1, -1]) / np.abs(WEIGHT @ [1, -1]).sum()
    with pytest.raises(SettingError, match="PGD needs gradients"):
        attack(target, x, y, PGD(), within=Linf(0.2))
    found = attack(target, x, y, Square(queries=200), within=Linf(0.2))
    assert found.success.tolist() == (margin < 0.2).tolist()
    assert 0 < int(found.success.sum()) < 5


@pytest.mark.extras
def test_with_rows_it_is_climbed(tmp_path: Path) -> None:
    x = torch.tensor(ROWS, dtype=torch.float32)
    target = load_onnx(linear(tmp_path / "m.onnx"), rows=x)
    assert isinstance(target, Paired)
    (slope,) = torch.autograd.grad(target(x.requires_grad_())[:, 0].sum(), x)
    torch.testing.assert_close(slope, torch.tensor(WEIGHT[:, 0], dtype=torch.float32).expand(5, 3))
    assert target.access is Access.GRADIENTS


@pytest.mark.extras
@pytest.mark.parametrize("numbers", [np.int32, np.int64, np.uint8])
def test_whole_numbers_are_refused_in_one_sentence(tmp_path: Path, numbers: type[np.generic]) -> None:
    import onnx

    path = saved(tmp_path / "m.onnx", [onnx.helper.make_node("Identity", ["x"], ["scores"])], numbers=numbers)
    with pytest.raises(NotBuiltError, match=rf"is {np.dtype(numbers)} \(N, 3\).*changes of kind bytes") as refused:
        load_onnx(path)
    assert one_sentence(refused.value)


@pytest.mark.extras
def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    target = load_onnx(linear(tmp_path / "m.onnx"))
    for x in (torch.rand(2, 4), torch.rand(2, 3, 1)):
        with pytest.raises(TargetError, match=r"takes inputs \(N, 3\), but the rows are \(N, ") as refused:
            target(x)
        assert one_sentence(refused.value)


@pytest.mark.extras
def test_rows_must_be_on_the_first_axis(tmp_path: Path) -> None:
    import onnx

    nodes = [onnx.helper.make_node("Transpose", ["x"], ["scores"])]
    target = load_onnx(saved(tmp_path / "m.onnx", nodes, outputs=[("scores", (3, "N"))]))
    with pytest.raises(TargetError, match=r"answered \(3, 5\) to 5 rows"):
        target(torch.tensor(ROWS, dtype=torch.float32))


@pytest.mark.extras
def test_the_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    import onnx

    nodes = [
        onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["scores"]),
        onnx.helper.make_node("Neg", ["scores"], ["turned"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, outputs=[("scores", ("N", 2)), ("turned", ("N", 2))])
    x = torch.tensor(ROWS, dtype=torch.float32)
    for rows in (None, x):
        torch.testing.assert_close(
            load_onnx(path, scores="turned", rows=rows)(x), -load_onnx(path, scores="scores", rows=rows)(x)
        )
    with pytest.raises(SettingError, match="the outputs scores, turned; say which"):
        load_onnx(path)
    with pytest.raises(SettingError, match="no output 'logits'"):
        load_onnx(path, scores="logits")


@pytest.mark.extras
def test_two_inputs_are_refused(tmp_path: Path) -> None:
    import onnx

    path = linear(tmp_path / "m.onnx")
    graph = onnx.load(path)
    graph.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ("N",)))
    onnx.save(graph, path)
    with pytest.raises(TargetError, match=r"2 inputs \(x, mask\)"):
        load_onnx(path)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_classifier_of_scikit_learn_answers_labels_and_probabilities(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    to_onnx = import_module("skl2onnx").to_onnx

    x, y = ROWS.astype(np.float32), np.array([0, 1, 2, 1, 2])
    fitted, path = LogisticRegression().fit(x, y), tmp_path / "m.onnx"
    path.write_bytes(to_onnx(fitted, x[:1], options={"zipmap": False}).SerializeToString())
    scores = load_onnx(path, output=Output.PROBABILITIES)(torch.tensor(x))
    np.testing.assert_allclose(scores.exp(), fitted.predict_proba(x), atol=1e-5)
    labels = load_onnx(path, output=Output.LABELS, classes=3)
    assert labels.access is Access.LABELS
    assert labels(torch.tensor(x)).argmax(1).tolist() == fitted.predict(x).tolist()
    with pytest.raises(TargetError, match="class numbers alone"):
        load_onnx(path, output=Output.LABELS, classes=3, rows=torch.tensor(x))

    path.write_bytes(to_onnx(fitted, x[:1], options={"zipmap": True}).SerializeToString())
    with pytest.raises(TargetError, match=r"ZipMap.*options=\{'zipmap': False\}"):
        load_onnx(path)

    named = LogisticRegression().fit(x, np.array(["a", "b", "c"])[y])
    path.write_bytes(to_onnx(named, x[:1], options={"zipmap": False}).SerializeToString())
    with pytest.raises(TargetError, match="labels as text"):
        load_onnx(path, output=Output.LABELS, classes=3)
    assert load_onnx(path, output=Output.PROBABILITIES).classes == 3


def with_weights_in(path: Path, location: str) -> Path:
    """The linear model, its weight said to lie elsewhere."""
    import onnx

    graph = onnx.load(linear(path))
    for tensor in graph.graph.initializer:
        if tensor.name == "weight":
            onnx.external_data_helper.set_external_data(tensor, location)
            tensor.ClearField("raw_data")
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.mark.extras
def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for location in ("weights.bin", "deeper/weights.bin"):
        (tmp_path / location).write_bytes(WEIGHT.astype(np.float32).tobytes())
        path = with_weights_in(tmp_path / "m.onnx", location)
        x = torch.tensor(ROWS, dtype=torch.float32)
        expected = torch.tensor(ROWS @ WEIGHT + BIAS, dtype=torch.float32)
        torch.testing.assert_close(load_onnx(path)(x), expected)
        torch.testing.assert_close(load_onnx(path, rows=x)(x.requires_grad_()), expected)


@pytest.mark.extras
def test_weights_beside_the_model_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.astype(np.float32).tobytes()[:-4])
    with pytest.raises(TargetError) as refused:
        load_onnx(with_weights_in(tmp_path / "m.onnx", "weights.bin"))
    assert one_sentence(refused.value)


@pytest.mark.extras
def test_weights_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(WEIGHT.astype(np.float32).tobytes())
    (home / "link.bin").symlink_to(secret)
    (home / "out").symlink_to(tmp_path)
    for location in (
        "../secret.bin",
        str(secret),
        "link.bin",
        "out/secret.bin",
        "x/../../secret.bin",
        "missing.bin",
        "*/_ORT_MEM_ADDR_/*",
        ".",
    ):
        with pytest.raises(TargetError, match="no file in the model's own folder") as refused:
            load_onnx(with_weights_in(home / "m.onnx", location))
        assert one_sentence(refused.value)


@pytest.mark.extras
def test_weights_outside_are_found_wherever_the_file_hides_them(tmp_path: Path) -> None:
    """In an attribute of a node in a branch of a function, say."""
    import onnx

    hidden = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[6], raw_data=b"")
    onnx.external_data_helper.set_external_data(hidden, "../secret.bin")
    constant = onnx.helper.make_node("Constant", [], ["hidden"])
    constant.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=hidden))
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    chosen = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    function = onnx.helper.make_function("local", "f", ["x"], ["y"], [chosen], [onnx.helper.make_opsetid("", 17)])
    path = saved(
        tmp_path / "m.onnx", [onnx.helper.make_node("f", ["x"], ["scores"], domain="local")], functions=[function]
    )
    with pytest.raises(TargetError, match="no file in the model's own folder"):
        load_onnx(path)


@pytest.mark.extras
def test_a_library_of_operators_is_not_loaded_and_a_function_in_the_file_is_run(tmp_path: Path) -> None:
    import onnx

    nodes = [
        onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["logits"]),
        onnx.helper.make_node("Twice", ["logits"], ["scores"], domain="shop"),
    ]
    ours = [onnx.helper.make_opsetid("shop", 1)]
    with pytest.raises(TargetError, match=r"library of custom operators \(shop.Twice\)") as refused:
        load_onnx(saved(tmp_path / "m.onnx", nodes, versions=ours))
    assert one_sentence(refused.value)

    body = [onnx.helper.make_node("Add", ["a", "a"], ["b"])]
    function = onnx.helper.make_function("shop", "Twice", ["a"], ["b"], body, [onnx.helper.make_opsetid("", 17)])
    path = saved(tmp_path / "m.onnx", nodes, versions=ours, functions=[function])
    x = torch.tensor(ROWS, dtype=torch.float32)
    expected = torch.tensor(2 * (ROWS @ WEIGHT + BIAS), dtype=torch.float32)
    torch.testing.assert_close(load_onnx(path)(x), expected)
    torch.testing.assert_close(load_onnx(path, rows=x)(x.requires_grad_()), expected)


@pytest.mark.extras
def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(TargetError, match="cannot be read"):
        load_onnx(path)
    for content in (b"", b"\x80\x04junk", os.urandom(64), b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(TargetError, match=r"not an ONNX model|no graph"):
            load_onnx(path)
    path.write_bytes(linear(tmp_path / "whole.onnx").read_bytes()[:-20])
    with pytest.raises(TargetError):
        load_onnx(path)


@pytest.mark.extras
def test_a_graph_that_does_not_hold_together_is_refused(tmp_path: Path) -> None:
    import onnx

    path = saved(tmp_path / "m.onnx", [onnx.helper.make_node("Gemm", ["x", "nothing", "bias"], ["scores"])])
    with pytest.raises(TargetError, match=r"onnxruntime \d.* cannot load m.onnx"):
        load_onnx(path)


@pytest.mark.extras
def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    with pytest.raises(SettingError, match="low < high"):
        load_onnx(path, bounds=(1, 0))
    with pytest.raises(SettingError, match="threads"):
        load_onnx(path, threads=0)
    with pytest.raises(SettingError, match="rows are empty"):
        load_onnx(path, rows=torch.rand(0, 3))


@pytest.mark.extras
def test_a_session_answers_arrays_of_whole_numbers(tmp_path: Path) -> None:
    import onnx

    nodes = [onnx.helper.make_node("Identity", ["x"], ["scores"])]
    session = open_session(saved(tmp_path / "m.onnx", nodes, numbers=np.int32, outputs=[("scores", ("N", 3))]))
    rows = np.arange(6).reshape(2, 3)
    assert ask(session, rows).tolist() == rows.tolist()
    assert (session.batch, session.columns, session.dtype.name) == (None, 3, "int32")


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch.onnx")
def test_the_program_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "targets" / "onnx.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len([line for line in programs[0].splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(programs[0], "docs/targets/onnx.md", "exec"), {})  # noqa: S102  # our own document
    broken = re.search(r"(\d+) of 64 rows are broken\n", capsys.readouterr().out)
    assert broken is not None
    assert int(broken[1]) > 40


@pytest.mark.extras
def test_the_page_counts_the_operators() -> None:
    from redan.formats.onnx_operators import PLAIN, WITH_SETTINGS

    page = (Path(__file__).resolve().parents[2] / "docs" / "targets" / "onnx.md").read_text(encoding="utf-8")
    assert f" {len(PLAIN) + len(WITH_SETTINGS)} operators" in page
