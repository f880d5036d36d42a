"""What is chosen about an endpoint: where it is, how it is asked, what it answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from redan.errors import SettingError


class Protocol(Enum):
    """How an endpoint is asked."""

    OIP_V2 = auto()
    """The Open Inference Protocol, version 2: KServe, Triton, Seldon, MLServer."""
    MLFLOW = auto()
    """MLflow scoring: POST /invocations."""
    MAPPING = auto()
    """Any JSON, as `request` and `response` describe it."""


class Kind(Enum):
    """What an endpoint's numbers are, as far as they can be checked as they arrive."""

    SCORES = auto()
    """Any numbers, one a class."""
    PROBABILITIES = auto()
    """Numbers from 0 to 1, one a class or label."""
    LABELS = auto()
    """Class numbers or names, or a 0 or 1 a label."""
    VALUE = auto()
    """One number a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An endpoint.

    url: its address, without a user or password; what follows a "?" is never shown, for it may hold a token. model:
    its name there, for OIP_V2. request, response: how rows become JSON and where the answers lie; see
    `redan.wire.mapping` for MAPPING, {tensor, datatype} and {output, classes} for OIP_V2, {classes} for MLFLOW.
    auth_header, auth_env: the header that carries the secret, and the environment variable that holds it; None: none
    is sent. timeout_seconds: of one request, whole. concurrency: requests at once, at the most. rows_per_request:
    inputs that are asked together, and fail together.

    Raises SettingError for impossible values.

    >>> Service(url="http://127.0.0.1:8080", protocol=Protocol.OIP_V2, model="digits").address
    'http://127.0.0.1:8080/v2/models/digits/infer'
    """

    url: str = field(repr=False)
    protocol: Protocol
    model: str | None = None
    request: Mapping[str, Any] | None = field(default=None, repr=False)
    response: Mapping[str, Any] | None = field(default=None, repr=False)
    auth_header: str = "Authorization"
    auth_env: str | None = None
    timeout_seconds: float = 10.0
    concurrency: int = 4
    rows_per_request: int = 1

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise SettingError(
                "the endpoint's url must start with http:// or https:// and hold no user or password; give the secret "
                "by auth_env"
            )
        if self.protocol is Protocol.OIP_V2 and not self.model:
            raise SettingError("the Open Inference Protocol asks for a model by its name; give model=")
        if self.protocol is Protocol.MAPPING and (self.request is None or self.response is None):
            raise SettingError("a mapping needs both its request and its response; give them")
        if not (self.timeout_seconds > 0 and self.concurrency >= 1 and self.rows_per_request >= 1):
            raise SettingError(
                f"timeout_seconds, concurrency and rows_per_request must be above 0, got {self.timeout_seconds}, "
                f"{self.concurrency} and {self.rows_per_request}"
            )
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", self.auth_header):
            raise SettingError("auth_header must be the name of an HTTP header, such as Authorization or X-API-Key")

    @property
    def address(self) -> str:
        """Where inputs are posted to."""
        match self.protocol:
            case Protocol.OIP_V2:
                return self._under(f"/v2/models/{quote(self.model or '', safe='')}/infer")
            case Protocol.MLFLOW:
                ends = urlsplit(self.url).path.rstrip("/").endswith("/invocations")
                return self.url if ends else self._under("/invocations")
            case Protocol.MAPPING:
                return self.url

    @property
    def described_at(self) -> str:
        """Where a model of the Open Inference Protocol tells its tensors."""
        return self._under(f"/v2/models/{quote(self.model or '', safe='')}")

    @property
    def shown(self) -> str:
        """The address as it may be shown: without what follows a "?"."""
        return urlunsplit(urlsplit(self.address)._replace(query="", fragment=""))

    def _under(self, path: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))


@dataclass(frozen=True, slots=True)
class Reading:
    """How answers are understood: their kind, the classes' names in order, and how many there are, where known."""

    kind: Kind
    names: tuple[str, ...] | None = None
    count: int | None = None


def signature(service: Service, reading: Reading) -> str:
    """A digest of all that decides what an answer means: answers are given again only to the same questions."""
    told = [
        service.address,
        service.protocol.name,
        service.request,
        service.response,
        service.rows_per_request,
        reading.kind.name,
        reading.names,
        reading.count,
    ]
    return hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
