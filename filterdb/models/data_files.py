"""Opening the files that a model names as its external data: which are allowed, decided on the open file.

A model is a stranger's, and names any path. Opened are plain files below the model's folder, and links to such: in a
Hugging Face cache, where a snapshot's files are links to `blobs`, below the whole folder of the repository. Every part
of the way is opened by itself from a handle of the folder before it, so that what is checked is what is read, whoever
changes the folder meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

ALLOWED = "allowed are plain files below the model's folder, and links to such"
"""What may hold external data, for messages."""

MAX_LINKS = 40
"""Symbolic links on the way to a file, as in Linux."""

MAX_DEPTH = 40
"""Folders that are open at a time on the way to a file."""

PROTECTED_HARDLINKS = Path("/proc/sys/fs/protected_hardlinks")
"""Linux's setting (1: on): only who may read and write a file can make a hard link to it."""

_IS_LINK = {errno.ELOOP, errno.EMLINK, getattr(errno, "EFTYPE", errno.ELOOP)}
"""What opening a link without following it raises (Linux, FreeBSD, NetBSD)."""


class RefusedDataError(ValueError):
    """External data that is not opened, wherever it leads; the text says why and what is allowed."""


def open_inside(folder: Path, name: str) -> int:
    """Return a handle of the plain file that a model in `folder` names as its data.

    Raises FileNotFoundError where there is none, RefusedDataError for what is not allowed (a name or link that leads
    out of the folder, a device, a pipe, a folder, a hard link that a stranger may have made), OSError for the rest.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise RefusedDataError(f"the name leads out of the model's folder; {ALLOWED}")
    root, below = data_root(folder)
    pending = [*reversed(parts), *reversed(below)]
    links = 0
    folders = [os.open(root, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        while True:
            part = pending.pop()
            if part == "..":  # of a link's target
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
    """Return the folder that a model's links may not lead out of, and the way from it to the model's folder.

    That is the model's own folder; in a Hugging Face cache the repository's (`models--org--name`, which holds `blobs`
    and `snapshots`): a snapshot's files are links to blobs there.
    """
    real = Path(os.path.realpath(folder))
    for repository in (real, *real.parents):
        below = real.relative_to(repository).parts
        if repository.name.startswith("models--") and below[:1] == ("snapshots",) and (repository / "blobs").is_dir():
            return repository, below
    return real, ()


def _link_target(name: str, folder: int, links: int) -> list[str]:
    """The parts of a link's target, the last first. Raises RefusedDataError where it is not followed."""
    target = PurePosixPath(os.readlink(name, dir_fd=folder))
    if target.is_absolute():
        raise RefusedDataError(f"it is a link to an absolute path; {ALLOWED}")
    if links > MAX_LINKS:
        raise RefusedDataError(f"it is a link that leads over more than {MAX_LINKS} links; {ALLOWED}")
    return list(reversed(target.parts))


def _checked(handle: int, folder: int) -> int:
    """The handle, if it is one of a plain file that may be read. Otherwise it is closed and RefusedDataError raised."""
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
    """Whether a hard link in this folder exposes nothing that its maker could not read anyway.

    With fs.protected_hardlinks (Linux; on in every distribution with systemd) only who may read and write a file can
    link it. Elsewhere the folder must be one in which only this user and root make links.
    """
    try:
        if PROTECTED_HARDLINKS.read_text().strip() == "1":
            return True
    except OSError:
        pass
    return folder.st_uid in {0, os.geteuid()} and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
