"""Rows to requests and answers to numbers, by the service's protocol: pure functions of what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from redan.errors import SettingError
from redan.wire import service as chosen
from redan.wire.mapping import mapped
from redan.wire.mlflow import Invocations
from redan.wire.open_inference import DEFAULT_TENSOR, Tensors, checked_datatype
from redan.wire.service import Kind, Reading, Service


class Messages(Protocol):
    """One protocol's two ways."""

    def encode(self, x: NDArray[Any], /) -> bytes:
        """A request's body for inputs (N, …)."""
        ...

    def decode(self, body: bytes, rows: int, /) -> NDArray[np.float64]:
        """Answers (N,) or (N, K), NaN where a class was left out. Raises Garbled or Misfit."""
        ...


def messages(service: Service, reading: Reading, *, told: Mapping[str, Any], datatype: str) -> Messages:
    """How the service is asked. told: what its model says of its input (OIP_V2); datatype: what inputs are.

    Raises SettingError for a request or response that cannot be meant so, TargetError for inputs of whole numbers.
    """
    match service.protocol:
        case chosen.Protocol.MAPPING:
            return mapped(service, reading)
        case chosen.Protocol.MLFLOW:
            _known(service.request, (), "request")
            _known(service.response, ("classes",), "response")
            return Invocations(reading)
        case chosen.Protocol.OIP_V2:
            given = dict(told) | _known(service.request, ("tensor", "datatype"), "request")
            output = _known(service.response, ("output", "classes"), "response").get("output")
            kind = checked_datatype(given.get("datatype"), datatype)
            return Tensors(
                str(given.get("tensor", DEFAULT_TENSOR)), kind, None if output is None else str(output), reading
            )


def read_as(service: Service, kind: Kind, count: int | None) -> Reading:
    """How its answers are understood. count: K, where known. Raises SettingError where that contradicts the service."""
    response = service.response or {}
    names = response.get("classes")
    if names is not None:
        if not isinstance(names, list | tuple) or len(set(map(str, names))) < max(2, len(names)):
            raise SettingError("the endpoint's classes must be a list of at least two different names, in order")
        names = tuple(map(str, names))
        if count is not None and count != len(names):
            raise SettingError(f"the endpoint's response names {len(names)} classes, but {count} are declared")
        count = len(names)
    if service.protocol is chosen.Protocol.MAPPING:
        labels, scores, value = (key in response for key in ("labels", "scores", "value"))
        if (labels and not scores) != (kind is Kind.LABELS) or value != (kind is Kind.VALUE):
            told = "labels" if labels and not scores else "a value" if value else "scores"
            raise SettingError(
                f"the endpoint's response maps {told}, but the model's output is declared as {kind.name.lower()}; "
                "make them agree"
            )
    return Reading(kind, names, count)


def _known(given: Mapping[str, Any] | None, keys: tuple[str, ...], part: str) -> dict[str, Any]:
    unknown = sorted(set(given or {}) - set(keys))
    if unknown:
        raise SettingError(
            f"the endpoint's {part} has the unknown key {unknown[0]}; this protocol knows "
            f"{', '.join(keys) or 'none'}, and protocol mapping takes any"
        )
    return dict(given or {})
