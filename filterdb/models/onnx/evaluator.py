"""Evaluate one deterministic ONNX operator on constants, with the reference implementation in the onnx package.

Only operators of an allow-list run, which compute arrays from arrays with NumPy. The list excludes random operators,
control flow, text, images and recurrent networks. The child process limits memory and time (see `sandbox`), and
`operations` estimates the cost of operators that is not bounded by the size of their result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

OPERATORS = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitCast BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im
    Compress Concat ConcatFromSequence ConstantOfShape Conv Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear
    Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization
    HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max
    MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear
    RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round ScatterElements ScatterND Selu
    SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign
    Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze Sub Sum Swish Tan
    Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
    """.split()  # noqa: SIM905
)
"""Operators of ONNX's own domain that may be evaluated."""

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators whose result differs from run to run."""

CONTRIB_OPSET = 21
"""The opset whose QuantizeLinear and DequantizeLinear accept everything that those of `com.microsoft` accept."""


Input = np.ndarray | list[np.ndarray] | None
"""A tensor, a sequence of tensors, or None for an omitted optional input."""


def evaluate(
    op_type: str, opset: int, attributes: Mapping[str, onnx.AttributeProto], inputs: Sequence[Input], outputs: int,
    index: int,
) -> np.ndarray | list[np.ndarray]:  # fmt: skip
    """Compute output `index` of an operator in OPERATORS whose node has `outputs` outputs.

    `opset` is the version of ONNX's own domain for the node. Half precision is computed in single precision and
    rounded, as ONNX Runtime does on CPUs. Raises whatever NumPy and onnx raise for unsuitable inputs.
    """
    from onnx.reference import ReferenceEvaluator  # takes 0.2 s, which models without expressions save

    inputs, attributes = _without_old_broadcast(op_type, opset, attributes, inputs)
    half = None if op_type in _TYPED else _half_precision(inputs)
    inputs = [_widened(value) for value in inputs] if half is not None else inputs
    names = ["" if value is None else f"input{i}" for i, value in enumerate(inputs)]
    results = [f"output{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results)
    for name, attribute in attributes.items():
        copy = node.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = name  # inside a function, the attribute may come from the call and have another name there
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    graph = helper.make_graph(
        [node],
        "constant",
        [_typed(name, value) for name, value in feeds.items()],
        [onnx.ValueInfoProto(name=results[index])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with np.errstate(all="ignore"):
        (value,) = ReferenceEvaluator(model).run(None, feeds)
    if isinstance(value, list):
        return [_narrowed(np.asarray(item), half) for item in value]
    return _narrowed(np.asarray(value), half)


def _typed(name: str, value: np.ndarray | list[np.ndarray]) -> onnx.ValueInfoProto:
    """Declare an input's type, which operators need that ONNX defines as functions of other operators."""
    if isinstance(value, list):
        dtype = value[0].dtype if value else np.dtype(np.float32)
        return helper.make_tensor_sequence_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), None)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


_HALVES = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}
_TYPED = frozenset(
    {"BitCast", "Cast", "CastLike", "ConstantOfShape", "DequantizeLinear", "EyeLike"} | {"DynamicQuantizeLinear"}
)
"""Operators whose result depends on the types of their inputs beyond precision."""


def _half_precision(inputs: Sequence[Input]) -> np.dtype | None:
    arrays = [item for value in inputs for item in (value if isinstance(value, list) else [value])]
    return next((array.dtype for array in arrays if array is not None and array.dtype in _HALVES), None)


def _widened(value: Input) -> Input:
    if isinstance(value, list):
        return [item.astype(np.float32) if item.dtype in _HALVES else item for item in value]
    return value.astype(np.float32) if value is not None and value.dtype in _HALVES else value


def _narrowed(value: np.ndarray, half: np.dtype | None) -> np.ndarray:
    return value.astype(half) if half is not None and value.dtype == np.float32 else value


def operations(op_type: str, attributes: Mapping[str, onnx.AttributeProto], inputs: Sequence[Input]) -> int:
    """Estimate the operations of an operator whose cost is not bounded by the sizes of its arrays; otherwise 0.

    Eight multiplications of a matrix product count as one operation, since they take as long as one elementwise step.
    """
    shapes = [value.shape for value in inputs if isinstance(value, np.ndarray)]
    if op_type in {"MatMul", "MatMulInteger", "Gemm"} and len(shapes) > 1:
        # For Gemm either dimension may be the shared one, depending on transposition; the smaller gives an upper bound.
        shared = min(shapes[0][-2:], default=1) if op_type == "Gemm" else (shapes[0][-1:] or (1,))[0]
        return math.prod(shapes[0]) * math.prod(shapes[1]) // max(1, shared) // 8
    if op_type == "Einsum" and "equation" in attributes:
        terms = attributes["equation"].s.decode("utf-8", "replace").split("->")[0].split(",")
        sizes: dict[str, int] = {}
        rest = 1
        for term, shape in zip(terms, shapes, strict=False):
            letters = [letter for letter in term if letter.isalpha()]
            sizes |= dict(zip(letters, shape[-len(letters) :] if letters else (), strict=False))
            rest *= math.prod(shape) if "." in term else 1
        return math.prod(sizes.values()) * rest
    if op_type == "Conv" and len(shapes) > 1:
        channels = shapes[0][1] if len(shapes[0]) > 1 else 1
        return math.prod(shapes[0]) * math.prod(shapes[1]) // max(1, channels) // 8
    if op_type == "Det":
        return math.prod(shapes[0]) * int((shapes[0][-1:] or (1,))[0])
    return 0


_OLD_BROADCAST_OPSET = 7
"""From this opset on, operands broadcast as in NumPy; before, the attributes `broadcast` and `axis` controlled it."""


def _without_old_broadcast(
    op_type: str, opset: int, attributes: Mapping[str, onnx.AttributeProto], inputs: Sequence[Input]
) -> tuple[Sequence[Input], Mapping[str, onnx.AttributeProto]]:
    """Add to the second operand of an old elementwise operator the dimensions along which it is broadcast."""
    if opset >= _OLD_BROADCAST_OPSET or "broadcast" not in attributes or len(inputs) != 2:
        return inputs, attributes
    first, second = inputs
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and attributes["broadcast"].i:
        axis = attributes["axis"].i if "axis" in attributes else first.ndim - second.ndim
        axis += first.ndim if axis < 0 else 0
        second = second.reshape(second.shape + (1,) * (first.ndim - axis - second.ndim))
    others = {name: value for name, value in attributes.items() if name not in {"broadcast", "axis"}}
    return (first, second), others
