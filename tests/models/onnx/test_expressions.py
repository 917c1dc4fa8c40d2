"""Weights that are constant expressions: every operator that exporters put between a parameter and its convolution.

Each expression is built where a weight can stand (in the graph, in a local function, in a body, from Constant nodes,
from half precision, from data beside the model) and compared with NumPy's own result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from filterdb.models.onnx.layers import read_model
from tests.models import conv, model, save, tensor, weights

W = weights(4, 3, seed=1)
V = weights(4, 3, seed=2)
Arrays = Mapping[str, np.ndarray | np.generic]


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def f32(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


@dataclass(frozen=True)
class Expression:
    """Nodes that make the value `w` of constants, and what it is."""

    nodes: list[onnx.NodeProto]
    constants: Arrays
    expected: np.ndarray
    opset: int = 17
    exact: bool = True
    sparse: list[onnx.SparseTensorProto] = field(default_factory=list)


def node(op: str, inputs: str, outputs: str = "w", **attributes: Any) -> onnx.NodeProto:
    """A node of names that are written with spaces; "-" is an input that is left out."""
    return helper.make_node(op, ["" if name == "-" else name for name in inputs.split()], outputs.split(), **attributes)


def one(op: str, expected: np.ndarray, constants: Arrays | None = None, *, opset: int = 17, exact: bool = True,
        **attributes: Any) -> Expression:  # fmt: skip
    """An expression of a single operator; its inputs are the constants in their order."""
    given = {"a": W} if constants is None else constants
    return Expression([node(op, " ".join(given), **attributes)], given, expected, opset, exact)


MASK = (np.random.default_rng(3).random(W.shape) < 0.5).astype(np.float32)
ROWS = W.reshape(4, -1)
LOW_RANK = {"p": weights(4, 2, seed=5)[:, :, 0, 0], "q": np.random.default_rng(6).standard_normal((2, 27)).astype("f4")}


def standardised(w: np.ndarray) -> np.ndarray:
    flat = w.reshape(len(w), -1).astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    return flat.reshape(w.shape)


def quantised(dtype: str, axis: int | None, block: int = 0) -> Expression:
    """QuantizeLinear, Clip where it is wide enough, DequantizeLinear, on a float weight."""
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    is_integer = "int" in dtype
    low, high = (ml_dtypes.iinfo(kind).min, ml_dtypes.iinfo(kind).max) if is_integer else (0, 0)
    zero_value = (high + low + 1) // 2 if low == 0 and is_integer else 0
    shape: tuple[int, ...] = () if axis is None else (W.shape[axis],)
    if block:
        shape = (4, 2, 3, 3)
    scale = np.random.default_rng(8).uniform(0.02, 0.1, shape).astype(np.float32)
    zero = np.full(shape, zero_value).astype(kind)
    weight = np.concatenate([W, V[:, :1]], axis=1) if block else W
    wide = np.repeat(scale, 2, axis=1) if block else scale if axis is None else scale.reshape(
        [-1 if i == axis else 1 for i in range(4)])  # fmt: skip
    levels = weight / wide
    if is_integer:
        levels = np.clip(np.rint(levels) + zero_value, low, high) - zero_value
    else:
        top = float(ml_dtypes.finfo(kind).max)
        levels = np.clip(levels, -top, top).astype(kind).astype(np.float32)
    attributes: dict[str, int] = {} if axis is None else {"axis": axis}
    attributes |= {"axis": 1, "block_size": block} if block else {}
    nodes = [node("QuantizeLinear", "a s z", "q", **attributes)]
    given = "q"
    if dtype in {"int8", "uint8"}:
        nodes.append(node("Clip", "q lo hi", "c"))
        given = "c"
    nodes.append(node("DequantizeLinear", f"{given} s z", "w", **attributes))
    constants = {"a": weight, "s": scale, "z": zero}
    if given == "c":
        constants |= {"lo": np.array(low + 1, kind), "hi": np.array(high, kind)}
        levels = np.maximum(levels, low + 1 - zero_value)
    opset = 21 if dtype.startswith(("int16", "uint16", "int4", "uint4")) or block else 19
    return Expression(nodes, constants, (levels * wide).astype(np.float32), opset)


def spectral() -> Expression:
    u = np.random.default_rng(9).standard_normal(4).astype(np.float32)
    nodes = [
        node("Reshape", "a flat", "m"), node("Transpose", "m", "mt"), node("MatMul", "mt u", "v0"),
        node("ReduceL2", "v0", "n0", keepdims=1), node("Div", "v0 n0", "v"), node("MatMul", "m v", "mv"),
        node("MatMul", "u mv", "sigma"), node("Div", "a sigma"),
    ]  # fmt: skip
    m = W.reshape(4, -1).astype(np.float64)
    v = m.T @ u
    v /= np.sqrt((v**2).sum())
    return Expression(nodes, {"a": W, "flat": i64(4, -1), "u": u}, W / (u @ m @ v), exact=False)


def weight_standardisation() -> Expression:
    nodes = [
        node("ReduceMean", "a", "mu", axes=[1, 2, 3]), node("Sub", "a mu", "c"), node("Mul", "c c", "c2"),
        node("ReduceMean", "c2", "var", axes=[1, 2, 3]), node("Add", "var eps", "ve"), node("Sqrt", "ve", "sd"),
        node("Div", "c sd"),
    ]  # fmt: skip
    return Expression(nodes, {"a": W, "eps": np.float32(1e-5)}, standardised(W), exact=False)


def half_norm() -> np.ndarray:
    """W / ‖W‖ in float16, each operator computed in float32 and rounded."""
    h = W.astype(np.float16)
    square = (h.astype(np.float32) ** 2).astype(np.float16)
    total = square.astype(np.float32).sum((1, 2, 3), keepdims=True).astype(np.float16)
    root = np.sqrt(total.astype(np.float32)).astype(np.float16)
    return (h.astype(np.float32) / root.astype(np.float32)).astype(np.float16).astype(np.float32)


def weight_norm(opset: int) -> Expression:
    g = f32(1, 2, 3, 4).reshape(4, 1, 1, 1)
    axes = {"axes": [1, 2, 3]} if opset < 18 else {}
    norm = node("ReduceL2", "a" if axes else "a axes", "n", **axes)
    constants = {"a": W, "g": g} | ({} if axes else {"axes": i64(1, 2, 3)})
    length = np.sqrt((W.astype(np.float64) ** 2).sum((1, 2, 3), keepdims=True))
    return Expression([norm, node("Div", "a n", "d"), node("Mul", "g d")], constants, g * W / length, opset, False)


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, None)])


def conditional(condition: np.ndarray | np.generic, *before: onnx.NodeProto, expected: np.ndarray) -> Expression:
    choice = helper.make_node(
        "If", ["cond"], ["w"],
        then_branch=branch("then", node("Mul", "a a", "w")), else_branch=branch("else", node("Neg", "a", "w")),
    )  # fmt: skip
    return Expression([*before, choice], {"a": W, "c": condition}, expected)


def sparse(indices: np.ndarray) -> Expression:
    values = f32(1, -2, 3)
    proto = helper.make_sparse_tensor(tensor("s", values), tensor("", indices), [4, 3, 3, 3])
    dense = np.zeros(W.shape, np.float32)
    dense.reshape(-1)[[1, 40, 107]] = values
    return Expression([node("Identity", "s")], {}, dense, sparse=[proto])


EXPRESSIONS: dict[str, Callable[[], Expression]] = {
    "mask": lambda: one("Mul", W * MASK, {"a": W, "m": MASK}),
    "residual": lambda: one("Add", W + V, {"a": W, "b": V}),
    "difference": lambda: one("Sub", W - V, {"a": W, "b": V}),
    "scaled": lambda: one("Div", W / np.float32(3), {"a": W, "s": np.float32(3)}),
    "sum of three": lambda: one("Sum", W + V + MASK, {"a": W, "b": V, "c": MASK}),
    "square": lambda: one("Pow", W * W, {"a": W, "p": np.float32(2)}),
    "negative": lambda: one("Neg", -W),
    "absolute": lambda: one("Abs", np.abs(W)),
    "signs": lambda: one("Sign", np.sign(W)),
    "root": lambda: one("Sqrt", np.sqrt(np.abs(W)), {"a": np.abs(W)}),
    "reciprocal": lambda: one("Reciprocal", 1 / W),
    "rounded": lambda: one("Round", np.rint(4 * W), {"a": 4 * W}),
    "floor": lambda: one("Floor", np.floor(W)),
    "clipped": lambda: one("Clip", W.clip(-0.5, 0.5), {"a": W, "l": np.float32(-0.5), "h": np.float32(0.5)}),
    "clipped below only": lambda: one("Clip", W.clip(-0.5), {"a": W, "l": np.float32(-0.5)}),
    "clipped by attributes": lambda: one("Clip", W.clip(-0.5, 0.5), opset=9, min=-0.5, max=0.5),
    "smallest": lambda: one("Min", np.minimum(W, V), {"a": W, "b": V}),
    "largest": lambda: one("Max", np.maximum(W, V), {"a": W, "b": V}),
    "where": lambda: one("Where", np.where(MASK > 0, W, V), {"m": MASK > 0, "a": W, "b": V}),
    "threshold": lambda: Expression(
        [node("Greater", "a t", "m"), node("Not", "m", "n"), node("Where", "n a z")],
        {"a": W, "t": np.float32(0.3), "z": np.float32(0)}, np.where(W > 0.3, np.float32(0), W)),
    "ternary": lambda: Expression(
        [node("Abs", "a", "b"), node("GreaterOrEqual", "b t", "m"), node("Cast", "m", "f", to=TensorProto.FLOAT),
         node("Sign", "a", "s"), node("Mul", "f s", "fs"), node("Mul", "fs k")],
        {"a": W, "t": np.float32(0.5), "k": f32(1, 2, 3, 4).reshape(4, 1, 1, 1)},
        (np.abs(W) >= 0.5) * np.sign(W) * f32(1, 2, 3, 4).reshape(4, 1, 1, 1)),
    "slice": lambda: one("Slice", W, {"a": np.concatenate([V, W]), "s": i64(4), "e": i64(2**31), "ax": i64(0)}),
    "slice of two axes": lambda: one(
        "Slice", np.pad(W, ((0, 0), (0, 0), (1, 1), (1, 1)))[:, :, 1:-1, 1:-1],
        {"a": np.pad(W, ((0, 0), (0, 0), (1, 1), (1, 1))), "s": i64(1, 1), "e": i64(-1, -1), "ax": i64(2, 3)}),
    "slice by attributes": lambda: one(
        "Slice", W, {"a": np.concatenate([V, W])}, opset=9, starts=[4], ends=[8], axes=[0]),
    "flip": lambda: one(
        "Slice", W[..., ::-1, ::-1],
        {"a": W, "s": i64(-1, -1), "e": i64(-(2**31), -(2**31)), "ax": i64(2, 3), "d": i64(-1, -1)}),
    "gather": lambda: one("Gather", W[[2, 0, 1, 3]], {"a": W, "i": i64(2, 0, 1, 3)}, axis=0),
    "gather elements": lambda: one(
        "GatherElements", W[:, :, ::-1], {"a": W, "i": np.broadcast_to(i64(2, 1, 0).reshape(3, 1), W.shape).copy()},
        axis=2),
    "gather of many axes": lambda: one("GatherND", W[[1, 3]], {"a": W, "i": i64(1, 3).reshape(2, 1)}),
    "concatenated": lambda: one("Concat", np.concatenate([W, V], 1), {"a": W, "b": V}, axis=1),
    "split in equal parts": lambda: Expression(
        [node("Split", "a", "v w", axis=0, num_outputs=2)], {"a": np.concatenate([V, W])}, W, 18),
    "split by sizes": lambda: Expression(
        [node("Split", "a n", "u w", axis=0)], {"a": np.concatenate([V[:2], W]), "n": i64(2, 4)}, W),
    "split by attribute": lambda: Expression(
        [node("Split", "a", "u w", axis=1, split=[1, 3])], {"a": np.concatenate([V[:, :1], W], 1)}, W, 11),
    "unbound sequence": lambda: Expression(
        [node("SplitToSequence", "a", "all", axis=0, keepdims=0), node("SequenceAt", "all i")],
        {"a": np.stack([V, W]), "i": np.array(1)}, W),
    "sequence put together": lambda: Expression(
        [node("SequenceConstruct", "a b", "all"), node("SequenceInsert", "all a", "more"),
         node("SequenceErase", "more i", "less"), node("ConcatFromSequence", "less", axis=0)],
        {"a": W, "b": V, "i": np.array(0)}, np.concatenate([V, W])),
    "half precision": lambda: Expression(
        [node("Mul", "h h", "s"), node("ReduceSum", "s ax", "t", keepdims=1), node("Sqrt", "t", "r"),
         node("Div", "h r", "d"), node("Cast", "d", to=1)],
        {"h": W.astype(np.float16), "ax": i64(1, 2, 3)}, half_norm()),
    "statistics that are inputs, as before opset 14": lambda: Expression(
        [node("Reshape", "a f", "r"), node("BatchNormalization", "r k z m v", "n p q s t", epsilon=1e-5),
         node("Reshape", "n shape")],
        {"a": W, "f": i64(1, 4, 27), "k": np.ones(4, np.float32), "z": np.zeros(4, np.float32),
         "m": W.reshape(4, 27).mean(1), "v": W.reshape(4, 27).var(1), "shape": i64(4, 3, 3, 3)},
        standardised(W), 13, exact=False),
    "padded 1×1": lambda: one(
        "Pad", np.pad(W[..., 1:2, 1:2], ((0, 0), (0, 0), (1, 1), (1, 1))),
        {"a": W[..., 1:2, 1:2], "p": i64(0, 0, 1, 1, 0, 0, 1, 1)}),
    "padded by attribute": lambda: one(
        "Pad", np.pad(W[..., 1:2], ((0, 0), (0, 0), (0, 0), (1, 1))), {"a": W[..., 1:2]}, opset=10,
        pads=[0, 0, 0, 1, 0, 0, 0, 1]),
    "squeezed": lambda: one("Squeeze", W, {"a": W[None], "ax": i64(0)}),
    "squeezed by attribute": lambda: one("Squeeze", W, {"a": W[None]}, opset=11, axes=[0]),
    "unsqueezed": lambda: one("Unsqueeze", W[:, :1], {"a": W[:, 0], "ax": i64(1)}),
    "unsqueezed by attribute": lambda: one("Unsqueeze", W[:, :1], {"a": W[:, 0]}, opset=11, axes=[1]),
    "blur expanded": lambda: one(
        "Expand", np.broadcast_to(W[:1, :1], (6, 1, 3, 3)), {"a": W[:1, :1], "s": i64(6, 1, 3, 3)}),
    "tiled": lambda: one("Tile", np.tile(W, (2, 1, 1, 1)), {"a": W, "r": i64(2, 1, 1, 1)}),
    "outer product": lambda: Expression(
        [node("Mul", "c r", "k"), node("ReduceSum", "k", "t", keepdims=0), node("Div", "k t", "n"),
         node("Reshape", "n s")],
        {"c": f32(1, 2, 1).reshape(3, 1), "r": f32(1, 2, 1).reshape(1, 3), "s": i64(1, 1, 3, 3)},
        np.outer([1, 2, 1], [1, 2, 1]).reshape(1, 1, 3, 3) / 16),
    "flattened and back": lambda: Expression(
        [node("Flatten", "a", "f", axis=1), node("Reshape", "f s")], {"a": W, "s": i64(4, 3, 3, 3)}, W),
    "shape of another": lambda: Expression(
        [node("Shape", "b", "s"), node("Reshape", "a s")], {"a": W.reshape(-1), "b": V}, W),
    "shape taken apart": lambda: Expression(
        [node("Shape", "b", "s"), node("Gather", "s i", "o"), node("Unsqueeze", "o ax", "u"),
         node("Concat", "u rest", "all", axis=0), node("Reshape", "a all")],
        {"a": W.reshape(-1), "b": V, "i": np.array(0), "ax": i64(0), "rest": i64(3, 3, 3)}, W),
    "zeros with a part scattered": lambda: Expression(
        [node("ConstantOfShape", "s", "z"), node("ScatterND", "z i a")],
        {"s": i64(4, 3, 3, 3), "i": i64(1, 2).reshape(2, 1), "a": W[1:3]},
        np.concatenate([0 * W[:1], W[1:3], 0 * W[:1]])),
    "ones times a scale": lambda: Expression(
        [node("ConstantOfShape", "s", "z", value=numpy_helper.from_array(f32(1))), node("Mul", "z a")],
        {"s": i64(4, 3, 3, 3), "a": W}, W),
    "identity kernel added": lambda: Expression(
        [node("EyeLike", "b", "e"), node("Reshape", "e s", "k"), node("Add", "k a")],
        {"a": W, "b": np.zeros((3, 3), np.float32), "s": i64(1, 1, 3, 3)}, W + np.eye(3, dtype=np.float32)),
    "triangular": lambda: one("Trilu", np.tril(W), {"a": W}, upper=0),
    "running sum": lambda: one("CumSum", np.cumsum(W, 0, dtype=np.float32), {"a": W, "ax": np.array(0)}),
    "compressed": lambda: one(
        "Compress", W, {"a": np.concatenate([W, V]), "m": np.arange(8) < 4}, axis=0),
    "one hot of positions": lambda: Expression(
        [node("OneHot", "i d v", "h", axis=-1), node("Reshape", "h s")],
        {"i": i64(0, 4, 8, 2), "d": np.array(9), "v": f32(0, 2), "s": i64(4, 1, 3, 3)},
        2 * np.eye(9, dtype=np.float32)[[0, 4, 8, 2]].reshape(4, 1, 3, 3)),
    "half": lambda: Expression(
        [node("Cast", "a", "h", to=TensorProto.FLOAT16), node("Mul", "h h", "m"), node("Cast", "m", to=1)], {"a": W},
        (W.astype(np.float16) * W.astype(np.float16)).astype(np.float32)),
    "bfloat16": lambda: Expression(
        [node("Cast", "a", "h", to=TensorProto.BFLOAT16), node("Cast", "h", to=1)], {"a": W},
        W.astype(ml_dtypes.bfloat16).astype(np.float32)),
    "float8": lambda: Expression(
        [node("Cast", "a", "h", to=TensorProto.FLOAT8E4M3FN), node("Cast", "h", to=1)], {"a": W},
        W.astype(ml_dtypes.float8_e4m3fn).astype(np.float32), 19),
    "cast like": lambda: one("CastLike", W.astype(np.float32), {"a": W.astype(np.float64), "b": V}),
    "dropout that is off": lambda: one("Dropout", W, {"a": W}),
    "identities": lambda: Expression(
        [node("Identity", "a", "b"), node("Identity", "b", "c"), node("Identity", "c")], {"a": W}, W),
    "transposed": lambda: one("Transpose", W, {"a": W.transpose(2, 3, 1, 0).copy()}, perm=[3, 2, 0, 1]),
    "broadcast as before opset 7": lambda: one(
        "Mul", W * f32(1, 2, 3, 4).reshape(4, 1, 1, 1), {"a": W, "s": f32(1, 2, 3, 4)}, opset=6, broadcast=1, axis=0),
    "chosen by a condition": lambda: conditional(
        np.array(True), node("Identity", "c", "cond"), expected=W * W),
    "not chosen by a condition": lambda: conditional(
        np.array([False]), node("Identity", "c", "cond"), expected=-W),
    "chosen by a comparison": lambda: conditional(
        np.float32(3), node("Greater", "c c", "cond"), expected=-W),
    "sparse": lambda: sparse(i64(1, 40, 107)),
    "sparse by coordinates": lambda: sparse(np.array(np.unravel_index([1, 40, 107], W.shape)).T.astype(np.int64)),
    "low rank": lambda: Expression(
        [node("MatMul", "p q", "m"), node("Mul", "m k", "mk"), node("Reshape", "mk s", "r"), node("Add", "a r")],
        {**LOW_RANK, "a": W, "k": np.float32(0.5), "s": i64(4, 3, 3, 3)},
        W + 0.5 * (LOW_RANK["p"] @ LOW_RANK["q"]).reshape(W.shape), exact=False),
    "low rank by Gemm": lambda: Expression(
        [node("Gemm", "p q r", "m", alpha=0.5), node("Reshape", "m s")],
        {**LOW_RANK, "r": ROWS, "s": i64(4, 3, 3, 3)},
        W + 0.5 * (LOW_RANK["p"] @ LOW_RANK["q"]).reshape(W.shape), exact=False),
    "einsum": lambda: one(
        "Einsum", np.einsum("or,rihw->oihw", LOW_RANK["p"], W[:2]), {"p": LOW_RANK["p"], "a": W[:2]}, exact=False,
        equation="or,rihw->oihw"),
    "einsum with broadcast": lambda: one(
        "Einsum", np.einsum("oi...,o->oi...", W, f32(1, 2, 3, 4)), {"a": W, "b": f32(1, 2, 3, 4)}, exact=False,
        equation="oi...,o->oi..."),
    "1×1 merged into 3×3": lambda: Expression(
        [node("Conv", "a k")], {"a": W, "k": weights(5, 3, seed=4, kernel=(1, 1))},
        np.einsum("nihw,oi->nohw", W, weights(5, 3, seed=4, kernel=(1, 1))[:, :, 0, 0]), exact=False),
    "softmax": lambda: one("Softmax", np.exp(W) / np.exp(W).sum(-1, keepdims=True), exact=False, axis=-1),
    "tanh": lambda: one("Tanh", np.tanh(W.astype(np.float64)), exact=False),
    "sigmoid": lambda: one("Sigmoid", 1 / (1 + np.exp(-W.astype(np.float64))), exact=False),
    "exponent and logarithm": lambda: Expression(
        [node("Exp", "a", "e"), node("Add", "e k", "f"), node("Log", "f")], {"a": W, "k": np.float32(1)},
        np.log1p(np.exp(W.astype(np.float64))), exact=False),
    "softplus": lambda: one("Softplus", np.log1p(np.exp(W.astype(np.float64))), exact=False),
    "relu": lambda: one("Relu", np.maximum(W, 0)),
    "mean removed": lambda: Expression(
        [node("ReduceMean", "a ax", "m"), node("Sub", "a m")], {"a": W, "ax": i64(2, 3)},
        W - W.astype(np.float64).mean((2, 3), keepdims=True), 18, exact=False),
    "sum to one": lambda: Expression(
        [node("ReduceSum", "a ax", "m"), node("Div", "a m")], {"a": np.abs(W), "ax": i64(2, 3)},
        np.abs(W) / np.abs(W).sum((2, 3), keepdims=True, dtype=np.float64), exact=False),
    "scaled by the peak": lambda: Expression(
        [node("Abs", "a", "b"), node("ReduceMax", "b", "m", axes=[1, 2, 3]), node("Div", "a m")], {"a": W},
        W / np.abs(W).max((1, 2, 3), keepdims=True)),
    "unit rows": lambda: Expression(
        [node("Reshape", "a f", "r"), node("LpNormalization", "r", "n", axis=1, p=2), node("Reshape", "n s")],
        {"a": W, "f": i64(4, 27), "s": i64(4, 3, 3, 3)},
        W / np.sqrt((W.astype(np.float64) ** 2).sum((1, 2, 3), keepdims=True)), exact=False),
    "layer normalisation": lambda: Expression(
        [node("Reshape", "a f", "r"), node("LayerNormalization", "r k", "n", axis=-1, epsilon=1e-5),
         node("Reshape", "n s")],
        {"a": W, "f": i64(4, 27), "k": np.ones(27, np.float32), "s": i64(4, 3, 3, 3)}, standardised(W), exact=False),
    "batch statistics": lambda: Expression(
        [node("Reshape", "a f", "r"), node("BatchNormalization", "r k z z k", "n m v", training_mode=1, epsilon=1e-5),
         node("Reshape", "n s")],
        {"a": W, "f": i64(1, 4, 27), "k": np.ones(4, np.float32), "z": np.zeros(4, np.float32),
         "s": i64(4, 3, 3, 3)}, standardised(W), exact=False),
    "instance statistics": lambda: Expression(
        [node("Reshape", "a f", "r"), node("InstanceNormalization", "r k z", "n", epsilon=1e-5),
         node("Reshape", "n s")],
        {"a": W, "f": i64(1, 4, 27), "k": np.ones(4, np.float32), "z": np.zeros(4, np.float32),
         "s": i64(4, 3, 3, 3)}, standardised(W), exact=False),
    "weight standardisation": weight_standardisation,
    "weight norm": lambda: weight_norm(17),
    "weight norm of opset 18": lambda: weight_norm(18),
    "spectral norm": spectral,
    "equalised learning rate": lambda: one("Mul", W * np.float32(np.sqrt(2 / 27)),
                                           {"a": W, "k": np.float32(np.sqrt(2 / 27))}),
    **{f"{dtype} of the whole": partial(quantised, dtype, None)
       for dtype in ("int8", "uint8", "int16", "uint16", "int4", "uint4", "float8_e4m3fn", "float8_e5m2")},
    **{f"{dtype} by output channel": partial(quantised, dtype, 0) for dtype in ("int8", "uint8", "int4")},
    **{f"{dtype} in blocks": partial(quantised, dtype, None, 2) for dtype in ("int8", "int4")},
}  # fmt: skip


def in_graph(e: Expression) -> onnx.ModelProto:
    return built(e, [*e.nodes, CONV], [tensor(name, values) for name, values in e.constants.items()])


def of_constant_nodes(e: Expression) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], [name], value=tensor("", v)) for name, v in e.constants.items()]
    return built(e, [*nodes, *e.nodes, CONV], [])


def in_function(e: Expression) -> onnx.ModelProto:
    """The parameters come from the call, the expression and the convolution stand in a function inside a function."""
    opsets = [helper.make_opsetid("", e.opset), helper.make_opsetid("own", 1)]
    names = list(e.constants)
    inner = helper.make_function("own", "Inner", ["x", *names], ["y"], [*e.nodes, CONV], opsets)
    call = helper.make_node("Inner", ["x", *names], ["y"], domain="own")
    outer = helper.make_function("own", "Outer", ["x", *names], ["y"], [call], opsets)
    start = helper.make_node("Outer", ["x", *names], ["y"], domain="own")
    return built(
        e, [start], [tensor(n, v) for n, v in e.constants.items()], functions=[inner, outer], opset_imports=opsets
    )


def in_body(e: Expression) -> onnx.ModelProto:
    """The expression and the convolution stand in both branches of an If that the input decides."""
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    bodies = [helper.make_graph([*e.nodes, CONV], name, [], [out]) for name in ("then", "else")]
    choice = helper.make_node("If", ["decision"], ["result"], then_branch=bodies[0], else_branch=bodies[1])
    inits = [tensor(name, values) for name, values in e.constants.items()]
    return built(e, [choice], inits, inputs=("x", "decision"), outputs=("result",))


def of_captured(e: Expression) -> onnx.ModelProto:
    """The expression stands in the graph, the convolution in a body."""
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    bodies = [helper.make_graph([CONV], name, [], [out]) for name in ("then", "else")]
    choice = helper.make_node("If", ["decision"], ["result"], then_branch=bodies[0], else_branch=bodies[1])
    inits = [tensor(name, values) for name, values in e.constants.items()]
    return built(e, [*e.nodes, choice], inits, inputs=("x", "decision"), outputs=("result",))


CONV = conv("x", "w", "y", "c")
PLACES = {place.__name__: place for place in (in_graph, of_constant_nodes, in_function, in_body, of_captured)}


def built(e: Expression, nodes: list[onnx.NodeProto], inits: list[onnx.TensorProto], **more: Any) -> onnx.ModelProto:
    opsets = more.pop("opset_imports", [helper.make_opsetid("", e.opset)])
    proto = model(nodes, inits, opset_imports=opsets, **more)
    proto.graph.sparse_initializer.extend(e.sparse)
    return proto


def compare(path: Path, proto: onnx.ModelProto, e: Expression, *, external: bool = False) -> None:
    if external:
        onnx.save_model(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    else:
        save(path, proto)
    read = read_model(path)
    # A convolution among the constants, which merges kernels, is none of the model's.
    assert not [skip for skip in read.skipped if skip.layer == "c"], read.skipped
    assert read.layers
    expected = np.asarray(e.expected, np.float32).reshape(-1, 9)
    for layer in read.layers:
        filters = layer.weight().filters
        assert layer.filters == len(expected)
        if e.exact:
            np.testing.assert_array_equal(filters, expected)
        else:
            np.testing.assert_allclose(filters, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())


def places_of(name: str) -> list[str]:
    """Local functions hold no sparse initializers, and this builder's only reach the graph's."""
    return ["in_graph"] if "sparse" in name else list(PLACES)


@pytest.mark.parametrize(("name", "place"), [(name, place) for name in EXPRESSIONS for place in places_of(name)])
def test_expressions(tmp_path: Path, name: str, place: str) -> None:
    e = EXPRESSIONS[name]()
    compare(tmp_path / "m.onnx", PLACES[place](e), e)


@pytest.mark.parametrize("name", ["mask", "weight norm", "int8 by output channel", "int4 of the whole", "low rank"])
def test_expressions_on_data_beside_the_model(tmp_path: Path, name: str) -> None:
    e = EXPRESSIONS[name]()
    compare(tmp_path / "m.onnx", in_graph(e), e, external=True)


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (6, 2, 3, 3), (1, 1, 3, 3), (64, 32, 3, 3)], ids=str)
def test_the_shapes_that_exporters_write(tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
    w, mask = weights(shape[0], shape[1], 3), (weights(shape[0], shape[1], 4) > 0).astype(np.float32)
    nodes = [node("Mul", "a m", "b"), node("Neg", "b"), conv("x", "w", "y", "c", group=max(1, 8 // shape[1]))]
    e = Expression(nodes, {"a": w, "m": mask}, -(w * mask))
    compare(tmp_path / "m.onnx", built(e, nodes, [tensor("a", w), tensor("m", mask)]), e)
