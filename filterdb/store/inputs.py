"""Input files: found by name, read, and brought to the machine that parses them."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filterdb.errors import InputError, ModelError, StoreError, StoreMissingError
from filterdb.extract.sandbox import open_inside
from filterdb.store import remote
from filterdb.store.files import local_path
from filterdb.store.remote import is_remote, retried, store_errors

FETCH_SECONDS = 1800.0
"""How long fetching a model may take."""

MAX_COMPANIONS = 10_000
"""Files of external data that a model may have."""

MAX_COMPANION_BYTES = 64 * 2**30
"""Bytes of all of them together."""

MAX_KEY = 512
"""Bytes of the name of one that is fetched; S3 takes 1,024 with the folder's."""

_ACTIVE = frozenset("%?#\\*[]")
"""Characters that mean something in a URL, or to what reads one."""


def expand(source: str, suffix: str = ".onnx") -> list[str]:
    """Return the files that a source names: itself, those below a folder, or those of a glob, sorted. Paths or URLs.

    Places that cannot be read (a pipe, a link that leads nowhere, a folder without rights) are among them: whoever
    reads the files says why. Raises InputError where the source names nothing.
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
    elif is_glob and is_absent(source):
        found = [name for name in glob.glob(source, recursive=True) if _is_candidate(name, suffix)]  # noqa: PTH207 - keeps the text as given
    elif os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises PermissionError (Python 3.12)
        found = _below(source, suffix) or ([source] if source.rstrip("/").endswith(suffix) else [])
    else:
        found = [] if is_absent(source) else [source]
    if not found:
        raise InputError(f"{source}: expected a file, a folder with {suffix} files, or a glob that matches, found none")
    return sorted(found)


def is_absent(path: str) -> bool:
    """Return whether nothing has this name; what cannot be looked at, and a link that leads nowhere, is something."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_candidate(name: str, suffix: str) -> bool:
    """Return whether a listed name is read as a model: no folder, unless it is called like a model and holds none."""
    is_folder = os.path.isdir(name)  # noqa: PTH112 - as above
    return not is_folder or (name.endswith(suffix) and not _below(name, suffix))


def _below(folder: str, suffix: str) -> list[str]:
    """Return the candidates below a folder, and the folders there that cannot be listed."""
    unlisted: list[str] = []
    names = [
        str(Path(place) / name)
        for place, folders, files in os.walk(folder, onerror=lambda error: unlisted.append(str(error.filename)))
        for name in (*folders, *files)
        if name.endswith(suffix)
    ]
    return [name for name in names if _is_candidate(name, suffix)] + [str(Path(name)) for name in unlisted]


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
    """An input file here, and the URL it was brought from (None: it lies here).

    Its companions are the files of its external data, named relative to the folder of `path`. Where `path` is a link
    they lie beside the link: they are looked for in the folder where the model was named, not where the link leads.
    Companions themselves are plain files: a link, soft or hard, could lead to any file that the user may read.
    """

    path: Path
    origin: str | None

    def companions(self, names: Iterable[str]) -> list[str]:
        """Which of the names are companions, brought here, each file once. Raises ModelError for too many or too much.

        Names that lead out of the folder, and of what is no plain file, are left out.
        """
        distinct = list(dict.fromkeys(str(PurePosixPath(name)) for name in names))
        if len(distinct) > MAX_COMPANIONS:
            raise ModelError(f"{self.path}: expected at most {MAX_COMPANIONS:,} files of external data, got more")
        found: dict[tuple[int, int], tuple[str, int]] = {}
        for name in distinct:
            if self.bring(name) is not None and (status := self._status(name)) is not None:
                found.setdefault((status.st_dev, status.st_ino), (name, status.st_size))
        if sum(size for _, size in found.values()) > MAX_COMPANION_BYTES:
            size = MAX_COMPANION_BYTES // 2**30
            raise ModelError(f"{self.path}: expected at most {size} GiB of external data, got more")
        return [name for name, _ in found.values()]

    def bring(self, companion: str) -> Path | None:
        """A companion, fetched if need be; None where it is none, or absent."""
        target = self.path.parent / companion
        try:
            if self.origin is not None and _is_key(companion) and not target.exists():
                url = f"{self.origin.rsplit('/', 1)[0]}/{companion}"
                target.parent.mkdir(parents=True, exist_ok=True)
                with store_errors("fetching", url):
                    retried(lambda: remote.call(url, "get_file", url, str(target), seconds=FETCH_SECONDS))
        except StoreMissingError:
            return None
        except StoreError:
            raise
        except (OSError, ValueError):
            return None  # no name that a disk can have: the tensor cannot be read, the model can
        return None if self._status(companion) is None else target

    def _status(self, companion: str) -> os.stat_result | None:
        try:
            handle = open_inside(self.path.parent, companion)
        except (OSError, ValueError):
            return None
        try:
            return os.fstat(handle)
        finally:
            os.close(handle)

    def digest(self, companions: list[str]) -> str:
        """SHA-256 of the file, or of the digests of it and its companions. Raises ModelError where one is gone."""
        digests = [file_digest(self.path)]
        for name in companions:
            try:
                with os.fdopen(open_inside(self.path.parent, name), "rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256").hexdigest())
            except (OSError, ValueError) as error:
                raise ModelError(f"{self.path}: its external data {name!r} cannot be read: {error}") from error
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_key(name: str) -> bool:
    """Whether a name can be asked for below a URL and stays there, whatever a server makes of dots and escapes."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts
    return inside and len(name.encode("utf-8", "replace")) <= MAX_KEY and name.isprintable() and not set(name) & _ACTIVE


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with store_errors("reading", str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
