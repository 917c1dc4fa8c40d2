"""filterdb: store the convolution filters of trained CNNs in a database and compare them.

Model files + catalog → `ingest` (extract, write, commit) → a database in a folder or on S3 → Dask passes, once per
segment, stored as summaries → `pca`, `drift`, `degeneration`, as xarray → `report`.

>>> import filterdb as fdb
>>> db = fdb.open("s3://bucket/db")                  # doctest: +SKIP
>>> fdb.drift(db, by="task")                         # doctest: +SKIP
>>> fdb.check("model.onnx")                          # doctest: +SKIP

The work runs on the current `dask.distributed.Client` if there is one (`connect` returns one), else on Dask's threads.
"""

from functools import cache
from importlib import import_module
from typing import Any

from filterdb import errors as errors
from filterdb.version import __version__ as __version__


@cache
def _places() -> dict[str, tuple[str, str]]:
    """Return the module of each public name and its name there, as `__init__.pyi` says.

    One list for type checkers and for the import at first use (PEP 562): Dask, xarray and all stores take seconds.
    """
    import ast
    import pkgutil

    stub = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
    imports = [(node.module, alias) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    places = {alias.asname or alias.name: (str(module), alias.name) for module, alias in imports}
    public = {alias.asname: places[alias.asname] for _, alias in imports if alias.asname}
    for node in stub.body:  # `open = open_database`
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Name):
            public[node.targets[0].id] = places[node.value.id]
    return public


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_places())
    if name.startswith("__") or name not in _places():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, name_there = _places()[name]
    from filterdb.extras import named_extras

    with named_extras():
        owner = import_module(module)
        has_name = hasattr(owner, name_there)
        value = getattr(owner, name_there) if has_name else import_module(f"{module}.{name_there}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_places(), "__all__"})
