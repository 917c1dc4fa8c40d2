"""Decide which requests are answered: the right Host, no other site's page behind them, and the token.

A page of any site may send requests to 127.0.0.1. Three checks keep its scripts out, each against certain attacks:

- Host: a name that an attacker's DNS points at 127.0.0.1 (DNS rebinding) is not one of this machine's.
- Origin and Sec-Fetch-Site: browsers say which site a request comes from (CSRF, and data files included as scripts).
- The token: other users of this machine can connect too, but do not know it.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names under which this machine reaches itself."""

SAME_SITE = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site of a request by the page itself, or by the user."""


def new_token() -> str:
    """Return a random token of 256 bits."""
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> frozenset[str]:
    """Return the names under which a server that listens at an address is reached. Asks DNS, which may take seconds."""
    if is_loopback(host):
        return LOOPBACK
    return LOOPBACK | {name.lower() for name in (host, socket.gethostname(), socket.getfqdn())}


@dataclass(frozen=True)
class Access:
    """Decide which requests are answered.

    `token` is None if none is needed; `host` is the address that the server listens on, `names` those of `names_of`.
    """

    host: str
    token: str | None = field(repr=False)
    names: frozenset[str]

    def refusal(self, method: str, headers: Mapping[str, str], tokens: list[str]) -> str | None:
        """Return why a request is refused, in a line; None if it is answered. `tokens` are those that came with it."""
        host = headers.get("Host", "")
        if not self._is_known(_hostname(host)):
            return "Host: expected this machine's name or address, got another; use the printed address"
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "Origin: expected a request by this server's own page, got one by another site"
        if headers.get("Sec-Fetch-Site", "none") not in SAME_SITE and not _is_visit(method, headers):
            return "Sec-Fetch-Site: expected a request by this server's own page, got one by another site"
        if self.token is not None and not any(_equal(token, self.token) for token in tokens):
            return "token: expected the token in the address that `filterdb serve` printed; open that address"
        return None

    def _is_known(self, name: str) -> bool:
        """Return whether a name in a Host header can only mean this machine."""
        if is_loopback(self.host):
            return name in self.names or is_loopback(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True  # no DNS name, so nobody's DNS can point it here


def _hostname(host: str) -> str:
    """Return the name in a Host header, without the port; empty if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_visit(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a browser opens a page at the top, as after a click on a link of another site."""
    return (
        method == "GET"
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest", "document") == "document"
    )


def _equal(a: str, b: str) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(a.encode("utf-8", "replace"), b.encode())
