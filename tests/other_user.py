"""Another account of this machine: a user who owns nothing runs a command, with this interpreter and sources."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

USER = 65534
"""nobody, with no group but its own."""

ROOT = Path(__file__).parent.parent


def missing() -> str | None:
    """Return why nobody else can be played here."""
    if os.geteuid() != 0:
        return "only root can become another user"
    programs = [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]
    if programs:
        return f"{', '.join(programs)} not installed (Debian: util-linux, mount)"
    done = run("true")
    return None if done.returncode == 0 else f"no mount namespace: {done.stderr.strip()}"


def _closed_ancestor(path: Path) -> Path | None:
    """Return the outermost folder on the way to a path that others may not enter."""
    for folder in reversed([path, *path.parents]):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def run(
    *command: object,
    timeout: float = 240,
    ids: tuple[int, int] = (USER, USER),
    only_writable: Sequence[Path] = (),
    **environment: str | None,
) -> subprocess.CompletedProcess[str]:
    """Run a command as that user, or with other IDs of user and group; variables that are None are unset.

    With `only_writable` the root is read-only but for these folders, as a container's is.

    Where the interpreter lies in a folder that others may not enter (root's home), the command sees it all the same:
    in a mount namespace of its own, in which that folder holds nothing else.
    """
    needed = {Path(name).resolve() for name in (sys.base_prefix, sys.prefix, ROOT)}
    hidden = {path: folder for path in sorted(needed) if (folder := _closed_ancestor(path)) is not None}
    # rmdir, never rmtree: what is mounted there is the interpreter itself.
    hold = Path(tempfile.mkdtemp(prefix="other-user-"))
    held = {path: hold / str(number) for number, path in enumerate(hidden)}
    for place in held.values():
        place.mkdir()
    steps = [
        *(f"mount --bind '{path}' '{place}'" for path, place in held.items()),
        *(f"mount -t tmpfs -o mode=755 none '{folder}'" for folder in sorted(set(hidden.values()))),
        *(f"mkdir -p '{path}' && mount --bind '{place}' '{path}'" for path, place in held.items()),
        *(f"mount --bind '{folder}' '{folder}'" for folder in only_writable),
        *(["mount -o remount,bind,ro /"] if only_writable else []),
        f'exec setpriv --reuid={ids[0]} --regid={ids[1]} --clear-groups "$@"',
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    try:
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", "\n".join(steps), "sh", *map(str, command)],
            env={name: value for name, value in variables.items() if value is not None},
            capture_output=True, text=True, check=False, timeout=timeout, cwd="/",
        )  # fmt: skip
    finally:
        for place in (*held.values(), hold):
            place.rmdir()
