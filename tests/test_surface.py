"""The public surface: names as promised, nothing shadowed, import cheap."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import redan

ROOT = Path(redan.__file__).parent


@pytest.mark.parametrize("name", [n for n in redan.__all__ if not n.startswith("_")])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(redan, name) is not None
    assert name in dir(redan)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        _ = redan.atack


def test_no_module_has_the_name_of_a_public_function() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    functions = {n for n in redan.__all__ if callable(getattr(redan, n))}
    assert not modules & functions


def test_nothing_inside_imports_the_package_itself() -> None:
    for path in ROOT.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [n for n in lines if n.strip() in ("import redan", "from redan import *")], path


def test_import_loads_neither_torch_nor_anything_else() -> None:
    code = "import sys, redan; print([m for m in ('torch', 'numpy', 'scipy', 'pydantic', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_m_redan_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["redan", "--help"])
    memory = importlib.import_module("redan.runners.memory")
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: None)  # that would last
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "assess" in out
    assert "plan" in out
