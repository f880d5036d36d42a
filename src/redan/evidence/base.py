"""What every part of a report and of a log is: a frozen value that can be written down."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["LogPart", "MeanPart", "Part"]


class Part(BaseModel):
    """A part of `report.json`. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


class LogPart(BaseModel):
    """A line of a run's log, or a part of one. Unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class MeanPart(Part):
    """A rate over trained models (victims of poison, stolen copies), with its two-sided interval."""

    value: float
    low: float
    high: float
    confidence: float
    method: str
    """student-t: of the models' rates, the rows' own sampling added; clopper-pearson: of models hit or not."""
    rows: int
    """Asked of each model; 1 where a model is hit or not."""
    each: list[float]
    """Of every model, in their order."""
