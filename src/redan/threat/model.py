"""The kinds of model that a threat-model file can name, for the system and for an attacker's surrogates."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Tag, field_validator, model_validator

from redan.threat.parts import Count, File, Import, Loose, Name, Part, Positive, Settings, by_key, shown, wrong

__all__ = [
    "Auth",
    "Checkpoint",
    "Combine",
    "Endpoint",
    "Ensemble",
    "Export",
    "Factory",
    "Http",
    "HttpProtocol",
    "HuggingFace",
    "Joblib",
    "Members",
    "Model",
    "Onnx",
    "Sklearn",
    "TorchScript",
    "Trees",
]

PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def _weights(path: Path) -> Path:
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        raise wrong(
            f"is a pickled file ({suffix}), and reading one can run any code: convert it with "
            "safetensors.torch.save_model to .safetensors, or name the model as checkpoint: and pass --trust-pickle"
        )
    if suffix != ".safetensors":
        raise wrong(f"must be a .safetensors file, got {shown(path.name)}; write it with safetensors.torch.save_model")
    return path


class Factory(Part):
    """A PyTorch module that the user's own function builds."""

    factory: Import
    """The function, as "module:name"."""
    arguments: Settings = Field(default_factory=dict)
    """Its keyword arguments."""
    weights: Annotated[File, AfterValidator(_weights)] | None = None
    """A .safetensors file that is loaded into the module."""


class TorchScript(Part):
    """A module saved by torch.jit.save."""

    torchscript: File
    """The file."""


class Export(Part):
    """A program saved by torch.export.save."""

    export: File
    """The .pt2 file."""


class Onnx(Part):
    """An ONNX graph."""

    onnx: File
    """The .onnx file."""


class Sklearn(Part):
    """A scikit-learn estimator saved by skops."""

    sklearn: File
    """The .skops file."""


class Trees(Part):
    """A tree ensemble in its library's own text or JSON format."""

    trees: File
    """The file."""


class HuggingFace(Part):
    """A Hugging Face model."""

    huggingface: File
    """The folder that save_pretrained wrote."""


class Checkpoint(Part):
    """A pickled PyTorch module, or its weights; reading it can run any code, so it needs --trust-pickle."""

    checkpoint: File
    """The file."""
    factory: Import | None = None
    """The function, as "module:name", that builds the module whose weights the file holds."""
    arguments: Settings = Field(default_factory=dict)
    """Its keyword arguments."""


class Joblib(Part):
    """A pickled scikit-learn estimator; reading it can run any code, so it needs --trust-pickle."""

    joblib: File
    """The file."""


class HttpProtocol(StrEnum):
    """How an endpoint is asked."""

    OIP_V2 = "oip-v2"
    """The Open Inference Protocol, version 2 (KServe, Triton, Seldon, MLServer)."""
    MLFLOW = "mlflow"
    """MLflow scoring: POST /invocations."""
    MAPPING = "mapping"
    """Any JSON, as `request` and `response` describe it."""


class Auth(Part):
    """Where the secret of a request comes from. The secret itself is never in the file."""

    header: Name = "Authorization"
    """The HTTP header that carries it."""
    env: str
    """The environment variable that holds it."""

    @field_validator("env")
    @classmethod
    def _env(cls, value: str) -> str:
        # the value is not shown: it may be the secret itself
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise wrong(
                "must be the name of an environment variable (letters, digits, underscores); "
                "the secret itself does not belong in this file"
            )
        return value


class Endpoint(Part):
    """A model behind HTTP."""

    url: str
    """The address, http:// or https://, without a user or password."""
    protocol: Loose[HttpProtocol]
    """How it is asked."""
    model: Name | None = None
    """The model's name there; oip-v2 needs it."""
    request: Settings | None = None
    """How rows become the JSON of a request; mapping needs it."""
    response: Settings | None = None
    """Where the answers lie in the JSON of a response; mapping needs it."""
    auth: Auth | None = None
    """The secret of a request; absent: none is sent."""
    timeout_seconds: Positive = 10.0
    """How long one request may take."""
    concurrency: Count = 4
    """How many requests run at once, at the most."""
    rows_per_request: Count = 1
    """How many inputs one request carries; they fail together."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        # the value is not shown: it may hold a password or a token
        try:
            parts = urlsplit(value)
            whole = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            whole = False
        if not whole:
            raise wrong("must be a whole address that starts with http:// or https://")
        if parts.username is not None:
            raise wrong("must not hold a user or password; give the secret as auth: {header: …, env: …}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol is HttpProtocol.OIP_V2 and self.model is None:
            raise wrong("is required for protocol: oip-v2", "model")
        if self.protocol is HttpProtocol.MAPPING:
            for key in ("request", "response"):
                if getattr(self, key) is None:
                    raise wrong("is required for protocol: mapping", key)
        return self


class Http(Part):
    """A model behind HTTP."""

    http: Endpoint
    """The endpoint."""


_Single: TypeAlias = (
    Annotated[Factory, Tag("@Factory")]
    | Annotated[TorchScript, Tag("@TorchScript")]
    | Annotated[Export, Tag("@Export")]
    | Annotated[Onnx, Tag("@Onnx")]
    | Annotated[Sklearn, Tag("@Sklearn")]
    | Annotated[Trees, Tag("@Trees")]
    | Annotated[HuggingFace, Tag("@HuggingFace")]
    | Annotated[Checkpoint, Tag("@Checkpoint")]
    | Annotated[Joblib, Tag("@Joblib")]
    | Annotated[Http, Tag("@Http")]
)
_SINGLE = (Factory, TorchScript, Export, Onnx, Sklearn, Trees, HuggingFace, Checkpoint, Joblib, Http)


class Combine(StrEnum):
    """How several models' answers become one."""

    LOGITS = "logits"
    """The mean of their logits, or of whatever else they answer."""
    PROBABILITIES = "probabilities"
    """The mean of their probabilities: none counts for more than another."""
    VOTES = "votes"
    """The class that most of them choose."""


class Members(Part):
    """Several models of one task, which take the same inputs and answer the same classes in the same order."""

    members: Annotated[Loose[tuple[Annotated[_Single, by_key(*_SINGLE)], ...]], Field(min_length=2)]
    """The models, two at least, each written as `system.model`; not behind an endpoint."""
    combine: Loose[Combine] = Combine.PROBABILITIES
    """How their answers become one."""

    @field_validator("members")
    @classmethod
    def _here(cls, value: tuple[_Single, ...]) -> tuple[_Single, ...]:
        for i, member in enumerate(value):
            if isinstance(member, Http):
                raise wrong(
                    "is refused in an ensemble: at an endpoint every call is counted and paid for; serve the ensemble "
                    "there as a whole and name that address, or leave the member out",
                    *(i, "http"),
                )
        return value


class Ensemble(Part):
    """Several models that are served as one, and attacked as one."""

    ensemble: Members
    """The models, and how their answers become one."""


Model: TypeAlias = Annotated[_Single | Annotated[Ensemble, Tag("@Ensemble")], by_key(*_SINGLE, Ensemble)]
"""A model: exactly one of the kinds."""
