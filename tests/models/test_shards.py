"""Models in shards: one model from several files, and nothing else that an index may name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import filterdb as fdb
from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan, scan
from tests.models import weights
from tests.models.checkpoint.writer import legacy_checkpoint, tensor, zip_checkpoint

WEIGHTS = {f"layer{9 - i}.weight": weights(4, 3 + i, seed=i) for i in range(4)}
"""Names whose order is not that of the layers."""


def write_index(folder: Path, shards: dict[str, list[str]], name: str = "pytorch_model.bin.index.json") -> Path:
    """Write an index as Hugging Face's libraries do: sorted by key."""
    files = {key: shard for shard, keys in shards.items() for key in keys}
    path = folder / name
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}, indent=2, sort_keys=True))
    return path


def write_pytorch(folder: Path, *, keys: tuple[str, ...] = tuple(WEIGHTS)) -> Path:
    """Write two shards, one in each form, and their index."""
    halves = {"pytorch_model-00001-of-00002.bin": keys[:2], "pytorch_model-00002-of-00002.bin": keys[2:]}
    for (shard, half), form in zip(halves.items(), (zip_checkpoint, legacy_checkpoint), strict=True):
        (folder / shard).write_bytes(form({key: tensor(WEIGHTS[key]) for key in half}))
    return write_index(folder, {shard: list(half) for shard, half in halves.items()})


def scanned(path: Path) -> Scan:
    return scan(ModelSource("m", str(path)), None, Limits())


def reason(path: Path) -> str:
    rejected = scanned(path).rejected
    assert rejected is not None
    assert len(rejected.replace(str(path.parent), "")) < 400
    return rejected


def test_layers_are_in_the_order_of_the_shards(tmp_path: Path) -> None:
    """The index is sorted by key, the shards are not. A folder with both is one model."""
    write_pytorch(tmp_path)
    (tmp_path / "other.index.json").write_text('{"files": []}')
    db = fdb.ingest(tmp_path / "db", [str(tmp_path)]).database
    assert db.models.sizes["model"] == 1
    assert list(db.layers["layer_name"].values) == list(WEIGHTS)
    assert list(db.layers["conv_depth"].values) == [0, 1, 2, 3]
    assert (db.models["source_format"].item(), db.models["depth_source"].item()) == ("PyTorch", "order")
    expected = np.concatenate([weight.reshape(-1, 9) for weight in WEIGHTS.values()])
    assert np.array_equal(db.dataset["filters"].values, expected)


def test_shards_of_safetensors_have_no_order(tmp_path: Path) -> None:
    keys = list(WEIGHTS)
    shards = {"model-00001-of-00002.safetensors": keys[:2], "model-00002-of-00002.safetensors": keys[2:]}
    for shard, half in shards.items():
        save_file({key: WEIGHTS[key] for key in half}, tmp_path / shard)
    result = scanned(write_index(tmp_path, shards, "model.safetensors.index.json"))
    assert {row["layer_name"]: row["row_size"] for row in result.rows} == {
        key: weight.shape[0] * weight.shape[1] for key, weight in WEIGHTS.items()
    }
    assert (result.facts["source_format"], result.facts["depth_source"]) == ("safetensors", "none")


def test_a_changed_shard_changes_the_hash(tmp_path: Path) -> None:
    path = write_pytorch(tmp_path)
    before = scanned(path)
    shard = tmp_path / "pytorch_model-00002-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert scanned(path).file_hash != before.file_hash


def test_a_missing_shard_rejects_the_model(tmp_path: Path) -> None:
    path = write_pytorch(tmp_path)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    assert "pytorch_model-00002-of-00002.bin" in reason(path)


def test_a_key_that_its_shard_lacks_rejects_the_model(tmp_path: Path) -> None:
    write_pytorch(tmp_path)
    path = write_index(tmp_path, {"pytorch_model-00001-of-00002.bin": [*list(WEIGHTS)[:2], "gone.weight"]})
    assert "expected 'gone.weight' in 'pytorch_model-00001-of-00002.bin', got a shard without it" in reason(path)


def test_shards_of_two_formats_are_rejected(tmp_path: Path) -> None:
    write_pytorch(tmp_path)
    save_file({"x": weights()}, tmp_path / "x.safetensors")
    path = write_index(tmp_path, {"pytorch_model-00001-of-00002.bin": list(WEIGHTS)[:2], "x.safetensors": ["x"]})
    assert "expected shards of one format, got PyTorch and safetensors" in reason(path)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "link.bin", "folder", "pipe", "index.json"])
def test_nothing_else_is_read(tmp_path: Path, name: str) -> None:
    """Ways out of the folder, what is no file, and the index itself."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(zip_checkpoint({"w": tensor(weights())}))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    assert reason(write_index(folder, {name: ["w"]}, "index.json"))


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"w": 1}}',
        '{"weight_map": {"w": ""}}',
        '{"weight_map": {"w": "a.bin", "w": "b.bin"}}',
        '{"weight_map": {"w": "a.bin"}',
        '{"weight_map": ' + "[" * 100_000,
        '{"weight_map": {"w": "a\\ud800.bin"}}',
        '{"weight_map": {"w": "a\\u0000.bin"}}',
        '{"weight_map": ' + " " * 34_000_000 + '{"w": "a.bin"}}',
    ],
    ids=lambda text: text[:40],
)
def test_damaged_indexes_are_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pytorch_model.bin.index.json"
    path.write_text(text)
    assert reason(path)


def test_an_index_of_ten_thousand_files(tmp_path: Path) -> None:
    """More files than a model may have."""
    files: dict[str, Any] = {f"{i}.bin": [f"w{i}"] for i in range(10_001)}
    assert "10,000" in reason(write_index(tmp_path, files))
