"""Keep parts of remote files between runs, in a folder of this user, up to a number of bytes.

An entry is a folder for one version of a model file, with the files beside it that it needs:

    <cache>/<hash of URL and version>/lock        held shared while the entry is used, exclusively while it is removed
                                      files/…     the files, with holes where parts are missing
                                      parts/…     for each file, what it is and which parts are present (`partial`)

Several processes may use the cache, and one entry, at a time. The entries that were not used for longest are removed
first; those in use are never removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filterdb.errors import StoreError, UsageError
from filterdb.private import private_folder

FOLDER = "FILTERDB_CACHE"
"""Environment variable with the cache's folder."""

BYTES = "FILTERDB_CACHE_BYTES"
"""Environment variable with the most bytes that the cache keeps."""

DEFAULT_BYTES = 4 * 2**30


def limit() -> int:
    """Return the most bytes that the cache keeps. Raises UsageError."""
    text = os.environ.get(BYTES, "").strip()
    if text and not text.isdigit():
        raise UsageError(f"{BYTES}: expected a number of bytes, got {text[:40]!r}")
    return int(text) if text else DEFAULT_BYTES


def root() -> Path:
    """Return the cache's folder, made where it is missing.

    Raises StoreError if the folder that the environment names cannot be used, or if others can write it: they could
    replace weights. Without such a setting, a temporary folder of this user is used instead.
    """
    named = os.environ.get(FOLDER, "")
    if named:
        folder = Path(named).absolute()
        problem = _problem(folder)
        if problem:
            raise StoreError(f"{FOLDER}: expected a folder that only you can write, {folder} {problem}; choose another")
        return folder
    return _default_root()


def _default_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    with suppress(RuntimeError):  # a user without a home
        folder = (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "filterdb"
        if not _problem(folder):
            return folder
    private = private_folder()
    return _temporary() if private is None else private / "cache"


@cache
def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="filterdb-cache-"))


def _problem(folder: Path) -> str:
    """Return why a folder cannot be the cache, after making it where it is missing; empty if it can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by others"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "cannot be written"


@contextmanager
def entry(key: str) -> Iterator[Path]:
    """Yield the folder of an entry, which is not removed before the block ends."""
    folder = root() / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]
    handle = _locked(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            os.utime(folder / "lock")
        os.close(handle)
        make_room(0)


def _locked(folder: Path) -> int:
    """Return a handle that holds the entry's lock, shared. The entry is made where it is missing."""
    while True:
        for name in ("files", "parts"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # it was removed just now
        fcntl.flock(handle, fcntl.LOCK_SH)
        if _is_current(handle, folder) and (folder / "parts").is_dir() and (folder / "files").is_dir():
            os.utime(folder / "lock")
            return handle
        os.close(handle)


def _is_current(handle: int, folder: Path) -> bool:
    """Return whether the open lock is still that of the folder, which may have been removed and made again."""
    try:
        return os.fstat(handle).st_ino == (folder / "lock").stat().st_ino
    except FileNotFoundError:
        return False


@contextmanager
def creating(folder: Path) -> Iterator[None]:
    """Hold the lock under which files of an entry are created, by one process at a time."""
    handle = os.open(folder / "create", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_room(size: int) -> None:
    """Remove the entries that were not used for longest until the cache, and `size` bytes more, are in its limit."""
    most, entries = limit(), []
    for folder in root().iterdir():
        with suppress(OSError):
            if (folder / "files").is_dir():
                entries.append(((folder / "lock").stat().st_mtime, _bytes_of(folder), folder))
    total = sum(occupied for _, occupied, _ in entries) + size
    for _, occupied, folder in sorted(entries, key=lambda item: item[0]):
        if total <= most:
            return
        if _remove(folder):
            total -= occupied


def _bytes_of(folder: Path) -> int:
    """Return the bytes that an entry occupies; holes take none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_blocks * 512
    return total


def _remove(folder: Path) -> bool:
    """Remove an entry that is not in use, and return whether it was."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_current(handle, folder):
            return False
        # First what says which parts are present, in case this process is killed in between.
        shutil.rmtree(folder / "parts", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        return True
    except OSError:
        return False  # in use
    finally:
        os.close(handle)
