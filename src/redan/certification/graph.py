"""A module as a list of steps, traced symbolically (`torch.fx`); what has no bound here is refused by name."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.nn import functional

from redan.certification.chains import chained
from redan.certification.known import FUNCTIONS, MODULES
from redan.certification.layers import Plan, Unknown, Wire, own
from redan.certification.steps import Reshape, Step
from redan.errors import NotCertifiableError
from redan.targets import TorchTarget

_WRITES = (operator.iadd, operator.isub, operator.imul, operator.itruediv, functional.relu_, torch.relu_)
_VIEWS = (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, functional.dropout, operator.getitem)
_VIEWED = ("flatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "detach")
_VIEWING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


def steps_of(target: TorchTarget, shape: Sequence[int]) -> list[Step]:
    """The target's steps for rows of one shape: its normalization, then the module's operations.

    Raises NotCertifiableError, naming what has no bound here.
    """
    plan = Plan()
    x = Wire(-1, tuple(shape))
    if target.mean is not None and target.std is not None:
        channel = (-1, *[1] * (len(shape) - 1))
        mean, std = (own(part).reshape(channel) for part in (target.mean, target.std))
        x = plan.scaled(x, 1 / std, -mean / std, terms=4)
    return chained(read(target.module, plan, x))


def read(module: nn.Module, plan: Plan, x: Wire) -> list[Step]:
    """The module's steps, after those of the plan, from this wire on. Raises NotCertifiableError as `steps_of` does."""
    parts = list(module.named_modules())
    if isinstance(module, torch.jit.ScriptModule) or any(hasattr(part, "_orig_mod") for _, part in parts):
        _refuse("the model is compiled, and what it computes cannot be read", "give the module itself")
    hooked = [name for name, part in parts if part._forward_hooks or part._forward_pre_hooks]
    if hooked:
        _refuse(f"{hooked[0] or 'the module itself'} has forward hooks, which may change anything", "remove them")
    graph, root = traced(module)
    return _read(graph, root, plan, x)


def traced(module: nn.Module) -> tuple[fx.Graph, nn.Module]:
    """The graph, and the module that its names belong to: a shell, since tracing may leave constants there."""
    root = nn.Sequential(module)
    try:
        return fx.Tracer().trace(root), root
    except Exception as error:  # torch.fx raises whatever the forward raises when it is given no numbers
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise NotCertifiableError(
            f"the model's forward cannot be traced by torch.fx ({reason[:200]}), so it has no proven bounds; "
            "write it without branches that depend on the input's numbers, or leave certificates out"
        ) from error


def _refuse(what: str, remedy: str) -> NoReturn:
    raise NotCertifiableError(f"{what}, so it has no proven bounds; {remedy}, or leave certificates out")


def _read(graph: fx.Graph, root: nn.Module, plan: Plan, x: Wire) -> list[Step]:
    values: dict[fx.Node, Any] = {}
    inputs = 0
    for node in graph.nodes:
        if node.op == "placeholder":
            inputs += 1
            if inputs > 1 and not node.args:
                _refuse(f"the model takes a second input ({node.name})", "wrap it so that it takes one")
            values[node] = x if inputs == 1 else node.args[0]
        elif node.op == "output":
            found = fx.node.map_arg(node.args[0], lambda n: values[n])
            if not isinstance(found, Wire) or len(found.shape) != 1:
                _refuse("the model does not answer one row of class scores (N, K)", "wrap it so that it does")
            if found.step != len(plan.steps) - 1:  # the answer is the last step
                plan.add(Reshape((found.step,), found.shape, found.shape), found.shape)
        else:
            values[node] = _value(node, root, plan, values)
    return plan.steps


def _value(node: fx.Node, root: nn.Module, plan: Plan, values: dict[fx.Node, Any]) -> Any:
    args: Any = fx.node.map_arg(node.args, lambda n: values[n])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: values[n])
    where, made = str(node.target), None
    if node.op == "get_attr":
        return operator.attrgetter(where)(root)
    if node.op == "call_module":
        layer = root.get_submodule(where)
        where = f"{where.partition('.')[2] or 'the module itself'} ({type(layer).__name__})"
        made = MODULES.get(type(layer))
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            _refuse(f"{where} pads with {layer.padding_mode}", "pad with zeros")
        args = (layer, *args)
    else:
        where = f"the operation {getattr(node.target, '__name__', node.target)}"
        if not any(isinstance(v, Wire) for v in _leaves((args, kwargs))):
            return _plain(node, args, kwargs)
        if _asks_shape(node):
            return _plain(node, (torch.empty(1, *args[0].shape, device="meta"), *args[1:]), kwargs)
        made = FUNCTIONS.get(node.target)
    if made is None:
        _refuse(f"{where} has no bound here", "replace it by one that has (docs/certificates.md lists them)")
    if _writes(node, root) and not _alone(node.all_input_nodes[0], root):
        _refuse(f"{where} writes into numbers that are used again", "write it without inplace")
    try:
        return made(plan, *args, **kwargs)
    except Unknown as unknown:
        _refuse(f"{where} {unknown}", "replace it")
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        _refuse(f"{where} is called in a way that has no bound here ({error})", "replace it")


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in _leaves(part)]
    if isinstance(value, dict):
        return _leaves(list(value.values()))
    return [value]


def _plain(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Constants and shapes, computed as Python computes them."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    call: Any = node.target
    return call(*args, **kwargs)


def _asks_shape(node: fx.Node) -> bool:
    by_method = node.op == "call_method" and node.target in ("size", "dim", "numel")
    return by_method or (node.target is getattr and node.args[1] in ("shape", "ndim"))


def _writes(node: fx.Node, root: nn.Module) -> bool:
    """Whether the operation changes what it is given."""
    if node.op == "call_module":
        layer = root.get_submodule(str(node.target))
        return bool(getattr(layer, "inplace", False))
    named = isinstance(node.target, str) and node.target.endswith("_")
    return (
        node.target in _WRITES
        or named
        or bool(node.kwargs.get("inplace", False))
        or (node.target is functional.relu and len(node.args) > 1)
    )


def _alone(node: fx.Node, root: nn.Module) -> bool:
    """Whether nothing else uses this result, nor what it is a view of."""
    if len(node.users) > 1:
        return False
    if node.op == "call_module":
        views = isinstance(root.get_submodule(str(node.target)), _VIEWING)
    else:
        views = node.target in _VIEWS or node.target in _VIEWED
    return not views or all(_alone(parent, root) for parent in node.all_input_nodes)
