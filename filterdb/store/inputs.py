"""Input files: found by name, read, and brought to the machine that parses them."""

from __future__ import annotations

import glob
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filterdb.errors import InputError, StoreError, StoreMissingError
from filterdb.store import remote
from filterdb.store.files import local_path
from filterdb.store.remote import is_remote, retried, store_errors

FETCH_SECONDS = 1800.0
"""How long fetching a model may take."""


def expand(source: str, suffix: str = ".onnx") -> list[str]:
    """The files that a source names: itself, those below a folder, or those of a glob, sorted. Local paths or URLs.

    Raises InputError where it names none.
    """
    source = local_path(source)
    is_glob = any(c in source for c in "*?[")
    if is_remote(source):
        files = remote.filesystem(source)
        scheme = source.split("://", 1)[0]
        with store_errors("looking for models", source):
            if scheme in {"http", "https"}:
                found = [source]
            elif is_glob:
                found = [f"{scheme}://{name}" for name in files.glob(source)]
            elif files.isfile(source):
                found = [source]
            else:
                found = [f"{scheme}://{name}" for name in files.find(source) if name.endswith(suffix)]
    elif is_glob and not Path(source).exists():
        found = [name for name in glob.glob(source, recursive=True) if Path(name).is_file()]  # noqa: PTH207 - keeps the text as given
    elif Path(source).is_dir():
        found = [str(path) for path in Path(source).rglob(f"*{suffix}") if path.is_file()]
    else:
        found = [source] if Path(source).is_file() else []
    if not found:
        raise InputError(f"{source}: expected a file, a folder with {suffix} files, or a glob that matches, found none")
    return sorted(found)


def read_input(url: str) -> bytes:
    """The bytes of an input file (a catalog), local or remote. Raises InputError where there is none."""
    try:
        return _read_input(local_path(url))
    except StoreMissingError as error:
        raise InputError(f"{url}: expected a file, found none") from error


def _read_input(url: str) -> bytes:
    with store_errors("reading", url):
        return retried(lambda: bytes(remote.call(url, "cat_file", url))) if is_remote(url) else Path(url).read_bytes()


@contextmanager
def local_copy(url: str) -> Iterator[LocalInput]:
    """An input file on this machine: itself, or a copy that is removed afterwards."""
    if not is_remote(url):
        yield LocalInput(Path(url), None)
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        path = Path(folder) / Path(url).name
        with store_errors("fetching", url):
            retried(lambda: remote.call(url, "get_file", url, str(path), seconds=FETCH_SECONDS))
        yield LocalInput(path, url)


@dataclass(frozen=True, slots=True)
class LocalInput:
    """An input file here, and the URL it was brought from (None: it lies here)."""

    path: Path
    origin: str | None

    def bring(self, companion: str) -> Path | None:
        """A file beside it, fetched if need be; None where `companion` does not stay inside its folder or is absent."""
        target = self.path.parent / companion
        if Path(companion).is_absolute() or ".." in Path(companion).parts or "\0" in companion:
            return None
        try:
            if self.origin is not None and not target.exists():
                url = f"{self.origin.rsplit('/', 1)[0]}/{companion}"
                target.parent.mkdir(parents=True, exist_ok=True)
                with store_errors("fetching", url):
                    retried(lambda: remote.call(url, "get_file", url, str(target), seconds=FETCH_SECONDS))
            return target if target.is_file() else None
        except StoreMissingError:
            return None
        except StoreError:
            raise
        except (OSError, ValueError):
            return None  # no name that a disk can have: the tensor cannot be read, the model can


def file_digest(paths: list[Path]) -> str:
    """SHA-256 of one file, or of the digests of several."""
    digests = []
    for path in paths:
        with store_errors("reading", str(path)), path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
