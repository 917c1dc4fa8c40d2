"""Every format that is read in parts, from the hub: PyTorch checkpoints of both forms, and shards with their index."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest

import filterdb as fdb
from tests.hub.nets import safetensors
from tests.hub.server import Hub, Repository
from tests.hub.test_ranged import TENSORS, assert_stored
from tests.models.checkpoint import writer


@pytest.mark.parametrize("form", ["zip_checkpoint", "legacy_checkpoint"])
def test_a_checkpoint(hub: Hub, tmp_path: Path, form: str) -> None:
    content = OrderedDict((name, writer.tensor(values)) for name, values in TENSORS.items())
    data: bytes = getattr(writer, form)(content)
    hub.add(Repository("org/net", {"pytorch_model.bin": data}))
    assert_stored(fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3").database, TENSORS)
    assert hub.sent("cdn") < 0.5 * len(data)
    assert hub.count("^cdn") <= 30


def test_shards(hub: Hub, tmp_path: Path) -> None:
    names = list(TENSORS)
    files: dict[str, bytes] = {}
    places: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        files[file] = safetensors({name: TENSORS[name] for name in part})
        places |= dict.fromkeys(part, file)
    index = json.dumps({"metadata": {}, "weight_map": places}).encode()
    hub.add(Repository("org/net", {**files, "model.safetensors.index.json": index}))
    assert_stored(fdb.ingest(tmp_path / "db", "hf://org/net", kernels="3x3").database, TENSORS)
    assert hub.sent("cdn") < 0.5 * sum(map(len, files.values()))
