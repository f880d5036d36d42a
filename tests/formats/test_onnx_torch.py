"""ONNX graphs in torch: the standard's own examples, and the gradients of what was exported."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from redan import samples
from redan.engine.run import attack
from redan.errors import NotBuiltError, TargetError
from redan.evasion.pgd import PGD
from redan.formats import onnx_torch as reader
from redan.formats.onnx_operators import PLAIN, WITH_SETTINGS, operation
from redan.formats.onnx_operators_node import Node
from redan.formats.onnx_torch import convert
from redan.perturbations.norms import Linf
from redan.targets import Output, Paired, from_torch
from redan.targets.onnx import load_onnx

pytestmark = pytest.mark.extras


def exported(
    module: nn.Module, x: Tensor, path: Path, *, modern: bool = False, rows: bool = True, opset: int = 17
) -> Path:
    """The module's file, by the exporter through torch.export or by the older one through tracing."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        if modern:
            dynamic: Any = ({0: torch.export.Dim("n")},) if rows else None
            torch.onnx.export(
                module, (x,), path, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False
            )
        else:
            axes = {"x": {0: "n"}} if rows else None
            torch.onnx.export(
                module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=opset
            )
    return path


def same_gradient(ours: nn.Module | Paired, theirs: nn.Module, x: Tensor, within: float = 1e-5) -> None:
    """Of a random mixture of the scores, in parts of the largest."""
    found = []
    for model in (ours, theirs):
        rows = x.clone().requires_grad_()
        scores = model(rows).reshape(len(x), -1)
        mixture = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=scores.dtype)
        found.append(torch.autograd.grad((scores * mixture).sum(), rows)[0])
    assert float(found[1].abs().max()) > 0
    assert float((found[0] - found[1]).abs().max() / found[1].abs().max()) < within


class Vision(nn.Module):
    """One block of a vision transformer: patches, attention, layer normalization, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 7, 7)
        self.place = nn.Parameter(torch.randn(16, 16) / 4)
        self.before, self.between = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        seen = self.before(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.mlp(self.between(tokens))
        answer: Tensor = self.head(tokens.mean(1))
        return answer


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.function(x)
        return answer


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    images, labels = samples.fashion_mnist()
    return torch.as_tensor(images[:32]), torch.as_tensor(labels[:32])


# --- the standard's own examples -------------------------------------------------------------------------------------


class Example(NamedTuple):
    """One graph of the standard with what goes in and what must come out."""

    name: str
    graph: Any
    inputs: list[Any]
    outputs: list[Any]


def examples() -> Iterator[Example]:
    for case in import_module("onnx.backend.test.case.node").collect_testcases(None):
        for inputs, outputs in case.data_sets:
            yield Example(case.name, case.model, list(inputs), list(outputs))


def traced_examples() -> Iterator[Example]:
    """Modules that torch exported in operator sets 6 to 12; onnx ships them."""
    import onnx

    def read(path: Path) -> NDArray[Any]:
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        return np.asarray(onnx.numpy_helper.to_array(tensor))

    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for folder in sorted([*(data / "pytorch-converted").iterdir(), *(data / "pytorch-operator").iterdir()]):
        inside = folder / "test_data_set_0"
        inputs = [read(inside / f"input_{i}.pb") for i in range(len(list(inside.glob("input_*.pb"))))]
        yield Example(folder.name, onnx.load(folder / "model.onnx"), inputs, [read(inside / "output_0.pb")])


def answers(example: Example, output: int) -> NDArray[Any]:
    """What the conversion answers, with the example's first input as the model's and the others stored in the file."""
    import onnx

    graph = onnx.ModelProto()
    graph.CopyFrom(example.graph)
    stored = {tensor.name for tensor in graph.graph.initializer}
    names = [part.name for part in graph.graph.input if part.name not in stored]
    for name, value in zip(names[1:], example.inputs[1:], strict=True):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    module = convert(graph, names[0] if names else "", graph.graph.output[output].name, called=example.name)
    x = torch.from_numpy(np.array(example.inputs[0])) if names else torch.zeros(1)
    return np.asarray(module(x).numpy())


def agrees(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    return (
        ours.shape == theirs.shape
        and ours.dtype == theirs.dtype
        and np.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True)  # as onnx's own runner does, and float16
    )


_OF_NO_MODEL = ("uint16", "uint32", "uint64", "bf16", "bfloat16", "string", "empty_set")  # torch has no such arithmetic
_OTHERWISE = {
    "test_resize_downsample_scales_linear_align_corners",  # onnxruntime answers as we do, not as the standard
    *(f"test_top_k_same_values{kind}" for kind in ("", "_largest", "_2d")),  # which of equal numbers is not said twice
    *(f"test_PReLU_{n}d_multiparam" for n in (1, 2, 3)),  # operator set 6 lays slopes along the channels
}


_NOT_BUILT = {
    "ArgMax with select_last_index",
    "ArgMin with select_last_index",
    "AveragePool with dilations",
    "BatchNormalization with training_mode or without spatial",
    "ConvTranspose with output_shape or auto_pad",
    "Dropout with training_mode",
    "Resize with antialias or keep_aspect_ratio_policy",
    "Resize with coordinate_transformation_mode half_pixel_symmetric",
    "Resize with coordinate_transformation_mode tf_crop_and_resize",
    "Resize with mode cubic",
    "the value 'InvStdDev'",  # of a layer normalization, beside its answer
    "the value 'Mean'",
    "the value 'z'",  # the mask of a dropout, or the places of a pooling, beside its answer
}


@pytest.mark.filterwarnings("ignore")  # the cases' own arithmetic warns of what it divides by 0
def test_every_operator_answers_the_standards_own_examples() -> None:
    agreed, refused, otherwise, seen = 0, [], set(), set()
    for example in (*examples(), *traced_examples()):
        used = {reader._operator(node) for node in example.graph.graph.node}
        fits = all(isinstance(value, np.ndarray | np.generic) for value in example.inputs)
        if not used <= {*PLAIN, *WITH_SETTINGS} or not fits or any(word in example.name for word in _OF_NO_MODEL):
            continue
        for output, theirs in enumerate(example.outputs):
            try:
                right = agrees(answers(example, output), theirs)
            except NotBuiltError as error:
                refused.append(str(error))
                continue
            except (RuntimeError, IndexError):
                right = False
            agreed += right
            seen |= used if right else set()
            if not right:
                otherwise.add(example.name)
    assert otherwise == _OTHERWISE
    assert agreed > 1000
    assert {*PLAIN, *WITH_SETTINGS} - seen == {
        f"ai.onnx.ml.{name}" for name in ("LinearClassifier", "LinearRegressor", "Normalizer", "Scaler")
    }
    told = {text.split(" has no conversion to torch yet; ")[0] for text in refused if "operator set 1" not in text}
    assert told == _NOT_BUILT


# --- gradients of what torch exported -------------------------------------------------------------------------------

_PICTURE = (2, 4, 8, 8)
_LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "adaptive pooling": (nn.AdaptiveAvgPool2d(2), _PICTURE),
    "average pooling": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), _PICTURE),
    "batch norm": (nn.BatchNorm2d(4), _PICTURE),
    "celu": (nn.CELU(0.7), (2, 9)),
    "clamp": (Calls(lambda x: x.clamp(-0.3, 0.4)), (2, 9)),
    "convolution": (nn.Conv2d(4, 6, (3, 2), 2, 1, dilation=2, groups=2), _PICTURE),
    "convolution in 1-d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "elu": (nn.ELU(0.5), (2, 9)),
    "exponential": (Calls(lambda x: x.exp() + (x.abs() + 1).log()), (2, 9)),
    "gelu": (nn.GELU(), (2, 9)),
    "gelu by tanh": (nn.GELU("tanh"), (2, 9)),
    "group norm": (nn.GroupNorm(2, 4), _PICTURE),
    "hard sigmoid": (nn.Hardsigmoid(), (2, 9)),
    "hard swish": (nn.Hardswish(), (2, 9)),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), _PICTURE),
    "interpolation": (nn.Upsample(scale_factor=2, mode="bilinear"), _PICTURE),
    "interpolation by neighbors": (nn.Upsample(size=(5, 11)), _PICTURE),
    "interpolation with corners": (nn.Upsample(size=(5, 11), mode="bilinear", align_corners=True), _PICTURE),
    "layer norm": (nn.LayerNorm((8, 8)), _PICTURE),
    "leaky relu": (nn.LeakyReLU(0.2), (2, 9)),
    "linear": (nn.Linear(9, 5), (2, 9)),
    "log softmax": (nn.LogSoftmax(1), (2, 9)),
    "max pooling": (nn.MaxPool2d(3, 2, 1), _PICTURE),
    "maximum of two": (Calls(lambda x: torch.maximum(x[:, :4], x[:, 4:8])), (2, 9)),
    "mish": (nn.Mish(), (2, 9)),
    "norm": (Calls(lambda x: x / x.norm(dim=1, keepdim=True)), (2, 9)),
    "padding": (nn.ReflectionPad2d((1, 2, 0, 1)), _PICTURE),
    "pixel shuffle": (nn.PixelShuffle(2), _PICTURE),
    "powers": (Calls(lambda x: x**3 + (x * x + 1) ** 0.5 + 1 / (x * x + 2)), (2, 9)),
    "prelu": (nn.PReLU(4), _PICTURE),
    "relu6": (nn.ReLU6(), (2, 9)),
    "selu": (nn.SELU(), (2, 9)),
    "sigmoid": (nn.Sigmoid(), (2, 9)),
    "silu": (nn.SiLU(), (2, 9)),
    "slices": (Calls(lambda x: torch.cat([x[:, ::2], x[:, 1:3], x[:, [0, 5]]], 1)), (2, 9)),
    "softmax": (nn.Softmax(1), (2, 9)),
    "softplus": (nn.Softplus(), (2, 9)),
    "softsign": (nn.Softsign(), (2, 9)),
    "split": (Calls(lambda x: torch.split(x, [2, 3, 4], 1)[1] * 2), (2, 9)),
    "statistics": (Calls(lambda x: x.amax(1) + x.mean(1) * x.sum(1) + x.var(1)), (2, 9)),
    "tanh": (nn.Tanh(), (2, 9)),
    "transposed convolution": (nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), _PICTURE),
    "where": (Calls(lambda x: torch.where(x > 0.1, x * 2, x * x)), (2, 9)),
}


@pytest.mark.parametrize("name", _LAYERS)
def test_the_gradient_is_the_exported_modules(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, shape = _LAYERS[name]
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d | nn.LayerNorm):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    x = torch.randn(shape)
    path = exported(module.eval(), x, tmp_path / "m.onnx")
    import onnx

    graph = onnx.load(path)
    found = convert(graph, "x", graph.graph.output[0].name, called=name)
    torch.testing.assert_close(found(x), module(x), rtol=1e-4, atol=1e-5)
    same_gradient(found, module, x)
    assert not list(found.parameters())


@pytest.mark.parametrize("opset", [9, 11, 13, 20])
def test_operator_sets_from_before_and_after_each_change(opset: int, tmp_path: Path) -> None:
    """Clip, Pad, Slice, Split, ReduceSum, Softmax and Resize moved attributes to inputs, or changed."""
    torch.manual_seed(0)

    def answer(x: Tensor) -> Tensor:
        x = functional.pad(x, (1, 2, 0, 1)).clamp(-1, 1)[:, 1:]
        first, second = torch.split(x, [1, 2], 1)
        x = functional.interpolate(second * first, scale_factor=2.0)
        return x.sum((2, 3)).softmax(1) + x.mean((2, 3))

    x = torch.randn(_PICTURE)
    import onnx

    graph = onnx.load(exported(Calls(answer), x, tmp_path / "m.onnx", opset=opset))
    found = convert(graph, "x", graph.graph.output[0].name, called="m")
    torch.testing.assert_close(found(x), answer(x))
    same_gradient(found, Calls(answer), x)


def test_a_squeeze_that_was_exported_as_a_choice(tmp_path: Path) -> None:
    """The tracing exporter writes an If where it does not know the axis' length."""
    import onnx

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 3, 8), Calls(lambda x: x.squeeze(3).squeeze(2) * 2)).eval()
    x, path = torch.randn(_PICTURE), tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "n", 2: "height", 3: "width"}}
        torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    assert "If" in {node.op_type for node in onnx.load(path).graph.node}
    target = load_onnx(path, rows=x)
    assert isinstance(target, Paired)
    same_gradient(target, module, x)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_choice_by_the_input_itself_takes_the_branch_that_onnxruntime_takes(sign: int, tmp_path: Path) -> None:
    """Both branches read values from around them, one also a value of its own."""
    from onnx.helper import make_graph, make_node, make_tensor_value_info

    answer = [make_tensor_value_info("chosen", 1, ("N", 4))]
    own = [make_node("Constant", [], ["three"], value_float=3.0), make_node("Mul", ["doubled", "three"], ["chosen"])]
    nodes = [
        make_node("Add", ["x", "x"], ["doubled"]),
        make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        make_node("Greater", ["total", "zero"], ["positive"]),
        make_node(
            "If",
            ["positive"],
            ["scores"],
            then_branch=make_graph(own, "then", [], answer),
            else_branch=make_graph([make_node("Sub", ["doubled", "one"], ["chosen"])], "else", [], answer),
        ),
    ]
    stored: dict[str, NDArray[Any]] = {"zero": np.array(0, np.float32), "one": np.array([1], np.float32)}
    x = sign * torch.rand(3, 4)
    target = load_onnx(written(tmp_path / "m.onnx", nodes, stored=stored), rows=x)
    assert isinstance(target, Paired)
    torch.testing.assert_close(target.module(x), 6 * x if sign > 0 else 2 * x - 1)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(target(leaf).sum(), leaf)
    assert torch.equal(slope, torch.full((3, 4), 6.0 if sign > 0 else 2.0))


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("name", ["natural", "residual", "winners", "vision"])
def test_exported_networks_have_the_gradients_of_the_originals(
    name: str, modern: bool, tmp_path: Path, pictures: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    module = Vision().eval() if name == "vision" else samples.model(name)
    x = pictures[0]
    target = load_onnx(exported(module, x[:2], tmp_path / "m.onnx", modern=modern, opset=20), rows=x)
    assert isinstance(target, Paired)
    assert target.classes == 10
    torch.testing.assert_close(target(x), module(x).detach(), rtol=1e-4, atol=1e-4)
    same_gradient(target, module, x)


def test_in_double_precision_the_two_agree_to_the_last_digits_and_in_half_they_are_refused(
    tmp_path: Path, pictures: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    x, path = pictures[0].double(), tmp_path / "m.onnx"
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 10)).double().eval()
    target = load_onnx(exported(module, x[:2], path), rows=x)
    assert isinstance(target, Paired)
    assert target.dtype is torch.float64
    same_gradient(target, module, x, within=1e-12)
    exported(module.half(), x[:2].half(), path)
    with pytest.raises(TargetError, match="differs from the model by"):
        load_onnx(path, rows=x)
    assert load_onnx(path)(x.float()).argmax(1).tolist() == target(x).argmax(1).tolist()


@pytest.mark.parametrize(("name", "radius"), [("natural", 0.03), ("residual", 0.02)])
def test_pgd_breaks_the_rows_that_it_breaks_on_the_original(
    name: str, radius: float, tmp_path: Path, pictures: tuple[Tensor, Tensor]
) -> None:
    module, (x, y) = samples.model(name), pictures
    target = load_onnx(exported(module, x[:2], tmp_path / "m.onnx"), rows=x[:8])
    ours, theirs = (attack(model, x, y, PGD(steps=10), within=Linf(radius)) for model in (target, module))
    assert ours.success.tolist() == theirs.success.tolist()
    assert 4 < int(ours.success.sum()) < 28


@pytest.mark.parametrize("flat", [True, False])
def test_a_graph_of_one_row_is_climbed_many_rows_at_a_time(
    flat: bool, tmp_path: Path, pictures: tuple[Tensor, Tensor]
) -> None:
    """Where its reshapes can be freed; where rows would mix, one by one."""
    natural, x = samples.model("natural").requires_grad_(requires_grad=False), pictures[0]

    def answer(picture: Tensor) -> Tensor:
        scores: Tensor = natural(picture.reshape(1, 1, 28, 28) * 1.0)
        return scores.reshape(1, 10) if flat else scores - scores.mean() * 0.1

    path = exported(Calls(answer), x[:1], tmp_path / "m.onnx", rows=False)
    target = load_onnx(path, rows=x)
    assert isinstance(target, Paired)
    assert target.module.pieces == (None if flat else 1)
    theirs = natural if flat else Calls(lambda x: natural(x) - natural(x).mean(1, keepdim=True) * 0.1)
    same_gradient(target, theirs, x[:7])


def test_shares_that_have_rounded_to_nothing_can_still_be_climbed(
    tmp_path: Path, pictures: tuple[Tensor, Tensor]
) -> None:
    """The slope between two classes is that of the logits, also where the softmax itself has none left."""
    logits = nn.Sequential(samples.model("natural"), Calls(lambda scores: scores * 100)).eval()
    module, x = nn.Sequential(logits, nn.Softmax(1)).eval(), pictures[0]
    target = load_onnx(exported(module, x[:2], tmp_path / "m.onnx"), rows=x, output=Output.PROBABILITIES)
    assert isinstance(target, Paired)

    def slope(model: Any) -> Tensor:
        rows = x.clone().requires_grad_()
        scores = model(rows)
        return torch.autograd.grad((scores[:, 0] - scores[:, 1]).sum(), rows)[0].flatten(1)

    ours, theirs, plain = (slope(model) for model in (target, logits, from_torch(module, output=Output.PROBABILITIES)))
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert int((plain.abs().amax(1) == 0).sum()) > 5
    assert float((target(x) - target.module(x)).abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
def test_published_architectures_of_one_row_are_climbed_in_batches(name: str) -> None:
    """Their graphs, which onnx ships with made-up weights, in operator set 9."""
    import onnx

    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    target = load_onnx(path, rows=x, output=Output.PROBABILITIES)
    assert isinstance(target, Paired)
    pieces: Any = target.module.pieces
    assert (target.classes, pieces) == (1000, None)
    (slope,) = torch.autograd.grad(target(x.requires_grad_())[:, 3].sum(), x)
    assert bool((slope.flatten(1).abs().amax(1) > 0).all())


# --- scikit-learn --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["multilayer perceptron", "logistic", "two classes", "normalized", "regression"])
def test_models_of_scikit_learn_have_the_gradients_of_their_functions(kind: str, tmp_path: Path) -> None:
    """Against differences of the estimator's own answers."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 5)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(int) + (x[:, 2] > 0.3) * (kind != "two classes")
    estimators = {
        "multilayer perceptron": MLPClassifier((8,), activation="tanh", solver="lbfgs", max_iter=5000, random_state=0),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "two classes": LogisticRegression(),
        "normalized": make_pipeline(Normalizer(), LogisticRegression()),
        "regression": make_pipeline(StandardScaler(), Ridge()),
    }
    value = kind == "regression"
    fitted = estimators[kind].fit(x, y)
    options = {} if value else {"zipmap": False}
    path = tmp_path / "m.onnx"
    path.write_bytes(import_module("skl2onnx").to_onnx(fitted, x[:1], options=options).SerializeToString())
    rows = torch.from_numpy(x[:6])
    target = load_onnx(path, output=Output.VALUE if value else Output.PROBABILITIES, rows=rows)

    def answer(row: NDArray[Any]) -> float:
        return float(fitted.predict(row[None])[0]) if value else float(np.log(fitted.predict_proba(row[None])[0, 1]))

    leaf = rows.clone().requires_grad_()
    (ours,) = torch.autograd.grad(target(leaf)[:, 0 if value else 1].sum(), leaf)
    steps = 1e-3 * np.eye(5)
    wide = x[:6].astype(np.float64)
    theirs = [[(answer(row + step) - answer(row - step)) / 2e-3 for step in steps] for row in wide]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-3, atol=2e-3)


# --- refusals --------------------------------------------------------------------------------------------------------


def written(path: Path, nodes: list[Any], *, stored: dict[str, NDArray[Any]] | None = None) -> Path:
    import onnx

    lengths = ("N", 4)
    graph = onnx.helper.make_graph(
        nodes,
        "tested",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, lengths)],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, lengths)],
        [onnx.numpy_helper.from_array(value, name) for name, value in (stored or {}).items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_quantized_graph_is_refused_by_name_and_its_answers_are_not(tmp_path: Path) -> None:
    from onnx.helper import make_node

    nodes = [
        make_node("QuantizeLinear", ["x", "scale", "zero"], ["small"]),
        make_node("DequantizeLinear", ["small", "scale", "zero"], ["scores"]),
    ]
    stored: dict[str, NDArray[Any]] = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.uint8)}
    path, x = written(tmp_path / "m.onnx", nodes, stored=stored), torch.full((2, 4), 0.33)
    with pytest.raises(NotBuiltError, match=r"m.onnx: it is quantized \(QuantizeLinear\), and rounding has none"):
        load_onnx(path, rows=x)
    torch.testing.assert_close(load_onnx(path, rows=x, gradients=False)(x), torch.full((2, 4), 0.3))


def test_unknown_operators_are_all_named(tmp_path: Path) -> None:
    from onnx.helper import make_graph, make_node, make_tensor_value_info

    answer = [make_tensor_value_info("inside", 1, ("N", 4))]
    inside = make_graph([make_node("Cosh", ["b"], ["inside"])], "inside", [], answer)
    nodes = [
        make_node("Sinh", ["x"], ["a"]),
        make_node("Relu", ["a"], ["b"]),
        make_node("Det", ["x"], ["unused"]),
        make_node("If", ["yes"], ["c"], then_branch=inside, else_branch=inside),
        make_node("Shrink", ["c"], ["scores"]),
    ]
    path, x = written(tmp_path / "m.onnx", nodes, stored={"yes": np.array(1, np.bool_)}), torch.rand(2, 4)
    with pytest.raises(
        NotBuiltError, match=r"its operators Cosh, Shrink, Sinh have no conversion to torch yet; attack it"
    ):
        load_onnx(path, rows=x)


def test_a_conversion_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx.helper import make_node

    path, x = written(tmp_path / "m.onnx", [make_node("Relu", ["x"], ["scores"])]), torch.randn(8, 4)
    assert isinstance(load_onnx(path, rows=x), Paired)

    def lying(node: Node) -> Any:
        return functional.softplus if node.operator == "Relu" else operation(node)

    monkeypatch.setattr(reader, "operation", lying)
    with pytest.raises(TargetError, match=r"no gradients for m.onnx: its conversion to torch differs .* 8 real rows"):
        load_onnx(path, rows=x)

    def failing(node: Node) -> Any:
        return torch.det

    monkeypatch.setattr(reader, "operation", failing)
    with pytest.raises(TargetError, match=r"no gradients for m.onnx: its conversion to torch fails at Relu \(Runtime"):
        load_onnx(path, rows=x)


def test_values_that_nothing_computes_are_refused(tmp_path: Path) -> None:
    import onnx

    graph = onnx.load(written(tmp_path / "m.onnx", [onnx.helper.make_node("Add", ["x", "nothing"], ["scores"])]))
    with pytest.raises(TargetError, match=r"uses values that nothing computes \(nothing\)"):
        convert(graph, "x", "scores", called="m")
    graph.opset_import[0].version = 5
    with pytest.raises(NotBuiltError, match="operator set 5 is older than 6"):
        convert(graph, "x", "scores", called="m")
