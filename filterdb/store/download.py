"""List, read and fetch files behind a URL that do not belong to a database, such as models and catalogs.

`filterdb.models` uses this module and some helpers of `files` and `remote`, but no other part of the store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filterdb.errors import FilterDBError, InputError, InterruptedRunError, StoreMissingError, UsageError
from filterdb.redaction import redact, redact_url, redacted_error
from filterdb.store import remote
from filterdb.store.remote import errors_of, retried, store_error

FETCH_SECONDS = 1800.0
"""Time limit for fetching one file."""

IDENTITY_SECONDS = 30.0
"""Time limit for asking what identifies the content of a file."""

_GLOB = "*?["

_COMMIT = re.compile(r"hf://[^@]+@[0-9a-f]{40}(/|$)")
"""Matches a URL that names a commit, whose files never change."""

_TAGS = ("ETag", "etag", "Content-MD5", "md5Hash", "content_hash", "generation", "blob_id")
"""What servers and file systems call a value that changes with a file's content."""

_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "updated")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
"""Errors of this machine while it fetches. No other file would fare better."""


def list_files(url: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files that a URL names: the file itself, those with one of `suffixes` below it, or those of a glob.

    Raises InputError if the URL cannot be used, StoreMissingError or StoreError if listing fails.
    """
    return _attempt("looking for models", url, lambda: _list_files(url, suffixes))


def read(url: str) -> bytes:
    """Return the bytes of a file. Raises the errors of `list_files`."""
    return _attempt("reading", url, lambda: remote.read(url))


def fetch(url: str, target: Path) -> None:
    """Download a file to `target`. Raises the errors of `list_files`."""
    _attempt("fetching", url, lambda: remote.call(url, "get_file", url, str(target), seconds=FETCH_SECONDS))


def identity(url: str) -> str:
    """Return a text that changes when the content of a file does, without fetching it. Empty if nothing tells.

    It is a digest of a commit that the URL names, of an ETag or the like, or else of size and time.
    """
    if _COMMIT.match(url):
        return _digest({"commit": url})
    try:
        seconds = min(IDENTITY_SECONDS, remote.READ_SECONDS)
        info = retried(lambda: remote.call(url, "info", url, seconds=seconds))
    except Exception:  # noqa: BLE001 - fetching the file reports the same failure, or does without
        return ""
    tags = {name: info[name] for name in _TAGS if info.get(name)}
    times = {name: info[name] for name in _TIMES if info.get(name)}
    size = info.get("size")
    is_strong = any(not str(tag).startswith("W/") for tag in tags.values())
    if not is_strong and (size is None or not (tags or times)):
        return ""
    return _digest({"size": size, **tags, **times})


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({name: str(value) for name, value in values.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _list_files(url: str, suffixes: tuple[str, ...]) -> list[str]:
    files = remote.filesystem(url)
    scheme = url.split("://", 1)[0]
    if scheme in {"http", "https"}:
        return [url]
    if any(c in url for c in _GLOB):
        return [f"{scheme}://{name}" for name in files.glob(url)]
    if files.isfile(url):
        return [url]
    return [f"{scheme}://{name}" for name in files.find(url) if name.endswith(suffixes)]


def _attempt[T](action: str, url: str, attempt: Callable[[], T]) -> T:
    """Run `attempt` up to TRIES times, and raise its failure with a message of one line without credentials.

    Raises InputError if the URL is invalid or its protocol unknown, StoreMissingError if the object is missing, and
    StoreError for any other failure, because every file system raises exceptions of its own.
    """
    failure: FilterDBError
    try:
        return retried(attempt)
    except UsageError as error:
        failure, cause = InputError(str(error)), redacted_error(error, url)
    except FilterDBError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a file system's client raises
        failure, cause = input_error(action, url, error), redacted_error(error, url)
    # Raised outside the except block, so that the original error, with the URL, does not become its context.
    raise failure from cause


def input_error(action: str, url: str, error: Exception) -> FilterDBError:
    shown = redact_url(url)
    if isinstance(error, OSError) and error.errno is not None and error.errno in _FULL:
        return InterruptedRunError(
            f"{action} {shown}: this machine cannot keep a copy ({os.strerror(error.errno)}); free space for temporary "
            "files, or set TMPDIR to another disk, and run again: it resumes"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StoreMissingError(f"{action} {shown}: expected an object there, found none")
    if isinstance(error, (ValueError, *errors_of("botocore.exceptions", "ParamValidationError"))):
        reason = " ".join(redact(str(error), url).split())[:100]
        return InputError(f"{shown}: expected a path or URL that can be read, got one that cannot ({reason})")
    return store_error(action, url, error)
