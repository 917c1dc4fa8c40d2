"""Recognise a remote file that has not changed since it was read, without fetching it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from filterdb.models.catalog import ModelSource
from filterdb.models.inputs import companion_url
from filterdb.redaction import redact_label
from filterdb.store import download


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What reading a remote file came to, and what identified the file then.

    `identities` has a digest of the ETag, or of size and time, of each file: the model's own under "", those of its
    external data under their names. `rejected` is why the file was rejected, or empty; `file_hash` is the hash of its
    content.
    """

    identities: Mapping[str, str]
    file_hash: str
    rejected: str = ""
    read_by: str = ""
    """Version and limits of the reader that rejected the file. Another might accept it."""


def source_key(source: ModelSource) -> str:
    """Return the name under which records of a source are kept. It contains no credentials."""
    name = json.dumps([source.id, redact_label(source.url), source.key, list(source.order)])
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def identify(url: str, identity: str, companions: Sequence[str]) -> dict[str, str]:
    """Return the identities of a file, which has this one, and its companions; {} if one of them has none."""
    identities = {"": identity, **{name: download.identity(companion_url(url, name)) for name in companions}}
    return identities if all(identities.values()) else {}


def is_unchanged(record: SourceRecord, url: str, identity: str) -> bool:
    """Return whether a file, which now has this identity, and its companions are those of a record."""
    if not identity or record.identities.get("") != identity:
        return False
    companions = [name for name in record.identities if name]
    return identify(url, identity, companions) == dict(record.identities)
