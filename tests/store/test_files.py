"""Bytes in and out, on a folder and on a real S3 server: put where there is none, races, lost replies, refusals."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from filterdb.errors import InputError, ModelError, StoreError, StoreMissingError
from filterdb.models.inputs import expand, local_copy
from filterdb.store import part_cache, remote
from filterdb.store.files import Files
from tests.models import chain, weights


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files.at(tmp_path / "root" if request.param == "folder" else request.getfixturevalue("s3")())


def test_create_read_list(files: Files) -> None:
    assert files.list("a") == {}
    assert files.create("a/one", b"1")
    assert files.create("a/deep/two", b"22")
    assert files.read("a/one") == b"1"
    assert files.list("a") == {"a/deep/two": 2, "a/one": 1}
    with pytest.raises(StoreMissingError, match="expected an object there"):
        files.read("a/none")


def test_create_never_overwrites(files: Files) -> None:
    assert files.create("x", b"mine")
    assert not files.create("x", b"theirs")
    assert files.read("x") == b"mine"


def test_create_again_with_the_same_bytes_is_mine(files: Files) -> None:
    """As after a reply that was lost: the retry finds its own object."""
    assert files.create("x", b"mine")
    assert files.create("x", b"mine")


@pytest.mark.slow
def test_one_of_many_racers_wins(files: Files, short_pauses: None) -> None:
    for round_ in range(5):
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(lambda i, name=f"race-{round_}": files.create(name, f"{i}".encode()), range(16)))
        assert sum(won) == 1
        assert files.read(f"race-{round_}") == str(won.index(True)).encode()


def test_nothing_is_left_beside_a_local_object(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    files.create("x", b"1")
    files.create("x", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("folder", ["/proc/filterdb", "/proc/filterdb/a/b", "/sys/filterdb", "/dev/null/a"])
@pytest.mark.parametrize(
    "write",
    [lambda files: files.put({"x": b"1"}), lambda files: files.create("x", b"1"), Files.check_writable],
    ids=["put", "create", "check_writable"],
)
def test_a_file_system_that_makes_no_folders_is_one_line(folder: str, write: Callable[[Files], object]) -> None:
    """/proc says "no such file" to whoever makes a folder, which a folder removed by another process says as well."""
    with pytest.raises(StoreError) as caught:
        write(Files.at(folder))
    assert folder in str(caught.value)
    assert "\n" not in str(caught.value)


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Files.at("db").root == Files.at(f"file://{tmp_path}/db").root == str(tmp_path / "db")


def test_a_store_that_refuses_is_one_line(s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    import s3fs

    from filterdb.store.remote import _known_filesystem

    s3fs.S3FileSystem.clear_instance_cache()
    _known_filesystem.cache_clear()
    for action in (lambda f: f.read("x"), lambda f: f.create("x", b"1"), lambda f: f.list("x")):
        with pytest.raises(StoreError) as caught:
            action(Files.at(url))
        assert "\n" not in str(caught.value)
        assert "wrong" not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()
    _known_filesystem.cache_clear()


def test_a_bucket_that_is_not_there(s3: Callable[[], str]) -> None:
    s3()
    files = Files.at("s3://no-such-bucket/db")
    with pytest.raises(StoreError, match="s3://no-such-bucket/db/x"):
        files.create("x", b"1")


def test_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.onnx", "deep/b.onnx", "deep/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert expand(".") == ["a.onnx", "deep/b.onnx"]
    assert expand("**/*.onnx") == ["a.onnx", "deep/b.onnx"]
    assert expand("deep/c.txt") == ["deep/c.txt"]
    for nothing in ("none.onnx", "none/*.onnx"):
        with pytest.raises(InputError, match="found none"):
            expand(nothing)


def test_models_on_s3_with_external_data(s3: Callable[[], str], tmp_path: Path) -> None:
    import fsspec

    url = s3()
    path = chain(tmp_path / "m.onnx", weights())
    fsspec.filesystem("s3").put(str(path), f"{url}/models/m.onnx")
    fsspec.filesystem("s3").pipe(f"{url}/models/m.data", b"beside")
    assert expand(f"{url}/models") == expand(f"{url}/models/*.onnx") == [f"{url}/models/m.onnx"]
    with local_copy(f"{url}/models/m.onnx") as local:
        assert local.path.read_bytes() == path.read_bytes()
        assert local.companions({"m.data": 6}) == {"m.data": 6}
        assert (local.path.parent / "m.data").read_bytes() == b"beside"
        for name in ("../m.data", "/etc/passwd", "a?b"):
            with pytest.raises(ModelError, match=r"m\.onnx: its external data .* leads out .*; allowed are"):
                local.companions({name: 0})
        with pytest.raises(ModelError, match=r"m\.onnx: expected its external data 'gone\.data', found none"):
            local.companions({"gone.data": 0})
        with pytest.raises(ModelError, match=r"m\.onnx: expected at least 7 bytes of .* in 'm\.data', got 6"):
            local.companions({"m.data": 7})
    assert part_cache.root() in local.path.parents


def test_memory_of_a_large_object(s3: Callable[[], str]) -> None:
    """Reading takes the whole object once, and a buffer for each range: what a pass is projected to need."""
    files, size = Files.at(s3()), 24 * 2**20
    files.put({"large": bytes(size)})
    tracemalloc.start()
    try:
        with files.opened("large", size) as reader:
            assert reader.size == size
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < peak < files.reading_bytes(size) < 1.2 * size


def test_own_options_keep_those_of_the_user(s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    s3()
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"user_agent_extra": "mine"}})
    options = remote.filesystem("s3://tests").config_kwargs
    assert options == {"max_pool_connections": remote.CONNECTIONS, "user_agent_extra": "mine"}
    remote._known_filesystem.cache_clear()


def test_a_mutable_buffer_is_stored(files: Files) -> None:
    files.put({"x": memoryview(b"1" * 2_000_000)})
    assert files.read("x") == b"1" * 2_000_000
