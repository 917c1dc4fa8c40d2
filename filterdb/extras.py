"""Optional dependencies: which extra installs a module, and the error about one that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from filterdb.errors import MissingExtraError

EXTRA_OF_MODULE = {
    "aiohttp": "http",
    "bokeh": "cluster",
    "botocore": "s3",
    "cryptography": "cluster",
    "dask": "cluster",
    "dask_jobqueue": "jobqueue",
    "dask_kubernetes": "kubernetes",
    "distributed": "cluster",
    "flatbuffers": "tflite",
    "h5py": "hdf5",
    "jinja2": "report",
    "joblib": "report",
    "matplotlib": "report",
    "numba": "compiled",
    "pandas": "analysis",
    "PIL": "report",
    "pyarrow": "parquet",
    "s3fs": "s3",
    "tensorboardX": "monitor",
    "tornado": "serve",
    "xarray": "analysis",
    "yarl": "http",
    "zarr": "ingest",
}
"""The extra of each module that an import may not find."""


def missing_extra(error: BaseException | None) -> MissingExtraError | None:
    """Return the error to raise if an optional module was not found, else None."""
    while error is not None:
        module = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and module in EXTRA_OF_MODULE:
            return _error(module)
        error = error.__cause__ or error.__context__
    return None


def _error(module: str) -> MissingExtraError:
    extra = EXTRA_OF_MODULE[module]
    return MissingExtraError(f"{module}: expected it to be installed; pip install 'filterdb[{extra}]'")


def require(module: str) -> None:
    """Raise MissingExtraError if an optional module is not installed. Nothing is imported."""
    if find_spec(module) is None:
        raise _error(module)


@contextmanager
def named_extras() -> Iterator[None]:
    """Raise MissingExtraError if an optional module is not found inside the block."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        raise missing from error
