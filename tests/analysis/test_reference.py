"""A reference places layers as its database does, and a file that is none is one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import percentileofscore

import filterdb as fdb
from filterdb.analysis import reference as module
from filterdb.analysis.findings import _place, findings
from filterdb.analysis.reference import read_reference, reference_of
from filterdb.columns import Columns
from filterdb.commands.check_answer import to_answer
from filterdb.errors import InputError, UsageError
from filterdb.numerics.depth import depth_decile
from filterdb.numerics.percentiles import layer_classes
from tests.commands.running import run
from tests.filters import trained
from tests.models import chain

PERCENTILES = ("percentile", "sparsity_percentile", "ratio_percentile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database `db` of six models, its reference, and a model that is not in it."""
    folder = tmp_path_factory.mktemp("reference")
    for seed in range(7):
        chain(folder / f"{seed}.onnx", *(trained(16, 16, 10 * seed + i) for i in range(4)), trained(4, 4, seed))
    fdb.ingest(folder / "db", [folder / f"{seed}.onnx" for seed in range(6)])
    fdb.write_reference(folder / "db", folder / "reference.json", licence="CC0-1.0")
    return folder


def near(depth: np.ndarray, filters: np.ndarray, i: int) -> np.ndarray:
    """Return which layers have the size of layer i and similar depth, by the rule of the documentation."""
    decile = pd.cut(depth, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=False)
    size = np.floor(np.log(filters) / np.log(16) + 1e-12)
    for width in range(10):
        like = (np.abs(decile - decile[i]) <= width) & (size == size[i])
        if like.sum() >= 5:
            break
    return np.asarray(like)


def test_degeneration_places_entropy_as_scipy(real_db: fdb.Database) -> None:
    result = fdb.degeneration(real_db)
    entropy, depth, filters = (result[name].values for name in ("variance_entropy", "conv_depth_norm", "filters"))
    for i in range(len(entropy)):
        like = near(depth, filters, i)
        assert int(result["percentile_peers"][i]) == like.sum()
        expected = percentileofscore(entropy[like], entropy[i], kind="mean")
        assert float(result["percentile"][i]) == pytest.approx(expected, rel=1e-12)


def test_depth_decile_is_pandas_cut() -> None:
    depth = np.concatenate([np.random.default_rng(0).random(1_000), np.arange(11) / 10, np.arange(0, 1.1, 0.1)[:10]])
    cut = pd.cut(depth, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=False)
    np.testing.assert_array_equal(depth_decile(depth), cut)


def test_a_reference_stands_in_for_its_database(folder: Path) -> None:
    by_database = fdb.check(folder / "6.onnx", db=folder / "db")
    by_file = fdb.check(folder / "6.onnx", reference=folder / "reference.json")
    for name in (*PERCENTILES, "peers", "percentile_peers"):
        np.testing.assert_allclose(by_file[name], by_database[name])
    assert np.isfinite(by_file["percentile"]).all() and len(np.unique(by_file["percentile"])) > 2
    facts = json.loads(by_file.attrs["reference"])
    assert (facts["models"], facts["layers"], facts["licence"]) == (6, 30, "CC0-1.0")


def test_packaged_reference(real_db: fdb.Database, tmp_path: Path, folder: Path) -> None:
    """It is what the documented command writes, and is used where nothing else is named."""
    real = real_db.where("task", ["weightless test"], negate=True)
    packaged = json.loads(Path(module.__file__).with_name("reference.json").read_bytes())
    fdb.write_reference(real, tmp_path / "r.json", licence=packaged["licence"])
    written = json.loads((tmp_path / "r.json").read_bytes())
    for entry, other in zip(packaged.pop("classes"), written.pop("classes"), strict=True):
        assert {**entry, **dict.fromkeys(module.MEASURES)} == {**other, **dict.fromkeys(module.MEASURES)}
        for name in module.MEASURES:
            np.testing.assert_allclose(entry[name], other[name], rtol=2e-6)
    versions = {"filterdb_version": None}
    assert packaged | versions == written | versions
    assert "Apache-2.0" in packaged["licence"] and len(packaged["sources"]) == packaged["models"] > 5
    result = fdb.check(folder / "6.onnx")
    assert json.loads(result.attrs["reference"])["place"] == "packaged"
    assert to_answer(result)["reference"]["layers"] == packaged["layers"]


def measured(layers: int) -> Columns:
    """Return what a `degeneration` result of many layers has for a reference."""
    rng = np.random.default_rng(1)
    names: dict[str, np.ndarray] = {
        "sparsity": rng.random(layers),
        "ratio": 2 * rng.random(layers),
        "variance_entropy": rng.random(layers),
    }
    names |= {"filters": 16 ** rng.integers(0, 7, layers), "conv_depth_norm": rng.random(layers)}
    counts = {"models": 1_000, "layers": layers, "filters": int(names["filters"].sum())}
    return Columns.of({name: ("layer", values) for name, values in names.items()}, {}, counts)


def test_a_reference_of_many_layers_is_small_and_close(tmp_path: Path) -> None:
    table = measured(60_000)
    whole = reference_of(table, "x")
    facts = {"format": module.FORMAT, "version": 1, "filterdb_version": "0", "licence": "a", "selection": "all"}
    facts |= whole.facts
    sources = [{"model": f"{'m' * 90}{i}", "url": "u" * 100} for i in range(1_000)]
    _, data = module._encoded(facts, whole, sources)
    assert len(data) <= 200_000
    (tmp_path / "r.json").write_bytes(data)
    small = read_reference(tmp_path / "r.json")
    classes = layer_classes(table["filters"].values, table["conv_depth_norm"].values)
    for name in module.MEASURES:
        away = small.percentiles(name, table[name].values, classes) - whole.percentiles(
            name, table[name].values, classes
        )
        assert np.abs(away).max() < 2.5


def test_messages_state_the_percentile(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    line = (rng.normal(size=(256, 1)) * np.eye(9)[4] + rng.normal(0, 0.01, (256, 9))).reshape(16, 16, 3, 3)
    path = chain(tmp_path / "m.onnx", line.astype(np.float32), trained(16, 16, 99))
    result = fdb.check(path, reference=folder / "reference.json")
    (finding,) = [finding for finding in findings(result) if finding.rule == "collapsed"]
    assert "entropy below all 6 layers of this shape and depth" in finding.message
    assert finding.numbers["percentile"] == 0 and finding.numbers["percentile_peers"] == 6
    texts = [_place(value).removesuffix(" percentile of") for value in (0.4, 1, 2, 3.4, 11, 12, 13, 22, 99.6)]
    assert texts == ["1st", "1st", "2nd", "3rd", "11th", "12th", "13th", "22nd", "99th"]
    assert (_place(0), _place(100)) == ("entropy below all", "entropy above all")


def damage(folder: Path, change: Any) -> bytes:
    content = json.loads((folder / "reference.json").read_bytes())
    change(content)
    return json.dumps(content).encode()


DAMAGE = [
    lambda c: c.update(format="other"), lambda c: c.update(version=2), lambda c: c.update(version=[1]),
    lambda c: c.update(licence=7), lambda c: c.update(licence="x" * 2_000), lambda c: c.update(layers=-1),
    lambda c: c.update(layers=10**30), lambda c: c.update(models=True), lambda c: c.update(classes={}),
    lambda c: c.update(classes=[1]), lambda c: c.update(sources=None), lambda c: c["classes"].append(c["classes"][0]),
    lambda c: c["classes"][0].update(decile=10), lambda c: c["classes"][0].update(size=-1),
    lambda c: c["classes"][0].update(layers=0), lambda c: c["classes"][0].update(sparsity=None),
    lambda c: c["classes"][0].update(ratio=["1"]), lambda c: c["classes"][0].update(ratio=[-1.0]),
    lambda c: c["classes"][0].update(ratio=[2.0, 1.0]), lambda c: c["classes"][0].update(sparsity=[1.5]),
    lambda c: c["classes"][0].update(ratio=[10**400]), lambda c: c["classes"][0].update(ratio=[0.1] * 9_999),
    lambda c: c["classes"][0].update(ratio=[True]), lambda c: c["classes"][0].update(ratio=[float("nan")]),
    lambda c: c["classes"][0].update(ratio=[float("inf")]),
]  # fmt: skip


@pytest.mark.parametrize("change", DAMAGE)
def test_damaged_references_are_one_line(folder: Path, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(damage(folder, change))
    with pytest.raises(InputError, match=r"r\.json: expected ") as caught:
        read_reference(path)
    message = str(caught.value)
    assert "\n" not in message and ", got " in message and len(message) < len(str(path)) + 150


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b"\x80\x04N.", b"PK\x03\x04", b"1" * 10_000, b'{"a": 1e999}'],
)
def test_other_files_are_no_references(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected a reference as `filterdb reference` writes it, got "):
        read_reference(path)


def test_cut_off_references_and_places_without_one(folder: Path, tmp_path: Path) -> None:
    data = (folder / "reference.json").read_bytes()
    for length in range(0, len(data.rstrip()), 97):
        (tmp_path / "r.json").write_bytes(data[:length])
        with pytest.raises(InputError, match=", got no JSON"):
            read_reference(tmp_path / "r.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(module.MAX_BYTES + 1)
    for place in (tmp_path, "/dev/zero", tmp_path / "large.json", tmp_path / "none.json", "a\0b"):
        with pytest.raises(InputError, match="expected a reference"):
            read_reference(place)


def test_commands(folder: Path, tmp_path: Path) -> None:
    done = run("reference", folder / "db", "-o", tmp_path / "r.json", "--licence", "CC0-1.0")
    assert "30 layers of 6 models, licence: CC0-1.0" in done.stdout
    assert (tmp_path / "r.json").read_bytes() == (folder / "reference.json").read_bytes()
    answer = json.loads(run("reference", folder / "db", "-o", tmp_path / "s.json", "--json").stdout)
    assert (answer["licence"], answer["models"], answer["sources"][0]["model"]) == (
        "not stated",
        6,
        str(folder / "0.onnx"),
    )
    checked = json.loads(run("check", folder / "6.onnx", "--reference", tmp_path / "r.json", "--json").stdout)
    assert checked["snapshot"] is None and checked["reference"]["licence"] == "CC0-1.0"
    assert [row["percentile_peers"] for row in checked["rows"]] == [6, 6, 6, 6, 6]
    assert all(0 <= row["percentile"] <= 100 for row in checked["rows"])
    table = run("check", folder / "6.onnx", "--reference", tmp_path / "r.json").stdout
    assert "percentiles among the reference's layers" in table
    (tmp_path / "r.json").write_bytes(b"{}")
    done = run("check", folder / "6.onnx", "--reference", tmp_path / "r.json", code=65)
    assert done.stderr.count("\n") == 1 and "expected a reference" in done.stderr
    run("check", folder / "6.onnx", "--reference", tmp_path / "r.json", "--db", folder / "db", code=2)
    run("reference", folder / "db", "-o", tmp_path / "no" / "r.json", code=2)
    with pytest.raises(UsageError, match="reference: expected none together with `db`, got both"):
        fdb.check(folder / "6.onnx", db=folder / "db", reference=tmp_path / "r.json")
