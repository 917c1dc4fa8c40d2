"""Write the OpenVINO models of tests/models/openvino/written and the weights that OpenVINO reads of them.

Run `python -m exporters.openvino_ir FOLDER` in an environment with openvino. The weights are computed layer by layer by
OpenVINO's reference implementation.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset14 as ops

RNG = np.random.default_rng(14)
WEIGHT = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)
PER_CHANNEL = (RNG.random((4, 1, 1, 1)) + 0.5).astype(np.float32)


def weights() -> dict[str, ov.Node]:
    """Return a weight of each form, by the name of its convolution."""
    floats = ("f16", "bf16", "f64", "f8e4m3", "f8e5m2", "nf4", "f4e2m1")
    forms = {name: ops.convert(ops.constant(WEIGHT, getattr(ov.Type, name)), "f32") for name in floats}
    for name, low, high in (
        ("i8", -128, 128),
        ("u8", 0, 256),
        ("i4", -8, 8),
        ("u4", 0, 16),
        ("u2", 0, 4),
        ("u1", 0, 2),
    ):
        kind, small = getattr(ov.Type, name), np.int8 if low else np.uint8
        codes = ops.constant(RNG.integers(low, high, WEIGHT.shape).astype(small), kind)
        zero = ops.constant(RNG.integers(low, high, PER_CHANNEL.shape).astype(small), kind)
        shifted = ops.subtract(ops.convert(codes, "f16"), ops.convert(zero, "f16"))
        forms[name] = ops.convert(ops.multiply(ops.constant(PER_CHANNEL, ov.Type.f16), shifted), "f32")
    for kind in (ov.Type.f32, ov.Type.f16):
        limits = [ops.constant(limit * PER_CHANNEL, kind) for limit in (-1.5, 1.4, -1.1, 1.2)]
        quantised = ops.fake_quantize(ops.constant(WEIGHT, kind), *limits, 255)
        forms[f"fake_quantize_{kind.to_string()}"] = ops.convert(quantised, "f32")
    forms["divide"] = ops.divide(ops.constant(WEIGHT), ops.constant(PER_CHANNEL))
    forms["reshape"] = ops.reshape(ops.constant(WEIGHT.reshape(4, 36)), ops.constant([0, -1, 3, 3]), special_zero=True)
    forms["transpose"] = ops.transpose(ops.constant(WEIGHT), ops.constant([1, 0, 3, 2]))
    forms["squeeze"] = ops.squeeze(ops.unsqueeze(ops.constant(-WEIGHT), ops.constant([0, 3])), ops.constant([0, 3]))
    return forms


def every_form() -> ov.Model:
    """Return a model with a convolution for each form of weight, and of each kind."""
    x = y = ops.parameter([1, 4, 8, 8], ov.Type.f32, name="x")
    same: tuple[list[int], ...] = ([1, 1], [1, 1], [1, 1], [1, 1])
    for name, weight in weights().items():
        y = ops.convolution(y, weight, *same, name=name)
    y = ops.convolution(y, ops.constant(WEIGHT), [2, 2], [2, 2], [2, 2], [2, 2], name="f32")
    vector = ops.constant(PER_CHANNEL.ravel())
    y = ops.batch_norm_inference(y, vector, vector, vector, vector, 1e-5)
    y = ops.convolution(y, ops.constant(2 * WEIGHT), *same, name="scale_shift")
    y = ops.add(
        ops.multiply(y, ops.constant(PER_CHANNEL.reshape(1, 4, 1, 1))), ops.constant(PER_CHANNEL.reshape(4, 1, 1))
    )
    y = ops.convolution(y, ops.constant(3 * WEIGHT), *same, name="bias")
    y = ops.relu(ops.add(y, ops.constant(PER_CHANNEL.reshape(1, 4, 1, 1))))
    y = ops.group_convolution(y, ops.constant(WEIGHT.reshape(2, 2, 4, 3, 3)[:, :, :2]), *same, name="group")
    y = ops.group_convolution(y, ops.constant(WEIGHT.reshape(16, 1, 1, 3, 3)[:4]), *same, name="depthwise")
    y = ops.convolution(y, ops.constant(WEIGHT[:, :, :1, :1]), [1, 1], [0, 0], [0, 0], [1, 1], name="1x1")
    y = ops.convolution_backprop_data(y, ops.constant(WEIGHT), [1, 1], name="transposed")
    y = ops.group_convolution_backprop_data(y, ops.constant(WEIGHT[None]), [1, 1], name="group_transposed")
    offsets = ops.convolution(y, ops.constant(np.zeros((18, 4, 3, 3), np.float32)), *same, name="offsets")
    y = ops.deformable_convolution(y, offsets, ops.constant(WEIGHT), *same, name="deformable")
    y = ops.binary_convolution(
        y, ops.constant(np.ones(WEIGHT.shape), ov.Type.u1), *same, "xnor-popcount", 0.0, name="binary"
    )
    line = ops.reshape(y, ops.constant([1, 4, -1]), special_zero=False)
    y = ops.convolution(line, ops.constant(WEIGHT[:, :, 0]), [1], [0], [0], [1], name="1d")
    return ov.Model([y], [x], "every_form")


def bodies() -> ov.Model:
    """Return a model with convolutions in the branches of an If, one of which has its weight from outside."""
    x, choice = ops.parameter([1, 4, 8, 8], ov.Type.f32), ops.parameter([1], ov.Type.boolean)
    same: tuple[list[int], ...] = ([1, 1], [1, 1], [1, 1], [1, 1])
    inside, weight = ops.parameter([1, 4, 8, 8], ov.Type.f32), ops.parameter([4, 4, 3, 3], ov.Type.f32)
    first = ops.result(ops.convolution(inside, weight, *same, name="then"))
    other = ops.parameter([1, 4, 8, 8], ov.Type.f32)
    second = ops.result(ops.relu(ops.convolution(other, ops.constant(5 * WEIGHT), *same, name="else")))
    branch = ops.if_op(choice)
    branch.set_then_body(ov.Model([first], [inside, weight], "then"))
    branch.set_else_body(ov.Model([second], [other], "else"))
    branch.set_input(ops.relu(x).output(0), inside, other)
    branch.set_input(ops.constant(4 * WEIGHT).output(0), weight, None)
    y = ops.convolution(branch.set_output(first, second), ops.constant(6 * WEIGHT), *same, name="after")
    return ov.Model([y], [choice, x], "bodies")


def value(output: ov.Output) -> ov.Tensor:
    """Compute a constant value by OpenVINO's reference implementation."""
    node = output.get_node()
    result = ov.Tensor(output.get_element_type(), output.get_shape())
    if node.get_type_name() == "Constant":
        result.data.reshape(-1).view(np.uint8)[:] = node.data.reshape(-1).view(np.uint8)
    else:
        assert node.evaluate([result], [value(port.get_source_output()) for port in node.inputs()])
    return result


def main() -> None:
    """Write the folder."""
    folder = Path(sys.argv[1])
    for make in (every_form, bodies):
        path = folder / f"{make.__name__}.xml"
        ov.serialize(make(), path)
        hashes = {}
        for node in ov.Core().read_model(path).get_ordered_ops():
            if node.get_type_name() in {"Convolution", "GroupConvolution"} and node.input(1).get_shape()[-2:] == [3, 3]:
                weight = value(node.input(1).get_source_output()).data.astype("<f4")
                hashes[node.get_friendly_name()] = hashlib.sha256(weight.tobytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(hashes, indent=1))
        path.with_suffix(".xml.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


if __name__ == "__main__":
    main()
