"""Write files as Keras does, with h5py and zipfile: kernels are (height, width, in, out)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

TEXT = h5py.string_dtype()
WEIGHTS = "model.weights.h5"


def kernel(out: int = 4, into: int = 3, seed: int = 0, size: tuple[int, ...] = (3, 3)) -> np.ndarray:
    """A float32 kernel in Keras' order."""
    return np.random.default_rng(seed).standard_normal((*size, into, out)).astype(np.float32)


def filters(stored: np.ndarray) -> np.ndarray:
    """The filters (n, 9) of a plain kernel, sliced one by one."""
    into, out = stored.shape[2:]
    return np.array([stored[:, :, i, o].ravel() for o in range(out) for i in range(into)], np.float32)


def depthwise_filters(stored: np.ndarray) -> np.ndarray:
    """The filters (n, 9) of a depthwise kernel: channel c times multiplier m is output c · mult + m."""
    into, multiplier = stored.shape[2:]
    return np.array([stored[:, :, c, m].ravel() for c in range(into) for m in range(multiplier)], np.float32)


def layer(class_name: str, name: str, **settings: Any) -> dict[str, Any]:
    """A layer of a config."""
    return {"class_name": class_name, "config": {"name": name, **settings}, "name": name}


def conv(name: str, stored: np.ndarray, **settings: Any) -> dict[str, Any]:
    """A Conv2D with this kernel."""
    size, filters = list(stored.shape[:2]), stored.shape[-1]
    return layer("Conv2D", name, **{"filters": filters, "kernel_size": size, "use_bias": False, **settings})


def sequential(*layers: dict[str, Any], name: str = "m") -> dict[str, Any]:
    """The config of a Sequential model."""
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def write_h5(
    path: Path,
    config: Any,
    weights: Mapping[str, Mapping[str, Any]],
    **attributes: Any,
) -> Path:
    """A file as Keras 2 writes it: each layer's weights by name, in order. With no config only the weights."""
    with h5py.File(path, "w") as file:
        group: h5py.Group = file
        if config is not None:
            file.attrs["model_config"] = config if isinstance(config, str | bytes) else json.dumps(config)
            group = file.create_group("model_weights")
        for key, value in {"backend": "tensorflow", "keras_version": "2.15.0", **attributes}.items():
            group.attrs[key] = value
        group.attrs["layer_names"] = np.array([name.encode() for name in weights])
        for name, tensors in weights.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = np.array([weight.encode() for weight in tensors] or np.empty(0))
            for weight, values in tensors.items():
                own[weight] = values
    return path


def tree(weights: Mapping[str, Sequence[Any]], names: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a weights file of Keras 3: the weights of each group, and the names that newer versions add."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for place, tensors in weights.items():
            group = file.create_group(f"{place}/vars".lstrip("/"))
            if names is not None and place in names:
                group.attrs["name"] = names[place]
            for number, values in enumerate(tensors):
                dataset = group.create_dataset(str(number), data=values)
                if np.asarray(values).dtype.name == "bfloat16":
                    dataset.attrs["dtype"] = "bfloat16"
    return buffer.getvalue()


def write_keras(path: Path, config: Any, weights: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive as Keras 3 writes it."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        file.writestr("config.json", config if isinstance(config, str | bytes) else json.dumps(config))
        file.writestr(WEIGHTS, weights)
    return path
