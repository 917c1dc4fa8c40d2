"""External data through the whole ingest: links, data that is missing, short or something else, time, and reruns."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import onnx
import pytest

import filterdb as fdb
from filterdb.errors import InputError
from filterdb.models.formats import ONNX
from filterdb.models.inputs import MAX_COMPANION_BYTES
from filterdb.models.sandbox import Channel, Limits, sandbox
from tests.commands.running import run
from tests.models import chain, conv, model, save, weights

pytestmark = pytest.mark.slow

LAYERS = [weights(8, 3), weights(16, 8, 1)]


def split(path: Path, data: str = "model.onnx_data") -> Path:
    """A model at `path` whose weights lie in a file beside it."""
    chain(path, *LAYERS)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=data, size_threshold=0)
    return path


def filters(url: Path | str) -> np.ndarray:
    return fdb.open(url).dataset["filters"].values


def expected() -> np.ndarray:
    return np.concatenate([layer.reshape(-1, 9) for layer in LAYERS])


def huggingface(folder: Path) -> Path:
    """A Hugging Face cache with the model; gives the model's place, a link like that of its data."""
    repository = folder / "models--org--name"
    snapshot = repository / "snapshots" / "rev" / "onnx"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    path = split(folder / "download" / "model.onnx")
    for i, name in enumerate(("model.onnx", "model.onnx_data")):
        (path.parent / name).rename(repository / "blobs" / f"blob{i}")
        (snapshot / name).symlink_to(f"../../../blobs/blob{i}")
    return snapshot / "model.onnx"


def hard_linked(folder: Path) -> Path:
    """As a package manager installs it: every file a hard link into its own store."""
    path = split(folder / "store" / "model.onnx")
    (folder / "site-packages").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (folder / "site-packages" / name).hardlink_to(path.parent / name)
    return folder / "site-packages" / "model.onnx"


def plain(folder: Path) -> Path:
    return split(folder / "plain" / "model.onnx")


PLACES: dict[str, Callable[[Path], Path]] = {
    "Hugging Face cache": huggingface,
    "hard links": hard_linked,
    "plain": plain,
}


@pytest.mark.parametrize("place", PLACES)
def test_linked_data_is_read(tmp_path: Path, place: str) -> None:
    path = PLACES[place](tmp_path)
    done = fdb.ingest(tmp_path / "db", [path], chunk_rows=50)
    assert (done.added, done.rejected) == ([str(path)], {})
    np.testing.assert_array_equal(filters(tmp_path / "db"), expected())
    assert fdb.ingest(tmp_path / "db", [path]).present == [str(path)]
    assert list(fdb.check(path)["filters"].values) == [24, 128]


def missing(path: Path, data: Path) -> None:
    data.unlink()


def dangling(path: Path, data: Path) -> None:
    data.unlink()
    data.symlink_to("gone")


def truncated(path: Path, data: Path) -> None:
    os.truncate(data, data.stat().st_size - 1)


def empty(path: Path, data: Path) -> None:
    os.truncate(data, 0)


def pointer(path: Path, data: Path) -> None:
    data.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5472\n")


def folder(path: Path, data: Path) -> None:
    data.unlink()
    data.mkdir()


def pipe(path: Path, data: Path) -> None:
    data.unlink()
    os.mkfifo(data)


def outside(path: Path, data: Path) -> None:
    (path.parent.parent / "outside").write_bytes(data.read_bytes())
    data.unlink()
    data.symlink_to("../outside")


FAULTS: dict[Callable[[Path, Path], None], str] = {
    missing: r"expected its external data 'model\.onnx_data', found none; put the file there",
    dangling: r"expected its external data 'model\.onnx_data', found none; put the file there",
    truncated: r"expected at least 5,472 bytes of external data in 'model\.onnx_data', got 5,471; download it again",
    empty: r"got 0, an empty file; download or export it again",
    pointer: r"got 1\d\d, a Git LFS pointer; run `git lfs pull`",
    folder: r"'model\.onnx_data' cannot be read: it is no plain file; allowed are plain files below",
    pipe: r"'model\.onnx_data' cannot be read: it is no plain file; allowed are plain files below",
    outside: r"'model\.onnx_data' cannot be read: it is a link that leads out of the model's folder; allowed are",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_model_without_its_data_is_rejected_until_it_is_there(
    tmp_path: Path, fault: Callable[[Path, Path], None]
) -> None:
    """Not stored with 0 filters: alone it is an error, beside others it is rejected; then it is stored as if new."""
    path = plain(tmp_path)
    other = chain(tmp_path / "other.onnx", weights(2, 2, seed=9))
    data = path.parent / "model.onnx_data"
    whole = data.read_bytes()
    fault(path, data)
    with pytest.raises(InputError, match=FAULTS[fault]) as caught:
        fdb.ingest(tmp_path / "alone", [path])
    said = str(caught.value).replace(str(path), "m.onnx")
    assert said.startswith("m.onnx: ") and len(said) < 200 and "\n" not in said
    assert not (tmp_path / "alone").exists() or not list((tmp_path / "alone").rglob("*.zarr"))
    assert re.search(FAULTS[fault], str(fdb.check(path)["reason"].values[0]))
    done = fdb.ingest(tmp_path / "db", [other, path])
    assert (done.added, list(done.rejected)) == ([str(other)], [str(path)])
    assert done.database.counts["models"] == 1
    if data.is_dir():
        data.rmdir()
    else:
        data.unlink(missing_ok=True)
    data.write_bytes(whole)
    done = fdb.ingest(tmp_path / "db", [other, path])
    assert (done.added, done.present, done.rejected) == ([str(path)], [str(other)], {})
    np.testing.assert_array_equal(filters(tmp_path / "db")[4:], expected())
    assert not done.database.skipped.sizes["skipped"]


def test_a_stored_model_whose_data_is_lost_is_rejected_and_stays(tmp_path: Path) -> None:
    """It says what is missing, not that the content is another."""
    path = plain(tmp_path)
    fdb.ingest(tmp_path / "db", [path])
    (path.parent / "model.onnx_data").unlink()
    with pytest.raises(InputError, match="expected its external data"):
        fdb.ingest(tmp_path / "db", [path])
    np.testing.assert_array_equal(filters(tmp_path / "db"), expected())


def test_the_command_ends_with_65(tmp_path: Path) -> None:
    path = plain(tmp_path)
    (path.parent / "model.onnx_data").unlink()
    for command in (("ingest", tmp_path / "db", path), ("check", path), ("check", path, "--json")):
        done = run(*command, "--threads", 1, code=65)
        assert len(done.stderr.splitlines()) == 1 and "'model.onnx_data', found none" in done.stderr, done.stderr


@pytest.mark.parametrize("fault", [missing, truncated], ids=lambda fault: fault.__name__)
def test_remote_data(tmp_path: Path, s3: Callable[[], str], fault: Callable[[Path, Path], None]) -> None:
    url = s3()
    path = plain(tmp_path)
    whole = (path.parent / "model.onnx_data").read_bytes()
    files = fsspec.filesystem("s3")
    files.put(str(path), f"{url}/m/model.onnx")
    if fault is truncated:
        files.pipe(f"{url}/m/model.onnx_data", whole[:-1])
    with pytest.raises(InputError, match=FAULTS[fault]) as caught:
        fdb.ingest(tmp_path / "db", [f"{url}/m"])
    assert str(caught.value).startswith(f"{url}/m/model.onnx: ") and "/tmp" not in str(caught.value)
    files.pipe(f"{url}/m/model.onnx_data", whole)
    assert fdb.ingest(tmp_path / "db", [f"{url}/m"]).added == [f"{url}/m/model.onnx"]
    np.testing.assert_array_equal(filters(tmp_path / "db"), expected())


def test_sparse_tensors_name_data_too(tmp_path: Path) -> None:
    """Values and indices of a sparse initializer, also of one inside a body."""
    held = onnx.SparseTensorProto(dims=[4, 3, 3, 3])
    for name, tensor, kind in (("v", held.values, 1), ("i", held.indices, 7)):
        tensor.name, tensor.data_type, tensor.data_location = name, kind, onnx.TensorProto.EXTERNAL
        tensor.dims.append(5)
        tensor.external_data.add(key="location", value=f"{name}.bin")
    graph = onnx.helper.make_graph([conv("x", "v", "y")], "b", [], [], sparse_initializer=[held])
    branch = onnx.helper.make_node("If", ["c"], ["z"], then_branch=graph)
    path = save(tmp_path / "m.onnx", model([branch]))
    for name, size in (("v.bin", 20), ("i.bin", 40)):
        with pytest.raises(InputError, match=f"expected its external data '{name}'"):
            fdb.ingest(tmp_path / "db", [path])
        (tmp_path / name).write_bytes(bytes(size))


def test_time_grows_with_the_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 100 bytes a second the data is worth 54 s more, of CPU in the child and by the clock here."""
    path = plain(tmp_path)
    limits = Limits(seconds=2, rate=100)
    allowed: list[tuple[int, int]] = []
    plain_allow = Channel.allow

    def allow(channel: Channel, cpu: int, parts: Mapping[str, Any]) -> None:
        before = channel.cpu
        plain_allow(channel, cpu, parts)
        assert before is not None
        allowed.append((before, cpu))

    monkeypatch.setattr(Channel, "allow", allow)
    assert fdb.ingest(tmp_path / "db", [path], limits=limits).added
    size = path.stat().st_size
    assert set(allowed) == {(limits.cpu(size), limits.cpu(size + 5_472))}
    assert limits.cpu(size + 5_472) - limits.cpu(size) in {54, 55}


WORK = """
import resource, time
from filterdb.models.sandbox import allow_cpu
def serve(channel):
    order = channel.receive()
    if "cpu" in order:
        allow_cpu(order["cpu"])
    end = time.process_time() + order["work"]
    while time.process_time() < end:
        pass
    channel.send({"soft": resource.getrlimit(resource.RLIMIT_CPU)[0], "worked": order["work"]})
"""


@pytest.mark.parametrize(("cpu", "done"), [(None, False), (30, True)])
def test_the_child_has_the_time_that_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: int | None, done: bool
) -> None:
    """Three seconds of work where one is allowed: ended; after more is allowed: done."""
    (tmp_path / "works_for_long.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    box = sandbox("works_for_long")
    began = time.monotonic()
    try:
        with box.reading("m.onnx", 0, Limits(seconds=1)) as channel:
            order = {"work": 3.0} if cpu is None else {"work": 3.0, "cpu": cpu}
            channel.send(order)
            answer = channel.receive()
        assert done and answer == {"soft": 30, "worked": 3.0}
    except InputError as error:
        assert not done and "m.onnx: expected to be read within 1 s, took longer" in str(error)
    finally:
        box.close()
    assert time.monotonic() - began < 120


def test_the_most_is_worth_the_largest_model() -> None:
    assert ONNX.max_bytes is not None
    assert ONNX.max_bytes + MAX_COMPANION_BYTES <= 2**31 + 64 * 2**30
