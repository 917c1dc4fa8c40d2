"""What a test does on the host of a client, where the store can be reached: a process of its own, quick to start."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable

import fsspec


def put(folder: str, url: str) -> None:
    """Copy a folder to a bucket, which is made."""
    files = fsspec.filesystem("s3")
    files.mkdir(url.removeprefix("s3://").partition("/")[0])
    files.put(folder.rstrip("/") + "/", url.rstrip("/") + "/", recursive=True)


def digests(*urls: str) -> None:
    """Of each database, every object that does not tell the moment, by name."""
    files = fsspec.filesystem("s3")
    found = []
    for url in urls:
        root = url.removeprefix("s3://")
        names = [name for part in ("segments", "summaries", "bases") for name in files.find(f"{root}/{part}")]
        contents = files.cat(names) if names else {}
        found.append({name.removeprefix(f"{root}/"): hashlib.sha256(contents[name]).hexdigest() for name in names})
    print(json.dumps(found))  # noqa: T201


def parts(url: str) -> None:
    """What a pass that is not complete has kept."""
    files = fsspec.filesystem("s3")
    print(json.dumps([name for name in files.find(f"{url}/summaries") if "/parts/" in name]))  # noqa: T201


def filterdb(*lines: str) -> None:
    """The command, several times in one process; every chunk is a task of its own."""
    from filterdb import plan
    from filterdb.commands import main
    from filterdb.commands.group import commands

    plan.TASK_ROWS = 1
    for line in lines[:-1]:
        commands.main(shlex.split(line), prog_name="filterdb", standalone_mode=False)
    sys.argv = ["filterdb", *shlex.split(lines[-1])]
    main()


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"put": put, "digests": digests, "parts": parts, "filterdb": filterdb}
    commands[sys.argv[1]](*sys.argv[2:])
