"""Convolutions that should have been read and were not are counted by ingest, info, layers, nearest and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import filterdb as fdb
from filterdb.commands import info as info_command
from filterdb.commands import ingest, layers
from tests.commands.running import run
from tests.filters import network, trained
from tests.models import chain, conv, model, save, tensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model, one with two layers that cannot be read and one that is not looked at, one without layers."""
    folder = tmp_path / "models"
    network(folder / "good.onnx")
    short = tensor("w", trained(16, 16, 1))
    short.raw_data = short.raw_data[:-4]
    nodes = [
        conv("x", "w", "a", "broken"),
        conv("a", "v", "b", "sound"),
        helper.make_node("FusedConv", ["b", "v"], ["c"], name="fused", domain="own"),
        conv("c", "u", "y", "wide"),
    ]
    tensors = [short, tensor("v", trained(16, 16, 2)), tensor("u", np.ones((4, 16, 5, 5), np.float32))]
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    save(folder / "partly.onnx", model(nodes, tensors, opset_imports=domains))
    chain(folder / "wide.onnx", np.ones((4, 4, 5, 5), np.float32))
    return folder


def test_unread_layers_are_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = fdb.ingest(tmp_path / "db", [folder], kernels="3x3")
    assert [(Path(model_id).name, layer) for model_id, layer, _ in done.unread] == [
        ("partly.onnx", "broken"),
        ("partly.onnx", "fused"),
    ]
    assert ingest.to_answer(done)["unread"] == 2
    db = done.database
    info = info_command.to_answer(db)
    assert (info["unread_layers"], info["skipped_layers"]) == (2, 4)
    listed = {row["layer"]: row["unread"] for row in layers.to_answer(db)["skipped"]}
    assert listed == {"broken": True, "fused": True, "wide": False, "conv0": False}
    info_command.show(info)
    layers.show(layers.to_answer(db))
    shown = capsys.readouterr().out
    assert "incomplete: 2 of these should have been read but could not be" in shown
    assert shown.count("(should have been read): ") == 2 and "not stored: 4 convolutions" in shown
    layers.show(layers.to_answer(db), skipped=True)
    assert "unread: it should have been read" in capsys.readouterr().out


def test_models_of_this_call_are_counted(folder: Path, tmp_path: Path) -> None:
    """Also where they were there before; not those of earlier calls."""
    url = tmp_path / "db"
    assert len(fdb.ingest(url, [folder / "partly.onnx"]).unread) == 2
    assert fdb.ingest(url, [folder / "good.onnx"]).unread == []
    again = fdb.ingest(url, [folder])
    assert (len(again.added), len(again.present), len(again.unread)) == (1, 2, 2)
    assert info_command.to_answer(again.database)["unread_layers"] == 2
    gone = fdb.remove(again.database, [again.unread[0][0]])
    assert info_command.to_answer(gone)["unread_layers"] == 0


def test_nothing_unread_is_not_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = fdb.ingest(tmp_path / "db", [network(tmp_path / "m.onnx")]).database
    info_command.show(info_command.to_answer(db))
    assert "incomplete" not in capsys.readouterr().out and info_command.to_answer(db)["unread_layers"] == 0


@pytest.mark.slow
def test_the_command_line_and_the_page(folder: Path, tmp_path: Path) -> None:
    done = run("ingest", tmp_path / "db", folder, "--json", "--threads", 1)
    assert json.loads(done.stdout)["unread"] == 2
    (line,) = [line for line in done.stderr.splitlines() if "could not be read" in line]
    assert "2 convolutions could not be read, such as" in line and "partly.onnx layer broken" in line
    run("report", tmp_path / "db", "-o", tmp_path / "page", "--threads", 1)
    page = (tmp_path / "page" / "index.html").read_text()
    assert "2 convolutions of 1 model could not be read." in page
    assert "2 of them could not be read although they have 3×3 or unknown kernels." in page
