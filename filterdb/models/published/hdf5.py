"""Read the published data set from HDF5: the filters, and their metadata as a pandas frame or CSV.

Nothing in a file is executed, and no link out of the file is followed. External storage, and sizes that the file
cannot contain, are rejected. The metadata is held in memory; filters are read by rows.
"""

from __future__ import annotations

import importlib
import itertools
import math
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.errors import InputError, MissingExtraError
from filterdb.models.hdf5_parts import (
    DEFLATE,
    FLETCHER32,
    MAX_CHUNK,
    SHUFFLE,
    RefusedPartError,
    check_inside,
    check_stored,
    child,
    nbytes,
)
from filterdb.models.published.columns import AGAIN, Table, as_text, csv_table, refusal, refusing
from filterdb.models.published.metadata import MAX_LAYERS, Published, from_table
from filterdb.models.published.unpickle import unpickle
from filterdb.schema import KERNEL, WEIGHTS

MAX_FILTERS = 2**40
"""Most filters of a file; a larger number cannot be true."""

MAX_METADATA = 512 * 2**20
"""Most decoded bytes of everything in a file except its filters."""

_MAX_REFERENCE = 2**24
"""Most bytes of a chunk that holds a single reference."""

_CONVERTED = 65_536
"""Rows that are converted to float32 at a time."""

_CACHE = 2**26
"""Bytes of decoded chunks that HDF5 keeps for the next rows."""

_INDEX = ("model_id", "conv_depth", "conv_depth_norm", "layer_id")


def read_published(path: Path) -> Published:
    """Read models and layers of the HDF5 file at `path`, with any of the three layouts of its metadata.

    Raises InputError if the file cannot be used.
    """
    with _opened(path) as file:
        rows = _filters(file).shape[0]
        is_frame = isinstance(file.item("meta"), file.h5.Group)
        table = _frame(file) if is_frame else csv_table(file.text("meta"), f"{path}: meta")
        return from_table(table, rows)


@contextmanager
def opened_filters(path: Path) -> Iterator[Filters]:
    """Open the filters of the HDF5 file at `path`. Raises InputError if the file cannot be used."""
    with _opened(path) as file:
        yield Filters(file, _filters(file))


@dataclass(frozen=True, slots=True)
class Filters:
    """The dataset of the filters in an open file, with its dtype and shape checked."""

    file: _File
    dataset: Any

    def read(self, first: int, count: int) -> np.ndarray:
        """Return `count` filters from row `first`, (count, 9) float32. Raises InputError for rows that do not exist."""
        self._require(first, count)
        rows = np.empty((count, WEIGHTS), np.float32)
        self.read_into(first, rows)
        return rows

    def read_into(self, first: int, rows: np.ndarray) -> None:
        """Fill `rows`, (n, 9) float32 in C order, with the filters from row `first`. Raises InputError as `read`."""
        self._require(first, len(rows))
        if not len(rows):
            return
        if self.dataset.dtype == np.dtype("<f4"):
            shaped = rows.reshape(-1, *self.dataset.shape[1:])
            self.dataset.read_direct(shaped, np.s_[first : first + len(rows)])
            return
        with np.errstate(over="ignore"):
            for start in range(0, len(rows), _CONVERTED):
                part = rows[start : start + _CONVERTED]
                part[:] = self.dataset[first + start : first + start + len(part)].reshape(-1, WEIGHTS)

    def offset(self) -> int | None:
        """Return where the filters begin in the file if it holds plain float32, so that HDF5 is not needed; or None."""
        plan = self.dataset.id.get_create_plist()
        is_plain = plan.get_layout() == self.file.h5.h5d.CONTIGUOUS and not plan.get_nfilters()
        start = self.dataset.id.get_offset() if is_plain else None
        if start is None or self.dataset.dtype != np.dtype("<f4"):
            return None
        last = self.dataset.shape[0] - 1
        with self.file.path.open("rb") as file:
            for row in (0, last):
                file.seek(start + row * WEIGHTS * 4)
                if file.read(WEIGHTS * 4) != self.read(row, 1).tobytes():
                    return None
        return int(start)

    def _require(self, first: int, count: int) -> None:
        rows = self.dataset.shape[0]
        if first < 0 or count < 0 or first + count > rows:
            raise self.file.refusal("filters", f"rows of 0:{rows}", f"{first}:{first + count}", "ask for rows it has")


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    try:
        h5: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise MissingExtraError(f"{path}: reading HDF5 needs the extra: pip install 'filterdb[hdf5]'") from error
    with refusing(str(path)):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refusal(str(path), "an HDF5 file", "a folder or a device", "name the file dataset.h5")
        if not h5.is_hdf5(path):
            got = "another kind of file or a damaged one" if status.st_size else "nothing in it"
            raise refusal(str(path), "an HDF5 file", got, f"unpack it: xz -d {path}" if path.suffix == ".xz" else AGAIN)
        with h5.File(path, "r", locking="best-effort", rdcc_nbytes=_CACHE) as root:
            yield _File(h5, root, path, status.st_size, MAX_METADATA)


def _filters(file: _File) -> Any:
    """Return the dataset of the filters, with its dtype and shape checked."""
    name = "filter" if file.item("filters") is None and file.item("filter") is not None else "filters"
    dataset = file.dataset(name, "a dataset of filters")
    if dataset.dtype.str[1:] not in {"f2", "f4", "f8"}:
        raise file.refusal(name, "float16, float32 or float64", str(dataset.dtype), "convert it")
    if dataset.shape[1:] not in {KERNEL, (WEIGHTS,)} or not 0 < dataset.shape[0] <= MAX_FILTERS:
        expected = f"shape (N, 3, 3) or (N, 9) with N from 1 to {MAX_FILTERS:,}"
        raise file.refusal(name, expected, str(dataset.shape), "convert it")
    return dataset


def _frame(file: _File) -> Table:
    """Read a frame in pandas' fixed format: its columns, and the levels of its index as columns."""
    if file.item("meta/table") is not None:
        raise file.refusal("meta", "a frame in pandas' fixed format", "a table", "write it with format='fixed'")
    names = file.texts("meta/axis0")
    columns: dict[str, np.ndarray] = {}
    titles: list[str] = []
    blocks = itertools.takewhile(lambda k: file.item(f"meta/block{k}_values") is not None, itertools.count())
    for name in (f"meta/block{k}" for k in blocks):
        items, values = file.texts(f"{name}_items"), file.values(f"{name}_values")
        values = values.reshape(-1, 1) if values.ndim == 1 else values
        if values.ndim != 2 or values.shape[1] != len(items):
            raise file.refusal(name, f"rows of {len(items)} columns", f"shape {values.shape}")
        titles += items
        columns |= zip(items, values.T, strict=True)
    if len(set(names)) < len(names) or sorted(titles) != sorted(names):
        raise file.refusal("meta", "each column of axis0 in one block", "others")
    columns |= _index(file)
    if len({len(column) for column in columns.values()}) > 1:
        raise file.refusal("meta", "as many rows in each part", "different numbers")
    return Table(columns, f"{file.path}: meta")


def _index(file: _File) -> dict[str, np.ndarray]:
    """Read the levels of a frame's index as columns with a value for each row, or None where it is missing."""
    levels = [name for k in range(8) if file.item(name := f"meta/axis1_level{k}") is not None]
    if len(levels) not in {0, 3, 4}:
        raise file.refusal("meta", "an index of 3 or 4 levels", f"{len(levels)}")
    # Identify the levels by name if possible, else by position: in the authors' file, two have the same name.
    titles = [file.level_name(name) for name in levels]
    if sorted(titles) != sorted(_INDEX[: len(levels)]):
        titles = list(_INDEX[: len(levels)])
    columns = {}
    for title, name in zip(titles, levels, strict=True):
        values, codes = file.values(name), file.values(name.replace("level", "label"))
        is_odd = values.ndim != 1 or codes.ndim != 1 or codes.dtype.kind not in "iu" or len(codes) > MAX_LAYERS
        if is_odd or (len(codes) and not -1 <= int(codes.min()) <= int(codes.max()) < len(values)):
            raise file.refusal(name, f"at most {MAX_LAYERS:,} numbers of its {len(values)} values", "others")
        columns[title] = np.append(values.astype(object), [None])[codes]
    return columns


@dataclass(slots=True)
class _File:
    """An open file. All its parts are read through these methods, by their path from the root."""

    h5: Any
    root: Any
    path: Path
    size: int
    budget: int

    def refusal(self, name: str, expected: str, got: str, remedy: str = AGAIN) -> InputError:
        return refusal(f"{self.path}: {name}", expected, got, remedy)

    def item(self, name: str) -> Any | None:
        """Follow hard links to an item; None if there is no such link. Raises InputError for any other kind of link."""
        item = self.root
        for part in name.split("/"):
            try:
                item = child(self.h5, item, part.encode())
            except RefusedPartError as error:
                raise self.refusal(name, error.expected, error.got) from error
            if item is None:
                return None
        return item

    def dataset(self, name: str, expected: str = "a dataset") -> Any:
        """Return a dataset after checking that the file itself can hold its values, and that h5py can decode them."""
        item = self.item(name)
        try:
            if isinstance(item, self.h5.Dataset):
                check_inside(self.h5, item)
            if not isinstance(item, self.h5.Dataset) or item.shape is None:
                got = "nothing of that name" if item is None else "a group, a type or nothing"
                raise self.refusal(name, expected, got)
            check_stored(self.h5, item, self.size, MAX_CHUNK)
        except RefusedPartError as error:
            raise self.refusal(name, error.expected, error.got, error.remedy or AGAIN) from error
        return item

    def values(self, name: str) -> np.ndarray:
        """Read all values of a metadata dataset: numbers, or texts and values that pandas pickled as objects."""
        dataset = self.dataset(name)
        if dataset.dtype.kind == "O":
            data = self._referred(dataset, name)
            remedy = "do not open this file with pandas: it may run code of somebody else's"
            with refusing(f"{self.path}: {name}", "a pickled array of plain values", remedy):
                return unpickle(data)
        if dataset.dtype.kind not in "iufbS":
            raise self.refusal(name, "numbers or texts", str(dataset.dtype))
        self._spend(nbytes(dataset, dataset.shape), name)
        values: np.ndarray = dataset[...]
        if values.dtype.kind != "S":
            return values
        return np.array([text.decode("utf-8") for text in values.ravel().tolist()], object).reshape(values.shape)

    def texts(self, name: str) -> list[str]:
        """Read the values of a dataset as text."""
        return [as_text(value) for value in self.values(name).ravel().tolist()]

    def text(self, name: str) -> bytes:
        """Read a dataset that is a single text, stored as one-byte integers, opaque data or a string."""
        dataset = self.dataset(name, "a pandas frame or CSV bytes")
        dtype = dataset.dtype
        if dtype.kind == "O":
            return self._referred(dataset, name)
        if dataset.ndim > 1 or dtype.fields or not (dtype.kind in "SV" or dtype.str[1:] in {"i1", "u1"}):
            raise self.refusal(name, "a pandas frame or CSV bytes", f"{dtype} of rank {dataset.ndim}")
        self._spend(nbytes(dataset, dataset.shape), name)
        return bytes(dataset[...].tobytes().rstrip(b"\0"))

    def level_name(self, name: str) -> str:
        """Read the attribute `name` if it is a short plain text. Others, which pandas pickles, are not read."""
        attributes = self.root[name].attrs
        if "name" not in attributes:
            return ""
        attribute = attributes.get_id("name")
        is_plain = attribute.dtype.kind == "S" and attribute.dtype.itemsize <= 256 and attribute.shape == ()
        return bytes(attributes["name"]).decode("utf-8", "replace") if is_plain else ""

    def _spend(self, nbytes: int, name: str) -> None:
        """Take `nbytes` from the budget. Raises InputError if the metadata becomes too large."""
        self.budget -= nbytes
        if self.budget < 0:
            limit = f"at most {MAX_METADATA:,} bytes of metadata"
            remedy = "take the edition of the file whose filter_ids are text (start:end), or whose meta is CSV"
            raise self.refusal(name, limit, f"{nbytes:,} more than fit", remedy)

    def _referred(self, dataset: Any, name: str) -> bytes:
        """Read the bytes of a dataset with one value of variable length. Raises InputError if there are too many."""
        is_bytes = self.h5.check_string_dtype(dataset.dtype) or self.h5.check_vlen_dtype(dataset.dtype) == np.uint8
        if not is_bytes or math.prod(dataset.shape) != 1:
            raise self.refusal(name, "one pickled array or text", f"{dataset.dtype} of shape {dataset.shape}")
        # A reference begins with the length of its target, in four bytes.
        length = int.from_bytes(self._reference(dataset, name)[:4], "little")
        if length > self.size:
            raise self.refusal(name, f"{length:,} bytes as declared", f"a file of {self.size:,}")
        self._spend(length, name)
        return bytes(dataset[(0,) * dataset.ndim])

    def _reference(self, dataset: Any, name: str) -> bytes:
        """Read the raw bytes of a dataset with one reference, because HDF5 itself would follow the reference."""
        if dataset.chunks is None:
            with self.path.open("rb") as file:
                file.seek(dataset.id.get_offset())
                return file.read(4)
        limit = nbytes(dataset, dataset.chunks)
        if dataset.id.get_num_chunks() != 1 or max(limit, dataset.id.get_chunk_info(0).size) > _MAX_REFERENCE:
            raise self.refusal(name, f"one chunk of at most {_MAX_REFERENCE:,} bytes", "another storage")
        skipped, data = dataset.id.read_direct_chunk((0,) * dataset.ndim)
        plan = dataset.id.get_create_plist()
        for index in reversed(range(plan.get_nfilters())):
            code, _, parameters, *_ = plan.get_filter(index)
            if skipped >> index & 1 or code == FLETCHER32:
                continue
            if code == DEFLATE:
                data = zlib.decompressobj().decompress(data, limit)
            elif code == SHUFFLE:
                count = len(data) // parameters[0]
                data = np.frombuffer(data, np.uint8, parameters[0] * count).reshape(-1, count).T.tobytes()
            else:
                raise self.refusal(name, "a reference in plain or gzip", f"HDF5 filter {code}", "write it anew")
        return bytes(data)
