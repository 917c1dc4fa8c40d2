"""What public functions take: databases, sources and names, alone or in lists; and one line for anything else."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import filterdb as fdb
from filterdb.errors import UsageError
from tests.models import chain, conv, model, tensor, weights

WITHOUT_DATABASE = {"catalog", "connect", "randomness_threshold", "summarise"}
"""Public functions that take none; every other one has a parameter `db` or `url`."""

VALUES: Mapping[str, Any] = {
    "a": "one",
    "b": "two",
    "by": "model",
    "catalog": "labels.csv",
    "file": "no.h5",
    "folder": "page",
    "models": "one",
    "name": "first",
    "output": "reference.json",
    "path": "one.onnx",
    "paths": [],
    "snapshot": 0,
    "sources": [],
    "verdicts": [],
}
"""A value of each parameter that some public function must have."""

WRONG: list[Any] = [None, 7, 1.5, b"db", [], ["a", "b"], {"a": 1}, object(), np.zeros(2), ""]


def public() -> dict[str, Callable[..., Any]]:
    names = [name for name in fdb.__all__ if inspect.isfunction(getattr(fdb, name))]
    return {name: getattr(fdb, name) for name in names if name not in WITHOUT_DATABASE}


def others_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a value of each parameter that has no default, but for the database; and no files to ingest."""
    parameters = inspect.signature(function).parameters.values()
    needed = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    return {
        name: VALUES[name] for name in [*needed, *(["sources"] if function is fdb.ingest else [])] if name in VALUES
    }


def database_of(function: Callable[..., Any]) -> str:
    """The parameter that means a database."""
    (name,) = [name for name in inspect.signature(function).parameters if name in {"db", "url"}]
    return name


def one_line(error: UsageError, parameter: str) -> None:
    message = str(error)
    assert message.startswith(f"{parameter}: expected ") and ", got " in message
    assert "\n" not in message and len(message) < 200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models with a name for their own labels, and a database `db` of them; the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = ["path,name,task", "one.onnx,one,a", "two.onnx,two,b"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for seed, name in enumerate(("one", "two")):
        chain(tmp_path / f"{name}.onnx", weights(12, 10, seed), weights(12, 10, seed + 5))
    fdb.ingest("db", catalog="labels.csv", chunk_rows=50)
    return tmp_path


@pytest.mark.parametrize("name", public())
def test_a_wrong_database_is_one_line_that_names_the_parameter(name: str) -> None:
    function = public()[name]
    parameter = database_of(function)
    for wrong in WRONG:
        if name == "check" and wrong is None:
            continue  # its database is optional
        if name == "report" and isinstance(wrong, list | dict) and wrong:
            continue  # these are model files
        with pytest.raises(UsageError) as caught:
            function(**{**others_of(function), parameter: wrong})
        one_line(caught.value, parameter)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(public()) - {"import_hdf5", "report"}))
def test_a_path_and_a_database_do_the_same(name: str, folder: Path) -> None:
    """A text, a Path, a Database and a view, wherever one of them is meant."""
    function = public()[name]
    parameter = database_of(function)
    more: Mapping[str, dict[str, Any]] = {"ingest": {"sources": "one.onnx"}, "expire": {"keep": 1}}
    others = others_of(function) | more.get(name, {})
    if name == "degeneration_drift":  # two models are too few to correlate
        others["by"] = "layer"
    shown = set()
    for place in ("db", Path("db"), fdb.open("db"), fdb.open(folder / "db").select(task=["a", "b"])):
        result = function(**{**others, parameter: place})
        shown.add(type(result).__name__)
        if name in {"remove", "purge"}:
            left = result.database if isinstance(result, fdb.Purged) else result
            assert list(left.models["model"].values) == ["two"]
            fdb.ingest("db", "one.onnx", catalog="labels.csv")
        if name == "tag":  # a name stands for one snapshot
            others = {"name": f"after-{result.snapshot}"}
    assert len(shown) == 1


@pytest.mark.slow
def test_report_takes_a_path(folder: Path) -> None:
    assert Path(fdb.report("db", "page", densities=False)).is_file()


def test_import_hdf5_takes_a_database(folder: Path) -> None:
    pytest.importorskip("h5py")
    for place in ("db", Path("db"), fdb.open("db")):
        with pytest.raises(fdb.errors.InputError, match=r"no\.h5"):
            fdb.import_hdf5(place, "no.h5")


def test_open_reopens_a_database_at_the_newest_snapshot(folder: Path) -> None:
    old = fdb.open("db")
    fdb.tag(old, "first")
    assert fdb.open(old).snapshot == old.snapshot + 1
    assert fdb.open(old, old.snapshot).snapshot == old.snapshot
    not_numbers: list[Any] = [1.5, [], True]
    for wrong in not_numbers:
        with pytest.raises(UsageError) as caught:
            fdb.open("db", wrong)
        one_line(caught.value, "snapshot")


def proto(name: str = "tiny", seed: int = 0) -> onnx.ModelProto:
    made = model([conv("x", "w", "y", "first")], [tensor("w", weights(12, 10, seed))])
    made.graph.name = name
    return made


def forms(folder: Path) -> list[Any]:
    """One and the same model in every form that a source may have."""
    path = folder / "tiny.onnx"
    path.write_bytes(proto().SerializeToString())
    return [str(path), path, proto(), [str(path)], (path,), iter([path]), [proto()], {str(path)}]


def test_check_takes_a_single_source(folder: Path) -> None:
    results = [fdb.check(form) for form in forms(folder)]
    for result in results:
        assert list(result["layer_name"].values) == ["first"]
        np.testing.assert_array_equal(result["variance_entropy"], results[0]["variance_entropy"])
    assert fdb.check(proto("my net"))["file"].values.tolist() == ["my net"]
    assert fdb.check(["one.onnx", proto("a"), proto("b", 1)]).sizes["file"] == 3


def test_ingest_takes_a_single_source(folder: Path) -> None:
    for i, form in enumerate(forms(folder)):
        done = fdb.ingest(f"db{i}", form)
        assert len(done.added) == 1 and not done.rejected
        assert done.database.counts["filters"] == 120


def test_a_model_in_memory_is_known_by_its_graphs_name(folder: Path) -> None:
    first = fdb.ingest("memory", proto("net"))
    assert first.added == ["net"]
    assert fdb.ingest("memory", [proto("net")]).present == ["net"]
    assert fdb.ingest(first.database, proto("other", 1)).added == ["other"]
    with pytest.raises(fdb.errors.InputError, match="different content"):
        fdb.ingest("memory", proto("net", 2))
    with pytest.raises(fdb.errors.InputError, match="more than once"):
        fdb.ingest("memory", [proto("a"), proto("a", 1)])
    with pytest.raises(UsageError, match=r"sources: .*model\.graph\.name"):
        fdb.ingest("memory", proto(""))


def test_nearest_takes_any_form(folder: Path) -> None:
    drifts = [fdb.nearest("db", form)["drift"].values for form in forms(folder)[:3]]
    np.testing.assert_array_equal(drifts, [drifts[0]] * 3)
    assert fdb.nearest("db", proto("mine")).attrs["query"] == "mine"
    no_models: list[Any] = [None, 7, [], ["one.onnx"], b"one.onnx", ""]
    for wrong in no_models:
        with pytest.raises(UsageError) as caught:
            fdb.nearest("db", wrong)
        one_line(caught.value, "path")


@pytest.mark.parametrize(
    ("name", "parameter", "call"),
    [
        ("ingest", "sources", lambda wrong: fdb.ingest("new", wrong)),
        ("check", "paths", fdb.check),
        ("remove", "models", lambda wrong: fdb.remove("db", wrong)),
        ("exclude_verdict", "verdicts", lambda wrong: fdb.exclude_verdict("db", wrong)),
        ("statistics", "columns", lambda wrong: fdb.statistics("db", wrong)),
        ("pca", "by", lambda wrong: fdb.pca("db", wrong)),
    ],
)
def test_a_list_of_something_else_is_one_line(
    name: str, parameter: str, call: Callable[[Any], Any], folder: Path
) -> None:
    for wrong in (7, 1.5, b"one.onnx", {"one.onnx": 1}, object(), [7], [None], ["one.onnx", 1.5], [b"one.onnx"]):
        with pytest.raises(UsageError) as caught:
            call(wrong)
        one_line(caught.value, parameter)
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("parameter", "call"),
    [
        ("catalog", lambda wrong: fdb.ingest("new", catalog=wrong)),
        ("catalog", lambda wrong: fdb.relabel("db", wrong)),
        ("folder", lambda wrong: fdb.report("db", wrong)),
    ],
)
def test_a_place_of_another_type_is_one_line(parameter: str, call: Callable[[Any], Any], folder: Path) -> None:
    for wrong in (7, b"x", [], ["x"]):
        with pytest.raises(UsageError) as caught:
            call(wrong)
        one_line(caught.value, parameter)


def test_a_single_name_is_a_list_of_one(folder: Path) -> None:
    assert fdb.statistics("db", "task").sizes == fdb.statistics("db", ["task"]).sizes
    assert fdb.exclude_verdict("db", "random").counts == fdb.exclude_verdict("db", ["random"]).counts
    db = fdb.open("db")
    assert db.where("task", "a").counts == db.where("task", ["a"]).counts == db.select(task="a").counts
    assert list(fdb.remove("db", "one").models["model"].values) == ["two"]
    assert json.loads(db.models["operators"].values[0])
