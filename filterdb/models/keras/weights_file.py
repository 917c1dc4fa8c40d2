"""Read groups, names and tensors of an untrusted HDF5 file that Keras wrote.

Only hard links are followed, and only datasets whose values lie in the file are read. The size of a dataset is checked
when its values are read, so that a wrong one costs its own layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from filterdb.errors import ModelError
from filterdb.models.graphless import FLOATING
from filterdb.models.hdf5_parts import RefusedPartError, check_inside, check_stored, child, damage_as_value_error
from filterdb.models.parse_errors import NotStoredError, shortened

MAX_NAMES = 200_000
"""Most names of layers or weights in an attribute, and most groups of a file."""

MAX_DEPTH = 200
"""Most groups inside each other."""

MAX_CHUNKS = 1_000
"""Most attributes into which Keras splits a list of names."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dataset of a file. `name` is its path there, and `dtype` named as in NumPy and ml_dtypes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    address: int
    """Equal for datasets that are the same one, by several links."""
    dataset: Any = field(repr=False)
    file_size: int

    def read(self, dtype: str) -> np.ndarray:
        """Return the values, which are of type `dtype`. Raises NotStoredError or ValueError."""
        if dtype not in FLOATING:
            raise NotStoredError("dtype", f"{shortened(self.name)} has dtype {dtype}: packed or quantised")
        with damage_as_value_error():
            check_stored(h5py, self.dataset, self.file_size)
            values: np.ndarray = self.dataset[...]
        return values.view(ml_dtypes.bfloat16) if dtype == "bfloat16" and values.dtype.kind == "V" else values

    @property
    def is_opaque(self) -> bool:
        """Whether its values are of a type that HDF5 does not have, as bfloat16 is."""
        return self.dtype == OPAQUE


OPAQUE = "opaque"
"""The type of 16-bit values that HDF5 does not name. Keras writes bfloat16 so."""


class WeightsFile:
    """An open HDF5 file of `size` bytes. `named` is its name in messages."""

    def __init__(self, source: Any, size: int, named: str) -> None:
        self.size = size
        self.named = named
        try:
            self.root: Any = h5py.File(source, "r", **({"locking": "best-effort"} if isinstance(source, str) else {}))
        except (OSError, RuntimeError) as error:
            reason = shortened(" ".join(str(error).split()), 120)
            raise ModelError(
                f"{named}: expected an HDF5 file, got a damaged one ({reason}); download it again"
            ) from error

    def find(self, group: Any, path: str) -> Any | None:
        """Return what lies below a group under a path of hard links; None if there is nothing.

        Raises ModelError if a link leads elsewhere.
        """
        item = group
        for part in path.split("/"):
            if not isinstance(item, h5py.Group) or not part:
                return None
            try:
                item = child(h5py, item, encoded(part))
                if isinstance(item, h5py.Dataset):
                    check_inside(h5py, item)
            except RefusedPartError as error:
                raise ModelError(
                    f"{self.named}: {shortened(path, 100)!r}: {error}; save the model with Keras again"
                ) from error
        return item

    def group(self, group: Any, path: str) -> Any | None:
        """Return the group below a group; None if there is none."""
        item = self.find(group, path)
        return item if isinstance(item, h5py.Group) else None

    def tensor(self, group: Any, path: str) -> StoredTensor | None:
        """Return the dataset below a group; None if there is none."""
        item = self.find(group, path)
        if not isinstance(item, h5py.Dataset):
            return None
        with damage_as_value_error():
            shape = item.shape
            name = f"{decoded(item.name)}".lstrip("/")
            address = h5py.h5o.get_info(item.id).addr
        if shape is None:
            return None
        return StoredTensor(name, tuple(map(int, shape)), self._dtype(item), address, item, self.size)

    def _dtype(self, dataset: Any) -> str:
        try:
            dtype = dataset.dtype
        except (TypeError, ValueError) as error:
            return shortened(f"unknown ({error})", 80)
        if dtype.kind == "V" and dtype.itemsize == 2 and dtype.fields is None:
            return "bfloat16" if self.text(dataset, "dtype") == "bfloat16" else OPAQUE
        return shortened(str(dtype.name), 80)

    def members(self, group: Any) -> list[str]:
        """Return the names of a group's links, in the order of their numbers."""
        count = group.id.get_num_objs()
        if count > MAX_NAMES:
            raise ModelError(f"{self.named}: expected at most {MAX_NAMES:,} members of a group, got {count:,}")
        return sorted((decoded(name) for name in group.id), key=_by_number)

    def has(self, item: Any, name: str) -> bool:
        """Return whether a group or dataset has an attribute."""
        return bool(h5py.h5a.exists(item.id, encoded(name)))

    def text(self, item: Any, name: str) -> str | None:
        """Return an attribute that is one text; None if there is none, or another kind of attribute."""
        if not self.has(item, name):
            return None
        attribute = h5py.h5a.open(item.id, encoded(name))
        if attribute.shape != () or not _is_text(attribute.dtype):
            return None
        return decoded(item.attrs[name])

    def texts(self, group: Any, name: str) -> list[str] | None:
        """Return an attribute that is a list of texts, or that Keras split into several; None if there is none."""
        if self.has(group, name):
            return self._list(group, name)
        if not self.has(group, f"{name}0"):
            return None
        names: list[str] = []
        for number in range(MAX_CHUNKS):
            if not self.has(group, f"{name}{number}"):
                break
            names += self._list(group, f"{name}{number}")
            if len(names) > MAX_NAMES:
                raise ModelError(f"{self.named}: {name}: expected at most {MAX_NAMES:,} names, got more")
        return names

    def _list(self, group: Any, name: str) -> list[str]:
        attribute = h5py.h5a.open(group.id, encoded(name))
        shape = attribute.shape
        if shape == (0,):
            return []  # Keras writes an empty list as float64
        if shape is None or len(shape) != 1 or shape[0] > MAX_NAMES or not _is_text(attribute.dtype):
            raise ModelError(f"{self.named}: {name}: expected at most {MAX_NAMES:,} names, got {shape} of other values")
        return [decoded(value) for value in group.attrs[name]]

    def walk(self, group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        """Yield each group below a group with its path, once, by hard links."""
        pending, seen = [(path, group)], {h5py.h5o.get_info(group.id).addr}
        while pending:
            place, item = pending.pop()
            yield place, item
            below = []
            for name in self.members(item):
                # A link's target is not opened unless it is a hard link.
                if item.id.links.get_info(encoded(name)).type != h5py.h5l.TYPE_HARD:
                    raise ModelError(
                        f"{self.named}: {shortened(f'{place}/{name}', 100)!r}: expected data in the file itself, "
                        "got a link; save the model with Keras again"
                    )
                info = h5py.h5g.get_objinfo(item.id, encoded(name), follow_link=False)
                if info.type == h5py.h5g.GROUP and (address := _address(item, name)) not in seen:
                    seen.add(address)
                    below.append((f"{place}/{name}".lstrip("/"), item[encoded(name)]))
            if len(seen) > MAX_NAMES or place.count("/") > MAX_DEPTH:
                got = "more, or deeper ones"
                raise ModelError(f"{self.named}: expected at most {MAX_NAMES:,} groups, {MAX_DEPTH} deep, got {got}")
            pending += reversed(below)


def _address(group: Any, name: str) -> int:
    return int(h5py.h5o.get_info(group.id, encoded(name)).addr)


def _is_text(dtype: Any) -> bool:
    return dtype.kind == "S" or h5py.check_string_dtype(dtype) is not None


def encoded(name: str) -> bytes:
    """Return a name as HDF5 has it."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "replace")  # a lone surrogate, which no file has


def decoded(name: str | bytes) -> str:
    """Return a name as text from which `encoded` restores its bytes, even if they are not UTF-8."""
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)


def _by_number(name: str) -> tuple[str, int]:
    """Return a key that sorts conv2d_10 behind conv2d_9."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if stem and number.isdecimal() and len(number) < 10 else (name, -1)
