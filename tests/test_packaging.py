"""What is declared in pyproject.toml, against what the code imports and what a wheel and an sdist contain."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import filterdb
from filterdb.extras import EXTRA_OF_MODULE

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]

NOT_IN_IMAGE = {"all", "gateway", "kubernetes", "jobqueue", "monitor"}
"""Extras that the image does not have."""

NEVER_IMPORTED = {
    "huggingface-hub": "fsspec's hf:// of data sets and Spaces; models of the hub are read without it",
    "bokeh": "distributed imports it to serve the dashboard",
    "dask-gateway": "filterdb.cluster imports it where a gateway is asked for",
    "dask-jobqueue": "filterdb.cluster imports the class of the named batch queue",
    "dask-kubernetes": "filterdb.cluster imports it where a cluster is asked for",
    "s3fs": "fsspec imports it for s3:// URLs",
}
"""Dependencies without an import statement, and who imports them instead."""


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement, as in `jinja2` of `Jinja2>=3.1; python_version > "3"`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def names(requirements: list[str]) -> set[str]:
    return {name_of(requirement) for requirement in requirements}


def modules_imported(tree: ast.AST) -> Iterator[str]:
    """Yield each absolute module that the code imports, by a statement or by `import_module("…")`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module))],
            ):
                yield module


@cache
def distributions() -> dict[str, set[str]]:
    """Return the installed distributions that provide each top-level package."""
    return {package: names(providers) for package, providers in packages_distributions().items()}


@cache
def imports_of(folder: str) -> dict[str, set[str]]:
    """Return the third-party packages that the folder's modules import, each with the files that do so."""
    files: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module in modules_imported(ast.parse(path.read_text(encoding="utf-8"))):
            package = module.partition(".")[0]
            if package not in sys.stdlib_module_names and not (ROOT / package).is_dir():
                files[package].add(str(path.relative_to(ROOT)))
    return files


def undeclared(folder: str, declared: set[str]) -> dict[str, set[str]]:
    """Return what the folder imports from distributions that are not declared, with the files that import it."""
    return {
        package: files
        for package, files in imports_of(folder).items()
        if not declared & distributions().get(package, {name_of(package)})
    }


DEPENDENCIES = names(PROJECT["dependencies"])
EXTRAS = {extra: names(requirements) - {"filterdb"} for extra, requirements in PROJECT["optional-dependencies"].items()}
OPTIONAL = set().union(*EXTRAS.values())
GROUPS = PYPROJECT["dependency-groups"]
DEV = names([requirement for group in GROUPS.values() for requirement in group if isinstance(requirement, str)])


def test_every_direct_import_of_the_package_is_declared() -> None:
    assert undeclared("filterdb", DEPENDENCIES | OPTIONAL) == {}


def test_every_direct_import_of_the_tests_is_declared() -> None:
    assert undeclared("tests", DEPENDENCIES | OPTIONAL | DEV) == {}


def test_an_undeclared_import_is_noticed() -> None:
    assert set(undeclared("filterdb", DEPENDENCIES | OPTIONAL - {"pandas"})) == {"pandas"}
    assert "PIL" in undeclared("filterdb", DEPENDENCIES | OPTIONAL - {"pillow"})
    assert "h5py" in undeclared("filterdb", DEPENDENCIES | OPTIONAL - {"h5py"})


def test_every_dependency_is_used() -> None:
    used = set().union(*(distributions().get(package, {name_of(package)}) for package in imports_of("filterdb")))
    assert (DEPENDENCIES | OPTIONAL) - used == set(NEVER_IMPORTED)


def test_no_dependency_is_both_required_and_optional() -> None:
    assert not DEPENDENCIES & OPTIONAL


def test_all_has_every_extra() -> None:
    (requirement,) = PROJECT["optional-dependencies"]["all"]
    assert requirement == f"filterdb[{','.join(sorted(EXTRAS.keys() - {'all'}))}]"


def test_the_error_about_a_missing_module_names_its_extra() -> None:
    for module, extra in EXTRA_OF_MODULE.items():
        assert distributions().get(module, {name_of(module)}) & EXTRAS[extra], module


@pytest.mark.parametrize("lock", ["image.txt", "dev.txt"])
def test_locks_pin_every_dependency(lock: str) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))
    in_image = set().union(*(requirements for extra, requirements in EXTRAS.items() if extra not in NOT_IN_IMAGE))
    expected = DEPENDENCIES | (in_image if lock == "image.txt" else OPTIONAL | DEV)
    assert expected - pinned == set()


def test_the_readme_of_the_package_has_no_relative_links() -> None:
    """An index shows the README without our files."""
    metadata = ProjectMetadata(str(ROOT), PluginManager(), PYPROJECT)
    readme = metadata.core.readme
    assert re.findall(r"\]\((?!https://)[^)]*\)", (ROOT / "README.md").read_text())
    assert re.findall(r"\]\((?!https://)[^)]*\)", readme) == []
    assert "`docs/tutorial.md`" in readme


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == filterdb.__version__
    assert f"## {filterdb.__version__} ({citation['date-released']})" in (ROOT / "CHANGELOG.md").read_text()
