"""Input files: found by name, read, and brought to the machine that parses them."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from filterdb.errors import FilterDBError, InputError, ModelError, StoreMissingError
from filterdb.models.data_files import ALLOWED, open_inside
from filterdb.models.file_kinds import recognise
from filterdb.redaction import redact_url
from filterdb.store import download
from filterdb.store.files import local_path
from filterdb.store.remote import is_remote, store_errors

MAX_COMPANIONS = 10_000
"""Files of external data that a model may have."""

MAX_COMPANION_BYTES = 64 * 2**30
"""Bytes of all of them together."""

MAX_KEY = 512
"""Bytes of the name of one that is fetched; S3 takes 1,024 with the folder's."""

MAX_SHOWN = 60
"""Characters of a model's name for its external data that are shown."""

_GLOB = "*?["

_ACTIVE = frozenset("%?#\\*[]")
"""Characters that mean something in a URL, or to what reads one."""


def expand(source: str, suffix: str = ".onnx") -> list[str]:
    """Return the files that a source names: itself, those below a folder, or those of a glob, sorted. Paths or URLs.

    Places that cannot be read (a pipe, a link that leads nowhere, a folder without rights) are among them: whoever
    reads the files says why. Raises InputError where the source names nothing, or is a URL that cannot be used.
    """
    source = local_path(source)
    if is_remote(source):
        names = download.list_files(source, suffix)
    elif any(c in source for c in _GLOB) and is_absent(source):
        names = [name for name in glob.glob(source, recursive=True) if _is_candidate(name, suffix)]  # noqa: PTH207
    elif os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises PermissionError (Python 3.12)
        names = _below(source, suffix) or ([source] if source.rstrip("/").endswith(suffix) else [])
    else:
        names = [] if is_absent(source) else [source]
    if not names:
        raise InputError(_names_none(source, suffix))
    return sorted(names)


def _names_none(source: str, suffix: str) -> str:
    """Say that a source names no file."""
    if is_remote(source):
        return f"{redact_url(source)}: expected a file, or {suffix} files below it, found none"
    if any(c in source for c in _GLOB):
        return f"{source}: expected files that match, found none"
    return f"no {suffix} file in {source}" if os.path.isdir(source) else f"{source}: expected a file, found none"  # noqa: PTH112


def is_absent(path: str) -> bool:
    """Return whether nothing has this name; what cannot be looked at, and a link that leads nowhere, is something."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name can have a NUL
        return True
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
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
    place = local_path(url)
    if not is_remote(place) and os.path.isdir(place):  # noqa: PTH112
        raise InputError(f"{url}: expected a file, got a folder")
    try:
        if is_remote(place):
            return download.read(place)
        with store_errors("reading", place):
            return Path(place).read_bytes()
    except StoreMissingError as error:
        raise InputError(f"{redact_url(url)}: expected a file, found none") from error
    except ValueError as error:
        if isinstance(error, FilterDBError):
            raise
        raise InputError(f"{redact_url(url)}: expected a file, got no path ({error})") from error


@contextmanager
def local_copy(url: str) -> Iterator[LocalInput]:
    """An input file on this machine: itself, or a copy that is removed afterwards."""
    if not is_remote(url):
        yield LocalInput(Path(url), None)
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        path = Path(folder) / (Path(redact_url(url)).name or "model")
        download.fetch(url, path)
        yield LocalInput(path, url)


@dataclass(frozen=True, slots=True)
class LocalInput:
    """An input file here, and the URL it was brought from (None: it lies here).

    Its companions are the files of its external data, named relative to the folder of `path`. Where `path` is a link
    they lie beside the link: they are looked for in the folder where the model was named, not where the link leads.
    Which files may be companions is what `data_files.open_inside` allows.
    """

    path: Path
    origin: str | None = field(repr=False)

    @property
    def shown(self) -> str:
        """Where it lies, as it may be shown."""
        return redact_url(str(self.path) if self.origin is None else self.origin)

    def companions(self, needed: Mapping[str, int]) -> dict[str, int]:
        """The companions, brought here: names and sizes in bytes, each file once. `needed`: bytes that each must have.

        Raises ModelError where one is missing, shorter than needed, or may not be opened, and for too many or too much:
        a model without its weights would be stored as one without filters.
        """
        if len(needed) > MAX_COMPANIONS:
            raise ModelError(f"{self.shown}: expected at most {MAX_COMPANIONS:,} files of external data, got more")
        files: dict[tuple[int, int], tuple[str, int]] = {}
        for name, size in needed.items():
            status = self._status(name, size)
            files.setdefault((status.st_dev, status.st_ino), (name, status.st_size))
        if sum(size for _, size in files.values()) > MAX_COMPANION_BYTES:
            most = MAX_COMPANION_BYTES // 2**30
            raise ModelError(f"{self.shown}: expected at most {most} GiB of external data, got more")
        return dict(files.values())

    def bring(self, companion: str) -> None:
        """Fetch a companion, if it is a remote model's and not here yet. Raises StoreMissingError where there is none.

        Names that a server or disk could take for something else are left alone.
        """
        if self.origin is None or not _is_key(companion):
            return
        target = self.path.parent / companion
        try:
            if target.exists():
                return
            target.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError):
            return  # no name that a disk can have
        scheme, _, place = self.origin.partition("://")
        folder = re.split("[?#]", place, maxsplit=1)[0].rpartition("/")[0]
        download.fetch(f"{scheme}://{folder}/{companion}", target)

    def _status(self, companion: str, needed: int) -> os.stat_result:
        """The status of a companion of at least `needed` bytes. Raises ModelError for any other."""
        if self.origin is not None and not _is_key(companion):
            raise self._refused(companion, f"the name leads out of the model's folder; {ALLOWED}")
        try:
            self.bring(companion)
            with os.fdopen(open_inside(self.path.parent, companion), "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size >= needed:
                    return status
                kind = recognise(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelError(
                f"{self.shown}: expected its external data {_name(companion)}, found none; put the file there "
                "(download the whole repository, `git lfs pull`) and run again"
            ) from error
        except FilterDBError:
            raise
        except (OSError, ValueError) as error:
            raise self._refused(companion, getattr(error, "strerror", None) or str(error)) from error
        got = f"{status.st_size:,}" if kind is None else f"{status.st_size:,}, {kind.name}"
        remedy = "download it again" if kind is None else kind.remedy
        raise ModelError(
            f"{self.shown}: expected at least {needed:,} bytes of external data in {_name(companion)}, got {got}; "
            f"{remedy} and run again"
        )

    def _refused(self, companion: str, why: str) -> ModelError:
        return ModelError(f"{self.shown}: its external data {_name(companion)} cannot be read: {why}")

    def digest(self, companions: Iterable[str]) -> str:
        """SHA-256 of the file, or of the digests of it and its companions. Raises ModelError where one is gone."""
        digests = [file_digest(self.path)]
        for name in companions:
            try:
                with os.fdopen(open_inside(self.path.parent, name), "rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256").hexdigest())
            except (OSError, ValueError) as error:
                raise self._refused(name, getattr(error, "strerror", None) or str(error)) from error
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _name(companion: str) -> str:
    """A companion's name in a message: a model may call it anything."""
    return repr(companion if len(companion) <= MAX_SHOWN else f"{companion[:MAX_SHOWN]}…")


def _is_key(name: str) -> bool:
    """Whether a name can be asked for below a URL and stays there, whatever a server makes of dots and escapes."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts
    return inside and len(name.encode("utf-8", "replace")) <= MAX_KEY and name.isprintable() and not set(name) & _ACTIVE


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with store_errors("reading", str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
