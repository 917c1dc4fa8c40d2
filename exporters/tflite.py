"""What Google's interpreter reads of TensorFlow Lite files: `python -m exporters.tflite FILE...`.

Prints the lines of TRUTH in tests/end_to_end/test_real_tflite.py. Needs Python 3.11 and ai-edge-litert==2.3.0. The file
is parsed by the code that Google generates from the schema, and the reference kernels compute the weights.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

ORDERS = {3: (0, 3, 1, 2), 4: (3, 0, 1, 2)}
"""The dimensions (out, in, height, width) of the weights of CONV_2D and DEPTHWISE_CONV_2D, by operator code."""


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    for path in sorted(parser.parse_args().files):
        layers = weights(path)
        depthwise = sum(code == 4 for code, _ in layers)
        filters = sum(weight.shape[0] * weight.shape[1] for _, weight in layers)
        hashes = sorted(hashlib.sha256(np.ascontiguousarray(weight, "<f4")).hexdigest() for _, weight in layers)
        digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        print(f'    "{path.stem}": ({len(layers)}, {depthwise}, {filters:_}, "{digest}"),')


def weights(path: Path) -> list[tuple[int, np.ndarray]]:
    """Return the operator code and the weight (out, in, 3, 3) of each 3×3 convolution of the first graph."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    interpreter.invoke()  # computes the weights behind DEQUANTIZE and DENSIFY
    details = {tensor["index"]: tensor["quantization_parameters"] for tensor in interpreter.get_tensor_details()}
    layers = []
    for operator in model.subgraphs[0].operators:
        kind = model.operatorCodes[operator.opcodeIndex]
        code = max(kind.builtinCode, kind.deprecatedBuiltinCode)
        if code in ORDERS:
            index = operator.inputs[1]
            weight = dequantized(interpreter.get_tensor(index), details[index]).transpose(ORDERS[code])
            if weight.shape[2:] == (3, 3):
                layers.append((code, weight))
    return layers


def dequantized(values: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
    """Return scale · (integer − zero point) as float32; floats as they are."""
    if values.dtype.kind not in "iu":
        return values.astype(np.float32)
    shape = [1] * values.ndim
    if len(parameters["scales"]) > 1:
        shape[int(parameters["quantized_dimension"])] = -1
    integers = values.astype(np.int32) - parameters["zero_points"].reshape(shape)
    result: np.ndarray = integers.astype(np.float32) * parameters["scales"].reshape(shape)
    return result


if __name__ == "__main__":
    main()
