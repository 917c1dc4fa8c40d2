"""The public names: `filterdb.<name>` is the same whatever was imported before, and what a signature names is there."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import filterdb as fdb

ROOT = Path(fdb.__file__).parent

CHECK = """
import importlib, pkgutil, sys, types, warnings
import filterdb
warnings.simplefilter("ignore", DeprecationWarning)
modules = [module.name for module in pkgutil.walk_packages(filterdb.__path__, "filterdb.", onerror=print)]
modules = ["filterdb." + name for name in sorted({name.removeprefix("filterdb.") for name in modules})]
before = {name: getattr(filterdb, name) for name in filterdb.__all__} if sys.argv[1] == "names first" else {}
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, error)
for name in filterdb.__all__:
    value = getattr(filterdb, name)
    module, name_there = filterdb._places()[name]
    assert value is getattr(importlib.import_module(module), name_there), name
    assert name not in before or before[name] is value, name
    assert name in {"errors", "plot"} or not isinstance(value, types.ModuleType), name
print(len(modules), "modules")
"""


def test_every_name_is_there() -> None:
    assert list(fdb.__all__) == sorted(fdb.__all__)
    assert set(fdb.__all__) <= set(dir(fdb))
    assert sorted(_names_for_type_checkers()) == fdb.__all__
    for name in fdb.__all__:
        assert getattr(fdb, name) is not None
    for name in ("ingest", "report", "open", "Rules", "Limits", "Ingested", "Verified", "Garbage", "Bounds", "Key"):
        assert name in fdb.__all__
    with pytest.raises(AttributeError, match="no attribute 'poetry'"):
        fdb.poetry  # type: ignore[attr-defined]  # noqa: B018


def _names_for_type_checkers() -> list[str]:
    """Return `__all__` of the stub, which the import of filterdb does not read."""
    names: list[str] = []
    for node in ast.parse((ROOT / "__init__.pyi").read_text("utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name("__all__")]) | ast.AugAssign(target=ast.Name("__all__")):
                names += ast.literal_eval(node.value)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("order", ["names first", "modules first"])
def test_importing_a_module_changes_no_name(order: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHECK, order], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-2]) > 100
    assert len(done.stdout.splitlines()) == 1, done.stdout


def test_no_package_has_the_name_of_a_function() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages.isdisjoint(fdb.__all__)
    assert type(fdb) is ModuleType


def test_old_paths_of_the_figures_work() -> None:
    code = (
        "from filterdb.report import figures\n"
        "from filterdb.report.figures_drift import heatmap\n"
        "import filterdb.report.figures_density as density\n"
        "import filterdb\n"
        "from filterdb import plotting\n"
        "assert figures is plotting.figures and density.corner is figures.corner\n"
        "assert heatmap is figures.heatmap and callable(filterdb.report)\n"
        "from filterdb.page.entry import report\n"
        "assert filterdb.report is report\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("DeprecationWarning: filterdb.report.figures") == 1


def _types_in(annotation: object, module: str) -> list[tuple[str, Any]]:
    """Return the names in an annotation and what they are, those for type checkers only left out."""
    names = vars(import_module(module))
    values = []
    for node in ast.walk(ast.parse(str(annotation))):
        if isinstance(node, ast.Name) and node.id in names:
            values.append((node.id, names[node.id]))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            values.append((node.attr, getattr(names[node.value.id], node.attr)))
    return [(name, value) for name, value in values if not isinstance(value, ModuleType)]


def _signatures() -> list[tuple[str, str, list[object]]]:
    """Return the annotations of each public function, and of the fields and methods of each public class."""
    rows = []
    for name in fdb.__all__:
        value = getattr(fdb, name)
        if inspect.isfunction(value):
            rows.append((name, value.__module__, list(value.__annotations__.values())))
        elif inspect.isclass(value) and dataclasses.is_dataclass(value) and value is not fdb.Database:
            fields: list[object] = [field.type for field in dataclasses.fields(value)]
            rows.append((name, value.__module__, fields))
    for name, member in vars(fdb.Database).items():  # made by `open`; its fields are its own affair
        if (
            inspect.isfunction(member)
            and not name.startswith("_")
            and name not in ("at", "followed_by", "damaged_tables")
        ):
            rows.append((f"Database.{name}", fdb.Database.__module__, list(member.__annotations__.values())))
    return rows


def test_what_signatures_name_is_public() -> None:
    public = [getattr(fdb, name) for name in fdb.__all__]
    hidden = set()
    for owner, module, types_named in _signatures():
        for annotation in types_named:
            for _, value in _types_in(annotation, module):
                for kind in typing.get_args(value) or (value,):  # an alias of a union, or a class
                    is_own = inspect.isclass(kind) and kind.__module__.split(".")[0] == "filterdb"
                    if is_own and not any(kind is other for other in public):
                        hidden.add((owner, kind.__name__))
    assert not hidden


@pytest.mark.slow
def test_importing_and_using_the_library_leaves_loggers_alone(tmp_path: Path) -> None:
    """Only the command sets up a log, and only its own process'."""
    code = (
        "import logging, warnings\n"
        "mine = logging.getLogger('mine'); mine.setLevel(logging.DEBUG)\n"
        "names = ['', 'distributed', 'tornado', 'fsspec', 's3fs', 'botocore', 'urllib3', 'zarr', 'dask', 'matplotlib',"
        " 'onnx', 'numba', 'asyncio', 'py.warnings', 'mine', 'filterdb']\n"
        "import dask, distributed, fsspec, zarr, s3fs, numba  # what these set up on import is theirs\n"
        "def state():\n"
        "    loggers = [logging.getLogger(name) for name in names]\n"
        "    return [(one.name, one.level, list(one.handlers), one.propagate, one.disabled) for one in loggers]\n"
        "before = state(), logging.root.manager.disable, warnings.showwarning\n"
        "import filterdb as fdb, sys, pathlib\n"
        "for name in fdb.__all__: getattr(fdb, name)\n"
        "from tests.models import chain, weights\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "chain(folder / 'a.onnx', weights(8, 8)); (folder / 'bad.onnx').write_bytes(b'x')\n"
        "with dask.config.set(scheduler='threads'):\n"
        "    db = fdb.ingest(folder / 'db', [folder / 'a.onnx', folder / 'bad.onnx']).database\n"
        "    fdb.pca(db); fdb.check(folder / 'a.onnx'); fdb.verify(db)\n"
        "after = state(), logging.root.manager.disable, warnings.showwarning\n"
        "assert before == after, (before, after)\n"
        "assert logging.getLogger('filterdb').handlers == []\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
