"""Train one network, and write it in every format: `python -m exporters.one_network FOLDER TOOL...`.

The tools are torch, keras, openvino and tensorflow, in this order: torch trains the network and writes its files and
`weights.npz`, the others convert them. `torch.json` names the layers of the network.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

WIDTHS = (3, 24, 32, 32, 48)
STEPS = 60


def write_torch(folder: Path) -> None:
    """Train the network, and write it with PyTorch, safetensors and both ONNX exporters."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)

    def block(into: int, out: int, **options: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False, **options), nn.BatchNorm2d(out), nn.ReLU())

    network = nn.Sequential(
        block(WIDTHS[0], WIDTHS[1]),
        block(WIDTHS[1], WIDTHS[2], stride=2),
        block(WIDTHS[2], WIDTHS[3], groups=WIDTHS[2]),
        block(WIDTHS[3], WIDTHS[4]),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[4], 4),
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # of both signs, which folding multiplies into the filters
            nn.init.normal_(module.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(STEPS):
        label = torch.randint(0, 4, (32,))
        picture = torch.randn(32, 3, 16, 16)
        picture[:, :, 4:12, 4:12] += label[:, None, None, None].float()
        loss = nn.functional.cross_entropy(network(picture), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    state = network.state_dict()
    np.savez(folder / "weights.npz", **{name: values.numpy() for name, values in state.items()})
    layers = [name for name, values in state.items() if values.ndim == 4]
    (folder / "torch.json").write_text(json.dumps({"layers": layers, "loss": float(loss)}))
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 1, "state_dict": state, "optimizer": optimizer.state_dict()}, folder / "training.ckpt")
    torch.save(network, folder / "module.pt")
    plain = {name: values.contiguous() for name, values in state.items()}
    save_file(plain, folder / "one.safetensors")
    (folder / "shards").mkdir(exist_ok=True)
    parts = (list(plain)[:10], list(plain)[10:])
    names = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    for name, keys in zip(names, parts, strict=True):
        save_file({key: plain[key] for key in keys}, folder / "shards" / name)
    index = {key: name for name, keys in zip(names, parts, strict=True) for key in keys}
    (folder / "shards/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    example = (torch.randn(1, 3, 16, 16),)
    for kind, options in {"script": {"dynamo": False}, "dynamo": {"dynamo": True}}.items():
        torch.onnx.export(network, example, folder / f"{kind}.onnx", **options)
    training = torch.onnx.TrainingMode.TRAINING
    raw = {"dynamo": False, "training": training, "do_constant_folding": False}
    torch.onnx.export(network, example, folder / "unfolded.onnx", **raw)


def write_keras(folder: Path) -> None:
    """Write the network with Keras, whole and as weights."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from keras import layers

    weights = np.load(folder / "weights.npz")

    def block(number: int, x: object) -> object:
        kernel = weights[f"{number}.0.weight"]
        stride = 2 if number == 1 else 1
        if kernel.shape[1] == 1:
            layer = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"conv{number}")
            values = kernel.transpose(2, 3, 0, 1)
        else:
            layer = layers.Conv2D(
                kernel.shape[0], 3, strides=stride, padding="same", use_bias=False, name=f"conv{number}"
            )
            values = kernel.transpose(2, 3, 1, 0)
        x = layer(x)
        layer.set_weights([values])
        norm = layers.BatchNormalization(epsilon=1e-5, name=f"norm{number}")
        x = norm(x)
        norm.set_weights([weights[f"{number}.1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")])
        return layers.ReLU(name=f"relu{number}")(x)

    start = x = keras.Input((16, 16, 3))
    for number in range(4):
        x = block(number, x)
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(4)
    x = head(x)
    head.set_weights([weights["6.weight"].T, weights["6.bias"]])
    model = keras.Model(start, x)
    model.save(folder / "whole.keras")
    model.save(folder / "whole.h5")
    model.save_weights(folder / "only.weights.h5")


def write_openvino(folder: Path) -> None:
    """Convert the ONNX file of the script exporter to OpenVINO IR, in float32 and in float16."""
    import openvino

    model = openvino.convert_model(folder / "script.onnx")
    openvino.save_model(model, folder / "single.xml", compress_to_fp16=False)
    openvino.save_model(model, folder / "half.xml", compress_to_fp16=True)


def write_tensorflow(folder: Path) -> None:
    """Convert the Keras file to TensorFlow Lite, in float32 and in float16."""
    import tensorflow as tf

    model = tf.keras.models.load_model(folder / "whole.keras")
    for name, half in (("single", False), ("half", True)):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if half:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        (folder / f"{name}.tflite").write_bytes(converter.convert())


WRITERS: dict[str, Callable[[Path], None]] = {
    "torch": write_torch,
    "keras": write_keras,
    "openvino": write_openvino,
    "tensorflow": write_tensorflow,
}


def main() -> None:
    """Write the files of the tools that are named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for tool in sys.argv[2:]:
        WRITERS[tool](folder)


if __name__ == "__main__":
    main()
