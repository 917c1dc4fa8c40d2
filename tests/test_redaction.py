"""Credentials are removed from URLs and texts in every spelling, and nothing else is."""

from __future__ import annotations

import base64
import copyreg
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from distributed.core import error_message

from filterdb import logs
from filterdb.errors import StoreError
from filterdb.redaction import has_credentials, redact, redact_label, redact_url, redacted_error
from filterdb.store.remote import store_errors

SECRET = "pl4nted/+=@x"
CORE = "pl4nted"

URLS = {
    "password": (f"http://user:{quote(SECRET, safe='')}@host:80/a/m.onnx", "http://host:80/a/m.onnx"),
    "password with a slash": ("http://user:pl4nted/x@host/a/m.onnx", "http://host/a/m.onnx"),
    "password with an at sign": ("http://user:pl4nted@x@host/a", "http://host/a"),
    "token": (f"https://{CORE}@host/a", "https://host/a"),
    "keys of s3": (f"s3://AKIAPL:{CORE}@bucket/a/m.onnx", "s3://bucket/a/m.onnx"),
    "signature": (f"https://host/a?X-Amz-Signature={CORE}&X-Amz-Date=1", "https://host/a"),
    "encoded query": (f"https://host/a?sv=1&sig={quote(SECRET, safe='')}", "https://host/a"),
    "query without a name": (f"https://host/a?{CORE}", "https://host/a"),
    "fragment": (f"https://host/a#access_token={CORE}", "https://host/a"),
    "everything": (f"https://user:{CORE}1@host/a?sig={CORE}2#t={CORE}3", "https://host/a"),
    "chained": (f"simplecache::https://user:{CORE}@host/a?sig={CORE}", "simplecache::https://host/a"),
    "no host": (f"http://user:{CORE}@", "http://"),
    "odd": (f"http://user:{CORE}@[", "http://["),
}


@pytest.mark.parametrize("kind", URLS)
def test_urls(kind: str) -> None:
    url, shown = URLS[kind]
    assert redact_url(url) == shown
    assert has_credentials(url) and not has_credentials(shown)


@pytest.mark.parametrize("url", [
    "", "m.onnx", "/a/m.onnx?x#y", "a@b:c/d", "s3://bucket/a@b/m.onnx", "http://host:80/a@b", "http://[::1]:80/a@b",
    "http://host/ü", "http://[", "://", "s3://", "file:///a/b", "hf://org/name@revision/m.onnx",
])  # fmt: skip
def test_what_has_none_stays(url: str) -> None:
    assert redact_url(url) == url and not has_credentials(url)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda url: url,
    "quoted": lambda url: f"url='{url}'",
    "percent": lambda url: quote(url, safe=""),
    "percent, small": lambda url: quote(url, safe="").replace("%2F", "%2f").replace("%3A", "%3a"),
    "form": quote_plus,
    "repr": repr,
    "json": json.dumps,
    "bytes": lambda url: repr(url.encode()),
    "without scheme": lambda url: url.split("://", 1)[1],
    "userinfo alone": lambda url: f'Invalid bucket name "{url.split("://", 1)[1].split("/")[0]}"',
    "path and query": lambda url: "/" + url.split("://", 1)[1].partition("/")[2],
    "query alone": lambda url: url.partition("?")[2] or url.partition("#")[2],
    "header": lambda url: (
        "Authorization: Basic " + base64.b64encode(url.split("://", 1)[1].rpartition("@")[0].encode()).decode()
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", URLS)
def test_texts_of_others(kind: str, spelling: str) -> None:
    url = URLS[kind][0]
    said = redact(f"404, message='Not Found' ({SPELLINGS[spelling](url)}), try again", url)
    assert CORE not in said and base64.b64encode(f"user:{CORE}".encode()).decode()[:12] not in said
    assert said.startswith("404, message='Not Found' (")


@pytest.mark.parametrize("kind", ["password", "token", "keys of s3", "signature", "encoded query", "everything"])
@pytest.mark.parametrize("spelling", ["as it is", "quoted", "percent", "repr", "json"])
def test_urls_that_are_not_known(kind: str, spelling: str) -> None:
    """A redirect's, say: they are recognised as URLs."""
    assert CORE not in redact(f"x {SPELLINGS[spelling](URLS[kind][0])} y")


@pytest.mark.parametrize("text", [
    "m.onnx: expected 3 fields, got 4; really? yes", "a=1, shape=(3, 3), keys=2", "http://host/a: refused",
    "[Errno 2] No such file: '/a/b?c'", "weights s3://b/k [Errno 13]", "what is this? task=detection", "monkey=1",
])  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    assert redact(text) == text


def test_labels() -> None:
    kept = ["https://openreview.net/forum?id=abc#s", "https://h/x?design=1&assign=2", "a: b@c", "user@host"]
    assert [redact_label(text) for text in kept] == kept
    for kind in URLS.keys() - {"query without a name"}:
        assert CORE not in redact_label(URLS[kind][0])
        assert CORE not in redact_label(f"see {URLS[kind][0]}") or kind == "password with a slash"


@pytest.mark.parametrize("by_dask", [False, True])
def test_exceptions_and_their_causes(by_dask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours from another's: what a traceback shows of the whole chain, and what Dask sends of it."""
    monkeypatch.setattr(copyreg, "dispatch_table", copyreg.dispatch_table.copy())
    url = URLS["everything"][0]

    def fail() -> None:
        try:
            raise ValueError(url)
        except ValueError as error:
            raise ConnectionError(111, f"no answer from {url}") from error

    with pytest.raises(StoreError) as caught, store_errors("reading", url):
        fail()
    error = caught.value
    if by_dask:
        error_message(error)  # as a worker does: from now on, tblib pickles such errors
    shown = "".join(traceback.format_exception(error))
    sent = pickle.dumps(error)
    assert CORE not in shown and CORE.encode() not in sent
    received = pickle.loads(sent)
    assert (type(received), str(received)) == (StoreError, str(error))
    assert "ConnectionError" in shown and "reading https://host/a: " in str(error)
    plain = OSError("disk full")
    assert redacted_error(plain, url) is plain


@pytest.mark.parametrize("formatter", [logs._Json(), logs._Words()])
def test_log_lines(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("x", 30, "f", 1, "lost %s", (URLS["everything"][0],), None)
    record.fields = {"model": URLS["signature"][0], "list": [URLS["token"][0]], "at": {"b": URLS["keys of s3"][0]}}
    line = formatter.format(record)
    assert CORE not in line and "https://host/a" in line
    if isinstance(formatter, logs._Json):
        assert json.loads(line)["list"] == ["https://host/a"]
