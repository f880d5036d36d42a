"""Inputs transformed before the model sees them: each with the gradient an attacker who knows it would use.

`Preprocessed` is a target behind transformations, `behind` the same of the target's own kind, `defended` that from a
file's list of them. `FeatureSqueezing` is a detector that compares answers before and after.
"""

from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.catalog import TRANSFORMATIONS, Entry, defended, described, transformation_of
from redan.preprocessing.feature_squeezing import FeatureSqueezing, color_squeezers, grey_squeezers
from redan.preprocessing.jpeg import JPEG
from redan.preprocessing.median import Median
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.resize_pad import Interpolation, ResizePad
from redan.preprocessing.served import Behind, behind
from redan.preprocessing.thermometer import Code, Thermometer
from redan.preprocessing.total_variation import TotalVariation
from redan.preprocessing.transformation import Transformation
from redan.preprocessing.wrapped import Preprocessed, Slope

__all__ = [
    "JPEG",
    "TRANSFORMATIONS",
    "Behind",
    "BitDepth",
    "Code",
    "Entry",
    "FeatureSqueezing",
    "Interpolation",
    "Median",
    "NonLocalMeans",
    "Preprocessed",
    "ResizePad",
    "Slope",
    "Thermometer",
    "TotalVariation",
    "Transformation",
    "behind",
    "color_squeezers",
    "defended",
    "described",
    "grey_squeezers",
    "transformation_of",
]
