"""Fetch a model file to this machine: whole, or its first part if its format is read in parts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from filterdb.errors import DamageError
from filterdb.models.file_kinds import TAIL_BYTES, recognise
from filterdb.models.formats import format_of_kind
from filterdb.redaction import redact_url
from filterdb.store import download
from filterdb.store.partial import PartialFile
from filterdb.store.ranged import open_source

SMALL = 2**20
"""Bytes up to which a file is fetched whole: its parts would take more requests."""


def bring_file(url: str, path: Path) -> PartialFile | None:
    """Fetch the file at a URL to `path`. Return it if only a part was fetched, else None.

    Raises InputError if the URL cannot be used, StoreMissingError if there is no file, StoreError if it cannot be read.
    """
    source = open_source(url)
    if source is None:
        download.fetch(url, path)
        return None
    partial = PartialFile.create(path, source)
    if partial.size <= SMALL:
        _whole(partial)
        return None
    if source.head.startswith(b"PK"):  # a zip file lists its members at the end
        partial.fetch([(partial.size - TAIL_BYTES, partial.size)])
    with path.open("rb") as file:
        chosen = format_of_kind(recognise(file))
    is_refused = chosen.max_bytes is not None and partial.size > chosen.max_bytes
    if chosen.in_parts or is_refused:
        return partial
    _whole(partial)
    return None


def _whole(partial: PartialFile) -> None:
    """Fetch all of a file. Raises DamageError if it is not what the store says that it is."""
    partial.fetch([(0, partial.size)])
    expected = partial.source.sha256
    if expected:
        with partial.path.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != expected:
            raise DamageError(
                f"fetching {redact_url(partial.source.url)}: expected content with SHA-256 {expected[:16]}…, got "
                f"{got[:16]}…; run again"
            )
