"""filterdb: the 3×3 filters of trained CNNs as a database, and what they tell.

ONNX models + catalog → `ingest` (extract, write, commit) → a database in a folder or on S3 → Dask passes, once per
segment, kept as summaries → `pca`, `drift`, `degeneration`, as xarray → `report`.

>>> import filterdb as fdb
>>> db = fdb.open("s3://bucket/db")                  # doctest: +SKIP
>>> fdb.drift(db, by="task")                         # doctest: +SKIP
>>> fdb.check("model.onnx")                          # doctest: +SKIP

The work runs on the current `dask.distributed.Client` when there is one (`connect` gives one), else on Dask's threads.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from filterdb import errors
from filterdb.version import __version__

if TYPE_CHECKING:  # what _PLACES says, for whoever reads types
    from filterdb.analysis.check import check
    from filterdb.analysis.degeneration import degeneration, exclude_verdict
    from filterdb.analysis.density import density
    from filterdb.analysis.drift import drift
    from filterdb.analysis.explain import explain
    from filterdb.analysis.nearest import nearest
    from filterdb.analysis.pca import pca, principal_angles
    from filterdb.analysis.phenotypes import phenotypes
    from filterdb.analysis.series import series
    from filterdb.analysis.surveys import filter_scale, statistics
    from filterdb.analysis.threshold import randomness_threshold
    from filterdb.cluster import connect
    from filterdb.ingest.compact import compact
    from filterdb.ingest.published import import_hdf5
    from filterdb.ingest.relabel import relabel
    from filterdb.ingest.run import ingest
    from filterdb.page.report import report
    from filterdb.reduce.basis import refit
    from filterdb.reduce.integrity import verify
    from filterdb.store.collect import gc
    from filterdb.store.database import Database
    from filterdb.store.database import open_database as open
    from filterdb.store.history import remove, restore, tag

_PLACES = {
    "Database": "store.database",
    "check": "analysis.check",
    "compact": "ingest.compact",
    "connect": "cluster",
    "degeneration": "analysis.degeneration",
    "density": "analysis.density",
    "drift": "analysis.drift",
    "exclude_verdict": "analysis.degeneration",
    "explain": "analysis.explain",
    "filter_scale": "analysis.surveys",
    "gc": "store.collect",
    "import_hdf5": "ingest.published",
    "ingest": "ingest.run",
    "nearest": "analysis.nearest",
    "open": "store.database:open_database",
    "pca": "analysis.pca",
    "phenotypes": "analysis.phenotypes",
    "principal_angles": "analysis.pca",
    "randomness_threshold": "analysis.threshold",
    "refit": "reduce.basis",
    "relabel": "ingest.relabel",
    "remove": "store.history",
    "report": "page.report",
    "restore": "store.history",
    "series": "analysis.series",
    "statistics": "analysis.surveys",
    "tag": "store.history",
    "verify": "reduce.integrity",
}
"""Where each public name is defined. It is imported when it is first used: Dask, xarray and all stores take seconds."""

__all__ = [
    "Database",
    "__version__",
    "check",
    "compact",
    "connect",
    "degeneration",
    "density",
    "drift",
    "errors",
    "exclude_verdict",
    "explain",
    "filter_scale",
    "gc",
    "import_hdf5",
    "ingest",
    "nearest",
    "open",
    "pca",
    "phenotypes",
    "principal_angles",
    "randomness_threshold",
    "refit",
    "relabel",
    "remove",
    "report",
    "restore",
    "series",
    "statistics",
    "tag",
    "verify",
]


class _Package(ModuleType):
    """This package, with its public names."""

    def __getattr__(self, name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, other = _PLACES[name].partition(":")
        found = getattr(import_module(f"{self.__name__}.{module}"), other or name)
        setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # Python puts the packages `ingest` and `report` here once they are imported; `fdb.report` is the function.
        if name not in _PLACES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
