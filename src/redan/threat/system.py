"""What is attacked: the system, its data, its training."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self, TypeAlias

from pydantic import (
    Field,
    Strict,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from redan.threat.detectors import Detector, check_detector, detector_words
from redan.threat.inputs import Inputs
from redan.threat.model import Combine, Ensemble, Members, Model
from redan.threat.parts import (
    File,
    Import,
    Loose,
    Name,
    Part,
    Share,
    by_type,
    shown,
    wrong,
)
from redan.threat.served import Defense, check_defenses, words_of

__all__ = [
    "Data",
    "DataFile",
    "DataSource",
    "Defense",
    "Expectation",
    "Impact",
    "Impacts",
    "Output",
    "Split",
    "System",
    "Task",
    "Training",
]


class Impact(StrEnum):
    """How bad it is for the owner if an attacker of a kind succeeds."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Task(StrEnum):
    """What the model answers."""

    CLASSIFICATION = "classification"
    """One class a row."""
    MULTILABEL = "multilabel"
    """Any number of classes a row."""
    REGRESSION = "regression"
    """One number a row."""


class Output(StrEnum):
    """The form of the model's answers."""

    LOGITS = "logits"
    """Scores before softmax or sigmoid."""
    PROBABILITIES = "probabilities"
    """Scores in [0, 1], after softmax or sigmoid."""
    LABELS = "labels"
    """The class alone."""
    VALUE = "value"
    """A number, for regression."""


class Impacts(Part):
    """The impact of each kind of attack on the owner; absent: not stated."""

    evasion: Loose[Impact] | None = None
    """Of an input that is answered wrong on purpose."""
    poisoning: Loose[Impact] | None = None
    """Of training rows that were tampered with."""
    extraction: Loose[Impact] | None = None
    """Of a stolen copy of the model."""


class Split(StrEnum):
    """The sets of rows that a file can name."""

    TEST = "test"
    TRAIN = "train"
    TRUSTED = "trusted"


class DataFile(Part):
    """Rows in a file: .npz, .parquet, .csv or .jsonl."""

    path: File
    """The file."""
    x: Annotated[
        Annotated[Name, Tag("@text")] | Annotated[Loose[tuple[Name, ...]], Tag("@list")],
        by_type("the name of an array or column, or a list of columns"),
    ] = "x"
    """Array or column of the inputs, or several columns; absent: as for `test`, and there "x"."""
    y: Name = "y"
    """Array or column of the labels; absent: as for `test`, and there "y"."""
    id: Name | None = None
    """Array or column of the rows' ids; absent: the position in the file."""
    source: Name | None = None
    """Array or column that says who supplied a row."""


DataSource: TypeAlias = Annotated[
    Annotated[Import, Tag("@text")] | Annotated[DataFile, Tag("@mapping")],
    by_type("'module:function' or {path: …}"),
]
"""Rows: a file, or a function "module:name" that returns them."""


class Data(Part):
    """The rows that are attacked, and those that the model was made of."""

    test: DataSource
    """Rows that the model has not seen; those that are attacked."""
    train: DataSource | None = None
    """Rows that the model is trained on; poisoning needs them."""
    trusted: DataSource | None = None
    """Clean rows for calibration."""

    @field_validator("train", "trusted")
    @classmethod
    def _as_test(cls, value: str | DataFile | None, info: ValidationInfo) -> str | DataFile | None:
        match value, info.data.get("test"):
            case DataFile(), DataFile() as test:
                unsaid = {"x", "y"} - value.model_fields_set
                return value.model_copy(update={key: getattr(test, key) for key in unsaid})
        return value


class Training(Part):
    """How the model is trained; needed to try poisoning and training-time defenses."""

    call: Import
    """A function "module:name" that takes (samples, seed) and returns a module or a target."""
    deterministic: bool = False
    """Whether the same samples and seed give the same model."""


class Expectation(Part):
    """What the owner knows of the model; the preflight compares."""

    clean_accuracy: Annotated[float, Field(ge=0, le=1)]
    """Accuracy on the test rows."""
    within: Share
    """The difference that is accepted."""


_DETECTION = ("detection", "object-detection", "object_detection", "segmentation")


class System(Part):
    """The system that is attacked."""

    name: Name
    """What the system is called."""
    purpose: str = ""
    """What it is for."""
    impact: Impacts = Impacts()
    """How bad a success is, for each kind of attack."""
    task: Loose[Task]
    """What the model answers."""
    classes: (
        Annotated[
            Annotated[Annotated[int, Field(ge=2)], Tag("@whole")]
            | Annotated[Annotated[tuple[Name, ...], Strict(False), Field(min_length=2)], Tag("@list")],
            by_type("the number of classes or the list of their names"),
        ]
        | None
    ) = None
    """The classes' number, or their names in the order of the labels 0, 1, …; not for regression."""
    model: Model
    """The model."""
    output: Loose[Output]
    """The form of its answers."""
    inputs: Inputs
    """What a row is."""
    defenses: Loose[tuple[Defense, ...]] = ()
    """Transformations of images that are served with the model, outermost last; attacked as served."""
    detector: Detector | None = None
    """What refuses suspicious inputs, outside of all defenses; attacked as served. Absent: everything is answered."""
    data: Data
    """The rows."""
    training: Training | None = None
    """How the model is trained."""
    expect: Expectation | None = None
    """What the owner knows of the model."""

    @field_validator("task", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value in _DETECTION:
            raise wrong(
                f"must be classification, multilabel or regression: redan does not attack {value}, whose answers "
                "(boxes, masks) have no right or wrong a row; assess the classifier of the crops"
            )
        return value

    @field_validator("classes")
    @classmethod
    def _unique(cls, value: int | tuple[str, ...] | None) -> int | tuple[str, ...] | None:
        match value:
            case tuple():
                twice = [name for i, name in enumerate(value) if name in value[:i]]
                if twice:
                    raise wrong(f"must have unique names, got {shown(twice[0])} twice")
        return value

    @model_validator(mode="after")
    def _fits_task(self) -> Self:
        regression = self.task is Task.REGRESSION
        if regression and self.classes is not None:
            raise wrong("is refused for task: regression, which has no classes", "classes")
        if not regression and self.classes is None:
            raise wrong(f"is required for task: {self.task}: the number of classes or their names", "classes")
        if regression != (self.output is Output.VALUE):
            allowed = "value" if regression else "logits, probabilities or labels"
            raise wrong(f"must be {allowed} for task: {self.task}, got '{self.output}'", "output")
        return self

    @model_validator(mode="after")
    def _defenses_fit(self) -> Self:
        check_defenses(self.defenses, self.inputs, self.model)
        return self

    @model_validator(mode="after")
    def _ensemble_fits(self) -> Self:
        match self.model:
            case Ensemble(ensemble=Members(combine=combine)) if combine is not Combine.LOGITS:
                if self.task is not Task.CLASSIFICATION:
                    raise wrong(
                        f"must be logits for task: {self.task}, which is then the mean of what the models answer; "
                        f"{combine} are of classes that exclude each other",
                        *("model", "ensemble", "combine"),
                    )
        return self

    @model_validator(mode="after")
    def _detector_fits(self) -> Self:
        if self.detector is not None:
            check_detector(
                self.detector,
                self.inputs,
                self.model,
                scores=self.task is Task.CLASSIFICATION and self.output is not Output.LABELS,
                train=self.data.train is not None,
                trusted=self.data.trusted is not None,
            )
            for split in (Split.TEST, Split.TRAIN):
                if self.data.trusted == getattr(self.data, split):
                    raise wrong(
                        f"names the rows of system.data.{split}: the detector's threshold needs clean rows of its own",
                        *("data", "trusted"),
                    )
        return self

    @property
    def served_behind(self) -> list[str]:
        """Each defense in words with all its settings, the outermost last; a detector is outermost."""
        told = [] if self.detector is None else [f"refuses by {detector_words(self.detector)}"]
        return [*words_of(self.defenses), *told]

    @property
    def beside(self) -> list[str]:
        """Models that are attacked too, to tell what is served is worth: the one without it, each member alone."""
        served = bool(self.defenses) or self.detector is not None
        match self.model:
            case Ensemble(ensemble=said):
                members = [f"member {number} alone" for number in range(1, len(said.members) + 1)]
            case _:
                members = []
        return [*(["the model alone"] if served else []), *members]

    @property
    def class_count(self) -> int | None:
        """How many classes there are; None for regression."""
        match self.classes:
            case tuple() as names:
                return len(names)
        return self.classes
