"""Without a library its adapter names the exact command, and importing redan asks for none of them."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from redan.errors import SettingError
from redan.integrations import art, cleverhans, foolbox, torchattacks

LIBRARIES: list[tuple[str, Callable[[], Any], str]] = [
    ("art.attacks.evasion", lambda: art.__getattr__("ProjectedGradientDescent"), "adversarial-robustness-toolbox"),
    ("foolbox", lambda: foolbox.__getattr__("LinfPGD"), "pip install foolbox"),
    ("cleverhans", lambda: cleverhans.__getattr__("spsa"), "pip install --no-deps cleverhans"),
    ("torchattacks", lambda: torchattacks.__getattr__("PGD"), "pip install --no-deps torchattacks"),
]


@pytest.mark.parametrize(("module", "ask", "command"), LIBRARIES, ids=[name for name, _, _ in LIBRARIES])
def test_the_command_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, ask: Callable[[], Any], command: str
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingError, match=command):
        ask()


def test_names_that_are_none_ask_for_nothing() -> None:
    for adapter in (art, cleverhans, foolbox, torchattacks):
        assert not hasattr(adapter, "__wrapped__")
        assert not hasattr(adapter, "setup_module")


@pytest.mark.parametrize("adapter", [cleverhans, torchattacks], ids=["cleverhans", "torchattacks"])
def test_the_examples_run(adapter: ModuleType) -> None:
    failed, tried = doctest.testmod(adapter)
    assert (failed, tried > 3) == (0, True)


@pytest.mark.slow
def test_importing_the_adapters_imports_no_library() -> None:
    code = (
        "import sys, redan; from redan.integrations import art, cleverhans, foolbox, torchattacks; "
        "print([n for n in ('art', 'foolbox', 'cleverhans', 'torchattacks', 'eagerpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
