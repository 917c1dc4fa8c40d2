"""What could not be checked never passes: unread layers, models without a layer, paths without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from onnx import TensorProto, helper

import filterdb as fdb
from filterdb.analysis.findings import findings
from filterdb.analysis.rules import CHECKS
from filterdb.commands.check_answer import to_answer as checked
from filterdb.commands.junit import junit
from filterdb.commands.sarif import sarif
from filterdb.ledger import CODES, is_unread
from filterdb.models.model import Skip
from filterdb.models.scan import examine
from tests.filters import trained
from tests.models import chain, conv, model, save, tensor


def partly_read(path: Path, *, beside: bool = True) -> Path:
    """A model whose layer `broken` cannot be read; `beside`: with a sound layer."""
    short = tensor("w", trained(16, 16, 1))
    short.raw_data = short.raw_data[:-4]
    nodes = [conv("x", "w", "a", "broken"), *([conv("a", "v", "y", "sound")] if beside else [])]
    return save(path, model(nodes, [short, *([tensor("v", trained(16, 16, 2))] if beside else [])]))


def answered(code: str, monkeypatch: pytest.MonkeyPatch, path: Path, rules: dict[str, Any] | None = None) -> xr.Dataset:
    """The check of a file in whose ledger a convolution `odd` has this code."""

    def with_code(*args: Any, **options: Any) -> Any:
        answer = examine(*args, **options)
        return answer._replace(skipped=[*answer.skipped, Skip("odd", code, f"it is {code}")])

    monkeypatch.setattr("filterdb.analysis.check.examine", with_code)
    return fdb.check(path, rules=rules)


@pytest.mark.parametrize("code", [code for code in CODES if code != "rejected"])
@pytest.mark.parametrize("beside", [True, False])
def test_every_code_of_the_ledger(code: str, beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a sound layer and alone: in the status, the findings, SARIF, JUnit and the rows alike."""
    weight = trained(16, 16, 1) if beside else np.ones((4, 4, 3, 3, 3), np.float32)
    result = answered(code, monkeypatch, chain(tmp_path / "m.onnx", weight))
    answer = checked(result)
    (file,) = answer["files"]
    assert file["skipped"][code] == 1 + (not beside and code == "rank")
    if not is_unread(code):
        assert file["status"] == answer["status"] == ("passed" if beside else "nothing-checked")
        assert (file["unread"], answer["unread"], answer["ok"]) == (0, 0, beside)
        return
    rule = "ambiguous" if code == "ambiguous" else "unread"
    assert (file["status"], answer["status"], answer["ok"]) == ("incomplete", "incomplete", False)
    assert (file["unread"], answer["unread"], file["layers"], answer["layers"]) == (1, 1, int(beside), int(beside))
    (finding,) = answer["findings"]
    assert (finding["layer"], finding["rule"], finding["level"]) == ("odd", rule, "error")
    row = answer["rows"][-1]
    assert (row["layer"], row["verdict"], row["reason"]) == ("odd", [rule], f"it is {code}")
    assert row["filters"] is row["sparsity"] is row["conv_depth"] is None
    (said,) = json.loads(sarif(result))["runs"][0]["results"]
    assert (said["ruleId"], said["level"]) == (rule, "error")
    error = ElementTree.fromstring(junit(result)).find(".//error")
    assert error is not None and error.get("type") == rule


STATUSES = {
    "passed": lambda folder: chain(folder / "m.onnx", trained(16, 16, 1)),
    "failed": lambda folder: chain(folder / "m.onnx", np.zeros((4, 4, 3, 3), np.float32)),
    "incomplete": lambda folder: partly_read(folder / "m.onnx"),
    "incomplete, alone": lambda folder: partly_read(folder / "m.onnx", beside=False),
    "incomplete, dead": lambda folder: _dead_beside_broken(folder / "m.onnx"),
    "nothing-checked": lambda folder: chain(folder / "m.onnx", np.ones((4, 4, 3, 3, 3), np.float32)),
    "nothing-checked, empty": lambda folder: save(folder / "m.onnx", model([helper.make_node("Relu", ["x"], ["y"])])),
    "nothing-checked, light": lambda folder: _light(folder / "m.onnx"),
    "unreadable": lambda folder: (folder / "m.onnx").write_bytes(b"junk") and folder / "m.onnx",
}


def _light(path: Path) -> Path:
    """As the light models of the ONNX project: weights filled by ConstantOfShape."""
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["w"]), conv("x", "w", "y", "c")]
    return save(path, model(nodes, [tensor("shape", np.array([4, 4, 3, 3]))]))


def _dead_beside_broken(path: Path) -> Path:
    short = tensor("w", trained(16, 16, 1))
    short.raw_data = short.raw_data[:-4]
    nodes = [conv("x", "w", "a", "broken"), conv("a", "v", "y", "dead")]
    return save(path, model(nodes, [short, tensor("v", np.zeros((16, 16, 3, 3), np.float32))]))


@pytest.mark.parametrize("kind", STATUSES)
def test_the_status_of_a_file(kind: str, tmp_path: Path) -> None:
    status = kind.partition(",")[0]
    path = STATUSES[kind](tmp_path)
    answer = checked(fdb.check(path))
    assert answer["files"][0]["status"] == status
    assert answer["status"] == ("failed" if status == "unreadable" else status)
    assert answer["ok"] == (status == "passed")
    # By the rules alone a file that was not checked does not become one that passed.
    lenient = checked(fdb.check(path, rules={"fail": []}))
    assert lenient["ok"] and (lenient["files"][0]["status"] == "passed") == (status in {"passed", "failed"})
    ignored = checked(fdb.check(path, rules={"ignore": ["*.onnx:*"]}))
    assert ignored["ok"] and ignored["errors"] == 0
    assert (ignored["files"][0]["status"] == "passed") == (status in {"passed", "failed"})


def test_why_nothing_was_checked_is_said(tmp_path: Path) -> None:
    (finding,) = findings(fdb.check(_light(tmp_path / "light.onnx")))
    assert finding.message == "its only convolution does not have a weight that can be checked (1 generated)"
    (finding,) = findings(fdb.check(STATUSES["nothing-checked, empty"](tmp_path)))
    assert finding.message == "the model has no convolution"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kernel", "code"),
    [("silero_vad", "3x3", "rank"), ("onnx/backend/test/data/light", None, "generated")],
)
def test_real_models_without_a_layer(name: str, kernel: str | None, code: str, demo_catalog: Path) -> None:
    """Voice activity detectors have one-dimensional convolutions, the light models no weights."""
    answer = checked(fdb.check(demo_catalog.parent / name, kernel=kernel))
    assert len(answer["files"]) >= 6 and answer["status"] == "nothing-checked" and not answer["ok"]
    assert {file["status"] for file in answer["files"]} == {"nothing-checked"}
    assert all(set(file["skipped"]) == {code} for file in answer["files"])


def test_what_is_missing_is_reported_first(tmp_path: Path) -> None:
    chain(tmp_path / "a.onnx", np.zeros((4, 4, 3, 3), np.float32))
    chain(tmp_path / "b.onnx", np.ones((4, 4, 3, 3, 3), np.float32))
    partly_read(tmp_path / "c.onnx")
    (tmp_path / "d.onnx").write_bytes(b"junk")
    listed = findings(fdb.check(tmp_path))
    assert [finding.rule for finding in listed] == ["unread", "unreadable", "nothing-checked", "dead"]


def test_the_status_of_several_files(tmp_path: Path) -> None:
    good, bad = (STATUSES[kind](_made(tmp_path / kind)) for kind in ("passed", "failed"))
    odd, none = (STATUSES[kind](_made(tmp_path / kind)) for kind in ("incomplete", "nothing-checked"))
    for paths, status in (
        ([good, bad], "failed"),
        ([good, bad, odd, none], "incomplete"),
        ([good, none], "failed"),
        ([none, none.parent], "nothing-checked"),
    ):
        assert checked(fdb.check(paths))["status"] == status
    lenient = {"fail": [rule for rule in CHECKS if rule != "nothing-checked"]}
    assert checked(fdb.check([good, none], rules=lenient))["status"] == "passed"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("empty", "empty: expected models (.onnx, "),
        ("other", "in the folder, found none"),
        ("empty/*.onnx", "empty/*.onnx: expected files that match, found none"),
        ("absent.onnx", "absent.onnx: expected a file, found none"),
        ("absent", "absent: expected a file, found none"),
        ("pipe.onnx", "pipe.onnx: not a model: expected a regular file, got a pipe"),
    ],
)
def test_a_path_that_stands_for_no_model(name: str, says: str, tmp_path: Path) -> None:
    import os

    (tmp_path / "empty").mkdir()
    (_made(tmp_path / "other") / "weights.npz").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.onnx")
    result = fdb.check([tmp_path / name, tmp_path / name])
    assert result.sizes["file"] == 1 and says in str(result["reason"].values[0])
    (finding,) = findings(result)
    assert (finding.rule, finding.level) == ("unreadable", "error")


def test_unread_layers_are_no_peers(tmp_path: Path) -> None:
    """Against a database they have no place, and do not move the others'."""
    chain(tmp_path / "a.onnx", trained(16, 16, 1), trained(16, 16, 2))
    db = fdb.ingest(tmp_path / "db", [tmp_path / "a.onnx"]).database
    result = fdb.check(partly_read(tmp_path / "m.onnx"), db=db)
    assert result["layer_name"].values.tolist() == ["sound", "broken"]
    assert result["peers"].values.tolist() == [1, 0]
    assert np.isnan(result["sparsity_percentile"].values).tolist() == [False, True]
    assert checked(result)["filters"] == 256


def test_a_tensor_with_its_data_twice_is_read_or_reported(tmp_path: Path) -> None:
    """Whatever the reader decides, the layer does not vanish from the answer."""
    weight = trained(16, 16, 1)
    twice = TensorProto(name="w", dims=weight.shape, data_type=TensorProto.FLOAT, raw_data=weight.tobytes())
    twice.float_data.extend((2 * weight).ravel().tolist())
    answer = checked(fdb.check(save(tmp_path / "m.onnx", model([conv("x", "w", "y", "c")], [twice]))))
    (row,) = answer["rows"]
    assert row["layer"] == "c" and (row["verdict"] == ["ambiguous"]) == (answer["status"] == "incomplete")
