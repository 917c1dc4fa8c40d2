"""What is read of a TensorFlow Lite model, against the arrays that an independent writer was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from filterdb.models.model import Model, Request
from filterdb.models.parse_errors import NotStoredError
from filterdb.models.tflite.reading import TfliteFile
from tests.models import weights
from tests.models.tflite.writing import BFLOAT16, INT2, INT4, UINT4, G, Op, S, T, conv, depthwise, ohwi, plain, write

W = weights(6, 4, seed=3)


def i32(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def f32(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def read(path: Path) -> Model:
    return TfliteFile.parse(path, Request("m.tflite", 2**30)).model()


def of(path: Path, *graphs: G, **facts: Any) -> Model:
    return read(write(path / "m.tflite", *graphs, **facts))


def only(model: Model) -> np.ndarray:
    """The weight of the only layer."""
    (layer,) = model.layers
    assert not model.skipped
    return layer.weight().filters.reshape(layer.row["out_channels"], layer.row["in_channels"], 3, 3)


def code(model: Model) -> str:
    """The ledger's code of the only convolution, which is not stored."""
    for layer in model.layers:
        with pytest.raises(NotStoredError) as caught:
            layer.weight()
        return caught.value.code
    (skip,) = model.skipped
    return skip.code


def weighted(weight: T, *more: T, ops: tuple[Op, ...] = (), used: str = "w") -> G:
    """A graph of one convolution of 4 to 6 channels, with these tensors and operators before it."""
    tensors = [T("x", (1, 8, 8, 4)), T("y", (1, 8, 8, 6)), weight, *more]
    return G(tensors, [*ops, conv(used)])


def test_a_convolution(tmp_path: Path) -> None:
    model = of(
        tmp_path, plain(W, stride=(2, 1), dilation=(3, 4)), metadata={"min_runtime_version": b"1.14.0".ljust(16, b"\0")}
    )
    assert np.array_equal(only(model), W)
    (layer,) = model.layers
    assert layer.name == "w"
    assert (
        layer.row
        | {
            **{
                "conv_depth": 0,
                "graph_depth": 1,
                "in_channels": 4,
                "out_channels": 6,
                "groups": 1,
                "operator": "CONV_2D",
            },
            **{"depthwise": False, "strides": "[2, 1]", "dilations": "[3, 4]", "batch_norm": "unknown"},
        }
        == layer.row
    )
    assert model.facts["producer"] == "tests (runtime 1.14.0 or newer)"
    assert model.facts["source_format"] == "TensorFlow Lite" and model.facts["depth_source"] == "graph"
    assert json.loads(model.facts["operators"]) == {"CONV_2D": 1}
    assert json.loads(model.facts["filter_shapes"]) == {"(3, 3)": 24}


def test_groups_follow_from_the_channels_of_the_input(tmp_path: Path) -> None:
    (layer,) = of(tmp_path, plain(W, channels=12)).layers
    assert layer.row["groups"] == 3 and layer.row["in_channels"] == 4
    (layer,) = of(tmp_path, plain(W, channels=11)).layers
    assert layer.row["groups"] == 0


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise(tmp_path: Path, multiplier: int) -> None:
    """Output channel c·multiplier + m is that of input channel c, as in the reference kernel."""
    stored = np.random.default_rng(1).standard_normal((1, 3, 3, 6)).astype(np.float32)
    channels = 6 // multiplier
    tensors = [T("x", (1, 8, 8, channels)), T("w", stored.shape, stored), T("y", (1, 8, 8, 6))]
    op = depthwise("w", multiplier=multiplier, stride=(1, 2), dilation=(5, 1))
    model = of(tmp_path, G(tensors, [op]))
    filters = only(model)
    assert filters.shape == (6, 1, 3, 3)
    for out in range(6):
        assert np.array_equal(filters[out, 0], stored[0, :, :, out])
    (layer,) = model.layers
    assert layer.row["groups"] == channels and layer.row["depthwise"]
    assert layer.row["strides"] == "[1, 2]" and layer.row["dilations"] == "[5, 1]"


INTEGERS = np.random.default_rng(5).integers(-127, 128, (6, 3, 3, 4))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("zero", [None, [0], [3], [1, 2, 3, 4, 5, 6]])
def test_quantised_by_channel(tmp_path: Path, dtype: str, zero: list[int] | None) -> None:
    scale = f32([0.1, 0.2, 0.3, 1e-3, 5.0, 0.7])
    stored = (INTEGERS + (128 if dtype == "uint8" else 0)).astype(dtype)
    model = of(tmp_path, weighted(T("w", stored.shape, stored, scale=[float(s) for s in scale], zero=zero)))
    zeros = np.broadcast_to(np.array(zero or [0]), 6)
    expected = [[f32(int(q) - int(z)) * s for q in row.ravel()] for row, z, s in zip(stored, zeros, scale, strict=True)]
    assert np.array_equal(only(model), f32(expected).reshape(6, 3, 3, 4).transpose(0, 3, 1, 2))
    assert model.layers[0].weight().source_dtype == dtype and model.layers[0].weight().scale_known


def test_quantised_along_the_last_dimension(tmp_path: Path) -> None:
    """So depthwise convolutions are."""
    stored, scale = INTEGERS[:1].astype(np.int8), f32([0.1, 0.2, 0.3, 0.4])
    tensors = [
        T("x", (1, 8, 8, 4)),
        T("y", (1, 8, 8, 4)),
        T("w", stored.shape, stored, scale=[*map(float, scale)], axis=3),
    ]
    assert np.array_equal(
        only(of(tmp_path, G(tensors, [depthwise("w")])))[:, 0], (stored[0] * scale).transpose(2, 0, 1)
    )


def test_quantised_by_tensor(tmp_path: Path) -> None:
    stored = INTEGERS.astype(np.int8)
    model = of(tmp_path, weighted(T("w", stored.shape, stored, scale=[0.25], zero=[-7], axis=9)))
    assert np.array_equal(only(model), 0.25 * (INTEGERS + 7).transpose(0, 3, 1, 2))


def test_integers_without_a_scale(tmp_path: Path) -> None:
    stored = INTEGERS.astype(np.int8)
    model = of(tmp_path, weighted(T("w", stored.shape, stored)))
    assert np.array_equal(only(model), INTEGERS.transpose(0, 3, 1, 2))
    assert not model.layers[0].weight().scale_known


@pytest.mark.parametrize(
    ("kind", "bits", "low"), [(INT4, 4, -8), (UINT4, 4, 0), (INT2, 2, -2)], ids=["int4", "uint4", "int2"]
)
@pytest.mark.parametrize("into", [4, 3])
def test_several_numbers_in_a_byte(tmp_path: Path, kind: int, bits: int, low: int, into: int) -> None:
    """The first is in the lowest bits, as in TensorFlow Lite's tensor_utils; an odd count leaves bits over."""
    numbers = np.random.default_rng(2).integers(low, low + 2**bits, (5, 3, 3, into))
    packed = bytearray(-(-numbers.size * bits // 8))
    for position, number in enumerate(numbers.ravel()):
        packed[position * bits // 8] |= (int(number) % 2**bits) << position * bits % 8
    weight = T("w", numbers.shape, raw=bytes(packed), kind=kind, scale=[0.5])
    tensors = [T("x", (1, 8, 8, into)), T("y", (1, 8, 8, 5)), weight]
    assert np.array_equal(only(of(tmp_path, G(tensors, [conv("w")]))), 0.5 * numbers.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("step", ["DEQUANTIZE", "CAST"])
def test_float16_behind_an_operator(tmp_path: Path, step: str) -> None:
    """So converters store float16. The operator is no part of the network: its depth does not count."""
    half = ohwi(W).astype(np.float16)
    graph = weighted(T("h", half.shape, half), T("w", half.shape), ops=(Op(step, ["h"], ["w"]),))
    model = of(tmp_path, graph)
    assert np.array_equal(only(model), half.astype(np.float32).transpose(0, 3, 1, 2))
    (layer,) = model.layers
    assert layer.name == "h" and layer.weight().path == ("h", step) and layer.weight().source_dtype == "float16"
    assert layer.row["graph_depth"] == 1


def test_bfloat16(tmp_path: Path) -> None:
    stored = ohwi(W).astype(ml_dtypes.bfloat16)
    model = of(tmp_path, weighted(T("w", stored.shape, raw=stored.tobytes(), kind=BFLOAT16)))
    assert np.array_equal(only(model), stored.astype(np.float32).transpose(0, 3, 1, 2))


def test_int8_behind_dequantize(tmp_path: Path) -> None:
    stored = INTEGERS.astype(np.int8)
    source = T("q", stored.shape, stored, scale=[0.5] * 6)
    model = of(tmp_path, weighted(source, T("w", stored.shape), ops=(Op("DEQUANTIZE", ["q"], ["w"]),)))
    assert np.array_equal(only(model), 0.5 * INTEGERS.transpose(0, 3, 1, 2))
    assert model.layers[0].weight().source_dtype == "int8"


def test_reshaped_and_transposed(tmp_path: Path) -> None:
    """Stored as (9, in, out) and made (out, height, width, in)."""
    stored = np.ascontiguousarray(ohwi(W).transpose(1, 2, 3, 0).reshape(9, 4, 6))
    more = (T("r", (3, 3, 4, 6)), T("p", (4,), i32([3, 0, 1, 2])), T("w", (6, 3, 3, 4)))
    ops = (Op("RESHAPE", ["s"], ["r"]), Op("TRANSPOSE", ["r", "p"], ["w"]))
    model = of(tmp_path, weighted(T("s", stored.shape, stored), *more, ops=ops))
    assert np.array_equal(only(model), W)
    assert model.layers[0].weight().path == ("s", "RESHAPE", "TRANSPOSE")


def compressed(mask: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Segments and indices of the last dimension of a mask, like those of a CSR matrix."""
    rows = [np.flatnonzero(row) for row in mask.reshape(-1, mask.shape[-1])]
    return np.cumsum([0, *map(len, rows)]).astype(dtype), np.concatenate(rows).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_sparse(tmp_path: Path, dtype: str) -> None:
    """As MediaPipe's models have it: the last dimension is compressed; DENSIFY and DEQUANTIZE follow."""
    dense = ohwi(W).astype(np.float16)
    mask = np.random.default_rng(4).random(dense.shape) < 0.4
    layout = S([0, 1, 2, 3], [6, 3, 3, compressed(mask, dtype)])
    source = T("s", dense.shape, dense[mask], sparsity=layout)
    ops = (Op("DENSIFY", ["s"], ["d"]), Op("DEQUANTIZE", ["d"], ["w"]))
    model = of(tmp_path, weighted(source, T("d", dense.shape, kind=1), T("w", dense.shape), ops=ops))
    assert np.array_equal(only(model), np.where(mask, dense, 0).astype(np.float32).transpose(0, 3, 1, 2))


def test_sparse_in_another_order_and_in_blocks(tmp_path: Path) -> None:
    """Dimensions in the order (height, width, in, out), and of the channels blocks of 2 × 1 × 1 × 4."""
    dense = ohwi(weights(8, 8, seed=6)).copy()
    blocks = dense.reshape(4, 2, 3, 3, 2, 4).transpose(2, 3, 4, 0, 1, 5)  # h, w, in/4, out/2, block of out, of in
    mask = np.random.default_rng(4).random(blocks.shape[:4]) < 0.5
    layout = S([1, 2, 3, 0, 4, 5], [3, 3, 2, compressed(mask, "int32"), 2, 4], [0, 3])
    source = T("w", dense.shape, np.ascontiguousarray(blocks[mask]), sparsity=layout)
    tensors = [T("x", (1, 8, 8, 8)), T("y", (1, 8, 8, 8)), source]
    model = of(tmp_path, G(tensors, [conv("w")]))
    expected = np.where(mask[..., None, None], blocks, 0).transpose(3, 4, 0, 1, 2, 5).reshape(dense.shape)
    assert np.array_equal(only(model), expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("behind", [False, True])
def test_weights_behind_the_end_of_the_flatbuffer(tmp_path: Path, behind: bool) -> None:
    """As in files above 2 GB."""
    assert np.array_equal(only(of(tmp_path, plain(W), behind=behind)), W)


def test_weights_beyond_2_gb(tmp_path: Path) -> None:
    """The file has a hole, so that it takes no room on the disk."""
    path = write(tmp_path / "m.tflite", plain(W), behind=True)
    data = path.read_bytes()
    raw = ohwi(W).tobytes()
    far = 3 * 2**30
    with path.open("wb") as file:
        file.write(data.replace(data.index(raw).to_bytes(8, "little"), far.to_bytes(8, "little")))
        file.seek(far)
        file.write(raw)
    assert np.array_equal(only(read(path)), W)


def test_depth_is_the_longest_path(tmp_path: Path) -> None:
    a, b, c = weights(4, 4, 1), weights(4, 4, 2), weights(4, 4, 3)
    tensors = [T(name, (1, 8, 8, 4)) for name in ("x", "p", "q", "r", "s", "y")]
    tensors += [T(name, (4, 3, 3, 4), ohwi(w)) for name, w in (("a", a), ("b", b), ("c", c))]
    ops = [
        *(conv("a", "x", "p"), Op("PAD", ["p"], ["q"]), conv("b", "q", "r"), conv("c", "x", "s")),
        Op("ADD", ["r", "s"], ["y"]),
    ]
    model = of(tmp_path, G(tensors, ops))
    depths = {layer.name: (layer.row["conv_depth"], layer.row["graph_depth"]) for layer in model.layers}
    assert depths == {"a": (0, 1), "c": (0, 1), "b": (1, 3)}
    assert model.facts["model_depth"] == 4
    assert {layer.name: layer.row["batch_norm"] for layer in model.layers} == dict.fromkeys("abc", "none")


def test_every_graph_is_read_and_shared_weights_are_known(tmp_path: Path) -> None:
    first, second = plain(W), plain(W)
    second.tensors[1] = T("w", ohwi(W).shape, buffer=1)
    model = of(tmp_path, first, second)
    assert [layer.name for layer in model.layers] == ["w", "w#2"]
    assert len({layer.stored_weight for layer in model.layers}) == 1
    assert np.array_equal(model.layers[1].weight().filters, model.layers[0].weight().filters)


NORM = {"g": (6,), "z": (1, 1, 1, 6)}


@pytest.mark.parametrize(
    ("ops", "activation", "expected"),
    [
        ((("MUL", "g"), ("ADD", "z")), 0, "unfolded"),
        ((("MUL", "g"), ("SUB", "z")), 0, "unfolded"),
        ((("CAST", None), ("MUL", "g"), ("ADD", "z")), 0, "unfolded"),
        ((("MUL", "g"), ("ADD", "z")), 1, "none"),
        ((("MUL", "g"),), 0, "none"),
        ((("ADD", "z"), ("MUL", "g")), 0, "none"),
        ((("RELU", None), ("MUL", "g"), ("ADD", "z")), 0, "none"),
        ((("MUL", "one"), ("ADD", "z")), 0, "none"),
        ((("MUL", "x"), ("ADD", "z")), 0, "none"),
    ],
    ids=str,
)
def test_batch_normalisation_apart(tmp_path: Path, ops: Any, activation: int, expected: str) -> None:
    tensors = [T("x", (1, 8, 8, 4)), T("w", (6, 3, 3, 4), ohwi(W)), T("one", (1,), np.ones(1, np.float32))]
    tensors += [T(name, shape, np.ones(shape, np.float32)) for name, shape in NORM.items()]
    tensors += [T(f"h{i}", (1, 8, 8, 6)) for i in range(len(ops) + 1)]
    chain = [
        Op(name, [f"h{i}"] if other is None else [f"h{i}", other], [f"h{i + 1}"]) for i, (name, other) in enumerate(ops)
    ]
    model = of(tmp_path, G(tensors, [conv("w", y="h0", activation=activation), *chain]))
    assert model.layers[0].row["batch_norm"] == expected


OTHER = {
    "transposed": Op("TRANSPOSE_CONV", ["x", "w"], ["y"]),
    "custom, transposed": Op("Convolution2DTransposeBias", ["x", "w"], ["y"]),
    "custom": Op("FlexConv2D", ["x", "w"], ["y"]),
    "custom, in capitals": Op("MY_CONVOLUTION", ["x", "w"], ["y"]),
    "custom, called like a builtin one": Op("custom:CONV_2D", ["x", "w"], ["y"]),
    "compiled": Op("ethos-u", ["x", "w"], ["y"]),
    "stablehlo": Op("STABLEHLO_CONVOLUTION", ["x", "w"], ["y"]),
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_convolutions_are_in_the_ledger(tmp_path: Path, kind: str) -> None:
    graph = G([T("x", (1, 8, 8, 4)), T("w", (6, 3, 3, 4), ohwi(W)), T("y", (1, 8, 8, 6))], [OTHER[kind]])
    assert code(of(tmp_path, graph)) == ("transposed" if "transposed" in kind else "operator")


def test_three_dimensions(tmp_path: Path) -> None:
    weight = np.ones((3, 3, 3, 4, 6), np.float32)
    graph = G(
        [T("x", (1, 8, 8, 8, 4)), T("w", weight.shape, weight), T("y", (1, 8, 8, 8, 6))],
        [Op("CONV_3D", ["x", "w"], ["y"])],
    )
    assert code(of(tmp_path, graph)) == "rank"


SHAPE = (6, 3, 3, 4)
STORED = ohwi(W)
BYTES = INTEGERS.astype(np.int8)
X, Y = T("x", (1, 8, 8, 4)), T("y", (1, 8, 8, 6))


def behind(source: T, step: str, times: int = 1, **kwargs: Any) -> G:
    """A graph whose weight `w` is what an operator makes of `source`, written so many times."""
    inputs: list[str | bytes | int | None] = [source.name] * (2 if step == "MUL" else 1)
    return weighted(source, T("w", SHAPE, **kwargs), ops=(Op(step, inputs, ["w"]),) * times)


ENDS = {
    "5×5": ("kernel", weighted(T("w", (6, 5, 5, 4), np.ones((6, 5, 5, 4), np.float32)))),
    "an input": ("computed", G([X, T("w", SHAPE), Y], [conv("w")], ["x", "w"])),
    "a variable": ("computed", weighted(T("w", SHAPE, variable=True))),
    "random": ("computed", behind(T("s", (4,), i32(SHAPE)), "RANDOM_UNIFORM")),
    "multiplied": ("unsupported", behind(T("s", SHAPE, STORED), "MUL")),
    "cast from integers": ("unsupported", behind(T("s", SHAPE, BYTES), "CAST")),
    "in another file": ("unsupported", weighted(T("w", SHAPE, external=1))),
    "quantised in blocks": ("unsupported", weighted(T("w", SHAPE, BYTES, details=2))),
    "no values": ("missing", weighted(T("w", SHAPE))),
    "no weight": ("missing", G([X, Y], [Op("CONV_2D", ["x"], ["y"])])),
    "two places": ("ambiguous", behind(T("s", SHAPE, STORED), "RESHAPE", values=STORED)),
    "written twice": ("ambiguous", behind(T("s", SHAPE, STORED), "RESHAPE", 2)),
    "int64": ("dtype", weighted(T("w", SHAPE, STORED.astype(np.int64)))),
    "too short": ("unreadable", weighted(T("w", SHAPE, raw=STORED.tobytes()[:-4], kind=0))),
    "too long": ("unreadable", weighted(T("w", SHAPE, raw=STORED.tobytes() + bytes(4), kind=0))),
    "negative": ("unreadable", weighted(T("w", (-6, 3, 3, -4), STORED))),
    "rank 3": ("unreadable", weighted(T("w", (6, 9, 4), STORED))),
    "no channels": ("empty", weighted(T("w", (6, 3, 3, 0)))),
    "NaN": ("nonfinite", weighted(T("w", SHAPE, np.full(SHAPE, np.nan, np.float32)))),
    "too few scales": ("unreadable", weighted(T("w", SHAPE, BYTES, scale=[1.0, 2.0]))),
    "scales of no dimension": ("unreadable", weighted(T("w", SHAPE, BYTES, scale=[1.0] * 6, axis=-1))),
    "zero point": ("unreadable", weighted(T("w", SHAPE, BYTES, scale=[1.0], zero=[2**40]))),
    "reshaped to another size": ("unreadable", behind(T("s", (6, 3, 3, 3), np.ones(162, np.float32)), "RESHAPE")),
    "no way from an input": (
        "unreachable", G([X, T("c", (4,), np.ones(4, np.float32)), T("w", SHAPE, STORED), Y], [conv("w", "c")])
    ),
    "behind itself": ("unreachable", G([X, T("w", SHAPE, STORED), Y, T("z", (1, 8, 8, 4))], [
        Op("ADD", ["x", "y"], ["z"]), conv("w", "z"),
    ])),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
def test_what_is_not_stored(tmp_path: Path, kind: str) -> None:
    expected, graph = ENDS[kind]
    assert code(of(tmp_path, graph)) == expected


SPARSE = {
    "too many numbers": S([0, 1, 2, 3], [6, 3, 3, (np.arange(55, dtype=np.int32), np.zeros(54, np.int32))]),
    "order": S([0, 1, 2, 2], [6, 3, 3, 4]),
    "levels": S([0, 1, 2, 3], [6, 3, 3]),
    "blocks of no dimension": S([0, 1, 2, 3, 4], [6, 3, 3, 4, 1], [7]),
    "a level that is too large": S([0, 1, 2, 3], [6, 3, 3, 2**30]),
    "a negative level": S([0, 1, 2, 3], [6, 3, 3, -4]),
    "outside": S([0, 1, 2, 3], [6, 3, 3, (np.arange(0, 217, 4, dtype=np.int32), np.full(216, 4, np.int32))]),
    "negative index": S([0, 1, 2, 3], [6, 3, 3, (np.arange(0, 217, 4, dtype=np.int32), np.full(216, -1, np.int32))]),
    "segments that go back": S([0, 1, 2, 3], [6, 3, 3, (i32([0, 216, *[0] * 52, 216]), np.zeros(216, np.int32))]),
    "few segments": S([0, 1, 2, 3], [6, 3, 3, (i32([0, 216]), np.zeros(216, np.int32))]),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_layouts_that_lie(tmp_path: Path, kind: str) -> None:
    assert code(of(tmp_path, weighted(T("w", SHAPE, STORED, sparsity=SPARSE[kind])))) == "unreadable"
