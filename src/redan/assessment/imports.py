"""What a threat-model file names as "module:name": its folder can be imported from, for the file is trusted as code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redan.errors import ThreatModelError

__all__ = ["called", "importing_from", "named"]


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


def called(function: Callable[..., Any], key: str, folder: Path, **arguments: Any) -> Any:
    """What a function of the file's own returns. Raises ThreatModelError with the key that named it."""
    with importing_from(folder):
        try:
            return function(**arguments)
        except Exception as error:
            raise ThreatModelError(
                f"{key}: calling it raised {type(error).__name__}: {error}; call it by hand to see where"
            ) from error
