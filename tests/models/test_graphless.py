"""Which tensors of a file without a graph are convolutions, and which network is meant."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filterdb.errors import ModelError
from filterdb.models.graphless import read_tensors
from filterdb.models.model import Model, Request
from filterdb.models.tensors import Stated, Tensor

Shapes = dict[str, tuple[int, ...]]

REQUEST = Request("m.pt", 2**30)


def tensors(shapes: Shapes, dtype: str = "float32") -> list[Tensor]:
    """Tensors in this order; a key may be `container:key`."""
    listed = []
    for place, (name, shape) in enumerate(shapes.items()):
        container, _, key = name.rpartition(":")
        listed.append(Tensor(key, shape, dtype, partial(np.ones, shape, np.float32), place, container))
    return listed


def read(shapes: Shapes, *, ordered: bool = True, dtype: str = "float32", **request: Any) -> Model:
    asked = Request("m.pt", 2**30, **request)
    return read_tensors(tensors(shapes, dtype), asked, source_format="PyTorch", ordered=ordered)


def skipped(model: Model) -> dict[str, str]:
    return {skip.layer: skip.code for skip in model.skipped}


BLOCK: Shapes = {
    "conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.bias": (64,), "bn1.running_mean": (64,),
    "layer1.conv1.weight": (64, 64, 3, 3), "layer1.bn1.weight": (64,), "layer1.bn1.bias": (64,),
    "layer1.conv2.weight": (128, 64, 3, 3), "layer1.bn2.weight": (128,), "layer1.bn2.bias": (128,),
    "down.weight": (128, 64, 1, 1), "fc.weight": (10, 128), "fc.bias": (10,),
}  # fmt: skip


def test_key_order_is_the_depth_of_a_checkpoint() -> None:
    model = read(BLOCK)
    assert [layer.name for layer in model.layers] == ["layer1.conv1.weight", "layer1.conv2.weight"]
    # Ranks among all four convolutions: 7×7, two 3×3, 1×1.
    assert [layer.row["conv_depth"] for layer in model.layers] == [1, 2]
    assert [layer.row["conv_depth_norm"] for layer in model.layers] == [1 / 3, 2 / 3]
    assert model.facts["depth_source"] == "order" and model.facts["source_format"] == "PyTorch"
    assert skipped(model) == {"conv1.weight": "kernel", "down.weight": "kernel"}
    assert {layer.row["batch_norm"] for layer in model.layers} == {"unfolded"}


def test_without_an_order_the_depth_is_unknown() -> None:
    model = read(BLOCK, ordered=False)
    assert {layer.row["conv_depth"] for layer in model.layers} == {-1}
    assert np.isnan([layer.row["conv_depth_norm"] for layer in model.layers]).all()
    assert model.facts["depth_source"] == "none"


@pytest.mark.parametrize("names", [("layer1.conv2", "layer1.conv1"), ("layer1.conv2.weight", "layer1.conv1.weight")])
def test_an_order_names_weights_or_their_modules(names: tuple[str, ...]) -> None:
    model = read(BLOCK, ordered=False, order=names)
    assert [layer.name for layer in model.layers] == ["layer1.conv2.weight", "layer1.conv1.weight"]
    assert model.facts["depth_source"] == "order"


def test_an_order_that_names_nothing_of_the_file_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"m\.pt: --order: expected names of its weights such as 'conv1.weight', got"):
        read(BLOCK, ordered=False, order=("encoder.0", "encoder.1"))


def test_layers_that_an_order_does_not_name_have_no_depth() -> None:
    model = read(BLOCK, ordered=False, order=("layer1.conv2",))
    assert {layer.name: layer.row["conv_depth"] for layer in model.layers} == {
        "layer1.conv1.weight": -1,
        "layer1.conv2.weight": 0,
    }


TRANSPOSED: dict[str, tuple[Shapes, str]] = {
    "its bias has the second dimension": ({"x.weight": (64, 32, 3, 3), "x.bias": (32,)}, "transposed"),
    "its bias has the first": ({"x.weight": (32, 64, 3, 3), "x.bias": (32,)}, ""),
    "the norm behind it has the second": ({"x.weight": (64, 32, 3, 3), "n.weight": (32,)}, "transposed"),
    "the norm behind it has the first": ({"x.weight": (32, 64, 3, 3), "n.weight": (32,)}, ""),
    "the norm of the next block, as in a DenseNet": (
        {"layer2.conv2.weight": (32, 128, 3, 3), "layer3.norm1.weight": (128,)},
        "",
    ),
    "the norm behind it has neither": ({"x.weight": (32, 64, 3, 3), "n.weight": (96,)}, ""),
    "a linear layer behind it says nothing": ({"x.weight": (32, 64, 3, 3), "fc.weight": (64, 10)}, ""),
    "square, by its name": ({"up.0.deconv.weight": (64, 64, 3, 3), "n.weight": (64,)}, "transposed?"),
    "square, by no name": ({"layer.conv.weight": (64, 64, 3, 3), "n.weight": (64,)}, ""),
    "by its name, though the bias decides": ({"deconv.weight": (32, 64, 3, 3), "deconv.bias": (32,)}, ""),
    "a transition of a DenseNet": ({"transition1.conv.weight": (32, 64, 3, 3)}, ""),
    "by its name, without a bias": ({"upsample.conv.weight": (32, 64, 3, 3)}, "transposed?"),
}  # fmt: skip


@pytest.mark.parametrize("what", TRANSPOSED)
def test_what_tells_a_transposed_convolution(what: str) -> None:
    shapes, code = TRANSPOSED[what]
    model = read(shapes)
    assert list(skipped(model).values()) == ([code] if code else [])
    assert len(model.layers) == (not code)


OTHER: dict[str, tuple[Shapes, str, dict[str, str]]] = {
    "weight norm": ({"c.weight_g": (8, 1, 1, 1), "c.weight_v": (8, 4, 3, 3)}, "float32",
                    {"c.weight_g": "unsupported", "c.weight_v": "unsupported"}),
    "a parametrisation": ({"c.parametrizations.weight.original1": (8, 4, 3, 3)}, "float32",
                          {"c.parametrizations.weight.original1": "unsupported"}),
    "packed integers": ({"c.weight": (8, 4, 3, 3)}, "int8", {"c.weight": "dtype"}),
    "three dimensions": ({"c.weight": (8, 4, 3, 3, 3)}, "float32", {"c.weight": "rank"}),
    "channels last, as in Flax": ({"c.kernel": (3, 3, 4, 8)}, "float32", {"c.kernel": "unsupported"}),
    "no numbers": ({"c.weight": (0, 4, 3, 3)}, "float32", {"c.weight": "empty"}),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
def test_what_is_in_the_ledger(what: str) -> None:
    shapes, dtype, codes = OTHER[what]
    assert skipped(read(shapes, dtype=dtype)) == codes


@pytest.mark.parametrize(
    "name", ["pos_embed", "blocks.0.attn.rel_pos_h", "relative_position_bias_table", "c.weight_mask"]
)
def test_other_tensors_of_rank_4_are_not_convolutions(name: str) -> None:
    model = read({name: (1, 8, 3, 3), "c.weight": (8, 4, 3, 3)})
    assert [layer.name for layer in model.layers] == ["c.weight"] and not model.skipped


@pytest.mark.parametrize("shapes", [{}, {"fc.weight": (10, 128), "fc.bias": (10,)}], ids=["nothing", "linear layers"])
def test_a_file_without_a_convolution_is_no_model(shapes: Shapes) -> None:
    with pytest.raises(ModelError, match=r"m\.pt: no convolution found: expected a weight of rank 4, got"):
        read(shapes)


BATCH_NORM: dict[str, tuple[Shapes, str]] = {
    "statistics in the file": ({"c.weight": (8, 4, 3, 3), "n.running_mean": (8,)}, "unfolded"),
    "no statistics and no bias": ({"c.weight": (8, 4, 3, 3)}, "none"),
    "no statistics, and a bias into which it may be folded": ({"c.weight": (8, 4, 3, 3), "c.bias": (8,)}, "unknown"),
}


@pytest.mark.parametrize("what", BATCH_NORM)
def test_where_batch_normalisation_is(what: str) -> None:
    shapes, expected = BATCH_NORM[what]
    (layer,) = read(shapes).layers
    assert layer.row["batch_norm"] == expected


NET: Shapes = {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3)}


def below(prefix: str) -> Shapes:
    return {prefix + name: shape for name, shape in NET.items()}


ONE: dict[str, Shapes] = {
    "flat": NET,
    "nested": below("state_dict:"),
    "beside an optimizer": {**below("model:"), **below("optimizer.state.0:")},
    "beside momentum buffers": {**below("model:"), "optim.state.1:momentum_buffer": (8, 8, 3, 3)},
    "beside the state of an optimizer of fastai": {**below("model:"), **below("opt.state.0:"), **below("x.state.12:")},
    "with two heads": {**below("semantic_head."), **below("instance_head.")},
    "with equal stages": {**below("layer1."), **below("layer2.")},
    "beside a classifier": {**below("model:"), "head:fc.weight": (10, 8)},
    "DataParallel": below("module."),
}
SEVERAL: dict[str, tuple[Shapes, list[str]]] = {
    "an average": ({**below("state_dict:"), **below("state_dict_ema:")}, ["state_dict", "state_dict_ema"]),
    "an average in one mapping": ({**below("state_dict:model."), **below("state_dict:model_ema.")},
                                  ["state_dict.model", "state_dict.model_ema"]),
    "teacher and student": ({**below("teacher."), **below("student.")}, ["teacher", "student"]),
    "two networks": ({**below("generator:"), "discriminator:c.weight": (4, 3, 3, 3)}, ["generator", "discriminator"]),
}  # fmt: skip


@pytest.mark.parametrize("what", ONE)
def test_one_network_needs_no_key(what: str) -> None:
    assert len(read(ONE[what]).layers) == (4 if what in {"with equal stages", "with two heads"} else 2)


@pytest.mark.parametrize("what", SEVERAL)
def test_several_networks_need_a_key(what: str) -> None:
    shapes, names = SEVERAL[what]
    with pytest.raises(ModelError, match=r"m\.pt: expected one network, got 2: ") as caught:
        read(shapes)
    assert all(repr(name) in str(caught.value) for name in names)
    for name in names:
        assert {layer.name.removeprefix(name.rpartition(".")[2] + ".") for layer in read(shapes, key=name).layers} <= {
            "conv1.weight",
            "conv2.weight",
            "c.weight",
        }
    with pytest.raises(ModelError, match="--key 'nothing': expected one of"):
        read(shapes, key="nothing")


def test_layers_that_share_bytes_are_known(tmp_path: Path) -> None:
    shared = [
        Tensor(name, (4, 4, 3, 3), "float32", lambda: np.ones((4, 4, 3, 3), np.float32), 7) for name in ("a", "b")
    ]
    model = read_tensors(shared, REQUEST, source_format="PyTorch", ordered=True)
    assert model.layers[0].stored_weight == model.layers[1].stored_weight


@pytest.mark.parametrize("is_transposed", [True, False])
def test_a_layer_that_is_stated_needs_no_evidence(is_transposed: bool) -> None:
    """Its name and the norm behind it would say otherwise."""
    stated = Stated("ConvTranspose2d" if is_transposed else "Conv2d", 4, (2, 2), None, is_transposed)
    weight, norm = tensors({"deconv.weight": (64, 32, 3, 3), "n.weight": (64 if is_transposed else 32,)})
    model = read_tensors([replace(weight, stated=stated), norm], REQUEST, source_format="PyTorch", ordered=True)
    assert skipped(model) == ({"deconv.weight": "transposed"} if is_transposed else {})
    for layer in model.layers:
        assert [layer.row[name] for name in ("operator", "groups", "strides")] == ["Conv2d", 4, "[2, 2]"]


def listed(model: Model) -> dict[str, tuple[int, ...]]:
    """The kernels of all layers, with those without a bank."""
    return {layer.name: (layer.rank, *layer.kernel) for layer in (*model.layers, *model.others)}


RANK_3: dict[str, tuple[Shapes, bool]] = {
    "a bias of the first dimension": ({"a.weight": (8, 4, 5), "a.bias": (8,)}, True),
    "a norm of the first dimension": ({"a.weight": (8, 4, 5), "n.weight": (8,)}, True),
    "its name": ({"a.conv.weight": (8, 4, 5)}, True),
    "its name, in spite of another bias": ({"a.conv.weight": (8, 4, 5), "a.conv.bias": (3,)}, True),
    "nothing": ({"a.weight": (8, 4, 5)}, False),
    "a bias of another dimension": ({"a.weight": (8, 4, 5), "a.bias": (4,)}, False),
    "another name than weight": ({"conv.query": (8, 4, 5), "conv.bias": (8,)}, False),
    "a bias of rank 3, as of a LayerNorm": ({"conv.weight": (8, 4, 5), "conv.bias": (8, 4, 5)}, False),
    "too long": ({"conv.weight": (8, 4, 257), "conv.bias": (8,)}, False),
    "a linear layer": ({"conv.weight": (8, 4)}, False),
    "a table of positions": ({"conv.relative_position_weight": (8, 4, 5)}, False),
}


@pytest.mark.parametrize("what", RANK_3)
def test_what_tells_a_one_dimensional_convolution(what: str) -> None:
    shapes, expected = RANK_3[what]
    found = listed(read(NET | shapes, kernels=None))
    assert found == dict.fromkeys(NET, (2, 3, 3)) | ({next(iter(shapes)): (1, 1, 5)} if expected else {})
    assert listed(read(NET | shapes)) == dict.fromkeys(NET, (2, 3, 3))
    assert read(NET | shapes).facts == read(NET).facts


def test_a_transposed_one_is_not_stored() -> None:
    model = read({"conv_t.weight": (8, 4, 5), "conv_t.bias": (4,), "c.weight": (8, 4, 3, 3)}, kernels=None)
    assert skipped(model) == {"conv_t.weight": "transposed"} and listed(model) == {"c.weight": (2, 3, 3)}


def test_a_network_of_one_dimension_alone() -> None:
    shapes: Shapes = {"conv1.weight": (8, 2, 7), "bn1.weight": (8,), "conv2.weight": (16, 8, 3), "q": (3, 4, 5)}
    model = read(shapes, kernels=None)
    assert listed(model) == {"conv1.weight": (1, 1, 7), "conv2.weight": (1, 1, 3)}
    assert [layer.row["conv_depth"] for layer in model.layers] == [0, 1]
    assert model.facts["total_filters"] == 0 and model.facts["filter_shapes"] == "{}"
    assert listed(read(shapes, kernels=((1, 3),))) == {"conv2.weight": (1, 1, 3)}
    assert skipped(read(shapes, kernels=((1, 3),))) == {"conv1.weight": "rank"}
    with pytest.raises(ModelError, match=r"m\.pt: no convolution found: expected a weight of rank 4, got 4 tensors of"):
        read(shapes)
    ordered = read(shapes, kernels=None, ordered=False, order=("conv2", "conv1"))
    assert [layer.name for layer in ordered.layers] == ["conv2.weight", "conv1.weight"]
    with pytest.raises(ModelError, match=r"--order: expected names of its weights such as 'conv1\.weight', got none"):
        read(shapes, kernels=None, ordered=False, order=("encoder",))
    twins = {f"{prefix}.{key}": shape for prefix in ("model", "model_ema") for key, shape in shapes.items()}
    with pytest.raises(ModelError, match=r"expected one network, got 2: 'model' \(2\), 'model_ema' \(2\)"):
        read(twins, kernels=None)
    assert len(listed(read(twins, kernels=None, key="model"))) == 2
    with pytest.raises(
        ModelError, match="expected a weight of rank 4, or one of a one-dimensional convolution, got 1 "
    ):
        read({"q": (3, 4, 5)}, kernels=None)


def test_names_do_not_depend_on_what_is_asked_for() -> None:
    """Two keys that only their middle tells apart get numbers: the 3×3 layer's is the same in all answers."""
    first, last = "a" * 10_000 + "b" + "a" * 10_000 + ".weight", "a" * 10_000 + "c" + "a" * 10_000 + ".weight"
    shapes: Shapes = {first: (8, 4, 5), first.replace("weight", "bias"): (8,), last: (8, 4, 3, 3)}
    (name,) = listed(read(shapes))
    assert {key for key, kernel in listed(read(shapes, kernels=None)).items() if kernel == (2, 3, 3)} == {name}
    assert len(listed(read(shapes, kernels=None))) == 2


NO_KERNELS: dict[str, tuple[Shapes, dict[str, str]]] = {
    "the scale of a response normalisation": ({"grn.weight": (1, 1, 1, 96), "grn.bias": (1, 1, 1, 96)}, {
        "grn.weight": "kernel", "grn.bias": "kernel"}),
    "a gain of a standardised weight": ({"conv.gain": (8, 1, 1, 1)}, {"conv.gain": "kernel"}),
    "a mask": ({"attn.mask": (1, 1, 64, 64)}, {"attn.mask": "kernel"}),
    "channels last, as in Flax": ({"c.kernel": (5, 5, 4, 8), "d.kernel": (1, 1, 40, 80)}, {
        "c.kernel": "unsupported", "d.kernel": "unsupported"}),
    "channels last, as in MLX": (
        {f"c{k}.weight": (64, k, k, 32) for k in (1, 5, 7, 9, 11)},
        {f"c{k}.weight": "unsupported" for k in (1, 5, 7, 9, 11)}),
}  # fmt: skip


@pytest.mark.parametrize("what", NO_KERNELS)
def test_tensors_of_rank_4_that_are_no_weights_of_the_kernel_that_their_shape_says(what: str) -> None:
    shapes, codes = NO_KERNELS[what]
    model = read({"s.weight": (8, 4, 3, 3), **shapes}, kernels=None)
    assert skipped(model) == codes and listed(model) == {"s.weight": (2, 3, 3)}


@pytest.mark.parametrize(("shape", "code"), [((8, 4, 5, 5), "dtype"), ((8, 4, 5), "dtype"), ((1, 1, 64, 64), "kernel")])
def test_integers_without_a_scale(shape: tuple[int, ...], code: str) -> None:
    """A mask of an attention is as large as no kernel."""
    assert skipped(read({"conv.weight": shape}, dtype="int8", kernels=None)) == {"conv.weight": code}


def test_every_shape_of_a_checkpoint() -> None:
    kernels = [(5, 5), (1, 7), (7, 1), (16, 16), (1, 1), (32, 32), (7,), (1,)]
    shapes: Shapes = {f"more{i}.conv.weight": (8, 4, *kernel) for i, kernel in enumerate(kernels)}
    model = read(BLOCK | shapes, kernels=None)
    expected: dict[str, tuple[int, ...]] = {name: (2, *shape[2:]) for name, shape in BLOCK.items() if len(shape) == 4}
    expected |= {f"more{i}.conv.weight": (len(k), *(1, *k)[-2:]) for i, k in enumerate(kernels)}
    assert listed(model) == expected and not model.skipped
    assert {layer.name for layer in model.others} == {
        n for n, (_, *k) in expected.items() if not 2 <= np.prod(k) <= 256
    }
    assert [layer.row["conv_depth"] for layer in model.layers if layer.rank == 2] == [0, 1, 2, 4, 5, 6, 7]
    three = {layer.name: layer.row for layer in read(BLOCK | shapes).layers}
    assert {layer.name: layer.row for layer in model.layers if layer.kernel == (3, 3)} == three
