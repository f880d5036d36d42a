"""Boosters of XGBoost and LightGBM, from their own files and out of their wrappers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from redan.errors import TargetError


def read_booster(path: Path) -> Any:
    """The `xgboost.Booster` or `lightgbm.Booster` of a native file, told by its first bytes.

    Raises TargetError for any other file, and for one that its library cannot parse.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise TargetError(f"the trees in {path} cannot be read: {error.strerror or error}; check the path") from error
    if raw.startswith(b"tree\n") or raw.startswith(b"tree\r\n"):
        lightgbm = package("lightgbm")
        return _parsed(path, "LightGBM", lambda: lightgbm.Booster(model_str=raw.decode()))
    if raw.startswith(b"{"):
        xgboost = package("xgboost")

        def load() -> Any:
            booster = xgboost.Booster(params={"nthread": 1, "verbosity": 0})
            booster.load_model(bytearray(raw))
            return _as_served(booster, booster.attr("scikit_learn") is not None)

        return _parsed(path, "XGBoost", load)
    if raw.startswith(b"\x80"):
        raise TargetError(
            f"{path} is a pickle, which runs code when it is read; save the model in its own format (.json, .ubj or "
            ".txt), or give it as joblib with --trust-pickle"
        )
    raise TargetError(
        f"{path} is neither XGBoost's .json or .ubj nor LightGBM's .txt; save the model with save_model under such a "
        "name (XGBoost's binary format is deprecated, and is not read)"
    )


def is_xgboost(booster: Any) -> bool:
    """Whether it is XGBoost's booster; else it is LightGBM's."""
    return hasattr(booster, "inplace_predict")


def _parsed(path: Path, called: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TargetError(f"{called} cannot read {path}: {said[:200]}; save the model again") from error


def package(name: str) -> ModuleType:
    try:
        match name:
            case "xgboost":
                import xgboost as package
            case _:
                import lightgbm as package
    except ImportError as error:
        raise TargetError(f"these trees need the package {name}; run: pip install 'redan[trees]'") from error
    found: ModuleType = package
    return found


def booster_of(model: Any) -> Any:
    """The library's own booster of a fitted model or wrapper, cut at its best iteration where its `predict` is.

    Raises TargetError for a wrapper that is not fitted, or that takes a number for missing values.
    """
    if hasattr(model, "get_booster"):
        missing = getattr(model, "missing", None)
        if missing is not None and not np.isnan(missing):
            raise TargetError(
                f"the XGBoost wrapper takes {missing} for a missing value, which its booster does not know; train it "
                "with missing=nan"
            )
        return _as_served(_fitted(lambda: model.get_booster()), True)
    if hasattr(model, "booster_"):
        return _fitted(lambda: model.booster_)
    return model


def _fitted(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception as error:
        raise TargetError("the model is not fitted, so it has no trees; fit it first") from error


def _as_served(booster: Any, wrapped: bool) -> Any:
    """A booster as XGBoost's own wrappers ask it: with the rounds up to the best one."""
    best = booster.attr("best_iteration")
    return booster[: int(best) + 1] if wrapped and best is not None else booster


# -- the two libraries -------------------------------------------------------------------------------------
