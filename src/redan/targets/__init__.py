"""The model as an attacker meets it. `from_torch` wraps any `nn.Module`, `from_function` anything that answers arrays.

Files of torch modules are read by `redan.formats`, and wrapped by `from_torch`. `rescaled`, `retraced`, `smoothed` and
`student` find gradients for a model that hides its own: each takes a target and some of its inputs, and returns a
target that answers the same and can be climbed, or None where there is nothing to gain.
"""

from redan.targets.affine import Affine, affine
from redan.targets.base import Asked, Output, Remote, Target, declared, is_remote
from redan.targets.function import FunctionTarget, from_function
from redan.targets.http import HttpTarget, from_http
from redan.targets.onnx import OnnxTarget, load_onnx
from redan.targets.paired import Paired, paired
from redan.targets.rescaled import rescaled
from redan.targets.retraced import retraced
from redan.targets.sklearn import from_sklearn
from redan.targets.smoothed import smoothed
from redan.targets.stand_in import StandIn
from redan.targets.straight_through import StraightThrough
from redan.targets.student import student
from redan.targets.torch import TorchTarget, as_target, from_torch
from redan.targets.trees import from_lightgbm, from_xgboost, load_trees

__all__ = [
    "Affine",
    "Asked",
    "FunctionTarget",
    "HttpTarget",
    "OnnxTarget",
    "Output",
    "Paired",
    "Remote",
    "StandIn",
    "StraightThrough",
    "Target",
    "TorchTarget",
    "affine",
    "as_target",
    "declared",
    "from_function",
    "from_http",
    "from_lightgbm",
    "from_sklearn",
    "from_torch",
    "from_xgboost",
    "is_remote",
    "load_onnx",
    "load_trees",
    "paired",
    "rescaled",
    "retraced",
    "smoothed",
    "student",
]
