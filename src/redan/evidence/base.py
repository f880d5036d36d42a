"""What every part of a report and of a log is: a frozen value that can be written down."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["LogPart", "Part"]


class Part(BaseModel):
    """A part of `report.json`. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="null")


class LogPart(BaseModel):
    """A line of a run's log, or a part of one. Unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
