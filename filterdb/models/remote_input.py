"""Fetch a model file to this machine: whole, or its first part if its format is read in parts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filterdb.errors import DamageError
from filterdb.models.file_kinds import TAIL_BYTES, recognise
from filterdb.models.formats import format_of_kind
from filterdb.redaction import redact_url
from filterdb.store import download, hub, part_cache
from filterdb.store.partial import PartialFile, read_identity
from filterdb.store.ranged import Source, open_source, restore

SMALL = 2**20
"""Bytes up to which a file is fetched whole: its parts would take more requests."""


@dataclass(frozen=True)
class RemoteFolder:
    """Where a remote model and its companions are kept: an entry of the cache, or a temporary folder.

    Files are below `files`. `source` is the model itself at the version that the entry is of; None if its version is
    not known, so that nothing of it can be kept.
    """

    folder: Path
    url: str
    source: Source | None

    @property
    def files(self) -> Path:
        """The folder of the model's file."""
        return self.folder / "files"

    def bring(self, url: str, name: str, *, whole: bool) -> PartialFile | None:
        """Fetch the file at a URL, as `name`. Return it if only a part was fetched, else None.

        With `whole`, all of it is fetched, whatever its format: it is read by the reader of another file's format.

        Raises InputError if the URL cannot be used, StoreMissingError if there is no file, StoreError if it cannot be
        read.
        """
        path, journal = self.files / name, self.folder / "parts" / hashlib.sha256(name.encode()).hexdigest()[:32]
        source = self.source if url == self.url else None
        if source is None and _is_pinned(url):
            source = restore(url, read_identity(journal))
        source = source or open_source(url)
        if source is None:
            fresh = self.folder / f"fetched-{journal.name}"
            download.fetch(url, fresh)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.replace(path)
            return None
        with part_cache.creating(self.folder):
            partial = PartialFile.open(path, journal, source, part_cache.make_room)
        return _needed(partial, whole=whole)


@contextmanager
def remote_folder(url: str) -> Iterator[RemoteFolder]:
    """Yield where a remote model is to be kept."""
    if _is_pinned(url):  # whatever a commit has does not change, so that no request is needed to know its version
        with part_cache.entry(url) as folder:
            yield RemoteFolder(folder, url, None)
        return
    source = open_source(url)
    if source is not None:
        with part_cache.entry(f"{url}\n{source.version}") as folder:
            yield RemoteFolder(folder, url, source)
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as temporary:
        for name in ("files", "parts"):
            (Path(temporary) / name).mkdir()
        yield RemoteFolder(Path(temporary), url, None)


def _is_pinned(url: str) -> bool:
    return hub.is_hub(url) and hub.parse(url).is_pinned


def _needed(partial: PartialFile, *, whole: bool) -> PartialFile | None:
    """Fetch all of a file and return None, unless its format is read in parts."""
    if partial.size > SMALL and not whole:
        with partial.path.open("rb") as file:
            if file.read(2) == b"PK":  # a zip file lists its members at the end
                partial.fetch([(partial.size - TAIL_BYTES, partial.size)])
            chosen = format_of_kind(recognise(file))
        is_refused = chosen.max_bytes is not None and partial.size > chosen.max_bytes
        if chosen.in_parts or is_refused:
            return partial
    is_new = not partial.is_whole
    partial.fetch([(0, partial.size)])
    if is_new and partial.source.sha256:
        _verify(partial)
    return None


def _verify(partial: PartialFile) -> None:
    """Raise DamageError if a file is not what the store says that it is."""
    with partial.path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != partial.source.sha256:
        partial.journal.unlink(missing_ok=True)
        raise DamageError(
            f"fetching {redact_url(partial.source.url)}: expected content with SHA-256 "
            f"{partial.source.sha256[:16]}…, got {got[:16]}…; run again"
        )
