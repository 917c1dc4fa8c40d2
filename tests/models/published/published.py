"""A small published data set, written in each of its layouts by pandas, PyTables and h5py, and what it says."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from filterdb.schema import LABELS

ROWS = 24

MODELS: dict[int, dict[str, Any]] = {
    7: {
        "model": "resnet_imagenet_11",
        "Name": "resnet",
        "Task": "Classification",
        "Visual Category": "natural",
        "Training-Dataset": "ImageNet-1k",
        "Pretraining-Dataset": None,
        "Precision": "float32",
        "Accessible": "https://example.org/resnet",
        "Paper": "https://example.org/paper",
        "producer": "pytorch 1.9",
        "op_set": 11,
        "depth": 31,
        "Conv": 4,
        "Relu": 3.0,
        "Upsample": np.nan,
        "(1, 1) filters": 100.0,
        "(3, 3) filters": 14,
        "(7, 7) filters": 6.0,
        "total_filters": 20,
        "3x3_filter_share": 0.7,
        "Selection": 1.0,
    },
    3: {
        "model": "twin",
        "Name": "twin",
        "Task": "Auto-Encoder",
        "Visual Category": "fractals",
        "Training-Dataset": "FractalDB-1k, Größe",
        "Pretraining-Dataset": "ImageNet-1k",
        "Precision": "float32",
        "Accessible": None,
        "Paper": None,
        "producer": "pytorch 1.8",
        "op_set": 9,
        "depth": 5,
        "Conv": 1,
        "Relu": np.nan,
        "Upsample": 2.0,
        "(1, 1) filters": np.nan,
        "(3, 3) filters": 4,
        "(7, 7) filters": np.nan,
        "total_filters": 4,
        "3x3_filter_share": 1.0,
        "Selection": np.nan,
    },
    5: {
        "model": "twin",
        "Name": "twin",
        "Task": "Segmentation (2)",
        "Visual Category": "medical ct",
        "Training-Dataset": "LiTS",
        "Pretraining-Dataset": "",
        "Precision": "float16",
        "Accessible": None,
        "Paper": None,
        "producer": "tf2onnx 1.8",
        "op_set": 12,
        "depth": 9,
        "Conv": 2,
        "Relu": 1.0,
        "Upsample": np.nan,
        "(1, 1) filters": np.nan,
        "(3, 3) filters": 6,
        "(7, 7) filters": np.nan,
        "total_filters": 6,
        "3x3_filter_share": 1.0,
        "Selection": 1.0,
    },
}
"""What the metadata says of the models, by model_id; the order is that of the file."""

LAYERS: list[tuple[int, int, float, int, list[int], int, int]] = [
    (7, 0, 0.0, 0, [0, 1, 2, 3, 4, 5], 3, 2),
    (7, 2, 1.0, 3, [10, 11], 1, 2),
    (7, 1, 0.5, 1, [6, 7], 2, 1),
    (7, 1, 0.5, 2, [8, 9, 12, 13], 2, 2),
    (3, 0, 0.0, 0, [14, 15, 16, 17], 2, 2),
    (5, 0, 0.0, 0, [18, 19, 20], 1, 3),
    (5, 1, 1.0, 1, [21, 22, 23], 3, 1),
]
"""model_id, conv_depth, conv_depth_norm, layer_id, filter ids, in_channels, out_channels, in the order of the file."""

CONSECUTIVE = list(LAYERS)
CONSECUTIVE[1] = (7, 2, 1.0, 3, [12, 13], 1, 2)
CONSECUTIVE[3] = (7, 1, 0.5, 2, [8, 9, 10, 11], 2, 2)
"""The same with ids that are runs, as text can say."""


def filters(shape: tuple[int, ...] = (3, 3), dtype: str = "f4") -> np.ndarray:
    """Filters that float16 can hold, different in each weight."""
    return ((np.arange(ROWS * 9) - 100.5) / 8).reshape(ROWS, *shape).astype(dtype)


def frame(
    *, levels: int = 3, ids: str = "text", early: bool = False, channels: bool = True, layers: list[Any] | None = None
) -> pd.DataFrame:
    """The metadata as the authors hold it: a row a layer, an index of 3 or 4 levels, texts as Python objects.

    `ids`: "text" (start:end), "list" or "array"; `early`: with the column names of v0.1.0.
    """
    if layers is None:
        layers = CONSECUTIVE if ids == "text" else LAYERS
    rows, index = [], []
    for model, depth, norm, layer, numbers, inputs, outputs in layers:
        row: dict[str, Any] = {}
        if ids == "text":
            row["filter_ids"] = f"{numbers[0]}:{numbers[-1]}"
        else:
            row["filter_ids"] = list(numbers) if ids == "list" else np.array(numbers, dtype=np.int32)
        row |= MODELS[model]
        if channels:
            row |= {"in_channels": inputs, "out_channels": outputs}
        rows.append(row)
        index.append((model, depth, norm, layer)[:levels])
    names = ["model_id", "conv_depth", "conv_depth_norm", "layer_id"][:levels]
    table = pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=names))
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype(object)
    if early:
        table = table.rename(columns={"Visual Category": "Datatype"})
        table["Datatype"] = table["Datatype"].replace("fractals", "formula")
    return table.copy()  # so that there is one block of each type, as of old


def write_frame(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """`/meta` as pandas writes it in its fixed format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled columns, names that are no identifiers
        table.to_hdf(path, key="meta", mode="w", format="fixed", **options)


def write_csv(path: Path, table: pd.DataFrame, form: str = "uint8", index: bool = True) -> None:
    """`/meta` as CSV bytes: of small integers (as the authors have it), opaque, or a string."""
    write_bytes(path, table.to_csv(index=index).encode(), form)


def write_bytes(path: Path, data: bytes, form: str = "uint8") -> None:
    """`/meta` as these bytes."""
    with h5py.File(path, "w") as file:
        if form == "vlen":
            file["meta"] = data
        elif form in {"void", "bytes"}:
            file["meta"] = {"void": np.void, "bytes": np.bytes_}[form](data)
        else:
            file["meta"] = np.frombuffer(data, dtype=form)


def add_filters(path: Path, values: np.ndarray | None = None, name: str = "filters", **options: Any) -> None:
    """The filters beside `/meta`."""
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=filters() if values is None else values, **options)


def put_pickle(path: Path, name: str, data: bytes) -> None:
    """The bytes of a pickle in the place of a pickled array."""
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        dataset = file.create_dataset(name, (1,), h5py.vlen_dtype(np.uint8), maxshape=(None,), chunks=(64,))
        dataset[0] = np.frombuffer(data, np.uint8)
        for key, value in {"CLASS": "VLARRAY", "VERSION": "1.4", "TITLE": "", "PSEUDOATOM": "object"}.items():
            dataset.attrs[key] = np.bytes_(value or "\0")


def pickled_blocks(path: Path) -> list[str]:
    """Where a file has pickled arrays."""
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) and item.dtype == object else None
        )
    return found


class Evil:
    """An object whose pickle leaves a canary where it is read."""

    def __init__(self, canary: Path, by: str = "system") -> None:
        self.canary = canary
        self.by = by

    def __reduce__(self) -> tuple[Any, ...]:
        if self.by == "system":
            return os.system, (f"touch '{self.canary}'",)
        return eval, (f"open({str(self.canary)!r}, 'w').close()",)


def evil(canary: Path, by: str, hidden: bool) -> bytes:
    """A pickle that leaves a canary: as it is, or among the values of an array such as pandas pickles."""
    value: Any = Evil(canary, by)
    if hidden:
        array = np.empty((len(CONSECUTIVE), 1), dtype=object)
        array[:] = "0:1"
        array[3, 0] = value
        value = array
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def labels(**known: str) -> dict[str, str]:
    """Labels with these, the others unknown."""
    return dict.fromkeys(LABELS, "unknown") | known
