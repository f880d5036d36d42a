"""Names of a file, and the transformations they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from redan.errors import SettingError
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.catalog import TRANSFORMATIONS, Entry, defended, transformation_of
from redan.preprocessing.jpeg import JPEG
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.resize_pad import Interpolation, ResizePad
from redan.preprocessing.served import Behind
from redan.preprocessing.thermometer import Code, Thermometer
from redan.targets import TorchTarget, from_torch

NEEDED: dict[str, dict[str, object]] = {
    "bit-depth": {"bits": 3},
    "median": {"size": 2},
    "resize-pad": {"smallest": 24, "side": 28},
}


@pytest.mark.parametrize("each", TRANSFORMATIONS, ids=lambda each: each.name)
def test_an_entry_says_what_is_true(each: Entry) -> None:
    made = transformation_of(each.name, NEEDED.get(each.name, {}), (-1.0, 1.0))
    assert type(made) is each.kind
    assert made.stochastic == each.stochastic
    assert "20" in each.paper
    assert each.kind.__doc__
    assert getattr(made, "bounds", (-1.0, 1.0)) == (-1.0, 1.0)
    assert made.stand_in(torch.rand(2, 1, 28, 28)).shape == (2, *made.shape((1, 28, 28)))


def test_names_are_distinct() -> None:
    assert len({each.name for each in TRANSFORMATIONS}) == len(TRANSFORMATIONS) == 7


def test_settings_are_read_as_a_file_has_them() -> None:
    assert transformation_of("jpeg", {"quality": 30}) == JPEG(quality=30)
    assert transformation_of("bit_depth", {"bits": 3}) == BitDepth(bits=3)
    assert transformation_of("bit-depth", {"bits": 3}, (0, 255)) == BitDepth(bits=3, bounds=(0, 255))
    assert transformation_of("non-local-means", {"strength": 2}) == NonLocalMeans(strength=2.0)
    assert transformation_of("thermometer", {"code": "one-hot"}) == Thermometer(code=Code.ONE_HOT)
    found = transformation_of("resize-pad", {"smallest": 24, "side": 28, "fill": 0, "interpolation": "bilinear"})
    assert found == ResizePad(smallest=24, side=28, fill=0.0, interpolation=Interpolation.BILINEAR)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("jpg", {}, "no transformation named 'jpg'; redan knows bit-depth, median, .*; did you mean 'jpeg'?"),
        ("bit_deth", {"bits": 3}, "did you mean 'bit-depth'?"),
        ("jpeg", {"qualty": 75}, "no setting 'qualty'; it has quality; did you mean 'quality'"),
        ("jpeg", {"bounds": (0, 1)}, "no setting 'bounds'"),
        ("jpeg", {"quality": 200}, "from 1 to 95, got 200"),
        ("jpeg", {"quality": "high"}, "quality of jpeg must be a whole number, got 'high'"),
        ("jpeg", {"quality": True}, "must be a whole number, got True"),
        ("jpeg", {"quality": 75.5}, "must be a whole number, got 75.5"),
        ("non-local-means", {"strength": "4"}, "must be a number, got '4'"),
        ("thermometer", {"code": "gray"}, "must be one of thermometer, one-hot, got 'gray'"),
        ("bit-depth", {}, r"needs the setting 'bits'; write \{bit-depth: \{bits: …\}\}"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        transformation_of(name, settings)


def test_defenses_are_listed_from_the_model_outward() -> None:
    bare = from_torch(nn.Flatten().eval(), bounds=(0.0, 2.0))
    assert defended(bare) is bare
    served = defended(bare, [("jpeg", {"quality": 75}), ("bit-depth", {"bits": 3})])
    assert isinstance(served, TorchTarget)
    assert isinstance(served.module, Behind)
    assert served.module.transformations == (BitDepth(bits=3, bounds=(0.0, 2.0)), JPEG(quality=75, bounds=(0.0, 2.0)))
