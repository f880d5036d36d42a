"""Which ONNX operators have a differentiable counterpart here: two literal tables.

Semantics: the operator schemas of the ONNX standard (https://onnx.ai/onnx/operators), for operator sets 6 to 26, in
inference. The domain ai.onnx.ml writes its own name before the operator's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from redan.formats import onnx_operators_arrays as arrays
from redan.formats import onnx_operators_layers as layers
from redan.formats import onnx_operators_numbers as numbers
from redan.formats import onnx_operators_windows as windows
from redan.formats.onnx_operators_node import Node, Operator

PLAIN: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "Add": torch.add,
        "And": torch.logical_and,
        "Asin": torch.asin,
        "Atan": torch.atan,
        "CastLike": numbers.cast_like,
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Div": numbers.divide,
        "Equal": torch.eq,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Expand": arrays.expand,
        "Floor": torch.floor,
        "GlobalAveragePool": windows.global_average_pool,
        "GlobalMaxPool": windows.global_max_pool,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "HardSwish": numbers.hard_swish,
        "Identity": numbers.identity,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Log": torch.log,
        "MatMul": torch.matmul,
        "Max": numbers.largest,
        "Mean": numbers.average,
        "Min": numbers.smallest,
        "Mish": functional.mish,
        "Mul": torch.mul,
        "Neg": torch.neg,
        "Not": torch.logical_not,
        "Or": torch.logical_or,
        "PRelu": numbers.prelu,
        "Pow": numbers.power,
        "Range": arrays.number_range,
        "Reciprocal": torch.reciprocal,
        "Relu": torch.relu,
        "Round": torch.round,
        "Sigmoid": torch.sigmoid,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Size": arrays.size,
        "Softplus": functional.softplus,
        "Softsign": functional.softsign,
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Sum": numbers.total,
        "Tan": torch.tan,
        "Tanh": torch.tanh,
        "Tile": arrays.tile,
        "Where": torch.where,
    }
)
"""Operators without settings: (*inputs) -> the output."""

WITH_SETTINGS: Mapping[str, Operator] = MappingProxyType(
    {
        # one number at a time
        "Cast": numbers.cast,
        "Celu": numbers.celu,
        "Clip": numbers.clip,
        "Elu": numbers.elu,
        "Gelu": numbers.gelu,
        "HardSigmoid": numbers.hard_sigmoid,
        "LeakyRelu": numbers.leaky_relu,
        "Mod": numbers.modulo,
        "Selu": numbers.selu,
        "Swish": numbers.swish,
        "ThresholdedRelu": numbers.thresholded_relu,
        # the layout of arrays
        "ArgMax": arrays.arg_max,
        "ArgMin": arrays.arg_min,
        "Concat": arrays.concatenate,
        "Constant": arrays.constant,
        "ConstantOfShape": arrays.constant_of_shape,
        "CumSum": arrays.cumulative_sum,
        "DepthToSpace": arrays.depth_to_space,
        "Flatten": arrays.flatten,
        "Gather": arrays.gather,
        "GatherElements": arrays.gather_elements,
        "Pad": arrays.pad,
        "Reshape": arrays.reshape,
        "Shape": arrays.shape,
        "Slice": arrays.cut,
        "SpaceToDepth": arrays.space_to_depth,
        "Split": arrays.split,
        "Squeeze": arrays.squeeze,
        "TopK": arrays.top_k,
        "Transpose": arrays.transpose,
        "Trilu": arrays.triangle,
        "Unsqueeze": arrays.unsqueeze,
        # layers
        "BatchNormalization": layers.batch_normalization,
        "Dropout": layers.dropout,
        "Einsum": layers.einsum,
        "Gemm": layers.gemm,
        "GroupNormalization": layers.group_normalization,
        "InstanceNormalization": layers.instance_normalization,
        "LRN": layers.local_response_normalization,
        "LayerNormalization": layers.layer_normalization,
        "LogSoftmax": layers.log_softmax,
        "LpNormalization": layers.lp_normalization,
        "RMSNormalization": layers.rms_normalization,
        "ReduceL1": layers.reduce_l1,
        "ReduceL2": layers.reduce_l2,
        "ReduceLogSum": layers.reduce_log_sum,
        "ReduceLogSumExp": layers.reduce_log_sum_exp,
        "ReduceMax": layers.reduce_max,
        "ReduceMean": layers.reduce_mean,
        "ReduceMin": layers.reduce_min,
        "ReduceProd": layers.reduce_product,
        "ReduceSum": layers.reduce_sum,
        "ReduceSumSquare": layers.reduce_sum_square,
        "Softmax": layers.softmax,
        "ai.onnx.ml.LinearClassifier": layers.linear_classifier,
        "ai.onnx.ml.LinearRegressor": layers.linear_regressor,
        "ai.onnx.ml.Normalizer": layers.normalizer,
        "ai.onnx.ml.Scaler": layers.scaler,
        # windows that move over space
        "AveragePool": windows.average_pool,
        "Conv": windows.convolution,
        "ConvTranspose": windows.transposed_convolution,
        "MaxPool": windows.max_pool,
        "Resize": windows.resize,
        "Upsample": windows.upsample,
    }
)
"""Operators with settings: (node, *inputs) -> the outputs; an input that was left out is None."""


def built(name: str) -> bool:
    """Whether an operator has a counterpart."""
    return name in PLAIN or name in WITH_SETTINGS


def operation(node: Node) -> Callable[..., Tensor | tuple[Tensor | None, ...]]:
    """The function of a node's inputs that it computes."""
    return PLAIN[node.operator] if node.operator in PLAIN else partial(WITH_SETTINGS[node.operator], node)
