"""TorchScript and torch.export from files: the same answers and gradients, the right refusals, and no code run."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import redan
from redan.errors import TargetError, TrainingModeError
from redan.formats.torch_files import Sized, load_export, load_torchscript
from redan.targets import from_torch

Rewrite = Callable[[dict[str, bytes]], None]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 3))
    return nn.Sequential(*layers)


@contextlib.contextmanager
def deprecated() -> Iterator[None]:
    """Writing TorchScript is deprecated too, which is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean")
        yield


def scripted(model: nn.Module, path: Path) -> Path:
    with deprecated():
        torch.jit.save(torch.jit.script(model), path)
    return path


def traced(model: nn.Module, path: Path) -> Path:
    with deprecated():
        trace: Any = torch.jit.trace
        torch.jit.save(trace(model, torch.rand(4, 1, 8, 8), check_trace=False), path)
    return path


def frozen(model: nn.Module, path: Path) -> Path:
    with deprecated():
        torch.jit.save(torch.jit.freeze(torch.jit.script(model)), path)
    return path


def exported(model: nn.Module, path: Path, *, rows: int = 5, batch: Any = torch.export.Dim.DYNAMIC) -> Path:
    shapes = None if batch is None else ({0: batch},)
    torch.export.save(torch.export.export(model, (torch.rand(rows, 1, 8, 8),), dynamic_shapes=shapes), path)
    return path


def slope(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Answers and the gradient of a mixture of them."""
    x = x.clone().requires_grad_()
    answer = model(x)
    (found,) = torch.autograd.grad((answer * torch.tensor([1.0, -2.0, 0.5])).sum(), x)
    return answer.detach(), found


def changed(path: Path, change: Rewrite) -> Path:
    """The archive with other files in it, under the same folder."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(files)).partition("/")[0]
    inner = {name.partition("/")[2]: data for name, data in files.items()}
    change(inner)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in inner.items():
            archive.writestr(f"{folder}/{name}", data)
    return path


@pytest.mark.parametrize("save", [scripted, traced, frozen])
def test_torchscript_answers_as_the_module_does(save: Callable[[nn.Module, Path], Path], tmp_path: Path) -> None:
    model, x = network().eval(), torch.rand(6, 1, 8, 8)
    loaded = load_torchscript(save(model, tmp_path / "model.pt"))

    for ours, theirs in zip(slope(loaded, x), slope(model, x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    target = from_torch(loaded, classes=3)
    assert target.dtype is torch.float32


@pytest.mark.parametrize("save", [scripted, traced, frozen, exported])
def test_attacks_climb_it_as_they_climb_the_module(save: Callable[[nn.Module, Path], Path], tmp_path: Path) -> None:
    model, x = network().eval(), torch.rand(12, 1, 8, 8)
    y = model(x).argmax(1)
    load = load_export if save is exported else load_torchscript
    loaded = load(save(model, tmp_path / "model.pt2"))
    ours, theirs = (redan.attack(m, x, y, redan.PGD(steps=10), within=redan.Linf(0.2)) for m in (loaded, model))

    assert theirs.success.float().mean() > 0.5
    assert bool((ours.success == theirs.success).all())


@pytest.mark.parametrize("batch", [torch.export.Dim.DYNAMIC, None, scripted])
def test_threads_may_ask_one_module_at_once(batch: Any, tmp_path: Path) -> None:
    model, path = network().eval(), tmp_path / "model.pt2"
    script = batch is scripted
    loaded = load_torchscript(scripted(model, path)) if script else load_export(exported(model, path, batch=batch))
    batches = [torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(24)]
    alone = [slope(loaded, x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: slope(loaded, x), batches))

    assert all(
        torch.equal(a, b) for one, two in zip(alone, together, strict=True) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("save", [scripted, traced])
def test_torchscript_in_training_mode_is_refused(save: Callable[[nn.Module, Path], Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingModeError, match=r"model\.pt: 7 part\(s\) were saved in training mode"):
        load_torchscript(save(network().train(), tmp_path / "model.pt"))


def test_a_trace_of_training_is_refused_whatever_its_flags_say(tmp_path: Path) -> None:
    with deprecated():
        trace: Any = torch.jit.trace
        torch.jit.save(
            trace(network().train(), torch.rand(4, 1, 8, 8), check_trace=False).eval(), tmp_path / "model.pt"
        )
    with pytest.raises(TrainingModeError, match="aten::batch_norm was recorded in training mode"):
        load_torchscript(tmp_path / "model.pt")


def test_attention_in_evaluation_mode_is_not_taken_for_training(tmp_path: Path) -> None:
    """Its code holds a dropout for training, with a share that is 0 otherwise."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.attention(x, x, x)[0].mean(1)
            return answer

    model, x = Attends().eval(), torch.rand(4, 5, 8)
    assert torch.allclose(load_torchscript(scripted(model, tmp_path / "model.pt"))(x), model(x), atol=1e-6)


class Writes(nn.Module):
    """A module of TorchScript that writes a file wherever it is asked."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class Maps(Writes):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file(self.path, True, 4)


class Hides(nn.Module):
    """Writes where no call stands: a context manager's own method."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        with Door(self.path, x):
            return x * 1


class Door:
    def __init__(self, path: str, x: Tensor) -> None:
        self.path = path
        self.x = x

    def __enter__(self) -> None:
        torch.save(self.x, self.path)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        pass


class Wakes(nn.Module):
    """Writes while it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), self.path)

    def forward(self, x: Tensor) -> Tensor:
        return x * 1


@pytest.mark.parametrize(
    ("kind", "cause"),
    [(Writes, "calls aten::save"), (Maps, "calls aten::from_file"), (Hides, "__enter__"), (Wakes, "state__")],
)
def test_torchscript_that_touches_files_is_refused(kind: type[nn.Module], cause: str, tmp_path: Path) -> None:
    aim = tmp_path / "written"
    path = scripted(kind(str(aim)).eval(), tmp_path / "model.pt")
    with pytest.raises(TargetError, match=rf"model\.pt: its code .*{cause}.*--trust-pickle"):
        load_torchscript(path)
    assert not aim.exists()

    load_torchscript(path, trust=True)(torch.ones(4))  # the trap is real: with trust it snaps
    assert aim.exists()


def test_a_method_over_two_lines_is_seen(tmp_path: Path) -> None:
    path = scripted(Hides(str(tmp_path / "written")).eval(), tmp_path / "model.pt")

    def split(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.startswith("code/") and name.endswith(".py")]:
            files[name] = files[name].replace(b"def __enter__", b"def \\\n __enter__")

    with pytest.raises(TargetError, match="__enter__"):
        load_torchscript(changed(path, split))


def test_no_grad_is_let_through_and_nothing_that_only_claims_to_be_it(tmp_path: Path) -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                scale = x.amax()
            return x / scale

    path = scripted(Half().eval(), tmp_path / "model.pt")
    assert load_torchscript(path)(torch.ones(4)).tolist() == [1.0] * 4

    def spoil(files: dict[str, bytes]) -> None:
        name = "code/__torch__/torch/autograd/grad_mode.py"
        assert b"set_grad_enabled(False)" in files[name]
        files[name] = files[name].replace(b"set_grad_enabled(False)", b'save(torch.ones([1]), "x")')

    with pytest.raises(TargetError, match="__enter__"):
        load_torchscript(changed(path, spoil))


@pytest.mark.parametrize(("rows", "batch"), [(5, torch.export.Dim.DYNAMIC), (5, None), (1, None)])
@pytest.mark.parametrize("asked", [1, 4, 5, 13])
def test_an_exported_program_answers_any_number_of_rows(rows: int, batch: Any, asked: int, tmp_path: Path) -> None:
    model, x = network().eval(), torch.rand(asked, 1, 8, 8)
    loaded = load_export(exported(model, tmp_path / "model.pt2", rows=rows, batch=batch))

    for ours, theirs in zip(slope(loaded, x), slope(model, x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert from_torch(loaded, classes=3)(x).shape == (asked, 3)


def test_a_range_of_rows_is_kept(tmp_path: Path) -> None:
    model, x = network().eval(), torch.rand(23, 1, 8, 8)
    path = exported(model, tmp_path / "model.pt2", batch=torch.export.Dim("n", min=4, max=8))
    loaded = load_export(path)

    assert isinstance(loaded, Sized)
    assert (loaded.least, loaded.most) == (4, 8)
    assert torch.allclose(loaded(x), model(x), atol=1e-6)
    assert torch.allclose(loaded(x[:2]), model(x[:2]), atol=1e-6)


def test_rows_that_must_be_even_are_refused(tmp_path: Path) -> None:
    path = exported(network().eval(), tmp_path / "model.pt2", rows=6, batch=2 * torch.export.Dim("half", min=2))
    with pytest.raises(TargetError, match="which not every number is; export it again with dynamic_shapes"):
        load_export(path)


def test_an_export_of_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingModeError, match=r"batch_norm\.default was recorded in training mode"):
        load_export(exported(network().train(), tmp_path / "model.pt2"))


def test_a_program_of_two_inputs_is_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    torch.export.save(torch.export.export(Two().eval(), (torch.ones(2), torch.ones(2))), tmp_path / "model.pt2")
    with pytest.raises(TargetError, match="takes 2 inputs and gives 1 outputs"):
        load_export(tmp_path / "model.pt2")


def bomb(aim: Path) -> bytes:
    """A pickle that makes a file when it is read."""

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (aim,)

    stream = io.BytesIO()
    torch.save(Bomb(), stream)
    return stream.getvalue()


def everywhere(value: Any, key: str, put: Any) -> None:
    """Put a value in each place of that name."""
    if isinstance(value, dict):
        if key in value:
            value[key] = put
        for part in value.values():
            everywhere(part, key, put)
    elif isinstance(value, list):
        for part in value:
            everywhere(part, key, put)


def in_program(key: str, put: Any) -> Callable[[Path], Rewrite]:
    def make(aim: Path) -> Rewrite:
        def change(files: dict[str, bytes]) -> None:
            program = json.loads(files["models/model.json"])
            everywhere(program, key, put.replace("AIM", str(aim)) if isinstance(put, str) else put)
            files["models/model.json"] = json.dumps(program).encode()

        return change

    return make


def pickled_weight(aim: Path) -> Rewrite:
    def change(files: dict[str, bytes]) -> None:
        name = "data/weights/model_weights_config.json"
        config = json.loads(files[name])
        next(iter(config["config"].values()))["use_pickle"] = True
        files[name] = json.dumps(config).encode()
        files["data/weights/weight_0"] = bomb(aim)

    return change


def pickled_constant(aim: Path) -> Rewrite:
    def change(files: dict[str, bytes]) -> None:
        name = "data/constants/model_constants_config.json"
        files[name] = json.dumps(
            {"config": {"c": {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}}
        ).encode()
        files["data/constants/tensor_0"] = bomb(aim)

    return change


def legacy_weights(aim: Path) -> Rewrite:
    return lambda files: files.update({"data/weights/model.pt": bomb(aim)})


SHAPE = "__import__('pathlib').Path('AIM').touch() or 2"
TRAPS = [in_program("expr_str", SHAPE), pickled_weight, pickled_constant, legacy_weights]


@pytest.mark.parametrize("trap", TRAPS, ids=["shape", "weight", "constant", "legacy"])
def test_an_export_that_runs_code_when_loaded_is_refused(trap: Callable[[Path], Rewrite], tmp_path: Path) -> None:
    aim = tmp_path / "written"
    path = changed(exported(network().eval(), tmp_path / "model.pt2"), trap(aim))
    with pytest.raises(TargetError, match=r"^model\.pt2: .*--trust-pickle"):
        load_export(path)
    assert not aim.exists()

    with contextlib.suppress(TargetError):  # the trap is real: with trust it snaps, whatever comes after
        load_export(path, trust=True)
    assert aim.exists()


@pytest.mark.parametrize(
    ("key", "put"),
    [
        ("target", "torch.ops.aten.from_file.default"),
        ("target", "torch.os.system"),
        ("target", "torch.ops.mine.anything.default"),
        ("target", "_operator.attrgetter"),
        ("name", "x = __import__('os')"),
        ("name", "import"),
        ("buffer_name", "a.__class__.b"),
        ("parameter_name", 'a"]; import os'),
        ("in_spec", '[1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}]'),
        ("in_spec", '[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": 1}]", "children_spec": []}]'),
        ("expr_str", "s0.__class__"),
        ("expr_str", "Symbol('__import__')"),
    ],
)
def test_an_export_of_more_than_plain_names_is_refused(key: str, put: Any, tmp_path: Path) -> None:
    path = changed(exported(network().eval(), tmp_path / "model.pt2"), in_program(key, put)(tmp_path))
    with pytest.raises(TargetError, match=r"^model\.pt2: .* not loaded from a file by default; .*--trust-pickle"):
        load_export(path)


class Branches(nn.Module):
    """Two models in one, by the number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * (1 if x.shape[0] > 2 else 2)


def test_guards_in_python_are_refused_and_the_remedy_works(tmp_path: Path) -> None:
    path = exported(Branches().eval(), tmp_path / "model.pt2")
    with pytest.raises(TargetError, match=r"^model\.pt2: it branches on its input's shape.*Dim\('n', min=4, max=256\)"):
        load_export(path)
    exported(Branches().eval(), path, batch=torch.export.Dim("n", min=4, max=256))
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(load_export(path)(x), x.flatten(1)[:, :3])


def test_source_lines_and_sample_inputs_are_not_read(tmp_path: Path) -> None:
    """They are the only texts that are free, and are left out rather than looked at."""
    aim = tmp_path / "written"

    def change(files: dict[str, bytes]) -> None:
        assert files["data/sample_inputs/model.pt"]
        files["data/sample_inputs/model.pt"] = bomb(aim)

    x, model = torch.rand(3, 1, 8, 8), network().eval()
    loaded = load_export(changed(exported(model, tmp_path / "model.pt2"), change))
    assert torch.allclose(loaded(x), model(x), atol=1e-6)
    assert not aim.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.update({"models/model.json": b"{"}),
        lambda files: files.update({"models/model.json": b"[]"}),
        lambda files: files.update({"models/model.json": b"[" * 100_000}),
        lambda files: files.update({"data/weights/model_weights_config.json": b'{"config": {"a": 3}}'}),
        lambda files: files.pop("data/constants/model_constants_config.json"),
        lambda files: files.update({"data/weights/weight_0": b""}),
    ],
)
def test_a_damaged_export_is_one_sentence(change: Rewrite, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"^model\.pt2: [^\n]+; [^\n]+$"):
        load_export(changed(exported(network().eval(), tmp_path / "model.pt2"), change))


@pytest.mark.parametrize("load", [load_torchscript, load_export])
def test_what_is_no_archive_is_one_sentence(load: Callable[[Path], nn.Module], tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"there is no model file .*; check the path"):
        load(tmp_path / "absent")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(TargetError, match="text is no archive that torch writes"):
        load(tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(2**27))
    with pytest.raises(TargetError, match="unpacks to far more than its size"):
        load(tmp_path / "bomb")
    with zipfile.ZipFile(tmp_path / "twice", "w") as archive:
        archive.writestr("model/data.pkl", b"a")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("model/data.pkl", b"b")
    with pytest.raises(TargetError, match="two files share a name"):
        load(tmp_path / "twice")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    model = network().eval()
    script, export = scripted(model, tmp_path / "script.pt"), exported(model, tmp_path / "export.pt2")
    torch.save(model.state_dict(), tmp_path / "checkpoint.pt")
    shutil.copy(script, tmp_path / "cut.pt")
    with (tmp_path / "cut.pt").open("r+b") as file:
        file.truncate(2000)

    with pytest.raises(TargetError, match="it is a program of torch.export: name it under export"):
        load_torchscript(export)
    with pytest.raises(TargetError, match="it is TorchScript: name it under torchscript"):
        load_export(script)
    for load in (load_torchscript, load_export):
        with pytest.raises(TargetError, match="it is a pickled checkpoint: name it under checkpoint"):
            load(tmp_path / "checkpoint.pt")
        with pytest.raises(TargetError, match="is no archive that torch writes"):
            load(tmp_path / "cut.pt")
