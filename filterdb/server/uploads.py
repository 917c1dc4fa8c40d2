"""Receive a model file into a private folder of its own."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,12}\Z")
"""Matches the end of a name, which may say what kind of file it is. Nothing else of a name reaches the disk."""

ID_DIGITS = 16
"""Hexadecimal digits of the id of a file, the beginning of the SHA-256 of its bytes."""


def base_name(name: str) -> str:
    """Return the last part of a name that a browser sent, whatever separates its parts; never empty."""
    return re.split(r"[/\\]", name)[-1].strip() or "model"


class Upload:
    """A file that is being received. Its folder, which only this user can enter, is removed by `close`."""

    def __init__(self, name: str, parent: str) -> None:
        self.name = base_name(name)
        suffix = _SUFFIX.search(self.name)
        self._folder = tempfile.mkdtemp(dir=parent)
        self.path = Path(self._folder) / f"model{'' if suffix is None else suffix[0]}"
        self.size = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = self.path.open("wb")

    def write(self, data: bytes) -> None:
        """Append bytes. Raises OSError if the disk is full."""
        self.size += len(data)
        self._digest.update(data)
        self._file.write(data)

    def finish(self) -> str:
        """Return the id of the file, which is complete. Raises OSError if the disk is full."""
        self._file.close()
        return self._digest.hexdigest()[:ID_DIGITS]

    def close(self) -> None:
        """Remove the file and its folder."""
        with suppress(OSError):  # the last bytes did not fit, and are not wanted any more
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)
