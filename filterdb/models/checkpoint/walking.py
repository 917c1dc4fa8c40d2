"""List the tensors of what a checkpoint holds: nested dictionaries, lists, and whole modules, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from filterdb.models.checkpoint.pickles import Instance
from filterdb.models.checkpoint.storages import StoredTensor
from filterdb.models.parse_errors import MAX_NAME, shortened
from filterdb.models.tensors import Stated

MAX_STEPS = 2**20
"""Most objects that are visited."""

MAX_DEPTH = 200
"""Most dictionaries and modules inside each other."""


class Found(NamedTuple):
    """A tensor, the mapping that holds it, its name there, and what its module says of it."""

    container: str
    key: str
    tensor: StoredTensor
    stated: Stated | None


class _Level(NamedTuple):
    """What is visited: the children of an object, where they are, and the object's identity.

    In a module `prefix` is its path below the root module; elsewhere it is None, and children are containers.
    """

    children: Iterator[tuple[str, Any]]
    container: str
    prefix: str | None
    stated: Stated | None
    identity: int


def find_tensors(content: Any) -> list[Found]:
    """Return the tensors, each with the path that leads to it.

    A dictionary that several paths lead to is visited once. A module is visited for each path, as in PyTorch's own
    `state_dict`. Raises ValueError if there are too many objects, or too many inside each other.
    """
    found: list[Found] = []
    visited: set[int] = set()
    levels = [_Level(iter([("", content)]), "", None, None, 0)]
    active: set[int] = set()
    for _ in range(MAX_STEPS):
        level = levels[-1]
        child = next(level.children, None)
        if child is None:
            levels.pop()
            active.discard(level.identity)
            if not levels:
                return found
            continue
        name, value = child
        if isinstance(value, StoredTensor):
            key = name or "tensor"
            found.append(Found(level.container, (level.prefix or "") + key, value, level.stated))
            continue
        inner = _enter(name, value, level)
        if inner is None or id(value) in active or (inner.prefix is None and id(value) in visited):
            continue
        if len(levels) >= MAX_DEPTH or len(inner.container) + len(inner.prefix or "") > MAX_NAME:
            raise ValueError(f"more than {MAX_DEPTH} dictionaries or modules inside each other, or names too long")
        visited.add(id(value))
        active.add(id(value))
        levels.append(inner)
    raise ValueError(f"more than {MAX_STEPS:,} objects")


def _enter(name: str, value: Any, level: _Level) -> _Level | None:
    """Return the children of an object; None if it cannot have any."""
    if isinstance(value, Instance) and _is_module(value):
        if level.prefix is None:
            container, prefix = _joined(level.container, name), ""
        else:
            container, prefix = level.container, f"{level.prefix}{name}."
        return _Level(_module_children(value), container, prefix, _stated(value), id(value))
    children = _children(value)
    if children is None:
        return None
    if level.prefix is not None:  # a dictionary among a module's parameters, such as a ParameterDict
        return _Level(children, level.container, f"{level.prefix}{name}.", None, id(value))
    return _Level(children, _joined(level.container, name), None, None, id(value))


def _joined(container: str, name: str) -> str:
    return f"{container}.{name}" if container and name else container or name


def _children(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Return the names and values of a dictionary, a list or an instance; None for anything else."""
    if isinstance(value, dict):
        return ((_text(key), item) for key, item in value.items() if _may_hold(item))
    if isinstance(value, list | tuple):
        return ((str(position), item) for position, item in enumerate(value) if _may_hold(item))
    if isinstance(value, Instance):
        parts = [value.attributes(), value.items or {}, value.elements or [], value.args]
        children = [child for part in parts for child in _children(part) or () if not isinstance(part, Instance)]
        return iter(children)
    return None


def _may_hold(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | Instance | StoredTensor)


def _text(key: Any) -> str:
    """Return a key as a text that UTF-8 can carry, which a pickle's texts need not be."""
    if type(key) is str:
        return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()
    return shortened(str(key), MAX_NAME) if type(key) in (int, bool, float) else "?"


def _is_module(instance: Instance) -> bool:
    """Return whether it has what every torch.nn.Module has."""
    attributes = instance.attributes()
    return isinstance(attributes.get("_parameters"), dict) and isinstance(attributes.get("_modules"), dict)


def _module_children(module: Instance) -> Iterator[tuple[str, Any]]:
    """Yield a module's parameters, then its buffers, then its modules, as `state_dict` does."""
    attributes = module.attributes()
    transient = attributes.get("_non_persistent_buffers_set")
    transient = {name for name in transient if type(name) is str} if isinstance(transient, list) else set()
    for group in ("_parameters", "_buffers", "_modules"):
        members = attributes.get(group)
        for key, value in members.items() if isinstance(members, dict) else ():
            if _may_hold(value) and not (group == "_buffers" and type(key) is str and key in transient):
                yield _text(key), value


def _stated(module: Instance) -> Stated | None:
    """Return what a module says of its weight if it is a convolution: it has the attributes of PyTorch's classes."""
    attributes = module.attributes()
    groups, is_transposed = attributes.get("groups"), attributes.get("transposed")
    if type(groups) is not int or not 1 <= groups < 2**31 or type(is_transposed) is not bool:
        return None
    return Stated(
        operator=shortened(module.name.rpartition(".")[2], 100),
        groups=groups,
        strides=_numbers(attributes.get("stride")),
        dilations=_numbers(attributes.get("dilation")),
        is_transposed=is_transposed,
    )


def _numbers(value: Any) -> tuple[int, ...] | None:
    is_valid = type(value) is tuple and len(value) <= 3 and all(type(n) is int and 0 < n < 2**31 for n in value)
    return value if is_valid else None
