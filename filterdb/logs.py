"""Log lines on stderr: text for people, or, with FILTERDB_LOG=json, one JSON object per line for machines.

What happens to the database (a commit, a rejected model, a pass) is an `event`: a word and fields such as `snapshot`,
`segment`, `model`. No field holds a setting of a store, and credentials are removed from every line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from filterdb.redaction import redact
from filterdb.terminal import width_of, wrap

VARIABLE = "FILTERDB_LOG"
"""The environment variable: `json` logs JSON, `info` logs every event as text, anything else logs only warnings."""


def setup(*, others: bool = False) -> None:
    """Set up this process's log as FILTERDB_LOG says. Every command, scheduler and worker calls this once.

    With `others`, show the warnings of other libraries too. In processes that Dask starts, Dask shows them.
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
    """Record an event with its fields."""
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
    """Convert a field to what JSON can hold, and remove credentials from its text."""
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
        pairs = [f"{name}={redact(str(value))}" for name, value in fields.items()]
        line = " ".join([redact(super().format(record)), *pairs])
        # The lines of a traceback are code, which stays as it is.
        return line if record.exc_info else "\n".join(wrap(line, width_of(sys.stderr), "  "))
