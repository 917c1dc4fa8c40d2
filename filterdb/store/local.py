"""Write objects to a local folder atomically, and sync them to the disk before anything refers to them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filterdb.errors import StoreError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Error numbers of `link` on a file system without hard links, or with too many of them."""


class ObjectInfo(NamedTuple):
    """A listed object: its size in bytes (None: unknown) and its last write in POSIX seconds (NaN: unknown).

    A plain web server reports neither.
    """

    size: int | None
    modified: float


def walk(folder: Path, prefix: str, *, unfinished: bool = False) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the files below a folder, except those that are removed meanwhile.

    With `unfinished`, yield temporary files instead, whose names begin with a dot.
    """
    if not folder.is_dir():
        return
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir():
                if not entry.name.startswith("."):
                    yield from walk(Path(entry.path), name, unfinished=unfinished)
            elif entry.name.startswith(".") == unfinished:
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    yield name, ObjectInfo(status.st_size, status.st_mtime)


_MOST_ATTEMPTS = 1_000
"""How often a folder is made again. Some file systems, such as /proc, say "no such file" to every attempt."""


def replace(objects: Mapping[Path, bytes | memoryview]) -> None:
    """Write each object atomically, by renaming a temporary file. Afterwards, sync the folders to the disk."""
    changed: set[Path] = set()
    for path, data in objects.items():
        _write_temporary(path, data, changed).replace(path)
    for folder in changed:
        _sync_folder(folder)


def create(path: Path, data: bytes) -> None:
    """Create an object atomically and never over another, by linking a temporary file to the final name.

    Raises FileExistsError if the object exists, StoreError if the file system has no hard links.
    """
    changed: set[Path] = set()
    temporary = _write_temporary(path, data, changed)
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StoreError(
            f"writing {path}: the file system refuses hard links ({error.strerror}), which keep two writers apart; "
            "keep the database on a local disk (ext4, XFS, APFS, NTFS) or in an object store"
        ) from error
    finally:
        temporary.unlink()
    for folder in changed:
        _sync_folder(folder)


def _write_temporary(path: Path, data: bytes | memoryview, changed: set[Path]) -> Path:
    """Write a temporary file beside `path` and sync it to the disk. After a failure, no file is left.

    Folders with a new entry are added to `changed`.
    """
    handle, temporary = _open_beside(path, changed)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _open_beside(path: Path, changed: set[Path]) -> tuple[int, Path]:
    """Open a new temporary file beside `path`, and create its folder if necessary."""
    changed.add(path.parent)
    for _ in range(_MOST_ATTEMPTS):
        _make_folder(path.parent, changed)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            return handle, Path(name)
        except FileNotFoundError:
            continue  # another process removed the last object of the folder, and with it the folder
    raise StoreError(f"writing {path}: the file system does not create the folder {path.parent}; choose another place")


def _make_folder(folder: Path, changed: set[Path]) -> None:
    """Create a folder and its parents, and add folders with a new entry to `changed`."""
    if not folder.is_dir():
        _make_folder(folder.parent, changed)
        with suppress(FileNotFoundError):  # as above
            folder.mkdir(exist_ok=True)
            changed.add(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk. Syncing a file does not store its name."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # another process removed the last object of the folder, and with it the folder
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
