"""Open the files that a model names as its external data, if they are allowed.

A model is untrusted and may name any path. Allowed are plain files below the model's folder and links to such files.
In a Hugging Face cache, where a snapshot's files are links to `blobs`, the limit is the repository's folder. Each part
of a path is opened relative to a handle of its parent folder, and the check is made on the open file. So what is
checked is what is read, even if somebody changes the folder meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from filterdb.models import parts

ALLOWED = "allowed are plain files below the model's folder, and links to such"
"""The end of messages about external data that is not allowed."""

MAX_LINKS = 40
"""Most symbolic links on the path to a file, as in Linux."""

MAX_DEPTH = 40
"""Most folders that are open at a time on the path to a file."""

PROTECTED_HARDLINKS = Path("/proc/sys/fs/protected_hardlinks")
"""A Linux setting: if 1, only users who can read and write a file can make a hard link to it."""

_IS_LINK = {errno.ELOOP, errno.EMLINK, getattr(errno, "EFTYPE", errno.ELOOP)}
"""Error numbers of opening a link without following it (Linux, FreeBSD, NetBSD)."""


class RefusedDataError(ValueError):
    """External data is not allowed; the message says why, and what is allowed."""


def open_inside(folder: Path, name: str) -> int:
    """Open the plain file that a model in `folder` names as its data, and return its handle.

    Raises FileNotFoundError if it is missing, RefusedDataError if it is not allowed (a name or link that leads out of
    the folder, a device, a pipe, a folder, a hard link that another user may have made), OSError if it cannot be read.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise RefusedDataError(f"the name leads out of the model's folder; {ALLOWED}")
    root, subfolders = data_root(folder)
    pending = [*reversed(parts), *reversed(subfolders)]
    links = 0
    folders = [os.open(root, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        while True:
            part = pending.pop()
            if part == "..":  # can only come from a link's target
                if len(folders) == 1:
                    raise RefusedDataError(f"it is a link that leads out of the model's folder; {ALLOWED}")
                os.close(folders.pop())
                continue
            try:
                handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folders[-1])
            except OSError as error:
                if error.errno not in _IS_LINK:
                    raise
                links += 1
                pending += _link_target(part, folders[-1], links)
                continue
            if not pending:
                return _checked(handle, folders[-1])
            folders.append(handle)
            if len(folders) > MAX_DEPTH:
                raise RefusedDataError(f"it lies more than {MAX_DEPTH} folders deep; {ALLOWED}")
    finally:
        for handle in folders:
            os.close(handle)


def data_root(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that a model's links must stay inside, and the path from there to the model's folder.

    This is the model's own folder, except in a Hugging Face cache. There it is the repository's folder
    (`models--org--name`), because the files of a snapshot are links to its `blobs`.
    """
    real = Path(os.path.realpath(folder))
    for repository in (real, *real.parents):
        parts = real.relative_to(repository).parts
        if repository.name.startswith("models--") and parts[:1] == ("snapshots",) and (repository / "blobs").is_dir():
            return repository, parts
    return real, ()


def _link_target(name: str, folder: int, links: int) -> list[str]:
    """Return the parts of a link's target, last part first. Raises RefusedDataError if the link is not allowed."""
    target = PurePosixPath(os.readlink(name, dir_fd=folder))
    if target.is_absolute():
        raise RefusedDataError(f"it is a link to an absolute path; {ALLOWED}")
    if links > MAX_LINKS:
        raise RefusedDataError(f"it is a link that leads over more than {MAX_LINKS} links; {ALLOWED}")
    return list(reversed(target.parts))


def _checked(handle: int, folder: int) -> int:
    """Return the handle if it is a plain file that may be read; otherwise close it and raise RefusedDataError."""
    status = os.fstat(handle)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise RefusedDataError(f"it is no plain file; {ALLOWED}")
        if status.st_nlink > 1 and not _is_own_link(os.fstat(folder)):
            raise RefusedDataError(
                "it is a hard link in a folder where other users may make one; allowed are plain files, and hard links "
                "in a folder that only you can write"
            )
    except RefusedDataError:
        os.close(handle)
        raise
    return handle


def _is_own_link(folder: os.stat_result) -> bool:
    """Return whether a hard link in this folder cannot expose a file that the link's maker was unable to read.

    With fs.protected_hardlinks (Linux; set by every distribution with systemd), only users who can read and write a
    file can link to it. Without it, the folder must be one in which only this user and root can make links.
    """
    try:
        if PROTECTED_HARDLINKS.read_text().strip() == "1":
            return True
    except OSError:
        pass
    return folder.st_uid in {0, os.geteuid()} and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def opened_inside(folder: Path, name: str) -> BinaryIO:
    """Open the plain file that a model in `folder` names, as `open_inside` does, for reading."""
    return cast("BinaryIO", os.fdopen(open_inside(folder, name), "rb"))


def read_exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    """Return `length` bytes of an open file from `offset` on. Raises ValueError if the file has fewer.

    Readers of formats that can be fetched in parts read only through this function.
    """
    if offset < 0 or length < 0:
        raise ValueError(f"{length} bytes at {offset}")
    parts.require(file, offset, length)
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise ValueError(f"expected {length:,} bytes at {offset:,}, got {len(data):,}")
    return data
