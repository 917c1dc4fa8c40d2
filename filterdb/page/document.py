"""Put the body of a page into an HTML document that runs its own script and nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib import resources
from typing import Any

from filterdb.page import payload
from filterdb.version import __version__


def document(
    title: str,
    body: str,
    *,
    style: str,
    script: str,
    core: dict[str, Any] | None = None,
    has_files: bool = True,
    is_served: bool = False,
    more: str = "",
) -> bytes:
    """Return the HTML of a page.

    The content security policy allows this script and style, files beside the page (`has_files`), and requests to the
    server (`is_served`). `body` is HTML, `core` the data that the script reads, and `more` HTML for the head. Neither
    Jinja nor matplotlib is needed, so that the page of a file opens quickly and without the extra `report`.
    """
    files = "'self' file: " if has_files else ""
    policy = [
        "default-src 'none'",
        f"script-src {files}'{_hash(script)}'",
        f"style-src '{_hash(style)}'",
        f"img-src {files}data:",
        "base-uri 'none'",
        "form-action 'none'",
        *(["connect-src 'self'"] if is_served else []),
    ]
    values = {
        "policy": "; ".join(policy),
        "version": __version__,
        "more": more,
        "title": html.escape(title),
        "style": style,
        "body": body.rstrip("\n"),
        "core": payload.text({} if core is None else core),
        "script": script,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], web_file("document.html"))
    return page.encode("utf-8", "replace")


def _hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def web_file(name: str) -> str:
    """Return a file of `web`."""
    return resources.files("filterdb.page").joinpath("web", name).read_text("utf-8")
