"""Encode content as canonical bytes, and compute digests, which name and verify objects."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(content: Any) -> bytes:
    """Encode content as JSON with sorted keys and no extra space, so that equal content has equal bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes) -> str:
    """Compute the SHA-256 of data, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
