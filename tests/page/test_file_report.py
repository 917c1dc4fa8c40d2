"""The page of model files without a database: what it says against a check, and what the command takes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import filterdb as fdb
from filterdb.errors import InputError, UsageError
from filterdb.models.inputs import names_models
from filterdb.models.sources import name_models
from filterdb.page import file_report
from filterdb.page.model_data import FIRST_FILTERS
from tests.commands.running import answer, run
from tests.filters import trained
from tests.models import chain, conv, model, save, tensor, weights
from tests.page.conftest import HOSTILE, Opened, violations

Show = Callable[..., Opened]


def core_of(page: Path) -> Any:
    match = re.search(r'<script type="application/json" id="core">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def column(page: Any, name: str) -> list[Any]:
    """A column of the table of layers, also if all layers have one value."""
    values = page["layers"][name]
    return values if isinstance(values, list) else [values] * len(page["layers"]["name"])


@pytest.fixture(scope="module")
def various(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with every kind of layer: strided, grouped, 1×1, dead, unreadable, transposed, with a hostile name."""
    path = tmp_path_factory.mktemp("files") / f"{HOSTILE[0].replace('/', '_')}.onnx"
    shapes = {
        "a": trained(16, 16),
        "b": weights(16, 1, 1),
        "c": weights(8, 16, 2, (1, 1)),
        "d": np.zeros((8, 8, 3, 3), np.float32),
        "e": weights(8, 8, 3, (5, 5)),
        "t": weights(8, 8, 4),
        "u": weights(8, 8, 5),
    }
    nodes = [
        conv("x", "a", "h0", HOSTILE[0], strides=[2, 2]),
        conv("h0", "b", "h1", HOSTILE[1], group=16),
        conv("h1", "c", "h2", HOSTILE[2], strides=[2, 1]),
        conv("h2", "d", "h3", "dead"),
        conv("h3", "e", "h4", "five"),
        helper.make_node("ConvTranspose", ["h4", "t"], ["h5"], name="up"),
        conv("h5", "u", "y", "cut"),
    ]
    proto = model(nodes, [tensor(name, value) for name, value in shapes.items()])
    proto.graph.initializer[-1].raw_data = b"short"
    return save(path, proto)


@pytest.fixture(scope="module")
def page(various: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(fdb.report(various, tmp_path_factory.mktemp("file-page") / "page"))


def test_a_file_becomes_one_page(page: Path) -> None:
    assert [path.name for path in page.parent.rglob("*")] == ["index.html"]
    text = page.read_text("utf-8")
    for name in HOSTILE:
        assert name not in text
    assert text.count("<script") == text.count("</script>") == 2


def test_it_says_what_a_check_says(page: Path, various: Path) -> None:
    checked = fdb.check(various)
    core = core_of(page)
    (shown,) = core["pages"]
    names = [str(name).replace("\u202e", "\ufffd") for name in checked["layer_name"].values]
    assert shown["layers"]["name"] == names
    measures = {"entropy": "variance_entropy", "p": "p_value", **{n: n for n in ("sparsity", "percentile", "filters")}}
    for key, name in measures.items():
        values = np.where(checked["unread_code"].values != "", np.nan, checked[name].values)
        numbers = np.array([np.nan if value is None else value for value in column(shown, key)], float)
        np.testing.assert_allclose(numbers, values, rtol=6e-3)
    rules = checked["rule"].values
    assert shown["layers"]["flags"] == [rules[hits].tolist() for hits in checked["verdict"].values]
    assert (core["tones"], core["words"]) == (["bad"], ["Incomplete"])
    assert "1 could not be read, so nothing is known about it" in shown["status"]["text"]
    cards = {card["rule"]: card for card in shown["findings"]}
    assert {"dead", "unread"} <= set(cards) and cards["unread"]["tone"] == cards["dead"]["tone"] == "bad"
    assert all(card["meaning"] and card["remedy"] for card in cards.values())


def test_layers_have_their_shapes_and_pictures(page: Path, various: Path) -> None:
    (shown,) = core_of(page)["pages"]
    assert column(shown, "kernel")[:5] == ["3×3", "3×3", "1×1", "3×3", "5×5"]
    assert column(shown, "strides")[:5] == ["2", "", "2×1", "", ""] or column(shown, "strides")[1] == "1"
    assert column(shown, "groups")[:2] == [1, 16]
    assert (column(shown, "in")[:3], column(shown, "out")[:3]) == ([16, 1, 16], [16, 16, 8])
    at, numbers = shown["tiles"]["at"], shown["tiles"]["number"]
    assert at == [0, 1, 3, 4] and numbers == [FIRST_FILTERS] * 4  # a 1×1 layer has no picture
    packed = np.frombuffer(base64.b64decode(shown["tiles"]["weights"]["d"]), np.int8)
    first = trained(16, 16).reshape(-1, 9)[:FIRST_FILTERS]
    np.testing.assert_allclose(packed[: first.size].reshape(-1, 9) / 127, first / np.abs(first).max(), atol=5e-3)
    assert len(packed) == FIRST_FILTERS * (9 + 9 + 9 + 25)
    facts = dict(shown["facts"])
    assert (facts["format"], facts["written by"], facts["opset"]) == ("ONNX", "tests", "21")


def test_what_was_not_looked_at_has_a_reason(page: Path) -> None:
    (shown,) = core_of(page)["pages"]
    rows = [(row["code"], row["unread"], row["layers"], row["count"]) for row in shown["skipped"]]
    assert rows == [("unreadable", True, ["cut"], 1), ("transposed", False, ["up"], 1)]
    assert "5" in shown["skipped"][0]["reason"] and shown["skipped"][1]["meaning"] == "a ConvTranspose"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_file_in_a_browser(show: Show, page: Path, width: int) -> None:
    opened = show(width, where=page)
    view = opened.page
    view.wait_for_selector("html[data-ready]")
    assert view.locator("section[id]").evaluate_all("nodes => nodes.map(node => node.id)") == [
        "findings", "depth", "layers", "left-out",
    ]  # fmt: skip
    assert view.locator("#layers [role=row] canvas").count() == 4
    view.get_by_role("button", name="5×5 1").click()
    assert "no 5×5 layers to compare with" in view.locator("#depth").inner_text()
    inner, whole = view.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert whole <= inner == width
    assert view.evaluate("window.hit") is None
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


@pytest.mark.slow
def test_several_files_share_a_list(show: Show, various: Path, tmp_path: Path) -> None:
    chain(tmp_path / "good.onnx", trained(16, 16), trained(16, 16, 1))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    page = Path(fdb.report([tmp_path / "good.onnx", tmp_path / "bad.onnx", various], tmp_path / "page"))
    core = core_of(page)
    assert core["tones"] == ["good", "bad", "bad"] and core["words"] == ["Passed", "Unreadable", "Incomplete"]
    opened = show(where=page)
    opened.page.get_by_role("link", name="bad.onnx").click()
    opened.page.wait_for_selector("h1:text-is('bad.onnx')")
    assert "expected a protobuf" in opened.page.locator("#findings").inner_text()
    opened.page.get_by_role("link", name="← previous").click()
    opened.page.wait_for_selector("h1:text-is('good.onnx')")
    assert "No layer breaks a rule." in opened.page.locator("#findings").inner_text()
    assert violations(opened.page) == []
    assert opened.complaints == []


@pytest.mark.slow
def test_with_a_database_there_are_nearest_models(page_db: fdb.Database, tmp_path: Path) -> None:
    file = Path(page_db.url).parent / "1.onnx"
    page = Path(fdb.report(str(file), tmp_path / "page", compare=page_db))
    core = core_of(page)
    rows = core["pages"][0]["nearest"]["rows"]
    expected = fdb.nearest(page_db, file, n=file_report.NEAREST)
    assert [row["name"] for row in rows] == expected["model"].values.tolist()
    assert [row["drift"] for row in rows] == pytest.approx(expected["drift"].values.tolist(), rel=1e-5)
    assert core["bands"]["3×3"]["entropy"][0] is not None and page_db.url in core["corpus"]


@pytest.mark.slow
def test_nearest_models_are_those_of_the_file_that_was_read(page_db: fdb.Database, tmp_path: Path) -> None:
    """A name may be that of another file, and a model from memory has no path."""
    folder = Path(page_db.url).parent
    file, another = folder / "1.onnx", folder / "2.onnx"
    page = Path(fdb.report({str(another): file, "in memory": onnx.load(file)}, tmp_path / "page", compare=page_db))
    expected = fdb.nearest(page_db, file, n=1)["model"].values.tolist()
    assert expected == ["model 1"]
    for number in range(2):
        text = (page.parent / f"data/models/{number}.js").read_text("utf-8")
        shown = json.loads(text[text.index(",") + 1 : text.rindex(")")])
        assert [row["name"] for row in shown["nearest"]["rows"]][:1] == expected


def test_the_command_answers_and_ends_as_check_does(various: Path, tmp_path: Path) -> None:
    said = answer("report", various, "-o", tmp_path / "page")
    assert (said["snapshot"], said["models"], Path(said["page"]).name) == (None, 1, "index.html")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    assert f"not read: {bad}" in run("report", various, bad, "-o", tmp_path / "two").stdout
    cases: list[tuple[list[object], int, str]] = [
        ([bad], 65, "expected a protobuf"),
        ([tmp_path / "none.onnx"], 65, "found none"),
        ([tmp_path / "none"], 74, "expected a filterdb database"),
        ([various, tmp_path / "none"], 2, "expected model files or a single database"),
        ([various, "--where", "task=x"], 2, "--where applies to a database only"),
        ([various, "--snapshot", "0"], 2, "--snapshot applies to a database only"),
        ([various, "--mode", "paper"], 2, "apply to a database only"),
    ]
    for arguments, code, told in cases:
        done = run("report", *arguments, "-o", tmp_path / "no", code=code)
        assert told in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "no/index.html").exists()


@pytest.mark.slow
def test_options_of_files_are_rejected_with_a_database(page_db: fdb.Database, tmp_path: Path) -> None:
    for option in (["--key", "ema"], ["--reference", "r.json"], ["--model-memory", "1"], ["--db", page_db.url]):
        done = run("report", page_db.url, "-o", tmp_path, *option, code=2)
        assert "only model files take this" in done.stderr
    with pytest.raises(UsageError, match="key"):
        fdb.report(page_db, tmp_path, key="ema")
    with pytest.raises(UsageError, match="apply to a database only"):
        fdb.report(["m.onnx"], tmp_path, mode="paper")
    with pytest.raises(InputError, match=r"m\.onnx: expected a file, found none; check the path"):
        fdb.report(["m.onnx"], tmp_path / "page")


def test_paths_tell_what_they_are(tmp_path: Path) -> None:
    chain(tmp_path / "models/m.onnx", weights())
    for name in ("db/segments", "db/snapshots", "empty"):
        (tmp_path / name).mkdir(parents=True)
    chain(tmp_path / "db/left over.onnx", weights())
    (tmp_path / "no suffix").write_bytes(b"")
    files = ["models", "models/m.onnx", "models/*.onnx", "no suffix", "none.onnx", "none.pth", "*.x"]
    databases = ["db", "empty", "none", "none.zarr"]
    assert [names_models(str(tmp_path / name)) for name in files] == [True] * len(files)
    assert [names_models(str(tmp_path / name)) for name in databases] == [False] * len(databases)
    for url in ("https://host/m.onnx", "https://host/m.onnx?download=true", "s3://b/a.safetensors", "hf://org/repo"):
        assert names_models(url)
    for url in ("hf://datasets/org/db", "https://host/db", "s3://b/db"):
        assert not names_models(url)
    assert name_models([tmp_path / "db"]) and name_models(onnx.ModelProto()) and not name_models(tmp_path / "db")


def test_a_model_in_memory_has_a_page(tmp_path: Path) -> None:
    proto = onnx.load(chain(tmp_path / "m.onnx", trained(16, 16)))
    page = Path(fdb.report(proto, tmp_path / "page"))
    assert core_of(page)["models"] == ["g"]
