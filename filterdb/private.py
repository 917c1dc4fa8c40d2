"""A folder for temporary files that other accounts of the machine can neither read nor prepare."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def private_folder(base: str | os.PathLike[str] | None = None) -> Path | None:
    """Return this user's folder below `base` (default: where temporary files go), made where it is missing.

    None where `base` cannot be written, or where somebody else has made a folder of that name: what lies in it is
    executed (compiled code) or unpickled (what workers spill).
    """
    user = os.geteuid()
    try:
        folder = Path(tempfile.gettempdir() if base is None else base) / f"filterdb-{user}"
        folder.mkdir(mode=0o700, parents=base is not None, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077
    return folder if is_ours else None
