"""filterdb: the 3×3 filters of trained CNNs as a database, and what they tell.

ONNX models + catalog → `ingest` (extract, write, commit) → a database in a folder or on S3 → Dask passes, once per
segment, kept as summaries → `pca`, `drift`, `degeneration`, as xarray → `report`.

>>> import filterdb as fdb
>>> db = fdb.open("s3://bucket/db")                  # doctest: +SKIP
>>> fdb.drift(db, by="task")                         # doctest: +SKIP

The work runs on the current `dask.distributed.Client` when there is one (`connect` gives one), else on Dask's threads.
"""

from filterdb import errors
from filterdb.analysis.degeneration import degeneration, exclude_verdict
from filterdb.analysis.drift import drift
from filterdb.analysis.pca import pca
from filterdb.cluster import connect
from filterdb.ingest.compact import compact
from filterdb.ingest.published import import_hdf5
from filterdb.ingest.relabel import relabel
from filterdb.ingest.run import ingest
from filterdb.reduce.basis import refit
from filterdb.reduce.integrity import verify
from filterdb.report.page import report
from filterdb.store.collect import gc
from filterdb.store.database import Database
from filterdb.store.database import open_database as open
from filterdb.store.history import remove, tag
from filterdb.version import __version__

__all__ = [
    "Database",
    "__version__",
    "compact",
    "connect",
    "degeneration",
    "drift",
    "errors",
    "exclude_verdict",
    "gc",
    "import_hdf5",
    "ingest",
    "open",
    "pca",
    "refit",
    "relabel",
    "remove",
    "report",
    "tag",
    "verify",
]
