"""An ONNX graph as a torch module that autograd goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from redan.errors import NotBuiltError, TargetError
from redan.formats.onnx_operators import built, operation
from redan.formats.onnx_operators_node import Node

_QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_STANDARD = ("", "ai.onnx")
_OLDEST = 6  # operator set: before it, shapes were attributes


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of the graph: what it does, from which values, to which."""

    run: Callable[..., Tensor | tuple[Tensor | None, ...]]
    node: Node
    inputs: tuple[str, ...]  # "" where one was left out
    outputs: tuple[str, ...]


class GraphModule(nn.Module):
    """An ONNX graph in torch: (N, …) -> what the chosen output answers. Build it with `convert`.

    The file's weights are buffers, so that a pass computes no gradient for them. It has no training mode.
    """

    def __init__(self, read: str, answered: str, steps: Iterable[Step], constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.read, self.answered, self.steps = read, answered, tuple(steps)
        self.places = {name: f"constant_{i}" for i, name in enumerate(constants)}
        for name, value in constants.items():
            self.register_buffer(self.places[name], value)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Run the graph's operators in their order."""
        values: dict[str, Tensor | None] = {name: getattr(self, place) for name, place in self.places.items()}
        values[self.read] = x
        for step in self.steps:
            _run(step, values)
        return _computed(values, self.answered)


def _computed(values: Mapping[str, Tensor | None], name: str) -> Tensor:
    value = values[name]
    if value is None:
        raise NotBuiltError(
            f"the value {name!r} has no conversion to torch yet; attack the model with knowledge: scores"
        )
    return value


def _run(step: Step, values: dict[str, Tensor | None]) -> None:
    names = step.inputs[: max((i + 1 for i, name in enumerate(step.inputs) if name), default=0)]
    given = [_computed(values, name) if name else None for name in names]
    try:
        found = step.run(*given)
    except Exception as error:
        error.add_note(step.node.operator)
        raise
    values.update(zip_longest(step.outputs, (found,) if isinstance(found, Tensor) else found[: len(step.outputs)]))


def convert(graph: Any, read: str, answered: str, *, called: str, freed: int | None = None) -> GraphModule:
    """The part of an ONNX model (a ModelProto) that leads from its input `read` to its output `answered`, in torch.

    called: the model, for errors. What does not depend on the input is computed here, once. freed: a number of rows
    that the file's reshapes are fixed to, and that is made any number there; whether the rows still stay apart is for
    the caller to check. Raises NotBuiltError, naming the operators that have no counterpart.
    """
    import onnx.inliner

    if graph.functions:
        graph = onnx.inliner.inline_local_functions(graph)
    file = _File({part.domain: part.version for part in graph.opset_import}, called, freed)
    if file.versions.get("", _OLDEST) < _OLDEST:
        raise NotBuiltError(
            f"no gradients for {called}: its operator set {file.versions['']} is older than {_OLDEST}; convert it with "
            "onnx.version_converter, or attack it with knowledge: scores"
        )
    nodes = _needed(graph.graph.node, [answered])
    _refuse_unknown(_operators(nodes), called)
    constants: dict[str, Tensor | None] = {"": None}
    steps = _read(nodes, graph.graph.initializer, constants, file)
    used = {name for step in steps for name in step.inputs if name} | {answered}
    kept = {name: value for name, value in constants.items() if name in used and value is not None}
    missing = used - {read} - set(kept) - {name for step in steps for name in step.outputs}
    if missing:
        raise TargetError(f"{called} uses values that nothing computes ({', '.join(sorted(missing))}); export it again")
    return GraphModule(read, answered, steps, kept)


class _File(NamedTuple):
    """What holds for every graph of a file: versions by domain, its name, and the number of rows to free."""

    versions: Mapping[str, int]
    called: str
    freed: int | None


def _read(
    nodes: Iterable[Any], stored: Iterable[Any], constants: dict[str, Tensor | None], file: _File
) -> tuple[Step, ...]:
    """The steps that depend on an input; what the others compute joins the constants."""
    constants.update((tensor.name, _tensor(tensor, file.called)) for tensor in stored)
    steps = []
    for node in nodes:
        step = _of_any_rows(_step(node, file), constants, file.freed)
        if all(name in constants for name in step.inputs):
            _run(step, constants)
        else:
            steps.append(step)
    return tuple(steps)


def _needed(nodes: Iterable[Any], answered: Iterable[str]) -> list[Any]:
    """The nodes that lead to some values, in their order: an exporter's label, for one, leads to no score."""
    wanted: set[str] = set(answered)
    found = []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            wanted.update(name for name in _inputs(node) if name)
            found.append(node)
    return found[::-1]


def _branches(node: Any) -> tuple[Any, ...]:
    """The two graphs of an If, the one for true first."""
    graphs = {attribute.name: attribute.g for attribute in node.attribute} if _operator(node) == "If" else {}
    return (graphs["then_branch"], graphs["else_branch"]) if graphs else ()


def _inputs(node: Any) -> tuple[str, ...]:
    """What a node reads; an If also reads what its branches take from around them."""
    taken: dict[str, None] = {}
    for graph in _branches(node):
        own = {tensor.name for tensor in graph.initializer} | {name for part in graph.node for name in part.output}
        inside = [name for part in graph.node for name in _inputs(part)] + [value.name for value in graph.output]
        taken.update((name, None) for name in inside if name and name not in own)
    return (*node.input, *taken)


def _operators(nodes: Iterable[Any]) -> Iterator[str]:
    """Every operator in some nodes and in their branches."""
    for node in nodes:
        graphs = _branches(node)
        if not graphs:
            yield _operator(node)
        for graph in graphs:
            yield from _operators(graph.node)


class _Branch(NamedTuple):
    """One of the two graphs of an If."""

    steps: tuple[Step, ...]
    constants: Mapping[str, Tensor | None]
    outputs: tuple[str, ...]


def _chosen(
    branches: tuple[_Branch, ...], names: tuple[str, ...], condition: Tensor, *around: Tensor
) -> tuple[Tensor, ...]:
    """What an If answers: a branch with the values that it takes from around it."""
    branch = branches[0 if bool(condition) else 1]
    values: dict[str, Tensor | None] = {**dict(zip(names, around, strict=True)), **branch.constants}
    for step in branch.steps:
        _run(step, values)
    return tuple(_computed(values, name) for name in branch.outputs)


def _choice(node: Any, file: _File) -> Step:
    """An If as a step."""
    read = []
    for graph in _branches(node):
        constants: dict[str, Tensor | None] = {"": None}
        outputs = tuple(value.name for value in graph.output)
        read.append(
            _Branch(_read(_needed(graph.node, outputs), graph.initializer, constants, file), constants, outputs)
        )
    inputs = _inputs(node)
    run = partial(_chosen, tuple(read), inputs[1:])
    return Step(run, Node("If", file.versions.get("", _OLDEST), {}, len(node.output)), inputs, tuple(node.output))


def _operator(node: Any) -> str:
    return str(node.op_type) if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"


def _refuse_unknown(operators: Iterable[str], called: str) -> None:
    unknown = sorted({name for name in operators if not built(name)})
    if not unknown:
        return
    quantized = [name for name in unknown if name in _QUANTIZED]
    if quantized:
        raise NotBuiltError(
            f"no gradients for {called}: it is quantized ({', '.join(quantized)}), and rounding has none; attack it "
            "with knowledge: scores, or give the model from before its quantization as a surrogate"
        )
    raise NotBuiltError(
        f"no gradients for {called}: its operators {', '.join(unknown)} have no conversion to torch yet; attack it "
        "with knowledge: scores"
    )


def _step(node: Any, file: _File) -> Step:
    import onnx

    name = _operator(node)
    if name == "If":
        return _choice(node, file)
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        match value:
            case bytes():
                value = value.decode("utf-8", "replace")
            case onnx.TensorProto():
                value = _tensor(value, file.called)
        attributes[attribute.name] = value
    domain = "" if node.domain in _STANDARD else node.domain
    settled = Node(name, file.versions.get(domain, _OLDEST), attributes, len(node.output))
    return Step(operation(settled), settled, tuple(node.input), tuple(node.output))


def _of_any_rows(step: Step, constants: dict[str, Tensor | None], freed: int | None) -> Step:
    """A reshape to a fixed number of rows, to as many rows as there are; any other step as it is."""
    lengths = constants.get(step.inputs[1]) if step.node.operator == "Reshape" else None
    if freed is None or lengths is None or not lengths.numel() or int(lengths[0]) != freed:
        return step
    name = f"{step.inputs[1]}, of any rows"
    constants[name] = torch.cat([lengths.new_zeros(1), lengths[1:]])  # a 0 copies the length of that axis
    return replace(step, inputs=(step.inputs[0], name))


def _tensor(tensor: Any, called: str) -> Tensor:
    """A tensor of the file, as a copy."""
    import onnx

    try:
        return torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
    except TypeError as error:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise NotBuiltError(
            f"no gradients for {called}: its numbers are of type {kind}, which torch does not have; attack it with "
            "knowledge: scores"
        ) from error
    except ValueError as error:
        raise TargetError(
            f"the tensor {tensor.name!r} of {called} is damaged ({error}); export the model again"
        ) from error


def logarithmic(module: GraphModule) -> GraphModule | None:
    """The same, answering the logarithm of what it answers, where it ends with a softmax; None where it does not.

    The two agree, but the logarithm still has a gradient where a share has rounded to 0.
    """
    last = module.steps[-1] if module.steps else None
    if last is None or last.node.operator != "Softmax" or last.outputs != (module.answered,):
        return None
    constants = {name: module.get_buffer(place) for name, place in module.places.items()}
    ends = replace(last, run=operation(replace(last.node, operator="LogSoftmax")))
    return GraphModule(module.read, module.answered, (*module.steps[:-1], ends), constants)
