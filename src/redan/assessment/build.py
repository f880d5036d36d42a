"""The target, the rows and the user's own attacks that a threat-model file names.

The file is trusted as code: its folder joins `sys.path` for the functions it names. Models, data and run
folders are not: weights are safetensors, arrays are read without pickle.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from redan.data.samples import Samples, from_arrays, read_file
from redan.errors import DataError, NotBuiltError, TargetError, ThreatModelError
from redan.evidence.folder import digest, file_digest
from redan.protocols import Attack
from redan.targets import Output, TorchTarget, from_torch
from redan.targets.surrogates import Ensemble, ensemble
from redan.threat import system as said
from redan.threat.attackers import Evasion
from redan.threat.inputs import ImageInputs, TensorInputs
from redan.threat.model import Checkpoint, Factory, Joblib, Model
from redan.threat.schema import ThreatModel


@dataclass(frozen=True, slots=True)
class Built:
    """What an assessment works on. notes: what was done to the data on the way in."""

    target: TorchTarget
    surrogates: Mapping[str, Ensemble]  # by the attacker who holds them
    x: torch.Tensor
    y: torch.Tensor
    ids: tuple[str, ...] | None
    index: tuple[int, ...]  # position of each drawn row in the data
    model_digest: str
    data_digest: str | None
    notes: tuple[str, ...]


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """The threat model's folder on `sys.path`, for the functions it names."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _forget_namesake(module: str, folder: Path) -> None:
    """Drop an imported module of that name from elsewhere, if the threat model has one of its own beside it."""
    own = folder.joinpath(*module.split("."))
    beside = [path for path in (own.with_suffix(".py"), own / "__init__.py") if path.is_file()]
    loaded = sys.modules.get(module)
    if beside and loaded is not None and Path(getattr(loaded, "__file__", None) or "") not in beside:
        del sys.modules[module]
        importlib.invalidate_caches()


def named(name: str, folder: Path, key: str) -> Any:
    """What "module:name" means. Raises ThreatModelError with the key that said it."""
    module, _, attribute = name.partition(":")
    _forget_namesake(module, folder)
    with importing_from(folder):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ThreatModelError(
                f"{key}: there is no module '{error.name}'; put it beside the threat model, or install it"
            ) from error
        except Exception as error:
            raise ThreatModelError(
                f"{key}: importing '{module}' raised {type(error).__name__}: {error}; import it by hand to see where"
            ) from error
    if not hasattr(found, attribute):
        raise ThreatModelError(f"{key}: module '{module}' has no '{attribute}'; check the name after the colon")
    return getattr(found, attribute)


def _called(function: Callable[..., Any], key: str, folder: Path, **arguments: Any) -> Any:
    with importing_from(folder):
        try:
            return function(**arguments)
        except Exception as error:
            raise ThreatModelError(
                f"{key}: calling it raised {type(error).__name__}: {error}; call it by hand to see where"
            ) from error


def _load(module: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise TargetError(f"there is no weights file {path}; check system.model.weights")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TargetError(
            f"{path} is not a safetensors file ({error}); write one with safetensors.torch.save_model"
        ) from error
    have, need = set(weights), set(module.state_dict())
    if have != need:
        odd = sorted(have ^ need)
        raise TargetError(
            f"the weights in {path.name} are not this module's: {len(odd)} names differ ({', '.join(odd[:3])}); "
            "check the factory and its arguments"
        )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise TargetError(
            f"the weights in {path.name} do not fit the module ({detail}); check its arguments"
        ) from error


def _model_digest(module: nn.Module, folder: Path) -> str:
    """sha256 over the module's tensors, by name, and over those files beside the threat model that define it."""
    found = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        found.update(name.encode() + state[name].detach().cpu().contiguous().numpy().tobytes())
    files = {getattr(sys.modules.get(type(part).__module__), "__file__", None) for part in module.modules()}
    for path in sorted(Path(file) for file in files if file is not None):
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            found.update(file_digest(path).encode())
    return found.hexdigest()


def _module(model: Model, folder: Path) -> nn.Module:
    match model:
        case Factory(factory=name, arguments=arguments, weights=weights):
            key = f"system.model.factory '{name}'"
            made = _called(named(name, folder, key), key, folder, **dict(arguments))
            if not isinstance(made, nn.Module):
                raise TargetError(f"{key} returned {type(made).__name__}; it must return a torch.nn.Module")
            if weights is not None:
                _load(made, folder / weights)
            return made
        case Checkpoint() | Joblib():
            raise NotBuiltError(
                "pickled models are never loaded by default, since reading one can run any code, and --trust-pickle "
                "is not built yet; convert the weights with safetensors.torch.save_model and name a factory"
            )
    kind = next(iter(type(model).model_fields))
    raise NotBuiltError(f"models of kind {kind} are not built yet; name a factory that returns a torch.nn.Module")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ThreatModelError(f"run.device '{name}' is not there; use auto or cpu") from error


_OUTPUT = {said.Output.LOGITS: Output.LOGITS, said.Output.PROBABILITIES: Output.PROBABILITIES}


def _array_inputs(model: ThreatModel) -> ImageInputs | TensorInputs:
    inputs = model.system.inputs
    if not isinstance(inputs, ImageInputs | TensorInputs):
        raise NotBuiltError(f"inputs of kind {inputs.kind} are not built yet; redan attacks images and tensors")
    return inputs


def build_target(model: ThreatModel, folder: Path) -> TorchTarget:
    """The model that the file names, as a target."""
    system = model.system
    if system.output not in _OUTPUT:
        raise NotBuiltError(f"output: {system.output} is not built yet; redan attacks logits and probabilities")
    if system.defenses:
        kinds = ", ".join(sorted({str(next(iter(d.root))) for d in system.defenses}))
        raise NotBuiltError(f"system.defenses ({kinds}) are not built yet; put them inside the model's forward")
    return _wrapped(model, system.model, folder)


def _wrapped(model: ThreatModel, said_model: Model, folder: Path) -> TorchTarget:
    """A model of the file as a target that takes the system's inputs and gives its kind of answers."""
    inputs, system = _array_inputs(model), model.system
    module = _module(said_model, folder).to(_device(model.run.device))
    norm = inputs.normalization
    return from_torch(
        module,
        bounds=inputs.bounds,
        classes=system.class_count,
        normalization=None if norm is None else (norm.mean, norm.std),
        output=_OUTPUT[system.output],
    )


def _surrogates(model: ThreatModel, folder: Path) -> dict[str, list[TorchTarget]]:
    """The models that attackers hold instead of the target, by the attacker's name."""
    return {
        attacker.name: [_wrapped(model, each, folder) for each in attacker.surrogates]
        for attacker in model.attackers
        if isinstance(attacker, Evasion) and attacker.surrogates
    }


def _digest_of(targets: Sequence[TorchTarget], folder: Path) -> str:
    """sha256 of the model; of an attacker's surrogates too, where there are any."""
    found = [_model_digest(target.module, folder) for target in targets]
    return found[0] if len(found) == 1 else digest("".join(found).encode())


def _samples(model: ThreatModel, folder: Path) -> tuple[Samples, str | None]:
    test = model.system.data.test
    match test:
        case said.DataFile(path=path, x=str(x), y=y, id=ids, source=source):
            return read_file(folder / path, x=x, y=y, ids=ids, source=source), file_digest(folder / path)
        case said.DataFile():
            raise NotBuiltError("data.test.x with several columns is not built yet; save the inputs as one array")
    key = f"system.data.test '{test}'"
    made = _called(named(str(test), folder, key), key, folder)
    if not isinstance(made, dict) or not {"x", "y"} <= set(made):
        raise DataError(f"{key} must return a dict with x and y (and id, source), got {type(made).__name__}")
    return from_arrays(made, key, x="x", y="y", ids="id" if "id" in made else None), None


def _inputs(rows: NDArray[Any], inputs: ImageInputs | TensorInputs) -> tuple[NDArray[Any], tuple[str, ...]]:
    if rows.dtype == object:
        raise DataError("the inputs are an array of objects; save them as one array of numbers (N, …)")
    notes: tuple[str, ...] = ()
    if rows.dtype == np.uint8 and inputs.bounds == (0.0, 1.0):
        rows, notes = rows.astype(np.float32) / 255, ("inputs were uint8 and were divided by 255",)
    elif not np.issubdtype(rows.dtype, np.floating):
        rows, notes = rows.astype(np.float32), (f"inputs were {rows.dtype} and became float32",)
    if rows.shape[1:] != tuple(inputs.shape) and rows[0].size == int(np.prod(inputs.shape)):
        notes = (*notes, f"inputs of shape {rows.shape[1:]} became {tuple(inputs.shape)}")
        rows = rows.reshape(len(rows), *inputs.shape)
    if rows.shape[1:] != tuple(inputs.shape):
        raise DataError(
            f"rows have the shape {rows.shape[1:]}, but system.inputs.shape says {tuple(inputs.shape)}; correct one"
        )
    return rows, notes


def build(model: ThreatModel, folder: Path) -> Built:
    """Everything that the file names, with the rows drawn by its seed. Raises a RedanError that names the key."""
    target = build_target(model, folder)
    lent = _surrogates(model, folder)
    samples, data_digest = _samples(model, folder)
    rows, notes = _inputs(samples.x, _array_inputs(model))
    if not np.issubdtype(samples.y.dtype, np.integer) or samples.y.ndim != 1:
        raise DataError(
            f"labels must be class numbers (N,), got {samples.y.dtype} {samples.y.shape}; "
            "number the classes from 0 in the order of system.classes"
        )
    order = np.random.default_rng(model.statistics.seed).permutation(len(rows))[: model.statistics.rows]
    return Built(
        target=target,
        surrogates={name: ensemble(members, target) for name, members in lent.items()},
        x=torch.from_numpy(np.ascontiguousarray(rows[order])),
        y=torch.from_numpy(samples.y[order].astype(np.int64)),
        ids=None if samples.ids is None else tuple(samples.ids[i] for i in order),
        index=tuple(int(i) for i in order),
        model_digest=_digest_of([target, *(member for members in lent.values() for member in members)], folder),
        data_digest=data_digest or digest(np.ascontiguousarray(rows).tobytes() + samples.y.tobytes()),
        notes=notes,
    )


def added_attacks(model: ThreatModel, folder: Path) -> dict[str, Attack[Any, Any]]:
    """The user's own attacks (`attacks.add`) by name: values, or classes that need no argument."""
    found: dict[str, Attack[Any, Any]] = {}
    for name in model.attacks.add:
        key = f"attacks.add '{name}'"
        attack = named(name, folder, key)
        if isinstance(attack, type):
            attack = _called(attack, key, folder)
        if not callable(attack):
            raise ThreatModelError(f"{key} is no attack; an attack is called with a referee and rows")
        short = name.partition(":")[2]
        found[name if short in found else short] = attack
    return found
