"""One network in two files, one with its batch normalisations folded, is one network for every command that compares.

The folded file is made here: each output channel is multiplied in float32 by γ/√(σ² + ε), with γ of both signs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

import filterdb as fdb
from filterdb.analysis.units import find_units
from filterdb.commands.group import commands
from tests.filters import moved, network, trained
from tests.models import chain


def folded(source: Path, target: Path, seed: int = 0) -> Path:
    """A copy of a chain of convolutions whose channels are scaled, as an exporter folds batch normalisations."""
    proto, rng = onnx.load(source), np.random.default_rng(seed)
    for initializer in proto.graph.initializer:
        values = numpy_helper.to_array(initializer)
        gamma, variance = rng.normal(0, 1, len(values)), np.exp(rng.normal(0, 1, len(values)))
        scale = (gamma.astype(np.float32) / np.sqrt(variance.astype(np.float32) + np.float32(1e-5))).astype(np.float32)
        initializer.CopyFrom(numpy_helper.from_array(values * scale[:, None, None, None], initializer.name))
    onnx.save(proto, target)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net`, its folded form, a fine-tuned copy, a stranger, and two models of one small layer, which cannot tell."""
    folder = tmp_path_factory.mktemp("formats")
    folded(network(folder / "net.onnx"), folder / "folded.onnx")
    moved(folder / "net.onnx", folder / "tuned.onnx", share=0.02)
    network(folder / "stranger.onnx", seed=3)
    chain(folder / "small.onnx", trained(4, 3, 0))
    folded(folder / "small.onnx", folder / "small-folded.onnx")
    return folder


NAMES = ("net", "tuned", "folded", "stranger", "small", "small-folded")


@pytest.fixture(scope="module")
def db(folder: Path) -> fdb.Database:
    (folder / "list.csv").write_text("\n".join(["path,name", *(f"{name}.onnx,{name}" for name in NAMES)]))
    return fdb.ingest(folder / "db", catalog=folder / "list.csv").database


def run(*arguments: object) -> tuple[int, str]:
    """The exit code and the output of a command."""
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_it_is_a_duplicate(db: fdb.Database, folder: Path, tmp_path: Path) -> None:
    found = dict(zip(db.models["model"].values, db.models["duplicate_of"].values, strict=True))
    assert found == {**dict.fromkeys(NAMES, ""), "folded": "net"}
    # In a later ingest too; the same file comes first, even if an earlier model has the same filters.
    shutil.copytree(db.url, tmp_path / "db")
    shutil.copy(folder / "folded.onnx", tmp_path / "copy.onnx")
    folded(folder / "net.onnx", tmp_path / "again.onnx", seed=1)
    later = fdb.ingest(tmp_path / "db", [tmp_path / "copy.onnx", tmp_path / "again.onnx"])
    names = later.database.models["model"].values.tolist()
    originals = dict(zip(names, later.database.models["duplicate_of"].values, strict=True))
    assert originals[str(tmp_path / "copy.onnx")] == "folded"
    assert originals[str(tmp_path / "again.onnx")] == "net"
    assert set(later.duplicates) == {str(tmp_path / "copy.onnx"), str(tmp_path / "again.onnx")}


def test_a_checkpoint_is_a_duplicate_of_an_export(db: fdb.Database, folder: Path, tmp_path: Path) -> None:
    """The weights as trained, in a safetensors file in another order, and folded in the stored ONNX files."""
    layers = [numpy_helper.to_array(one) for one in onnx.load(folder / "net.onnx").graph.initializer]
    names = ("stem.weight", "head.weight", "block.weight")  # in a file, head comes before stem
    head, data = {}, b""
    for name, values in sorted(zip(names, layers, strict=True)):
        span = [len(data), len(data) + values.nbytes]
        head[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": span}
        data += values.tobytes()
    text = json.dumps(head).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    result = fdb.nearest(db, path)
    assert json.loads(result.attrs["query_stored_as"]) == ["net", "folded"]
    shutil.copytree(db.url, tmp_path / "db")
    assert fdb.ingest(tmp_path / "db", path).duplicates == [str(path)]
    fdb.ingest(tmp_path / "other", [path])
    found = fdb.ingest(tmp_path / "other", [folder / "folded.onnx"]).database.models
    assert found["duplicate_of"].values.tolist() == ["", str(path)]


def test_with_another_layer_it_is_no_duplicate(db: fdb.Database, folder: Path, tmp_path: Path) -> None:
    """A backbone with a new head, and one without its last layer, are other networks."""
    layers = [numpy_helper.to_array(one) for one in onnx.load(folder / "folded.onnx").graph.initializer]
    shutil.copytree(db.url, tmp_path / "db")
    chain(tmp_path / "headed.onnx", *layers, trained(8, 48, 77))
    chain(tmp_path / "cut.onnx", *layers[:-1])
    assert fdb.ingest(tmp_path / "db", [tmp_path / "headed.onnx", tmp_path / "cut.onnx"]).duplicates == []


def test_nearest_says_that_it_is_stored(db: fdb.Database, folder: Path, tmp_path: Path) -> None:
    other = folded(folder / "net.onnx", tmp_path / "other.onnx", seed=2)
    result = fdb.nearest(db, other)
    rows = {str(model): i for i, model in enumerate(result["model"].values)}
    same = {name: bool(result["same_filters"][i]) for name, i in rows.items()}
    assert same == {name: name in {"net", "folded"} for name in NAMES}
    assert not result["same_content"].values.any()
    equal = {name: int(result["equal_layers"][i]) for name, i in rows.items()}
    assert equal == {name: 3 if same[name] else 0 for name in NAMES}
    code, output = run("nearest", db.url, other, "--json")
    assert code == 0
    answer = json.loads(output)
    assert answer["query"]["stored_as"] == ["net", "folded"]
    assert {row["model"] for row in answer["rows"] if row["same_filters"]} == {"net", "folded"}
    assert "the same filters" in run("nearest", db.url, other)[1]
    own = fdb.nearest(db, folder / "small.onnx").sel(model=["small", "small-folded"])
    # Too few filters for a fingerprint, so that only the same file is known.
    assert own["same_filters"].values.tolist() == [True, False]


def test_check_says_which_layers_are_stored(db: fdb.Database, folder: Path, tmp_path: Path) -> None:
    layers = [numpy_helper.to_array(one) for one in onnx.load(folder / "net.onnx").graph.initializer]
    path = chain(tmp_path / "q.onnx", layers[0] * np.float32(-0.3), trained(64, 32, 55), layers[2])
    assert fdb.check(path, db=db)["stored_in"].values.tolist() == ["net/conv0", "", "net/conv2"]
    assert fdb.check(path)["stored_in"].values.tolist() == ["", "", ""]
    assert fdb.check(path, db=db.select(model="stranger"))["stored_in"].values.tolist() == ["", "", ""]
    answer = json.loads(run("check", path, "--db", db.url, "--json")[1])
    assert [row["stored_in"] for row in answer["rows"]] == ["net/conv0", "", "net/conv2"]
    assert "the database has 2 of 3 layers, such as net/conv0" in run("check", path, "--db", db.url)[1]


def test_lineage_and_units(db: fdb.Database) -> None:
    result = fdb.lineage(db)
    rows = {str(model): result.sel(model=model) for model in result["model"].values}
    assert str(rows["folded"]["parent"].item()) == "net"
    assert float(rows["folded"]["similarity"]) == 1
    assert bool(rows["folded"]["same_filters"]) and int(rows["folded"]["equal_layers"]) == 3
    assert not any(bool(rows[name]["same_filters"]) for name in NAMES if name != "folded")
    assert int(rows["stranger"]["family"]) == 0
    units = dict(zip(db.layers["model"].values.tolist(), find_units(db).of_layer.tolist(), strict=True))
    assert units["net"] == units["folded"] != units["stranger"]
    assert units["small"] != units["small-folded"]
    output = run("lineage", db.url)[1]
    assert "the same filters as its parent" in output


def test_layers_of_an_earlier_format_have_only_their_hash(db: fdb.Database, folder: Path, tmp_path: Path) -> None:
    """As segments of format 3, which have no fingerprints: equal files are known, folded ones are not."""
    whole = fdb.open(db.url)
    whole.all_layer_columns["fingerprint"].values[:] = ""
    result = fdb.nearest(whole, folder / "net.onnx")
    same = dict(zip(result["model"].values.tolist(), result["same_filters"].values.tolist(), strict=True))
    assert same == {name: name == "net" for name in NAMES}
