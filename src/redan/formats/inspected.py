"""What a saved program may hold to be loaded without trust in whoever wrote it.

A program in a file is code. Torch's two formats keep Python out of it only half: TorchScript may write and map files
(`aten::save`, `aten::from_file`) and may run a method of its own while it is loaded; torch.export unpickles what the
file marks as pickled, and evaluates its shapes as Python. What is left after these inspections computes tensors from
tensors. It may still take long or want much memory: a stranger's model belongs in a sandbox either way.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from redan.errors import TargetError, TrainingModeError

_TRUST = "load it with trust (--trust-pickle) if you know who wrote it"
_FILES = {"from_file", "save"}
"""Operators on tensors that read or write files."""

_SCRIPTED = re.compile(r"(?:aten|prim|quantized|_quantized|mkldnn|mkldnn_prepacked|sparse)::\w+")
_UNKNOWN_CALLS = re.compile(r"prim::(?:PythonOp|CallMethod|CallFunction|rpc_\w+)")
_CALLED_BY_NAME = {"__init__", "__len__", "__contains__", "__getitem__"}
"""Special methods that stand in a graph where they are called. Others may be called by the runtime alone."""
_GRAD_MODE = re.compile(r"code/__torch__/torch/autograd/grad_mode(?:/___torch_mangle_\d+)?\.py")
_GRAD_MODE_WORD = re.compile(
    r"class|no_grad|enable_grad|prev|bool|def|__(?:enter|exit|init|torch)__|self|torch|autograd|grad_mode|Any|NoneType"
    r"|None|True|False|is_grad_enabled|set_grad_enabled|return|exc_type|exc_value|traceback|pass"
)

_EXPORT_FILES = re.compile(
    r"(?:models/model\.json|archive_format|archive_version|byteorder|\.data/\w+|extra/.*"
    r"|data/(?:weights/weight_\d+|weights/model_weights_config\.json|sample_inputs/model\.pt"
    r"|constants/tensor_\d+|constants/model_constants_config\.json))"
)
_PROGRAM = "models/model.json"
_EXPORT_UNUSED = re.compile(r"extra/.*|data/sample_inputs/model\.pt")
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?P<name>[A-Za-z0-9]\w*|_[A-Za-z0-9]\w*)\.[A-Za-z]\w*"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|math\.(?:ceil|floor|trunc|sqrt)|torch\.sym_(?:float|int|ite|max|min|not|sum)"
)
_PLAIN = re.compile(r"[A-Za-z0-9_.:+\-]*")
_TEXT = re.compile(r"[A-Za-z0-9_.,>\- ]*")
_TREE_TYPES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
_SHAPE = re.compile(r"'(?:s|u|zf|zuf)\d+'|[A-Za-z_]\w*|\d+(?:\.\d*)?|[-+*/%(),<>=\s]")
_SHAPE_WORD = re.compile(
    r"(?:s|u|zf|zuf)\d+|True|False|Symbol|Integer|Float|Rational|Add|Mul|Pow|positive|negative|nonnegative|nonpositive"
    r"|integer|real|zero|nonzero|finite|Max|Min|Eq|Ne|Le|Lt|Ge|Gt|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv"
    r"|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToFloat"
    r"|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity"
)


def _refused(what: str) -> TargetError:
    return TargetError(f"{what}, which is not loaded from a file by default; {_TRUST}, or name a factory and weights")


def runs_nothing_unseen(files: Mapping[str, bytes]) -> None:
    """Of a TorchScript archive: no code but what the graphs show, and none while it is loaded.

    Raises TargetError where a class brings a special method (`__setstate__`, `__enter__`, `__lt__`, …) or a hook.
    Torch's own `no_grad` is let through if it has no word beyond what that takes.
    """
    for name, data in files.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        text = re.sub(r"\\\s*?\n", " ", data.decode("ascii", "replace"))  # a line may go on below
        special = set(re.findall(r"\bdef\s+(__\w+__)", text)) | set(re.findall(r"__forward(?:_pre)?_hooks__", text))
        own = _GRAD_MODE.fullmatch(name) and all(_GRAD_MODE_WORD.fullmatch(word) for word in re.findall(r"\w+", text))
        if special - _CALLED_BY_NAME and not own:
            raise _refused(f"its code in {name[:80]} runs unseen ({min(special - _CALLED_BY_NAME)})")


def _nodes(graph: Any) -> Iterator[Any]:
    """Of a TorchScript graph, with those of its branches and of the graphs that they hold."""
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _nodes(node.g(name))


def _graphs(module: Any) -> Iterator[Any]:
    """Every method of every part, with what it calls put in its place."""
    for part in module.modules():
        for name in part._c._method_names():
            graph = part._c._get_method(name).graph.copy()
            torch._C._jit_pass_inline(graph)
            yield graph


def computes_only(module: nn.Module) -> None:
    """Raises TargetError where a loaded TorchScript module asks for anything but tensors' operators.

    The compiled graphs are looked at, and not the text: there each operator has one name only.
    """
    for graph in _graphs(module):
        for node in _nodes(graph):
            kind = node.kind()
            known = _SCRIPTED.fullmatch(kind) and not _UNKNOWN_CALLS.fullmatch(kind)
            if not known or kind.partition("::")[2] in _FILES:
                raise _refused(f"its code calls {kind}")


def evaluates(module: nn.Module) -> None:
    """Raises TrainingModeError where an operator of TorchScript was recorded in training mode for good."""
    for graph in _graphs(module):
        for node in _nodes(graph):
            if not node.kind().startswith("aten::") or node.schema() == "(no schema)":
                continue
            names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
            values = [value.toIValue() for value in node.inputs()]  # None for what is no constant
            if _trains(dict(zip(names, values, strict=False))):
                raise _training(node.kind())


def _trains(given: Mapping[str, Any]) -> bool:
    """Whether an operator's arguments make it train; one that drops a share of 0 only says that it does."""
    share = given.get("p", given.get("dropout", 1))
    return (given.get("train") is True or given.get("training") is True) and bool(share)


def _training(operator: str) -> TrainingModeError:
    return TrainingModeError(
        f"{operator} was recorded in training mode, and eval() cannot change it any more; call model.eval() before the "
        "model is traced, scripted or exported"
    )


def evaluates_exported(program: torch.export.ExportedProgram) -> None:
    """Raises TrainingModeError where an operator of an exported program was recorded in training mode."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = dict(zip([argument.name for argument in schema.arguments], node.args, strict=False)) | dict(node.kwargs)
        if _trains(given):
            raise _training(str(node.target))


def plain_export(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """An archive of torch.export with what is needed to run it, and nothing that is unpickled or evaluated.

    Raises TargetError for anything but operators on tensors (ATen), shapes and plain names: every text in it is held
    to an alphabet that no Python statement can be written in. Sample inputs and source lines are left out.
    """
    if _PROGRAM not in files:
        raise TargetError(
            "it holds no program named model as torch.export.save writes it since torch 2.8; save it again with a "
            "current torch"
        )
    for name in files:
        if not _EXPORT_FILES.fullmatch(name):
            raise _refused(f"it holds {name[:80]}")
    kept = {name: data for name, data in files.items() if not _EXPORT_UNUSED.fullmatch(name)}
    kept["data/sample_inputs/model.pt"] = b""
    try:
        for kind, prefix in (("weights", "weight_"), ("constants", "tensor_")):
            name = f"data/{kind}/model_{kind}_config.json"
            config = json.loads(kept[name])
            for payload in config["config"].values():
                if payload["use_pickle"] is not False or not payload["path_name"].startswith(prefix):
                    raise _refused(f"its {kind} are pickled")
                sizes = [size["as_int"] for size in payload["tensor_meta"]["sizes"]]
                if not kept[f"data/{kind}/{payload['path_name']}"] and 0 not in sizes:
                    raise ValueError(f"{payload['path_name']} is empty")  # torch would read zeros
            kept[name] = json.dumps(_plain(config)).encode()
        program = json.loads(kept[_PROGRAM])
        if program["guards_code"]:
            raise TargetError(
                "it branches on its input's shape, and its guards are written in Python, which is not run from a file; "
                "export it for a range that takes one branch (dynamic_shapes=({0: torch.export.Dim('n', min=4, "
                "max=256)},)), or load it with trust (--trust-pickle) if you know who wrote it"
            )
        kept[_PROGRAM] = json.dumps(_plain(program)).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise TargetError(f"it is not laid out as torch.export.save does it ({error!r:.80}); save it again") from error
    return kept


def _plain(value: Any, key: str = "") -> Any:
    """The value, if all its texts are plain; notes on where a node came from are emptied."""
    match value:
        case dict():
            if key == "metadata":
                return {}
            keys = "expr_str" if key == "range_constraints" else ""
            return {_plain_text(name, keys): _plain(part, name) for name, part in value.items()}
        case list():
            return [_plain(part, key) for part in value]
        case str():
            return _plain_text(value, key)
        case _:
            return value


def _plain_text(text: str, key: str) -> str:
    match key:
        case "target":
            named = _OPERATOR.fullmatch(text)
            fine = named is not None and named["name"] not in _FILES
        case "name":
            fine = (text.isascii() and text.isidentifier() and not keyword.iskeyword(text)) or not text
        case "expr_str":
            fine = len(text) < 1000 and not _SHAPE.sub("", text)
            fine = fine and all(_SHAPE_WORD.fullmatch(word) for word in re.findall(r"[A-Za-z_]\w*", text))
        case "in_spec" | "out_spec":
            fine = not text or _plain_tree(json.loads(text)[1])
        case "as_string":
            fine = _TEXT.fullmatch(text) is not None
        case "as_operator" | "as_custom_obj" | "class_fqn":
            fine = False
        case _:
            fine = _PLAIN.fullmatch(text) is not None and not re.search(r"(?:^|\.)__\w+__(?:$|\.)", text)
    if not fine:
        raise _refused(f"its program holds {key or 'a name'} {text[:60]!r}")
    return text


def _plain_tree(tree: Any) -> bool:
    """Of how arguments are packed: tuples, lists and dicts by plain names."""
    match tree:
        case {"type": kind, "context": context, "children_spec": list(children), **more} if not more:
            names = kind in _TREE_TYPES and (context is None or re.fullmatch(r'null|\[(?:"\w+"(?:, )?)*\]', context))
            return bool(names) and all(_plain_tree(child) for child in children)
    return False
