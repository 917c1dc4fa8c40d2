"""The command line as a user and a program meet it: JSON keys, tables, exit codes, one-line errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from tests.commands.running import answer, run, run_process
from tests.models import chain, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def db(demo_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ingested by the command line's own local cluster."""
    folder = tmp_path_factory.mktemp("cli") / "db"
    done = run_process("ingest", folder, "--catalog", demo_catalog, "--workers", "2", "--json")
    assert "dashboard: http://127.0.0.1:" in done.stderr
    assert json.loads(done.stdout)["rejected"] == []
    return folder


def test_info_models_layers(db: Path) -> None:
    info = answer("info", db)
    assert (info["filters"], info["layers"], info["models"]) == (335_243, 48, 23)
    assert {"segments", "chunk_rows", "url", "skipped_layers"} <= info.keys() and info["unread_layers"] == 0
    assert info["segments"][0].keys() >= {"id", "filters", "layers", "models"}
    models = answer("models", db)["rows"]
    assert models[0].keys() >= {
        "model", "task", "visual_category", "training_dataset", "filters", "layers", "opset", "producer",
    }  # fmt: skip
    assert {row["model"]: row["filters"] for row in models}["thin-resnet50"] == 314_368
    layers = answer("layers", db, "--where", "model=mtcnn-onet")
    assert [row["filters"] for row in layers["rows"]] == [96, 2_048, 4_096]
    assert layers["rows"][0].keys() >= {
        "model", "layer", "filters", "conv_depth", "conv_depth_norm", "in_channels", "out_channels", "groups", "hash",
    }  # fmt: skip
    assert layers["skipped"] == []
    (wide,) = answer("layers", db, "--where", "model=mtcnn-onet", "--kernel", "2x2")["rows"]
    assert (wide["layer"], wide["filters"], wide["kernel"]) == ("Conv_9", 128 * 64, "2x2")
    assert info["coverage"] >= 0.97


def test_analyses(db: Path) -> None:
    pca = answer("pca", db, "--by", "model")
    assert pca["scaled"] is True
    assert pca["groups"][0].keys() >= {
        "group", "count", "mean", "covariance", "components", "explained_variance", "explained_variance_ratio",
        "singular_values",
    }  # fmt: skip
    opened = fdb.open(db)
    assert pca["groups"][3]["components"] == fdb.pca(opened, by="model")["components"].values[3].tolist()
    drift = answer("drift", db, "--by", "task,depth_decile", "--mode", "paper")
    assert drift.keys() >= {
        "by", "mode", "metric", "bins", "range", "weights", "groups", "counts", "drift", "scaled", "within",
        "per_component",
    }  # fmt: skip
    assert (drift["bins"], drift["within"], drift["metric"], drift["mode"]) == (70, None, "kl", "paper")
    assert "face detection × [0.0, 0.1]" in drift["groups"]
    expected = fdb.drift(opened, by="task,depth_decile", mode="paper")
    assert drift["drift"] == expected["drift"].values.tolist()  # full float64
    strata = answer("drift", db, "--by", "task", "--within", "depth_decile", "--metric", "js")
    assert strata["within"] == "depth_decile"
    assert strata["strata"][0].keys() >= {"stratum", "groups", "drift", "counts", "filters"}
    rows = answer("degeneration", db, "--mode", "paper")["rows"]
    assert rows[0].keys() >= {
        "model", "layer", "filters", "sparsity", "variance_entropy", "threshold", "ratio", "random",
    }  # fmt: skip
    assert any(row["orthogonality"] is None for row in rows)  # NaN as null
    without = answer("drift", db, "--by", "model", "--exclude-verdict", "collapsed", "--where", "task!=classification")
    assert without["layers"] == 48 - 16 - 1
    assert "thin-resnet50" not in without["groups"]


def test_history_and_integrity(db: Path) -> None:
    run("reduce", db, "--threads", 2)
    rows = answer("snapshots", db)["rows"]
    shapes = [shape for shape in answer("info", db)["kernels"] if shape["is_stored"]]
    assert [row["action"] for row in rows] == ["ingest", "reduce", "reduce"]  # the drift of 3×3, then all other shapes
    assert answer("info", db, "--snapshot", 0)["snapshot"] == 0
    sound = answer("verify", db, "--deep")
    assert (sound["ok"], sound["chunks"], sound["problems"]) == (True, len(shapes), [])


def test_report(db: Path, tmp_path: Path) -> None:
    """The page, what it loads, and each figure and table beside it, densities too."""
    found = answer("report", db, "-o", tmp_path / "page", "--densities", "--kernel", "3x3")
    page = Path(found["page"])
    assert page == tmp_path / "page/index.html"
    text = page.read_text()
    assert "335,243" in text
    assert "thin-resnet50" in text
    assert "collapsed" in text
    assert re.findall(r"https?://[^\s\"]+", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    for name in ("models", "basis", "degeneration", "drift_task", "pairs_task", "histograms_task"):
        assert (tmp_path / f"page/tables/{name}.csv").stat().st_size > 100
    for link in re.findall(r'href="((?:figures|tables)/[^"]+)"', text):
        assert (tmp_path / "page" / link).stat().st_size > 100, link
    for name in ("figures/corner.svg", "figures/corner.png", "tables/corner.csv", "data/planes.js"):
        assert (tmp_path / "page" / name).stat().st_size > 100


@pytest.mark.parametrize("command", ["info", "models", "layers", "pca", "degeneration", "snapshots", "verify"])
def test_tables(db: Path, command: str) -> None:
    done = run(command, db)
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["drift", "DB", "--by", "colour"], 2, "colour: expected a label of layers or models, such as"),
        (["drift", "DB"], 2, "Missing option '--by'"),
        (["pca", "DB", "--where", "task"], 2, "--where: expected COLUMN=VALUE"),
        (["pca", "DB", "--where", "task=poetry"], 65, "expected layers with task = poetry, found none"),
        (
            ["pca", "DB", "--threads", "1", "--workers", "1"],
            2,
            "--threads cannot be combined with --workers or --scheduler",
        ),
        (["info", "DB", "--snapshot", "99"], 2, "00000099.json: expected a snapshot, found none"),
        (["info", "NOWHERE"], 74, "expected a filterdb database, found no snapshot"),
        (["info", "ftps://x/y"], 2, "expected a protocol that fsspec can open"),
        (["ingest", "NEW", "NOWHERE/m.onnx"], 65, "m.onnx: expected a file, found none; check the path"),
        (["ingest", "NEW", "--catalog", "NOWHERE/c.csv"], 65, "c.csv: expected a file, found none; check the path"),
        (["ingest", "NEW", "JUNK"], 65, "junk.onnx: not an ONNX model: expected a protobuf ModelProto, got text"),
        (["ingest", "NEW"], 2, "expected sources or a catalog, got neither"),
        (
            ["reduce", "DB", "--raw", "--mode", "paper", "--scheduler", "tcp://127.0.0.1:9"],
            74,
            "expected a Dask scheduler",
        ),
    ],
)
def test_errors_are_one_line_with_an_exit_code(db: Path, tmp_path: Path, args: list[str], code: int, says: str) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    places = {"DB": db, "NOWHERE": tmp_path / "nowhere", "NEW": tmp_path / "new", "JUNK": tmp_path / "junk.onnx"}
    real = [str(places.get(arg.split("/")[0], arg.split("/")[0])) + arg[len(arg.split("/")[0]) :] for arg in args]
    done = run(*real, code=code)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith(("dashboard:", "Usage:", "Try ", "WARNING filterdb.cluster.places: tcp://")) and line
    ]
    assert len(lines) == 1, lines
    assert not (tmp_path / "new").exists()


def test_damage_is_74_from_analysis_and_1_from_verify(db: Path, tmp_path: Path) -> None:
    import shutil

    chain(tmp_path / "m.onnx", weights(10, 10))
    run("ingest", tmp_path / "db", tmp_path / "m.onnx", "--threads", 1)
    (chunk,) = (tmp_path / "db").glob("segments/*/filters/c/0/0")
    data = bytearray(chunk.read_bytes())
    data[99] ^= 1
    chunk.write_bytes(data)
    assert (
        "filters chunk 0: expected the bytes"
        in run_process("drift", tmp_path / "db", "--by", "layer", "--workers", 1, code=74).stderr
    )
    found = json.loads(run("verify", tmp_path / "db", "--deep", "--json", "--threads", 1, code=1).stdout)
    assert (found["ok"], found["problems"][0]["chunk"]) == (False, 0)
    shutil.rmtree(tmp_path / "db" / "segments")
    assert ".safetensors" in run("layers", tmp_path / "db", code=74).stderr
    assert "damaged in 1 of 1 segment" in run("info", tmp_path / "db").stdout


def test_names_of_strangers_are_printed_harmlessly(tmp_path: Path) -> None:
    chain(tmp_path / "m.onnx", weights(), prefix="\x1b[31mred\n")
    run("ingest", tmp_path / "db", tmp_path / "m.onnx", "--threads", 1)
    done = run("layers", tmp_path / "db")
    assert "\x1b" not in done.stdout
    assert "�[31mred�0" in done.stdout


def test_the_whole_path_on_s3(demo_catalog: Path, s3: Callable[[], str], db: Path) -> None:
    """Every credential comes from the environment; the numbers are those of the folder."""
    url = f"{s3()}/db"
    run_process("ingest", url, "--catalog", demo_catalog, "--workers", 2)
    here = answer("drift", db, "--by", "model", "--threads", 1)
    there = json.loads(run_process("drift", url, "--by", "model", "--workers", 2, "--json").stdout)
    assert there["drift"] == here["drift"]
    assert answer("verify", url, "--deep", "--threads", 2)["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_demo(demo_catalog: Path, tmp_path: Path, times: int) -> None:
    """`filterdb demo` from models that are there already; again, it changes nothing."""
    import shutil

    unfinished = shutil.ignore_patterns(".*")  # another process may be writing the catalog
    shutil.copytree(demo_catalog.parent, tmp_path / "demo/models", ignore=unfinished)
    done = run("demo", "--dir", tmp_path / "demo")
    assert "page: " in done.stdout
    page = Path(done.stdout.rsplit("page: ", 1)[1].strip())
    assert page.is_file()
    assert "335,243 filters, 48 layers, 23 models" in done.stdout
    before = fdb.open(tmp_path / "demo/db").snapshot
    for _ in range(times - 1):
        run("demo", "--dir", tmp_path / "demo")
    assert fdb.open(tmp_path / "demo/db").snapshot == before


def test_drift_to_a_place(db: Path, tmp_path: Path) -> None:
    """`-o` writes the matrix and says where; what stands there already is not touched."""
    import xarray as xr

    out = tmp_path / "layers.zarr"
    written = answer("drift", db, "--by", "layer", "-o", out)
    assert (written["output"], written["drift"], written["by"]) == (str(out), None, "layer")
    matrix = xr.open_zarr(out)["drift"].load()
    expected = answer("drift", db, "--by", "layer")
    same = matrix.sel(group=expected["groups"], other=expected["groups"])
    np.testing.assert_allclose(same, expected["drift"], rtol=1e-9, atol=1e-12)
    again = run("drift", db, "--by", "layer", "-o", out, code=2)
    assert "expected nothing there, found objects" in again.stderr
