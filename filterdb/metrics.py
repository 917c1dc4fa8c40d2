"""Prometheus counters, served with Dask's own on `/metrics` of every worker and scheduler.

They count where the work is done. Without the extra `metrics` (prometheus-client) nothing is counted.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

FILTERS = "filterdb_filters"
BYTES = "filterdb_bytes"
RETRIES = "filterdb_chunk_retries"
QUARANTINED = "filterdb_quarantined_models"

_COUNTERS = {
    FILTERS: ("Filters that a pass has processed on this process.", ("pass",)),
    BYTES: ("Bytes of filters, decoded, that a pass has processed on this process.", ("pass",)),
    RETRIES: ("Requests to the store that were made again.", ()),
    QUARANTINED: ("Models that were rejected.", ()),
}
"""Name (Prometheus adds _total) → help text and labels."""


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter of this process."""
    with _lock:  # a counter must be made once
        counters = _counters()
    if counters:
        (counters[name].labels(**labels) if labels else counters[name]).inc(amount)


_lock = threading.Lock()


@cache
def _counters() -> dict[str, Any]:
    try:
        from prometheus_client import Counter
    except ImportError:
        return {}
    return {name: Counter(name, text, labels) for name, (text, labels) in _COUNTERS.items()}
