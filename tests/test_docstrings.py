"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

import redan


def _modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(redan.__path__, "redan."):
        path = Path(redan.__path__[0], *found.name.split(".")[1:])
        file = path / "__init__.py" if found.ispkg else path.with_suffix(".py")
        if ">>> " in file.read_text(encoding="utf-8"):
            yield found.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_examples(name: str) -> None:
    torch.manual_seed(0)
    done = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert done.attempted
    assert not done.failed
