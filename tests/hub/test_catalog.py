"""A catalog of the hub: what cards and configs say, as the columns that `ingest --catalog` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import filterdb as fdb
from filterdb.errors import InputError, StoreError, UsageError
from tests.commands.running import run
from tests.hub.server import Fault, Hub, Repository
from tests.hub.test_ranged import FILE, TENSORS, assert_stored


def fill(hub: Hub) -> Repository:
    hub.add(Repository("other/net", {"config.json": b"{}"}))
    hub.add(Repository("timm/plain", {"config.json": b"{}"}))
    return hub.add(
        Repository(
            "timm/resnet50.a1_in1k",
            {"model.safetensors": FILE},
            "image-classification",
            ("timm", "dataset:imagenet-1k", "arxiv:1512.03385", "license:apache-2.0"),
            {"license": "apache-2.0", "datasets": ["imagenet-1k", "imagenet-12k"], "base_model": "timm/old"},
            {"architecture": "resnet50", "model_type": "resnet"},
        )
    )


def test_columns_are_those_of_the_card(hub: Hub, tmp_path: Path) -> None:
    repository = fill(hub)
    table = fdb.catalog("hf://timm", output=tmp_path / "catalog.csv", filters="image-classification")
    expected = {
        "path": f"hf://timm/resnet50.a1_in1k@{repository.commit(repository.files)}",
        "name": "timm/resnet50.a1_in1k",
        "task": "image classification",
        "visual_category": "",
        "training_dataset": "imagenet-1k, imagenet-12k",
        "pretraining_dataset": "",
        "family": "resnet",
        "architecture": "resnet50",
        "precision": "",
        "paper": "arXiv:1512.03385",
        "url": f"{hub.endpoint}/timm/resnet50.a1_in1k",
        "licence": "apache-2.0",
        "library": "",
        "base_model": "timm/old",
        "downloads": "7",
        "gated": "",
    }
    assert table.to_dict("records") == [expected]
    assert len(hub.asked) == 1
    written = pd.read_csv(tmp_path / "catalog.csv", dtype=str, keep_default_na=False)
    assert written.to_dict("records") == [expected]
    db = fdb.ingest(tmp_path / "db", catalog=tmp_path / "catalog.csv").database
    assert_stored(db, TENSORS)
    row = db.models.isel(model=0)
    assert (str(row["model"].values), str(row["task"].values)) == ("timm/resnet50.a1_in1k", "image classification")
    assert (str(row["licence"].values), str(row["precision"].values)) == ("apache-2.0", "unknown")


def test_pages_and_the_limit(hub: Hub) -> None:
    for number in range(250):
        hub.add(Repository(f"org/net-{number:03d}", {"config.json": b"{}"}))
    table = fdb.catalog("hf://org")
    assert list(table["name"]) == [f"org/net-{number:03d}" for number in range(250)]
    assert len(hub.asked) == 3
    assert len(fdb.catalog("hf://org", limit=120)) == 120
    assert len(hub.asked) == 5


def test_the_command(hub: Hub, tmp_path: Path) -> None:
    fill(hub)
    out = tmp_path / "catalog.csv"
    assert "2 models" in run("catalog", "hf://timm", "-o", out).stdout
    assert len(out.read_text().splitlines()) == 3
    answer = json.loads(run("catalog", "hf://timm", "--limit", "1", "--json").stdout)
    assert (answer["models"], answer["rows"][0]["name"]) == (1, "timm/plain")
    assert "resnet50" in run("catalog", "hf://timm").stdout


def test_cards_that_are_nonsense(hub: Hub, tmp_path: Path) -> None:
    monster: dict[str, object] = {"license": ["x"], "datasets": {"a": 1}, "base_model": ["a", 3, None, {"b": 1}]}
    monster["library_name"] = "a\nb\x1b[1m"
    files = {"model.safetensors": FILE}
    hub.add(Repository("org/net", files, "t" * 9999, (), monster, {"architectures": "no list", "model_type": [1]}))
    (row,) = fdb.catalog("hf://org", output=tmp_path / "c.csv").to_dict("records")
    assert (row["licence"], row["training_dataset"], row["base_model"]) == ("", "", "a, 3")
    assert (row["library"], row["architecture"], len(row["task"])) == ("a b�[1m", "", 300)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 2


def test_errors(hub: Hub, tmp_path: Path) -> None:
    fill(hub)
    with pytest.raises(InputError, match=r"expected models with nothing, found none"):
        fdb.catalog("hf://timm", filters=["nothing"])
    for source in ("timm", "hf://", "hf://timm/net", "https://host/timm"):
        with pytest.raises(UsageError, match="expected an organisation of the hub, such as hf://timm"):
            fdb.catalog(source)
    with pytest.raises(UsageError, match=r"ends in \.csv"):
        fdb.catalog("hf://timm", output=tmp_path / "catalog.parquet")
    with pytest.raises(StoreError, match="writing"):
        (tmp_path / "file").write_bytes(b"")
        fdb.catalog("hf://timm", output=tmp_path / "file" / "catalog.csv")
    hub.faults.append(Fault("hub", status=500, times=99))
    with pytest.raises(StoreError, match="HTTP 500") as error:
        fdb.catalog("hf://timm")
    assert error.value.exit_code == 74
