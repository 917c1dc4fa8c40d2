"""Write checkpoints as torch.save does, both forms, without PyTorch.

A pickle refers to classes only by name, so stand-ins that are pickled as such a name make the same bytes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

CLASSES = {
    **{"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"},
    **{"int64": "LongStorage", "uint8": "ByteStorage", "int8": "CharStorage"},
}
MAGIC = 0x1950A86A20F9469CFC6C


class Ref:
    """A class or function of a package that is not installed."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self) -> None:
        """Let pickle take it for a function."""


@dataclass(eq=False)
class Raw:
    """Operations of a pickle that are written as they are. They must leave one object on the stack."""

    operations: bytes


@dataclass(eq=False)
class Storage:
    """The numbers that tensors view. `kind` is the class that the pickle states."""

    numbers: np.ndarray
    kind: str = ""
    key: str = ""
    count: int | None = None
    """The numbers that the pickle states, if these are others."""


@dataclass(eq=False)
class Tensor:
    """A view of a storage: offset and strides count numbers. `dtype` is stated by version 3 only."""

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    dtype: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        args: tuple[Any, ...] = (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())
        if self.dtype:
            return Ref("torch._utils", "_rebuild_tensor_v3"), (*args, Ref("torch", self.dtype), {})
        return Ref("torch._utils", "_rebuild_tensor_v2"), args


@dataclass(eq=False)
class Parameter:
    """A tensor that is trained."""

    data: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        return Ref("torch._utils", "_rebuild_parameter"), (self.data, True, OrderedDict())


@dataclass(eq=False)
class Instance:
    """An object of any class, with its attributes."""

    kind: Ref
    state: Mapping[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return Ref("copyreg", "_reconstructor"), (self.kind, Ref("builtins", "object"), None), dict(self.state)


def tensor(values: np.ndarray) -> Tensor:
    """Return a tensor with a storage of its own, in C order."""
    values = np.ascontiguousarray(values)
    strides = tuple(stride // values.itemsize for stride in values.strides)
    return Tensor(Storage(values.reshape(-1)), values.shape, strides)


def module(kind: str, parameters: Mapping[str, np.ndarray] | None = None, **members: Any) -> Instance:
    """Return a torch.nn module: `modules` and `buffers` are dictionaries, other members are attributes."""
    state = {
        "training": True,
        "_parameters": OrderedDict((name, Parameter(tensor(value))) for name, value in (parameters or {}).items()),
        "_buffers": OrderedDict(members.pop("buffers", {})),
        "_non_persistent_buffers_set": members.pop("transient", set()),
        "_modules": OrderedDict(members.pop("modules", {})),
        **members,
    }
    package, _, name = kind.rpartition(".")
    return Instance(Ref(package, name), state)


def conv2d(weight: np.ndarray, kind: str = "torch.nn.modules.conv.Conv2d", **attributes: Any) -> Instance:
    """Return a convolution without a bias."""
    stated = {"groups": 1, "stride": (1, 1), "dilation": (1, 1), "transposed": "Transpose" in kind, **attributes}
    return module(kind, {"weight": weight}, **stated)


PythonPickler: Any = pickle._Pickler  # only the one in Python can be extended


class _Pickler(PythonPickler):
    """Python's own pickler, with the stand-ins as what they stand for."""

    dispatch: ClassVar = dict(PythonPickler.dispatch)

    def __init__(self, file: io.BytesIO, protocol: int, *, is_legacy: bool) -> None:
        super().__init__(file, protocol)
        self.is_legacy = is_legacy
        self.storages: dict[int, Storage] = {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        if id(obj) not in self.storages:
            obj.key = obj.key or str(len(self.storages))
            self.storages[id(obj)] = obj
        kind = Ref("torch", obj.kind or CLASSES.get(obj.numbers.dtype.name, "UntypedStorage"))
        count = obj.numbers.nbytes if "Untyped" in kind.name else obj.numbers.size
        count = count if obj.count is None else obj.count
        return ("storage", kind, obj.key, "cpu", count, *((None,) if self.is_legacy else ()))

    def save_name(self, obj: Ref) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    def save_raw(self, obj: Raw) -> None:
        self.write(obj.operations)

    dispatch[Ref] = save_name
    dispatch[Raw] = save_raw


def _pickled(content: Any, protocol: int, *, is_legacy: bool) -> tuple[bytes, list[Storage]]:
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, protocol, is_legacy=is_legacy)
    pickler.dump(content)
    return buffer.getvalue(), list(pickler.storages.values())


def archive(members: Mapping[str, bytes], folder: str = "archive", method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive of members below a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(f"{folder}/{name}"), data, method)
    return buffer.getvalue()


def zip_checkpoint(content: Any, protocol: int = 2, *, is_big_endian: bool = False, folder: str = "archive") -> bytes:
    """Return a checkpoint in the form of PyTorch since 1.6."""
    data, storages = _pickled(content, protocol, is_legacy=False)
    order = b"big" if is_big_endian else b"little"
    members = {"data.pkl": data, "byteorder": order}
    for storage in storages:
        numbers = storage.numbers
        swapped = numbers.view(f"u{numbers.itemsize}").byteswap() if is_big_endian else numbers
        members[f"data/{storage.key}"] = swapped.tobytes()
    return archive({**members, "version": b"3\n"}, folder)


def legacy_checkpoint(content: Any, protocol: int = 2) -> bytes:
    """Return a checkpoint in the form before PyTorch 1.6."""
    data, storages = _pickled(content, protocol, is_legacy=True)
    ordered = sorted(storages, key=lambda storage: storage.key)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads = [pickle.dumps(value, protocol) for value in (MAGIC, 1001, facts)]
    keys = pickle.dumps([storage.key for storage in ordered], protocol)
    raw = [storage.numbers.size.to_bytes(8, "little") + storage.numbers.tobytes() for storage in ordered]
    return b"".join([*heads, data, keys, *raw])
