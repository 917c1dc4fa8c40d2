"""Remember what identified each remote file when it was read, so that a run that resumes does not fetch it again.

`sources/<hash>.json` has the records of one batch. It is written before the batch is committed, so that no commit is
without them; what decides whether a model is stored is the snapshot alone. Records may be deleted at any time. Then the
files are fetched again.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from filterdb.errors import StoreError
from filterdb.models.catalog import ModelSource
from filterdb.models.fingerprint import SourceRecord, source_key
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.remote import is_remote
from filterdb.version import __version__

FOLDER = "sources"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class SourceRecords:
    """The records of a database for the remote files of a run, and the records to add."""

    files: Files
    read_by: str
    """Version and limits of this run's reader."""
    stored: Mapping[str, list[SourceRecord]]
    new: dict[str, SourceRecord] = field(default_factory=dict)

    @classmethod
    def of_run(cls, files: Files, sources: Iterable[ModelSource], limits: Limits) -> SourceRecords:
        """Read the records of these sources. Local files have none, and records that cannot be read are ignored."""
        wanted = {source_key(source) for source in sources if is_remote(source.url)}
        stored: dict[str, list[SourceRecord]] = defaultdict(list)
        for name, data in files.read_many(list(files.list(FOLDER))).items() if wanted else ():
            for key, record in _decode(name, data).items():
                if key in wanted:
                    stored[key].append(record)
        return cls(files, f"{__version__} {limits}", stored)

    def of(self, source: ModelSource, known_hash: str | None) -> tuple[SourceRecord, ...]:
        """Return the records that spare a fetch: of the content that is stored, or of a rejection by this reader."""
        if not is_remote(source.url):
            return ()
        return tuple(
            record
            for record in self.stored.get(source_key(source), ())
            if (record.read_by == self.read_by if record.rejected else record.file_hash == known_hash)
        )

    def add(self, source: ModelSource, result: Scan) -> None:
        """Add a record of the scan of a source, if the file can be recognised."""
        if result.identities:
            rejected = result.rejected or ""
            self.new[source_key(source)] = SourceRecord(
                result.identities, result.file_hash, rejected, self.read_by if rejected else ""
            )

    def write(self) -> None:
        """Store the new records. If the store fails, only warn: without them files are fetched again."""
        if not self.new:
            return
        data = canonical({key: asdict(record) for key, record in self.new.items()})
        try:
            self.files.create(f"{FOLDER}/{digest(data)[:20]}.json", data)
        except StoreError as error:
            log.warning("a run that resumes will fetch %d files again: %s", len(self.new), error)
        self.new.clear()


def _decode(name: str, data: bytes) -> dict[str, SourceRecord]:
    """Return the records of an object; {} if it is damaged or of another version."""
    if name != f"{FOLDER}/{digest(data)[:20]}.json":
        return {}
    try:
        return {key: SourceRecord(**record) for key, record in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
