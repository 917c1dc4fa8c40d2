"""Log lines on stderr: words for a person, or, with FILTERDB_LOG=json, one JSON object a line for a machine.

What happens to the database (a commit, a rejected model, a pass) is an `event`: a word and fields such as `snapshot`,
`segment`, `model`. No field is ever a setting of a store, and credentials are removed from every line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from filterdb.redaction import redact

VARIABLE = "FILTERDB_LOG"
"""`json` for machine lines, `info` for words on every event; else words on warnings only."""


def setup(*, others: bool = False) -> None:
    """Make this process' log what FILTERDB_LOG says; once for each command, scheduler and worker.

    `others`: the warnings of other libraries too. Where Dask runs the process, they are Dask's to show.
    """
    kind = os.environ.get(VARIABLE, "")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if kind == "json" else _Words())
    if others:
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
    own = logging.getLogger("filterdb")
    own.handlers = [handler]
    own.propagate = False
    own.setLevel(logging.INFO if kind in {"json", "info"} else logging.WARNING)


def event(log: logging.Logger, word: str, **fields: Any) -> None:
    """Say that something has happened."""
    log.info(word, extra={"fields": fields})


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(_redacted(line))


def _redacted(value: Any) -> Any:
    """A field as JSON can carry it, every text without credentials."""
    if isinstance(value, dict):
        return {str(key): _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value if value is None or isinstance(value, int | float) else redact(str(value))


class _Words(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        words = [redact(super().format(record)), *(f"{name}={redact(str(value))}" for name, value in fields.items())]
        return " ".join(words)
