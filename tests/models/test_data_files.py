"""Which files may be a model's external data: every kind of entry, in a plain folder and in a Hugging Face cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from filterdb.models import data_files
from filterdb.models.data_files import RefusedDataError, data_root, open_inside

INSIDE, OUTSIDE = b"inside", b"outside"


def read(folder: Path, name: str) -> bytes:
    with os.fdopen(open_inside(folder, name), "rb") as file:
        return file.read()


def plain(root: Path) -> Path:
    """A model's folder with a file, a folder and a secret outside; gives the model's folder."""
    folder = root / "model"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "weights").write_bytes(INSIDE)
    (folder / "sub" / "weights").write_bytes(INSIDE)
    (root / "outside").mkdir()
    (root / "outside" / "weights").write_bytes(OUTSIDE)
    return folder


def links(folder: Path, *targets: tuple[str, str], name: str = "data") -> str:
    """Make links, each by its place in the folder and its target; return the name that is to be opened."""
    for place, target in targets:
        (folder / place).symlink_to(target)
    return name


def link_to_a_hard_link(folder: Path) -> None:
    (folder / "sub" / "hard").hardlink_to(folder / "weights")
    (folder / "data").symlink_to("sub/hard")


def link_to_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "data").symlink_to("pipe")


def folders_41_deep(folder: Path) -> str:
    way = "/".join("d" * 41)
    (folder / way).mkdir(parents=True)
    (folder / way / "w").write_bytes(INSIDE)
    return way + "/w"


ALLOWED: dict[str, Callable[[Path], str | None]] = {
    "plain file": lambda folder: "weights",
    "file in a folder": lambda folder: "sub/weights",
    "dots and slashes": lambda folder: ".//sub/./weights",
    "hard link": lambda folder: (folder / "data").hardlink_to(folder / "weights"),
    "link beside": lambda folder: (folder / "data").symlink_to("weights"),
    "link below": lambda folder: (folder / "data").symlink_to("sub/weights"),
    "link with dots inside": lambda folder: (folder / "data").symlink_to("sub/deep/../../weights"),
    "link over a linked folder": lambda folder: links(folder, ("again", "sub/deep/.."), ("data", "again/weights")),
    "link to a link": lambda folder: links(folder, ("first", "weights"), ("data", "first")),
    "link to a hard link": link_to_a_hard_link,
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_is_allowed(tmp_path: Path, kind: str) -> None:
    folder = plain(tmp_path)
    assert read(folder, ALLOWED[kind](folder) or "data") == INSIDE


REFUSED: dict[str, Callable[[Path], str | None]] = {
    "nothing": lambda folder: "",
    "dot": lambda folder: ".",
    "dots": lambda folder: "../outside/weights",
    "dots inside": lambda folder: "sub/../weights",
    "absolute": lambda folder: str(folder / "weights"),
    "nul": lambda folder: "weights\0",
    "folder": lambda folder: "sub",
    "device": lambda folder: (folder / "data").symlink_to("/dev/zero"),
    "pipe": lambda folder: os.mkfifo(folder / "data"),
    "absolute link": lambda folder: (folder / "data").symlink_to(folder / "weights"),
    "link out": lambda folder: (folder / "data").symlink_to("../outside/weights"),
    "link out and back": lambda folder: (folder / "data").symlink_to("../model/weights"),
    "link to a link out": lambda folder: links(
        folder, ("sub/first", "../../outside/weights"), ("data", "sub/first")
    ),
    "linked folder out": lambda folder: links(folder, ("far", "../outside"), name="far/weights"),
    "link over a linked folder, out by dots": lambda folder: links(
        folder, ("sub/up", "../sub/deep"), ("data", "sub/up/../../../outside/weights")
    ),
    "link to a folder": lambda folder: (folder / "data").symlink_to("sub"),
    "link to a pipe": link_to_a_pipe,
    "link to itself": lambda folder: (folder / "data").symlink_to("data"),
    "circle": lambda folder: links(folder, ("data", "b"), ("b", "data")),
    "41 links": lambda folder: links(
        folder, *((f"l{i}", f"l{i + 1}" if i < 40 else "weights") for i in range(41)), name="l0"
    ),
    "41 folders": folders_41_deep,
}  # fmt: skip


def opened() -> list[Path]:
    """Return what the handles of this process lead to; other threads may close some meanwhile."""
    targets = []
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            targets.append(handle.readlink())
    return targets


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_says_what_is_allowed(tmp_path: Path, kind: str) -> None:
    folder = plain(tmp_path)
    with pytest.raises(RefusedDataError, match="allowed are plain files") as caught:
        open_inside(folder, REFUSED[kind](folder) or ("" if kind == "nothing" else "data"))
    assert len(str(caught.value)) < 150 and "\n" not in str(caught.value)
    assert not [handle for handle in opened() if handle.is_relative_to(tmp_path)]  # none is left open


@pytest.mark.parametrize("name", ["gone", "sub/gone", "weights/gone", "dangling"])
def test_a_missing_file_is_missing(tmp_path: Path, name: str) -> None:
    """Not refused: the remedy is another. A link that dangles inside too, as in a cache that lost a blob."""
    folder = plain(tmp_path)
    (folder / "dangling").symlink_to("sub/gone")
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        open_inside(folder, name)


def huggingface(root: Path) -> Path:
    """A cache of two repositories; gives the folder of a snapshot's model."""
    for name in ("models--org--mine", "models--org--other"):
        snapshot = root / "hub" / name / "snapshots" / "rev" / "onnx"
        snapshot.mkdir(parents=True)
        (root / "hub" / name / "blobs").mkdir()
        (root / "hub" / name / "blobs" / "BB").write_bytes(INSIDE if "mine" in name else OUTSIDE)
    (root / "hub" / "token").write_bytes(OUTSIDE)
    return root / "hub" / "models--org--mine" / "snapshots" / "rev" / "onnx"


BLOBS = "../../../blobs/BB"
TO_OTHERS = (
    "../../../../models--org--other/blobs/BB",
    "../../../../token",
    "../../../../../hub/models--org--mine/blobs/BB",
)


def test_a_huggingface_cache(tmp_path: Path) -> None:
    folder = huggingface(tmp_path)
    (folder / "model.onnx_data").symlink_to(BLOBS)
    assert data_root(folder) == (tmp_path.resolve() / "hub" / "models--org--mine", ("snapshots", "rev", "onnx"))
    assert read(folder, "model.onnx_data") == INSIDE
    (tmp_path / "here").symlink_to(folder)  # the model may be named by way of a linked folder
    assert read(tmp_path / "here", "model.onnx_data") == INSIDE


@pytest.mark.parametrize("target", TO_OTHERS)
def test_links_out_of_a_huggingface_repository(tmp_path: Path, target: str) -> None:
    folder = huggingface(tmp_path)
    (folder / "model.onnx_data").symlink_to(target)
    with pytest.raises(RefusedDataError, match="leads out"):
        open_inside(folder, "model.onnx_data")


@pytest.mark.parametrize("missing", ["name", "blobs", "snapshots"])
def test_what_is_no_huggingface_cache_has_no_wider_root(tmp_path: Path, missing: str) -> None:
    folder = huggingface(tmp_path)
    (folder / "model.onnx_data").symlink_to(BLOBS)
    if missing == "blobs":
        (tmp_path / "hub/models--org--mine/blobs").rename(tmp_path / "hub/models--org--mine/objects")
        (folder / "model.onnx_data").unlink()
        (folder / "model.onnx_data").symlink_to("../../../objects/BB")
    else:
        old = tmp_path / "hub/models--org--mine" / ("snapshots" if missing == "snapshots" else "")
        new = old.with_name("other")
        old.rename(new)
        folder = new / folder.relative_to(old)
    with pytest.raises(RefusedDataError, match="leads out"):
        open_inside(folder, "model.onnx_data")


@pytest.mark.parametrize(("protected", "mode", "allowed"), [
    ("1", 0o777, True), ("0", 0o755, True), ("0", 0o775, False), ("0", 0o757, False), (None, 0o700, True),
    (None, 0o777, False),
])  # fmt: skip
def test_hard_links_where_others_could_have_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: str | None, mode: int, allowed: bool
) -> None:
    """Without the kernel's protection, whoever writes into a folder can link a file there that only its owner reads."""
    folder = plain(tmp_path)
    (folder / "data").hardlink_to(tmp_path / "outside" / "weights")
    folder.chmod(mode)
    setting = tmp_path / "protected_hardlinks"
    if protected is not None:
        setting.write_text(f"{protected}\n")
    monkeypatch.setattr(data_files, "PROTECTED_HARDLINKS", setting)
    if allowed:
        assert read(folder, "data") == OUTSIDE
    else:
        with pytest.raises(RefusedDataError, match="hard link in a folder where other users may make one"):
            open_inside(folder, "data")


def test_a_folder_that_is_swapped_meanwhile(tmp_path: Path) -> None:
    """Whatever is put in the place of a folder or file while it is opened: never the file outside."""
    folder = plain(tmp_path)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            (folder / "sub").rename(folder / "kept")
            (folder / "sub").symlink_to("../outside")
            (folder / "sub").unlink()
            (folder / "kept").rename(folder / "sub")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = []
    try:
        for _ in range(3_000):
            try:
                seen.append(read(folder, "sub/weights"))
            except (OSError, RefusedDataError):
                seen.append(b"")
    finally:
        ended.set()
        swapper.join()
    assert OUTSIDE not in seen and INSIDE in seen
