"""Models and catalogs in memory, as far as they need no framework: the others are in `make monitor`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

import filterdb as fdb
from filterdb.errors import InputError, UsageError
from tests.models import chain, conv, model, tensor, weights


def proto(name: str, seed: int = 0) -> onnx.ModelProto:
    made = model([conv("x", "w", "y", "first")], [tensor("w", weights(12, 10, seed))])
    made.graph.name = name
    return made


def test_check_takes_names(tmp_path: Path) -> None:
    path = chain(tmp_path / "file.onnx", weights(12, 10, 1)) or tmp_path / "file.onnx"
    result = fdb.check({"before": proto("net"), "after": path, "again": path})
    assert result["file"].values.tolist() == ["before", "after", "again"]
    assert result["layer_file"].values.tolist() == ["before", "after", "again"]
    assert fdb.check([proto("net"), proto("net", 1), path])["file"].values.tolist() == ["net", "net#2", str(path)]


WRONG: list[tuple[Any, type[Exception], str]] = [
    ({1: "a.onnx"}, UsageError, "paths: expected names of models as the keys of a mapping, got int"),
    ({" ": "a.onnx"}, UsageError, "paths: expected names of models"),
    ({"a": 7}, UsageError, "paths: expected a path, a URL, an onnx.ModelProto, a torch.nn.Module or a keras.Model"),
]


@pytest.mark.parametrize(("sources", "kind", "message"), WRONG)
def test_wrong_names(sources: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        fdb.check(sources)


UNREADABLE = {
    "missing.onnx": "missing.onnx: expected a file, found none",
    "*.nothing": "*.nothing: expected files that match, found none",
    "two": "a: expected one file, got 2 in two",
    "https://host.invalid:x/a.onnx": "host.invalid",
}


@pytest.mark.parametrize("path", UNREADABLE)
def test_what_a_name_is_given_to_is_a_row_of_a_check(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a list; an ingest cannot go without the model of an id."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").mkdir()
    for name in "ab":
        chain(tmp_path / "two" / f"{name}.onnx", weights(4, 4, 0))
    for sources in ({"a": path, "b": "two/a.onnx"}, {"a": path, "b": proto("net")}):
        result = fdb.check(sources)
        assert result["file"].values.tolist() == ["a", "b"] and result["layer_file"].values.tolist() == ["b"]
        assert UNREADABLE[path] in result["reason"].values[0] and result["reason"].values[1] == ""
    with pytest.raises(InputError, match=re.escape(UNREADABLE[path])):
        fdb.ingest(tmp_path / "db", {"a": path})


def test_summarise_has_the_numbers_of_a_check(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    chain(path, weights(12, 10, 1), weights(6, 12, 2))
    checked, summary = fdb.check(path), fdb.summarise(path)
    assert summary["layer"].values.tolist() == checked["layer_name"].values.tolist()
    for name in summary.data_vars:
        np.testing.assert_array_equal(summary[name], checked[name], err_msg=str(name))
    exact = weights(12, 10, 1).astype(np.float64)
    assert summary["norm"].values[0] == pytest.approx(np.linalg.norm(exact), rel=1e-13)
    centre = exact[:, :, 1, 1]
    assert summary["centre_energy"].values[0] == pytest.approx((centre**2).sum() / (exact**2).sum(), rel=1e-13)
    assert (summary.attrs["model"], summary.attrs["layers"]) == (str(path), 2)
    np.testing.assert_array_equal(fdb.summarise(proto("net"))["filters"], [120])
    assert fdb.summarise(proto("net")).attrs["model"] == "net"


def test_summarise_reports_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x00junk")
    with pytest.raises(InputError, match=r"broken\.onnx: not"):
        fdb.summarise(tmp_path / "broken.onnx")
    with pytest.raises(UsageError, match=r"model: expected a path, .* got list"):
        fdb.summarise(["a.onnx"])
    for name in "ab":
        chain(tmp_path / f"{name}.onnx", weights(4, 4, 0))
    with pytest.raises(UsageError, match="model: expected one model, got 3 files"):
        fdb.summarise(tmp_path)


def test_ingest_takes_ids(tmp_path: Path) -> None:
    chain(tmp_path / "file.onnx", weights(12, 10, 1))
    done = fdb.ingest(tmp_path / "db", {"one": proto(""), "two": tmp_path / "file.onnx"})
    assert done.added == ["one", "two"]
    assert fdb.nearest(done.database, proto("", 0))["same_filters"].values.tolist() == [True, False]


FRAME = {
    "path": ["one.onnx", "two.onnx"],
    "name": ["one", "two"],
    "task": ["a", None],
    "epoch": [10, np.nan],
    "share": [0.5, 1.0],
    "tuned": [True, False],
}


class Other:
    """A table of another library."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def to_pandas(self) -> Any:
        return self.frame


def frames() -> dict[str, Any]:
    frame = pd.DataFrame(FRAME)
    return {
        "pandas": frame,
        "index": frame.set_index("name"),
        "types": frame.convert_dtypes().astype({"task": "category"}),
        "other": Other(frame),
        "any index": frame.set_axis([7, 7]),
    }


@pytest.mark.parametrize("form", frames())
def test_a_catalog_is_a_data_frame(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same labels as from a CSV file in the working folder, so that the models are present."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        chain(tmp_path / f"{name}.onnx", weights(4, 4, seed))
    (tmp_path / "models.csv").write_text(
        "path,name,task,epoch,share,tuned\none.onnx,one,a,10,0.5,True\ntwo.onnx,two,,,1.0,False\n"
    )
    fdb.ingest("db", catalog="models.csv")
    done = fdb.ingest("db", catalog=frames()[form])
    assert done.present == ["one", "two"] and not done.added
    assert done.database.models["task"].values.tolist() == ["a", "unknown"]
    frame = pd.DataFrame(FRAME).assign(task=["b", "c"])
    assert fdb.relabel("db", frame).models["task"].values.tolist() == ["b", "c"]


def test_wrong_data_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: list[tuple[Any, str]] = [
        (pd.DataFrame(), "catalog: expected columns, got an empty DataFrame"),
        (pd.DataFrame({"path": []}), "catalog: expected at least one row"),
        (pd.DataFrame({"file": ["a"]}), "catalog: expected a column `path`, got file"),
        (pd.DataFrame([["a", "b"]], columns=["path", "path"]), "catalog: expected each column once"),
        (pd.DataFrame({"path": [None]}), "catalog row 1: expected a path, got nothing"),
        (pd.DataFrame({"path": ["a.onnx"]}), "catalog: model 'a.onnx': expected a file at .*a.onnx, found none"),
        (pd.DataFrame({"path": ["a\0"]}), "catalog: expected text, got a NUL byte in row 1"),
    ]
    for frame, message in wrong:
        with pytest.raises(InputError, match=message):
            fdb.ingest("db", catalog=frame)
    others: list[Any] = [7, [], {"path": ["a"]}, "", Other(None)]
    for other in others:
        with pytest.raises(UsageError, match="catalog: expected a path, a URL or a DataFrame"):
            fdb.ingest("db", catalog=other)
