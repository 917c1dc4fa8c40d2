"""Remove credentials from what is shown, logged or stored.

URLs carry user names, passwords and signed queries, and third-party exceptions repeat them in spellings of their own:
percent-encoded, quoted, without the scheme. All text that leaves the process goes through `redact_url` (for a URL that
we hold) or `redact` (for text from another library).
"""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "…"
"""The text that replaces a credential."""

_SHORTEST = 4
"""Minimum length of a value that is replaced wherever it occurs; shorter values also occur in ordinary words."""

_LONG_USER = 12
"""Minimum length of a user name that is treated as an access key although a password follows it."""

_SECRET_NAME = re.compile(
    r"(?i)(^|[-_.])(sig|sign|signature|token|secret|password|passwd|pwd|pw|credentials?|auth|authorization|api[-_]?key"
    r"|key|access[-_]?key|accesskeyid|awsaccesskeyid|accesstoken|policy|session|jwt|bearer|code|key-pair-id)($|[-_.])"
    r"|^x-(amz|goog|ms)-"
)
"""Matches the names of query parameters whose values are credentials or parts of a signature."""

_USERINFO = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/'\"<>]*@")
_ENCODED_USERINFO = re.compile(r"(?i)(%3a%2f%2f)[^\s/'\"<>]*?%40")
_QUERY = re.compile(r"\?[^\s'\"<>?=]*=[^\s'\"<>]*")
_ENCODED_QUERY = re.compile(r"(?i)%3f[^\s'\"<>]*?%3d[^\s'\"<>]*")
_PARAMETER = re.compile(r"(?<![^\s&;?#'\"(,{])([A-Za-z][\w.-]*)=([^\s&;'\"<>]+)")
_HEADER = re.compile(r"(?i)(authorization\W{1,4}(?:basic |bearer )?)[\w+/=.~-]+")


def redact_url(url: str) -> str:
    """Return a URL without user name, password, query and fragment. A path is returned as it is.

    The result can be encoded as UTF-8.
    """
    if "://" in url:
        scheme, _, place, _ = _split(url)
        url = _USERINFO.sub(r"\1", f"{scheme}://{place}")
    return _encodable(url)


def has_credentials(url: str) -> bool:
    """Return whether a URL has a user name, a password, a query or a fragment."""
    return "://" in url and redact_url(url) != _encodable(url)


def _encodable(text: str) -> str:
    """Replace what UTF-8 cannot encode: undecodable bytes of a file name and lone surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


def redact(text: str, *urls: str) -> str:
    """Remove from a text the credentials of these URLs, in any spelling, and those of any other URL in it."""
    for secret in sorted({secret for url in urls for secret in _secrets(url)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _ENCODED_USERINFO.sub(r"\1", _USERINFO.sub(r"\1", text))
    text = _ENCODED_QUERY.sub(f"%3F{HIDDEN}", _QUERY.sub(f"?{HIDDEN}", text))
    return _HEADER.sub(rf"\1{HIDDEN}", _PARAMETER.sub(_without_value, text))


def redact_label(text: str) -> str:
    """Remove credentials from a cell of a catalog. Queries without credentials stay (`https://…/forum?id=x`)."""
    if "://" not in text:
        return text
    if not any(map(str.isspace, text)):
        scheme, _, place, query = _split(text)
        text = f"{scheme}://{place}{query}"
    text = _USERINFO.sub(r"\1", text)
    return re.sub(r"[?#][^\s'\"<>]*", lambda query: "" if _is_signed(query[0]) else query[0], text)


def redacted_error(error: BaseException, *urls: str) -> BaseException:
    """Return `error` for a `raise … from`, or a stand-in with its redacted text if it or a cause holds a credential."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    # A client's error may hold the store's whole response, which repeats the request.
    texts = [f"{link} {link!r} {vars(link)}" for link in chain]
    if all(redact(text, *urls) == text for text in texts):
        return error
    stand_in = RuntimeError(f"{type(error).__name__}: {redact(str(error), *urls)}")
    return stand_in.with_traceback(error.__traceback__)


def _without_value(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}={HIDDEN}" if _SECRET_NAME.search(parameter[1]) else parameter[0]


def _is_signed(query: str) -> bool:
    """Return whether a query or fragment has a parameter that is a credential."""
    names = (part.partition("=")[0] for part in re.split(r"[?#&;]", unquote(query)))
    return any(_SECRET_NAME.search(name) for name in names if name)


def _split(url: str) -> tuple[str, str, str, str]:
    """Split a URL into scheme, user information, host with path, and query with fragment.

    Unlike `urllib.parse.urlsplit`, this accepts any text.
    """
    scheme, rest = url.split("://", 1)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    userinfo, place = "", rest
    _, colon, port = authority.partition(":")
    if "@" in authority:
        userinfo = authority.rpartition("@")[0]
        place = rest[len(userinfo) + 1 :]
    elif "@" in rest and colon and not port.isdigit() and not authority.startswith("["):
        userinfo, _, place = rest.rpartition("@")  # the password has a slash or question mark that was not encoded
    host, mark, query = next(((*place.partition(c),) for c in place if c in "?#"), (place, "", ""))
    return scheme, userinfo, host, mark + query


def _secrets(url: str) -> set[str]:
    """Return the credentials of a URL, in every spelling in which other libraries may repeat them."""
    if "://" not in url:
        return set()
    scheme, userinfo, _, query = _split(url)
    user, _, password = userinfo.partition(":")
    values = {f"{userinfo}@", password} if userinfo else set()
    if not password or len(user) >= _LONG_USER:
        values.add(user)
    values |= set(re.split("[/?#]", password))  # other parsers end the host at its slash
    for part in re.split("[?#]", query):
        if "=" in part or scheme in {"http", "https"}:  # with other schemes, a question mark may belong to a glob
            values |= {part, *(value.partition("=")[2] for value in re.split("[&;]", part))}
    if password:
        values |= {base64.b64encode(unquote(userinfo).encode("utf-8", "replace")).decode()}
    plain = {spelling for value in values for spelling in (value, unquote(value), unquote_plus(value))}
    spelled = set()
    for value in plain:
        encoded = {quote(value, safe="", errors="replace"), quote(value, errors="replace")}
        encoded |= {quote_plus(value, errors="replace")}
        encoded |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), text) for text in encoded}
        spelled |= {value, *encoded, repr(value)[1:-1], json.dumps(value)[1:-1], html.escape(value)}
    return {value for value in spelled if len(value) >= _SHORTEST}


def printable(text: object) -> str:
    """Return the text with control characters replaced."""
    return "".join(c if c.isprintable() else "�" for c in str(text))
