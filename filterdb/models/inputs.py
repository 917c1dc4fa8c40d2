"""Find input files by name, read them, and copy them to the machine that parses them."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filterdb.errors import FilterDBError, InputError, ModelError, StoreError, StoreMissingError
from filterdb.models.data_files import ALLOWED, open_inside
from filterdb.models.file_kinds import recognise
from filterdb.models.formats import SHARED_SUFFIXES, SUFFIXES, format_of
from filterdb.models.remote_input import RemoteFolder, remote_folder
from filterdb.redaction import redact_url
from filterdb.store import download
from filterdb.store.files import local_path
from filterdb.store.hub import is_hub
from filterdb.store.partial import PartialFile
from filterdb.store.ranged import version_digest
from filterdb.store.remote import is_remote, store_errors

MAX_COMPANIONS = 10_000
"""Most files of external data per model."""

MAX_COMPANION_BYTES = 64 * 2**30
"""Most bytes of external data per model, all files together."""

MAX_KEY = 512
"""Most bytes in the name of a companion that is fetched. S3 allows 1,024 including the folder."""

MAX_FILE_NAME = 60
"""Most characters in the name of a copy of a remote file."""

MAX_SHOWN = 60
"""Most characters of an external data file's name in a message."""

_GLOB = "*?["

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)", re.DOTALL)
"""Names of shards, as Hugging Face's libraries write them."""

_ACTIVE = frozenset("%?#\\*[]")
"""Characters with a meaning in URLs, or for servers and libraries that read URLs."""


def expand(source: str) -> list[str]:
    """Return the files that a source names, sorted: the file itself, the models below a folder, or those of a glob.

    The result includes paths that cannot be read (a pipe, a broken link, a folder without permission): reading them
    fails later, with a reason. Raises InputError if the source names no file, or is a URL that cannot be used.
    """
    source = local_path(source)
    if is_hub(source):
        names = [source]  # which of its files, is decided when it is read
    elif is_remote(source):
        names = download.list_files(source, SUFFIXES)
    elif any(c in source for c in _GLOB) and is_absent(source):
        names = [name for name in glob.glob(source, recursive=True) if _is_candidate(name)]  # noqa: PTH207
    elif os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises PermissionError (Python 3.12)
        names = _below(source) or ([source] if source.rstrip("/").endswith(SUFFIXES) else [])
    else:
        names = [] if is_absent(source) else [source]
    if not names:
        raise InputError(_names_none(source))
    return sorted(names)


def names_models(source: str) -> bool:
    """Return whether a path or URL names model files, rather than a database.

    A folder is a database if it has segments or snapshots, or no models. What does not exist is a model file if its
    name ends like one.
    """
    place = local_path(source)
    if is_hub(place):
        return True
    if is_remote(place):
        return urlsplit(place).path.endswith((*SUFFIXES, *SHARED_SUFFIXES))
    if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises PermissionError (Python 3.12)
        parts = (Path(place) / name for name in ("segments", "snapshots"))
        return not any(map(os.path.isdir, parts)) and bool(_below(place))
    return not is_absent(place) or any(mark in place for mark in _GLOB) or place.endswith((*SUFFIXES, *SHARED_SUFFIXES))


def _names_none(source: str) -> str:
    """Return the message for a source that names no file."""
    suffixes = ", ".join(dict.fromkeys((*SUFFIXES, *SHARED_SUFFIXES)))
    if is_remote(source):
        return f"{redact_url(source)}: expected a file, or models ({suffixes}) below it, found none"
    if any(c in source for c in _GLOB):
        return f"{source}: expected files that match, found none"
    if os.path.isdir(source):  # noqa: PTH112
        return f"{source}: expected models ({suffixes}) in the folder, found none"
    return f"{source}: expected a file, found none; check the path"


def is_absent(path: str) -> bool:
    """Return whether nothing has this name. False for broken links and for paths that cannot be accessed."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return True
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _is_candidate(name: str) -> bool:
    """Return whether a listed name is read as a model.

    A folder is read only if it has the suffix of a model and no model inside, so that it is rejected with a reason.
    """
    is_folder = os.path.isdir(name)  # noqa: PTH112 - as above
    return not is_folder or (name.endswith(SUFFIXES) and not _below(name))


def _below(folder: str) -> list[str]:
    """Return the candidates below a folder, and the folders there that cannot be listed."""
    unlisted: list[str] = []
    names = [
        str(Path(place) / name)
        for place, folders, files in os.walk(folder, onerror=lambda error: unlisted.append(str(error.filename)))
        for name in (*folders, *files)
        if (name.endswith(SUFFIXES) or (name.endswith(SHARED_SUFFIXES) and _is_model(Path(place) / name)))
        and not _is_shard(name, files)
    ]
    return [name for name in names if _is_candidate(name)] + [str(Path(name)) for name in unlisted]


def _is_shard(name: str, files: Collection[str]) -> bool:
    """Return whether a file is a part of a model whose index is among the files of its folder."""
    match = _SHARD.fullmatch(name)
    return match is not None and f"{match[1]}{match[2]}.index.json" in files


def _is_model(path: Path) -> bool:
    """Return whether a file whose suffix others share is of a format that has this suffix. A folder is not."""
    try:
        return path.is_file() and path.name.endswith(format_of(path).shared_suffixes or ("\0",))
    except OSError:
        return True  # so that it is rejected with a reason


def read_input(url: str) -> bytes:
    """Return the bytes of an input file (a catalog), local or remote. Raises InputError if it is missing."""
    place = local_path(url)
    if not is_remote(place) and os.path.isdir(place):  # noqa: PTH112
        raise InputError(f"{url}: expected a file, got a folder")
    try:
        if is_remote(place):
            return download.read(place)
        with store_errors("reading", place):
            return Path(place).read_bytes()
    except StoreMissingError as error:
        name = "address" if is_remote(place) else "path"
        raise InputError(f"{redact_url(url)}: expected a file, found none; check the {name}") from error
    except ValueError as error:
        if isinstance(error, FilterDBError):
            raise
        raise InputError(f"{redact_url(url)}: expected a file, got no path ({error})") from error


@contextmanager
def local_copy(url: str) -> Iterator[LocalInput]:
    """Yield an input file on this machine: the file itself, or a copy that is removed afterwards.

    Of a remote file whose format is read in parts, the copy has only its first part (see `LocalInput.fetch`).
    """
    if not is_remote(url):
        yield LocalInput(Path(url), None)
        return
    with remote_folder(url) as folder:
        local = LocalInput(folder.files / _file_name(url), url, folder)
        local.bring_to(url, local.path.name)
        yield local


def _file_name(url: str) -> str:
    """Return the name for a copy of the file at a URL, which may end in anything."""
    name = PurePosixPath(redact_url(url)).name[-MAX_FILE_NAME:]
    return name if name.strip(".") and "\0" not in name else "model"


@dataclass(frozen=True, slots=True)
class LocalInput:
    """An input file on this machine, and the URL that it was fetched from (None: it is local).

    Its companions are the files of its external data, named relative to the folder of `path`. If `path` is a link,
    they are searched for beside the link, not beside its target. `data_files.open_inside` decides which files are
    allowed as companions.
    """

    path: Path
    origin: str | None = field(repr=False)
    folder: RemoteFolder | None = field(default=None, repr=False)
    partial: dict[str, PartialFile] = field(default_factory=dict, repr=False)
    """The file and its companions, as far as only parts of them are here, by name."""
    brought: set[str] = field(default_factory=set, repr=False)
    """The companions that have been fetched."""

    @property
    def shown(self) -> str:
        """Its path or URL without credentials."""
        return redact_url(str(self.path) if self.origin is None else self.origin)

    def companions(self, needed: Mapping[str, int]) -> dict[str, int]:
        """Fetch the companions and return their names and sizes in bytes, each file once.

        `needed` has the bytes that each companion must have. Raises ModelError if one is missing, too short or not
        allowed, and if they are too many or too large: otherwise the model would be stored without filters.
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

    def bring_to(self, url: str, name: str, *, whole: bool = False) -> None:
        """Fetch the file at a URL, or its first part, to `name` in the folder."""
        partial = None if self.folder is None else self.folder.bring(url, name, whole=whole)
        if partial is not None:
            self.partial[name] = partial

    def fetch(self, wanted: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
        """Fetch parts of files, and return the parts that are present now. Raises KeyError for another file."""
        return {name: self.partial[name].fetch(ranges) for name, ranges in wanted.items()}

    def present(self, names: Iterable[str]) -> dict[str, list[tuple[int, int]]]:
        """Return the parts that are present of each of these files, if only parts of any file are here."""
        if not self.partial:
            return {}
        return {
            name: list(self.partial[name].present)
            if name in self.partial
            else [(0, (self.path.parent / name).stat().st_size)]
            for name in names
        }

    def bring(self, companion: str) -> None:
        """Fetch a companion if the model is remote and it is not here yet. Raises StoreMissingError if it is missing.

        Skip names that a server or file system could interpret as something else.
        """
        if self.origin is None or not _is_key(companion):
            return
        if companion in self.brought:
            return
        try:
            is_whole = not format_of(self.path).in_parts
            self.bring_to(companion_url(self.origin, companion), companion, whole=is_whole)
        except (StoreError, InputError):
            raise
        except (OSError, ValueError):
            return  # not a valid file name here
        self.brought.add(companion)

    def _status(self, companion: str, needed: int) -> os.stat_result:
        """Return the status of a companion. Raises ModelError if it cannot be read or has under `needed` bytes."""
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

    def digest(self, companions: Iterable[str], key: str = "", order: Sequence[str] = ()) -> str:
        """Compute the SHA-256 of the file or, if more determines what is read, of the digests of all that does.

        This is its companions, the `key` of the network in the file, and the `order` of its layers. Raises ModelError
        if a companion cannot be read.
        """
        digests = []
        for name in (self.path.name, *companions):
            if name in self.partial:
                digests.append(version_digest(self.partial[name].source))
                continue
            if name == self.path.name:
                digests.append(file_digest(self.path))
                continue
            try:
                with os.fdopen(open_inside(self.path.parent, name), "rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256").hexdigest())
            except (OSError, ValueError) as error:
                raise self._refused(name, getattr(error, "strerror", None) or str(error)) from error
        digests += [hashlib.sha256(text.encode()).hexdigest() for text in (key, "\0".join(order)) if text]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def companion_url(origin: str, companion: str) -> str:
    """Return the URL of a file of external data beside the model at `origin`."""
    scheme, _, place = origin.partition("://")
    folder = re.split("[?#]", place, maxsplit=1)[0].rpartition("/")[0]
    return f"{scheme}://{folder}/{companion}"


def _name(companion: str) -> str:
    """Quote and shorten a companion's name for a message: the model may name it anything."""
    return repr(companion if len(companion) <= MAX_SHOWN else f"{companion[:MAX_SHOWN]}…")


def _is_key(name: str) -> bool:
    """Return whether a name can be fetched below a URL and stays below it, however a server reads dots and escapes."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts
    return inside and len(name.encode("utf-8", "replace")) <= MAX_KEY and name.isprintable() and not set(name) & _ACTIVE


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with store_errors("reading", str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
