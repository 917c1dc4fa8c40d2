"""Find files in model repositories of the Hugging Face hub: `hf://org/repo[@revision][/file]`.

The hub's plain HTTP interface is used, so that no extra is needed, and limits, retries and redaction are ours. The
endpoint is `HF_ENDPOINT`, and the token `HF_TOKEN`, of this process's environment; the token is sent to the endpoint
and to no other host.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode, urljoin

from fsspec.asyn import sync

from filterdb.errors import InputError, StoreError
from filterdb.redaction import redacted_error
from filterdb.store import http, remote
from filterdb.store.http import StatusError
from filterdb.store.remote import store_errors

SCHEME = "hf://"

ENDPOINT = "https://huggingface.co"

MAX_ANSWER = 64 * 2**20
"""Most bytes of an answer about a repository, or of a page of a list."""

MAIN = "main"
"""The revision of a URL that names none."""

_NAME = re.compile(r"[\w.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REFERENCE = re.compile(r"refs/(?:convert|pr)/[\w.-]+")
"""Revisions with slashes; those of other revisions are written as %2F."""

_LINK = re.compile(r'<([^>]+)>;\s*rel="next"')


@dataclass(frozen=True, slots=True)
class Place:
    """A repository at a revision, and a file or folder in it (empty: the whole repository)."""

    repository: str
    revision: str = MAIN
    path: str = ""

    @property
    def url(self) -> str:
        """The place as hf:// URL."""
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{SCHEME}{self.repository}{revision}" + (f"/{self.path}" if self.path else "")

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None


def is_hub(url: str) -> bool:
    """Return whether a URL is one of a model repository of the hub. Data sets and Spaces are left to fsspec."""
    return url.startswith(SCHEME) and not url.startswith(
        (f"{SCHEME}datasets/", f"{SCHEME}spaces/", f"{SCHEME}buckets/")
    )


def parse(url: str) -> Place:
    """Return the place that a URL names. Raises InputError."""
    rest = url.removeprefix(SCHEME).removeprefix("models/").strip("/")
    organisation, _, rest = rest.partition("/")
    name, at, rest = re.match(r"([^/@]*)(@?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    revision = MAIN
    if at:
        reference = _REFERENCE.match(rest)
        revision = reference[0] if reference else rest.partition("/")[0]
        rest = rest[len(revision) :]
        revision = revision.replace("%2F", "/").replace("%2f", "/")
    path = rest.strip("/")
    if not (_NAME.fullmatch(organisation) and _NAME.fullmatch(name)) or not revision or ".." in path.split("/"):
        raise InputError(
            f"{url}: expected hf://org/repository[@revision][/file], got another form; "
            "`filterdb catalog hf://org` lists the models of an organisation"
        )
    return Place(f"{organisation}/{name}", revision, path)


def endpoint() -> str:
    """Return the address of the hub."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def credentials(url: str) -> Mapping[str, str]:
    """Return the header with the token, if there is one and the URL is of the hub itself."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token and http.origin(url) == http.origin(endpoint()) else {}


def file_address(url: str) -> str:
    """Return the https address of a file."""
    place = parse(url)
    return f"{endpoint()}/{place.repository}/resolve/{quote(place.revision, safe='')}/{quote(place.path)}"


def pin(place: Place) -> tuple[Place, dict[str, int | None]]:
    """Return the place at the commit that its revision is now, and the repository's files with their sizes.

    Raises StoreMissingError if there is no such repository or revision, StoreError if the hub cannot be asked.
    """
    revision = quote(place.revision, safe="")
    answer, _ = _ask(place.url, f"{endpoint()}/api/models/{place.repository}/revision/{revision}?blobs=true")
    try:
        commit = str(answer["sha"])
        files = {str(file["rfilename"]): _size(file) for file in answer["siblings"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise _nonsense(place.url) from error
    if not _COMMIT.fullmatch(commit):
        raise _nonsense(place.url)
    return replace(place, revision=commit), files


def list_models(organisation: str, filters: Sequence[str], limit: int | None) -> list[dict[str, Any]]:
    """Return what the hub says of the models of an organisation that have all these tags, a request for each page."""
    expand = ("author", "cardData", "config", "downloads", "gated", "library_name", "pipeline_tag", "sha", "tags")
    query = [("author", organisation), *(("filter", tag) for tag in filters), *(("expand", name) for name in expand)]
    address: str | None = f"{endpoint()}/api/models?{urlencode([*query, ('limit', str(min(limit or 1000, 1000)))])}"
    models: list[dict[str, Any]] = []
    url = f"{SCHEME}{organisation}"
    while address is not None and (limit is None or len(models) < limit):
        page, link = _ask(url, address)
        if not isinstance(page, list) or not all(isinstance(model, dict) for model in page):
            raise _nonsense(url)
        models += page
        following = _LINK.search(link)
        previous, address = address, urljoin(address, following[1]) if following and page else None
        if address is not None and http.origin(address) != http.origin(previous):
            raise _nonsense(url)
    return models[:limit]


def _size(file: Mapping[str, Any]) -> int | None:
    size = file.get("size")
    return size if type(size) is int and size >= 0 else None


def _nonsense(url: str) -> StoreError:
    return StoreError(f"asking for {url}: expected the hub's answer, got something else; check HF_ENDPOINT")


def _ask(url: str, address: str) -> tuple[Any, str]:
    """Return the JSON that the hub answers, and its Link header. Raises StoreMissingError, StoreError."""

    async def ask() -> http.Reply:
        return await http.get(address, {"Accept": "application/json"}, credentials=credentials, limit=MAX_ANSWER)

    failure: Exception
    with store_errors("asking for", url):
        try:
            reply = sync(remote.filesystem(address).loop, ask)
            return json.loads(reply.body), reply.headers.get("Link", "")
        except StatusError as error:
            failure, cause = hub_error("asking for", url, error), redacted_error(error, address)
        except ValueError as error:
            failure, cause = _nonsense(url), error
    raise failure from cause


def hub_error(action: str, url: str, error: StatusError) -> StoreError:
    """Return the error to raise for an answer of the hub, which does not say whether a private repository exists."""
    if error.status in {401, 403}:
        return StoreError(
            f"{action} {url}: the hub refused ({error}); check the name; a private or gated repository needs a token "
            "with access in HF_TOKEN"
        )
    return http.status_error(action, url, error)
