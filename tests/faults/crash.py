"""A process that dies, without dying: from the n-th mutating call of the store on nothing is written any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from filterdb.store.files import Files


class CrashError(BaseException):
    """The process has died. No handler for errors catches it, nothing that runs on the way out can write."""


class Mutations:
    """Counts every object that is put, created or removed; dies at one of them."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at, self.after, self.count = at, after, 0
        self.log: list[str] = []

    def one[T](self, what: str, act: Callable[[], T]) -> T:
        """Do one mutation, or die before or after it."""
        if self.at is not None and self.count > self.at:
            raise CrashError
        self.count += 1
        if self.count - 1 == self.at:
            if self.after:
                act()
            self.count += 1
            raise CrashError(what)
        self.log.append(what)
        return act()


class Interruptions(Mutations):
    """Lets somebody else act before one of the mutations; nothing dies."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.moment, self.act = at, act

    def one[T](self, what: str, act: Callable[[], T]) -> T:
        self.log.append(what)
        self.count += 1
        if self.count - 1 == self.moment:
            self.act()
        return act()


@contextmanager
def mutations(at: int | None = None, *, after: bool = False) -> Iterator[Mutations]:
    """Count, or die at, what the block writes: one object at a time, in the order of the real calls."""
    with watched(Mutations(at, after=after)) as counted:
        yield counted


@contextmanager
def watched(found: Mutations) -> Iterator[Mutations]:
    """Let every object that the block puts, creates or removes pass `found`."""
    create, put, remove = Files.create, Files.put, Files.remove

    def counted_create(files: Files, name: str, data: bytes) -> bool:
        return found.one(f"create {name}", lambda: create(files, name, data))

    def counted_put(files: Files, objects: Mapping[str, bytes | memoryview]) -> None:
        for name, data in objects.items():
            found.one(f"put {name}", lambda name=name, data=data: put(files, {name: data}))  # type: ignore[misc]

    def counted_remove(files: Files, names: Iterable[str]) -> None:
        for name in names:
            found.one(f"remove {name}", lambda name=name: remove(files, [name]))  # type: ignore[misc]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, "create", counted_create)
        patch.setattr(Files, "put", counted_put)
        patch.setattr(Files, "remove", counted_remove)
        yield found
