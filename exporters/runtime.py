"""Take exported files through onnxruntime's quantiser and optimiser, and through other tools that rewrite files."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

STATIC = {
    "qdq-int8-tensor": {"weight_type": QuantType.QInt8},
    "qdq-int8-channel": {"weight_type": QuantType.QInt8, "per_channel": True},
    "qdq-uint8-tensor": {"weight_type": QuantType.QUInt8, "activation_type": QuantType.QUInt8},
    "qdq-uint8-channel": {
        "weight_type": QuantType.QUInt8,
        "activation_type": QuantType.QUInt8,
        "per_channel": True,
    },
    "qdq-int8-asymmetric": {"weight_type": QuantType.QInt8, "extra_options": {"WeightSymmetric": False}},
    "qdq-int16": {"weight_type": QuantType.QInt16, "activation_type": QuantType.QUInt16},
    "qdq-uint16": {"weight_type": QuantType.QUInt16, "activation_type": QuantType.QUInt16},
    "qdq-int16-contrib": {
        "weight_type": QuantType.QInt16,
        "activation_type": QuantType.QUInt16,
        "extra_options": {"UseQDQContribOps": True},
    },
    "qdq-int4": {"weight_type": QuantType.QInt4},
    "qdq-uint4": {"weight_type": QuantType.QUInt4, "per_channel": True},
    "qdq-float8": {
        "weight_type": QuantType.QFLOAT8E4M3FN,
        "activation_type": QuantType.QFLOAT8E4M3FN,
        "calibrate_method": CalibrationMethod.Distribution,
    },
    "qdq-contrib": {"weight_type": QuantType.QInt8, "extra_options": {"UseQDQContribOps": True}},
    "qdq-float-weight": {"weight_type": QuantType.QInt8, "extra_options": {"AddQDQPairToWeight": True}},
    "qdq-float-weight-channel": {
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "extra_options": {"AddQDQPairToWeight": True, "DedicatedQDQPair": True},
    },
    "qdq-reduced": {"weight_type": QuantType.QInt8, "reduce_range": True},
    "qoperator-int8-tensor": {"quant_format": QuantFormat.QOperator, "weight_type": QuantType.QInt8},
    "qoperator-int8-channel": {
        "quant_format": QuantFormat.QOperator,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    },
    "qoperator-uint8-tensor": {
        "quant_format": QuantFormat.QOperator,
        "weight_type": QuantType.QUInt8,
        "activation_type": QuantType.QUInt8,
    },
    "qoperator-uint8-channel": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
        "per_channel": True,
    },
}

DYNAMIC = {
    "dynamic-uint8": {"weight_type": QuantType.QUInt8},
    "dynamic-int8": {"weight_type": QuantType.QInt8},
    "dynamic-uint8-channel": {"weight_type": QuantType.QUInt8, "per_channel": True},
    "dynamic-uint8-asymmetric": {"weight_type": QuantType.QUInt8, "extra_options": {"WeightSymmetric": False}},
    "dynamic-reduced": {"weight_type": QuantType.QUInt8, "reduce_range": True},
}


class _Calibration(CalibrationDataReader):
    def __init__(self, model: onnx.ModelProto) -> None:
        tensors = {tensor.name for tensor in model.graph.initializer}
        (info,) = [info for info in model.graph.input if info.name not in tensors]
        shape = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        random = np.random.default_rng(3)
        self.batches = iter({info.name: random.standard_normal(shape).astype(np.float32)} for _ in range(4))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def attempt(variant: str, write: Callable[[], object], failures: dict[str, str]) -> bool:
    """Run `write`; note in `failures` why it could not. Return whether it could."""
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            write()
        return True
    except Exception as error:  # noqa: BLE001 - a tool that refuses a file is no fault of ours
        lines = str(error).strip().splitlines() or [""]
        failures[variant] = f"{type(error).__name__}: {lines[-1][:160]}"
        return False


def optimised(source: Path, target: Path, level: str) -> None:
    """Write the file that onnxruntime makes of `source` at an optimisation level."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _sibling(source: Path, variant: str) -> Path:
    return source.with_name(f"{source.name.removesuffix('.onnx')}.{variant}.onnx")


def optimise(source: Path, failures: dict[str, str], levels: tuple[str, ...] = tuple(LEVELS)) -> Iterator[Path]:
    """Write `source` at these optimisation levels beside it; a level that changes nothing more is left out."""
    before = b""
    for level in levels:
        target = _sibling(source, f"ort-{level}")
        if attempt(target.name, lambda t=target, v=level: optimised(source, t, v), failures):  # type: ignore[misc]
            graph = onnx.load(target).graph.SerializeToString(deterministic=True)
            if graph == before:
                target.unlink()
            else:
                yield target
            before = graph


def quantise(source: Path, failures: dict[str, str], *, also_optimised: bool = True) -> Iterator[Path]:
    """Write `source` quantised in every way beside it, and what the optimiser makes of these files."""
    logging.disable(logging.WARNING)
    prepared = source.with_suffix(".prepared")
    if not attempt(f"{source.name} prepared", lambda: quant_pre_process(str(source), str(prepared)), failures):
        return
    model = onnx.load(prepared)
    for variant, options in {**STATIC, **DYNAMIC}.items():
        target = _sibling(source, variant)

        def write(target: Path = target, variant: str = variant, options: dict = options) -> None:  # type: ignore[type-arg]
            if variant in DYNAMIC:
                quantize_dynamic(prepared, target, **options)
            else:
                quantize_static(prepared, target, _Calibration(model), **options)

        if attempt(target.name, write, failures):
            yield target
            if also_optimised:
                yield from optimise(target, failures, ("extended", "all"))
    prepared.unlink()
    logging.disable(logging.NOTSET)


def rewrite(source: Path, failures: dict[str, str]) -> Iterator[Path]:
    """Write `source` as other tools rewrite it: float16, simplified, another opset, prefixed, weights as Constants."""

    def half(*, keep: bool) -> onnx.ModelProto:
        from onnxconverter_common import float16

        return float16.convert_float_to_float16(onnx.load(source), keep_io_types=keep)

    def simplified() -> onnx.ModelProto:
        import onnxsim

        return onnxsim.simplify(onnx.load(source))[0]

    def script_optimised() -> onnx.ModelProto:
        import onnxscript.optimizer

        return onnxscript.optimizer.optimize(onnx.load(source))

    def constants() -> onnx.ModelProto:
        model = onnx.load(source)
        nodes = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
        others = list(model.graph.node)
        del model.graph.initializer[:]
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *others])
        return model

    def quantised_in_half() -> onnx.ModelProto:
        return _quantised_in_half(onnx.version_converter.convert_version(onnx.load(source), 21))

    def one_function() -> onnx.ModelProto:
        return _in_function(onnx.load(source))

    tools: dict[str, Callable[[], onnx.ModelProto]] = {
        "float16": lambda: half(keep=False),
        "float16-keep-io": lambda: half(keep=True),
        "onnxsim": simplified,
        "onnxscript-optimised": script_optimised,
        "constants": constants,
        "opset-22": lambda: onnx.version_converter.convert_version(onnx.load(source), 22),
        "prefixed": lambda: onnx.compose.add_prefix(onnx.load(source), "a/"),
        "in-function": one_function,
        "qdq-in-half": quantised_in_half,
    }
    for variant, write in tools.items():
        target = _sibling(source, variant)

        def save(target: Path = target, write: Callable[[], onnx.ModelProto] = write) -> None:
            onnx.save(write(), target)

        if attempt(target.name, save, failures):
            yield target


def _in_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move all nodes into a local function of the file; initializers are its inputs."""
    graph = model.graph
    tensors = [tensor.name for tensor in graph.initializer]
    inputs = [info.name for info in graph.input if info.name not in tensors]
    outputs = [info.name for info in graph.output]
    function = onnx.helper.make_function(
        "exporters", "Network", [*inputs, *tensors], outputs, list(graph.node), list(model.opset_import)
    )
    call = onnx.helper.make_node("Network", [*inputs, *tensors], outputs, domain="exporters", name="network")
    del graph.node[:]
    graph.node.append(call)
    model.functions.append(function)
    model.opset_import.append(onnx.helper.make_opsetid("exporters", 1))
    model.ir_version = max(model.ir_version, 8)
    del graph.value_info[:]
    return model


def _quantised_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put a quantisation per output channel, in float16, behind the stored weights, as NVIDIA ModelOpt does."""
    graph = model.graph
    wanted = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    stored = [tensor for tensor in graph.initializer if tensor.name in wanted]
    if not stored:
        raise ValueError("no convolution has a stored weight")
    nodes = []
    for tensor in stored:
        weight = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        scale = (np.abs(weight).reshape(len(weight), -1).max(1) / 127).astype(np.float16)
        name = tensor.name
        added = {"half": weight, "scale": scale, "zero": np.zeros(len(weight), np.int8)}
        graph.initializer.remove(tensor)
        graph.initializer.extend(onnx.numpy_helper.from_array(v, f"{name}.{key}") for key, v in added.items())
        parameters = [f"{name}.scale", f"{name}.zero"]
        make = onnx.helper.make_node
        nodes += [
            make("QuantizeLinear", [f"{name}.half", *parameters], [f"{name}.codes"], axis=0),
            make("DequantizeLinear", [f"{name}.codes", *parameters], [f"{name}.values"], axis=0),
            make("Cast", [f"{name}.values"], [name], to=onnx.TensorProto.FLOAT),
        ]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])
    return model
