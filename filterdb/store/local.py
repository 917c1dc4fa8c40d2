"""Objects in a folder: whole or not at all, on the disk before anything lists them."""

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
"""What `link` fails with on a file system that has no hard links, or no more of them."""


class Found(NamedTuple):
    """An object in a listing: its size in bytes (None unknown), when it was last written (POSIX seconds; NaN unknown).

    A plain web server tells neither.
    """

    size: int | None
    modified: float


def walk(folder: Path, prefix: str, *, unfinished: bool = False) -> Iterator[tuple[str, Found]]:
    """Files below a folder; what vanishes meanwhile left out. Names that begin with a dot are `unfinished` ones."""
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
                    yield name, Found(status.st_size, status.st_mtime)


_MOST_ATTEMPTS = 1_000
"""How often a folder is made again. Some file systems, such as /proc, say "no such file" to every attempt."""


def replace(objects: Mapping[Path, bytes | bytearray]) -> None:
    """Write each beside, then rename: whole or not at all. Their names are on the disk when all are there."""
    touched: set[Path] = set()
    for path, data in objects.items():
        _temporary(path, data, touched).replace(path)
    for folder in touched:
        _keep(folder)


def create(path: Path, data: bytes) -> None:
    """Write beside, then link: the final name appears whole or not at all, and never over another.

    Raises FileExistsError where there is an object, StoreError where the file system has no hard links.
    """
    touched: set[Path] = set()
    temporary = _temporary(path, data, touched)
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
    for folder in touched:
        _keep(folder)


def _temporary(path: Path, data: bytes | bytearray, touched: set[Path]) -> Path:
    """A file beside `path` with these bytes, on the disk; nothing where the disk is full.

    `touched` gets the folders that have a new name in them.
    """
    handle, temporary = _open_beside(path, touched)
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


def _open_beside(path: Path, touched: set[Path]) -> tuple[int, Path]:
    """Open a new file beside `path`, in a folder that another process may remove whenever it is empty."""
    touched.add(path.parent)
    for _ in range(_MOST_ATTEMPTS):
        _make(path.parent, touched)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            return handle, Path(name)
        except FileNotFoundError:
            continue  # removed by whoever removed the last object in it
    raise StoreError(f"writing {path}: the file system does not create the folder {path.parent}; choose another place")


def _make(folder: Path, touched: set[Path]) -> None:
    """The folder and those above it."""
    if not folder.is_dir():
        _make(folder.parent, touched)
        with suppress(FileNotFoundError):  # as above
            folder.mkdir(exist_ok=True)
            touched.add(folder.parent)


def _keep(folder: Path) -> None:
    """Put a folder's names on the disk: without it a file is safe and its name is not."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # removed by whoever removed the last object in it
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
