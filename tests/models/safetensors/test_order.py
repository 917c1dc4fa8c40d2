"""The order of execution that a file beside a safetensors file gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import filterdb as fdb
from tests.models import conv, model, save, tensor, weights
from tests.models.checkpoint.writer import tensor as stored
from tests.models.checkpoint.writer import zip_checkpoint

KEYS = ("stem.weight", "body.weight", "head.weight")
"""In the order of execution, which is not the alphabet's."""


def arrays() -> dict[str, np.ndarray]:
    return {name: weights(4, 4, i) for i, name in enumerate(KEYS)}


def checkpoint(path: Path) -> None:
    path.write_bytes(zip_checkpoint({name: stored(array) for name, array in arrays().items()}))


def onnx_file(path: Path) -> None:
    names = ["x", "a", "b", "y"]
    nodes = [conv(names[i], key, names[i + 1]) for i, key in enumerate(KEYS)]
    save(path, model(nodes, [tensor(name, array) for name, array in arrays().items()]))


BESIDE = {"model.pt": checkpoint, "pytorch_model.bin": checkpoint, "model.onnx": onnx_file}


def depths(path: Path) -> tuple[dict[str, float], str]:
    """The depth of each layer, and what gave it."""
    db = fdb.ingest(path.parent / "db", path).database
    rows = zip(db.layers["layer_name"].values.astype(str), db.layers["conv_depth_norm"].values, strict=True)
    return dict(rows), str(db.models["depth_source"].values[0])


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_beside_it_gives_the_order(tmp_path: Path, name: str) -> None:
    save_file(arrays(), tmp_path / "model.safetensors")
    BESIDE[name](tmp_path / name)
    assert depths(tmp_path / "model.safetensors") == (dict(zip(KEYS, (0, 0.5, 1), strict=True)), "order")


@pytest.mark.parametrize("kind", ["nothing", "another model", "damaged", "a link that leads out", "a folder"])
def test_otherwise_there_is_none(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(arrays(), folder / "model.safetensors")
    beside = folder / "model.pt"
    if kind == "another model":
        beside.write_bytes(zip_checkpoint({"other.weight": stored(weights(4, 4))}))
    elif kind == "damaged":
        beside.write_bytes(b"PK\x03\x04" + bytes(100))
    elif kind == "a link that leads out":
        checkpoint(tmp_path / "elsewhere.pt")
        beside.symlink_to("../elsewhere.pt")
    elif kind == "a folder":
        beside.mkdir()
    found, source = depths(folder / "model.safetensors")
    assert np.isnan(list(found.values())).all() and source == "none"
