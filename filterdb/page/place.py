"""Find the place where a page is written, before anything is computed."""

from __future__ import annotations

from pathlib import Path

from filterdb.arguments import as_path
from filterdb.errors import UsageError
from filterdb.store.files import Files


def folder_for(folder: str | Path) -> Files:
    """Return the folder or URL for a page. Raises UsageError for a file, StoreError if it cannot be written."""
    place = Files.at(as_path(folder, "folder"))
    if not place.remote and Path(place.root).exists() and not Path(place.root).is_dir():
        raise UsageError(f"{place.root}: expected a folder to write to, got a file; choose another folder")
    place.check_writable()
    return place
