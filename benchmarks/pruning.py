"""What zeroing the filters that a check calls prunable does to a model's output, run with onnxruntime.

    python benchmarks/pruning.py MODEL.onnx... [--inputs 16]

Three versions of each model are compared with the model itself, on noise and on structured images: without what is
small beside its own output channel ("could be pruned"), without what is small beside the layer's peak (P1's sparse
filters), and without as many filters of each layer chosen at random. `--rescale` first multiplies one output channel of
each layer by 1,024 where the next convolution can divide it again, so that the model computes the same but every such
layer has an outlier. Needs onnxruntime, which is no dependency of filterdb.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from filterdb.models.onnx.convolution import weight_value
from filterdb.models.onnx.layers import OnnxLayer, read_model
from filterdb.numerics.layer import filter_peaks, sparse_filters
from filterdb.numerics.quality import SPARSE_FRACTION

SIZES = ((224, 224), (48, 320), (64, 64), (32, 32))
"""Heights and widths tried for inputs that leave them open."""

FACTOR = 1024.0
"""A power of two: multiplying and dividing by it changes no bit of a mantissa."""

Masks = Callable[[np.ndarray, int], np.ndarray]
"""Which of the filters (n, 9) of so many output channels to zero, (n,) bool."""


def by_channel(filters: np.ndarray, out_channels: int) -> np.ndarray:
    peaks = filter_peaks(filters).reshape(out_channels, -1)
    small: np.ndarray = (peaks < peaks.max(axis=1, keepdims=True) / SPARSE_FRACTION) | (peaks == 0)
    return small.ravel()


def by_layer(filters: np.ndarray, out_channels: int) -> np.ndarray:
    peaks = filter_peaks(filters)
    return sparse_filters(peaks, float(peaks.max()))


def at_random(filters: np.ndarray, out_channels: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(by_channel(filters, out_channels))


def stored_tensor(layer: OnnxLayer) -> onnx.TensorProto | None:
    """The tensor that is a layer's weight as it stands, None where something is computed from it."""
    value = weight_value(layer.node)
    if value is not None and isinstance(value.tensor, onnx.TensorProto):
        return value.tensor
    producer = None if value is None else value.producer
    if producer is not None and producer.op_type == "Constant" and "value" in producer.attributes:
        return producer.attributes["value"].t
    return None


def zeroed(path: Path, proto: onnx.ModelProto, masks: Masks) -> tuple[onnx.ModelProto, int, int]:
    """A copy of the model with the chosen filters zeroed, how many these are, and of how many."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    count = total = 0
    seen: dict[int, onnx.TensorProto] = {}  # kept, because an id is free again once its object is gone
    for layer in read_model(path, copy).layers:
        assert isinstance(layer, OnnxLayer)
        tensor = stored_tensor(layer)
        if tensor is None or id(tensor) in seen:
            continue
        seen[id(tensor)] = tensor
        values = np.array(numpy_helper.to_array(tensor))
        mask = masks(values.reshape(-1, 9).astype(np.float32), values.shape[0])
        values.reshape(-1, 9)[mask] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        count, total = count + int(mask.sum()), total + len(mask)
    return copy, count, total


class Rescaling:
    """Gives layers an output channel that is 1,024 times as large, which what follows undoes."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.nodes = list(proto.graph.node)
        self.tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.tensors |= {
            node.output[0]: attribute.t
            for node in self.nodes
            for attribute in node.attribute
            if node.op_type == "Constant" and attribute.name == "value"
        }
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def run(self) -> int:
        """Rescale every 3×3 layer for which that can be done; returns how many."""
        return sum(self._rescale(node) for node in self.nodes if node.op_type == "Conv")

    def _rescale(self, node: onnx.NodeProto) -> bool:
        if not self._are_own(*node.input[1:]) or list(self.tensors[node.input[1]].dims[2:]) != [3, 3]:
            return False
        undo = self._undo(node)
        for name, index, factor in [*((name, 0, FACTOR) for name in node.input[1:]), *undo] if undo else []:
            values = np.array(numpy_helper.to_array(self.tensors[name]))
            values[index] *= factor
            self.tensors[name].CopyFrom(numpy_helper.from_array(values, self.tensors[name].name))
        return bool(undo)

    def _are_own(self, *names: str) -> bool:
        return all(name in self.tensors and len(self.readers[name]) == 1 for name in names)

    def _undo(self, node: onnx.NodeProto) -> list[tuple[str, Any, float]]:
        """What to multiply by what behind a convolution, so that nothing changes; nothing where that is not so."""
        while len(self.readers.get(node.output[0], [])) == 1:
            (node,) = self.readers[node.output[0]]
            if node.op_type == "BatchNormalization" and self._are_own(*node.input[1:]):
                return [(node.input[1], 0, 1 / FACTOR), (node.input[3], 0, FACTOR)]
            if node.op_type == "Conv":
                groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
                fits = self._are_own(node.input[1]) and groups in ([], [1])
                return [(node.input[1], (slice(None), 0), 1 / FACTOR)] if fits else []
            if node.op_type not in {"Relu", "LeakyRelu", "MaxPool", "Identity"}:
                break
        return []


def images(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Endless float32 inputs: noise and structured images in turn, in the three usual ranges."""
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(
        *(np.linspace(0, 1, n) for n in (shape[-2:] if len(shape) > 1 else (1, shape[-1]))), indexing="ij"
    )
    for number in itertools.count():
        if number % 2:
            angle, waves = rng.uniform(0, np.pi), rng.uniform(1, 12)
            wave = 0.5 + 0.5 * np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))
            blob = np.exp(-((x - rng.uniform()) ** 2 + (y - rng.uniform()) ** 2) / rng.uniform(0.02, 0.3))
            image = np.broadcast_to((wave + blob) / 2, shape) * rng.uniform(0.5, 1, (*shape[:-2], 1, 1))
        else:
            image = rng.uniform(0, 1, shape)
        low, high = ((0, 1), (-1, 1), (0, 255))[number // 2 % 3]
        yield (low + (high - low) * image).astype(np.float32)


class Session:
    """A model as onnxruntime runs it."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])

    def shape(self) -> tuple[int, ...]:
        """A shape of the first input with which the model runs."""
        for size in SIZES:
            shape = self._shape(self.session.get_inputs()[0].shape, size)
            try:
                self.run(np.zeros(shape, np.float32))
            except Exception:  # noqa: BLE001 - whatever the runtime raises for a shape that does not fit
                continue
            return shape
        raise SystemExit("no input shape tried works")

    @staticmethod
    def _shape(declared: list[Any], size: tuple[int, int]) -> tuple[int, ...]:
        open_dims = [i for i, n in enumerate(declared) if not isinstance(n, int) or n < 1]
        shape = [n if isinstance(n, int) and n > 0 else 1 for n in declared]
        for i, n in zip([i for i in open_dims if i >= len(declared) - 2], size, strict=False):
            shape[i] = n
        return tuple(shape)

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """The float outputs; further inputs are ones."""
        first, *others = self.session.get_inputs()
        feed = {first.name: image}
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
        for other in others:
            feed[other.name] = np.ones(self._shape(other.shape, (1, 1)), kinds[other.type])
        return [np.asarray(y, np.float64) for y in self.session.run(None, feed) if y.dtype.kind == "f"]


def decisions(output: np.ndarray) -> np.ndarray:
    """What a user takes from an output: the largest class, or which numbers are above a half."""
    return output.argmax(-1) if output.ndim in {2, 3} and output.shape[-1] > 1 else output > 0.5


def compare(path: Path, proto: onnx.ModelProto, inputs: int) -> None:
    reference = Session(proto)
    shape = reference.shape()
    batch = list(itertools.islice(images(shape), inputs))
    expected = [reference.run(image) for image in batch]
    for name, masks in (("own channel", by_channel), ("layer's peak", by_layer), ("random, as many", at_random)):
        pruned, count, total = zeroed(path, proto, masks)
        session = Session(pruned)
        changes, same, agreeing = [], 0, []
        for image, outputs in zip(batch, expected, strict=True):
            got = session.run(image)
            # A map in which nothing is detected is no scale to compare with.
            norm = np.sqrt(max(sum((y**2).sum() for y in outputs), 1e-6 * sum(y.size for y in outputs)))
            changes.append(np.sqrt(sum(((y - z) ** 2).sum() for y, z in zip(outputs, got, strict=True))) / norm)
            agreeing.append(float(np.mean(decisions(outputs[0]) == decisions(got[0]))))
            same += agreeing[-1] == 1
        print(
            f"| {path.name} | {name} | {count:,} of {total:,} | {same} of {inputs} | {np.mean(agreeing):.2%} "
            f"| {np.median(changes):.2%} | {max(changes):.2%} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--rescale", action="store_true")
    options = parser.parse_args()
    print("| model | zeroed: small beside | filters | same answer | same decisions | median change | largest |")
    print("|---|---|---|---|---|---|---|")
    for path in options.models:
        proto = onnx.load(path)
        if options.rescale:
            print(f"| {path.name}: {Rescaling(proto).run()} layers rescaled | | | | | | |")
        compare(path, proto, options.inputs)


if __name__ == "__main__":
    main()
