"""Compute what a content security policy allows."""

from __future__ import annotations

import base64
import hashlib


def content_hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
