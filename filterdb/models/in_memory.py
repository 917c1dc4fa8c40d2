"""Write models in memory to files that the readers know: onnx.ModelProto, torch modules and Keras models.

The frameworks are never imported here: whoever passes such a model has imported its own (see `frameworks`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from filterdb.errors import InputError
from filterdb.models.frameworks import is_keras, is_torch, unwrapped

UNNAMED = "model in memory"
"""Name in messages of a model in memory whose graph has no name."""


def is_onnx(source: object) -> bool:
    """Return whether `source` is an onnx.ModelProto. If it is, the caller has already imported onnx."""
    module = sys.modules.get("onnx")
    return module is not None and isinstance(source, module.ModelProto)


def is_in_memory(source: object) -> bool:
    """Return whether `source` is a model in memory that can be read."""
    return is_onnx(source) or is_keras(source) or is_torch(source)


def name_of(source: Any) -> str:
    """Return a model's name in messages: of its graph, of its Keras model, or of its torch class."""
    if is_onnx(source):
        return source.graph.name.strip() or UNNAMED
    return str(source.name) if is_keras(source) else type(unwrapped(source)).__name__


def has_name(source: Any) -> bool:
    """Return whether a model has a name of its own, which can be its id in a database."""
    return bool(source.graph.name.strip()) if is_onnx(source) else is_keras(source)


def write(source: Any, folder: Path, name: str) -> Path:
    """Write a model to a file in an empty folder. Raises InputError, which begins with `name`."""
    from google.protobuf.message import EncodeError

    errors = (EncodeError, ValueError, OSError, RuntimeError, NotImplementedError)
    try:
        if is_onnx(source):
            path = folder / "model.onnx"
            path.write_bytes(source.SerializeToString(deterministic=True))
        elif is_keras(source):
            path = _write_keras(source, folder)
        else:
            path = folder / "model.pt"
            sys.modules["torch"].save(_skeleton(unwrapped(source), {}), path)
    except errors as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{name}: cannot be written to a temporary file ({reason}); save the model first") from error
    return path


def _write_keras(model: Any, folder: Path) -> Path:
    """Write a Keras model, or only its weights if it has layers that cannot be saved with their settings."""
    path = folder / "model.keras"
    try:
        model.save(path)
    except (NotImplementedError, TypeError, ValueError):
        path.unlink(missing_ok=True)
        path = folder / "model.weights.h5"
        model.save_weights(path)
    return path


def _skeleton(module: Any, done: dict[int, Any]) -> Any:
    """Return a module of PyTorch's own classes with the weights that a reader looks at, under the same names.

    `done` has the results by the identity of the module. The file is then that of `torch.save(module)` without
    matrices, and without the user's classes, which a pickle may not be able to name. A weight that is computed, as with
    weight normalisation, is there as it is used.
    """
    if id(module) in done:
        return done[id(module)]
    torch = sys.modules["torch"]
    convolutions = torch.nn.modules.conv
    is_convolution = isinstance(module, convolutions._ConvNd)
    base = torch.nn.Module
    if is_convolution:
        base = next(known for known in type(module).__mro__ if known.__module__ == convolutions.__name__)
    copy = done[id(module)] = base.__new__(base)
    torch.nn.Module.__init__(copy)
    if is_convolution:
        copy.__dict__.update({name: getattr(module, name) for name in ("groups", "transposed", "stride", "dilation")})
        tensors = {"weight": module.weight, "bias": module.bias}
    else:
        tensors = {**module._parameters, **module._buffers}
        for name, child in module._modules.items():
            if child is not None:
                copy._modules[name] = _skeleton(child, done)
    transient = module._non_persistent_buffers_set
    for name, tensor in tensors.items():
        if tensor is not None and tensor.ndim != 2 and name not in transient:
            if id(tensor) not in done:
                done[id(tensor)] = _plain(tensor)
            copy._buffers[name] = done[id(tensor)]
    return copy


def _plain(tensor: Any) -> Any:
    """Return a tensor on the CPU that does not take a larger storage with it. Raises ValueError if it has no values."""
    torch = sys.modules["torch"]
    if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
        raise ValueError("its weights have no values yet; run the model once")
    tensor = tensor.detach().to("cpu")
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
