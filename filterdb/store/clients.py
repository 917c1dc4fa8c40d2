"""Choose the client for an object store: fsspec's file systems, or obstore."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from filterdb.errors import MissingExtraError, UsageError
from filterdb.store import obstore_objects
from filterdb.store.fsspec_objects import FsspecObjects
from filterdb.store.objects import Objects
from filterdb.store.obstore_objects import ObstoreObjects
from filterdb.store.s3_objects import S3Objects

CLIENT = "FILTERDB_STORE_CLIENT"
"""Environment variable that names the client: `fsspec` or `obstore`.

By default, S3 is accessed by s3fs, and Google Cloud Storage and Azure by obstore if it is installed, whose conditional
puts are tested there: without them, nobody can commit.
"""


def client(url: str) -> Objects:
    """Return the client for a URL. Raises UsageError if the environment names an unknown one."""
    name = os.environ.get(CLIENT, "").strip()
    if name not in {"", "fsspec", "obstore"}:
        raise UsageError(f"{CLIENT}: expected fsspec or obstore, got {name[:40]!r}")
    scheme = url.split("://", 1)[0]
    if scheme in obstore_objects.SCHEMES and (name == "obstore" or (not name and scheme != "s3" and _has_obstore())):
        return ObstoreObjects()
    if scheme in obstore_objects.SCHEMES - {"s3"}:
        import fsspec

        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise MissingExtraError(f"{scheme}://: this needs the extra: pip install 'filterdb[obstore]'") from error
    return S3Objects() if scheme == "s3" else FsspecObjects()


@cache
def _has_obstore() -> bool:
    return find_spec("obstore") is not None
