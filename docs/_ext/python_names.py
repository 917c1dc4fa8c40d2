"""The reference of the Python interface, as reStructuredText, from `filterdb.__all__`."""

from __future__ import annotations

import inspect
from types import ModuleType

import filterdb

GROUPS = {
    "Open and select": ["open", "Database", "connect", "exclude_verdict"],
    "Analyses": [
        "pca", "principal_angles", "coefficients", "distributions", "drift", "explain", "degeneration",
        "degeneration_drift", "density", "phenotypes", "series", "lineage", "statistics",
        "filter_scale", "spectrum", "codebook", "randomness_threshold",
    ],
    "Single models": ["check", "nearest", "write_reference"],
    "The page": ["report"],
    "Write a database": ["catalog", "ingest", "import_hdf5", "relabel", "remove", "compact", "refit"],
    "History and damage": ["tag", "restore", "verify", "gc"],
}  # fmt: skip
"""Headings of the page and the names below each; public names that are missing here come last."""


def public_names() -> list[str]:
    """Return the public names but modules and the version."""
    names = [name for name in filterdb.__all__ if not name.startswith("__")]
    return [name for name in names if not isinstance(getattr(filterdb, name), ModuleType)]


def python_page() -> str:
    """Return a page with each public name, its signature and its docstring."""
    names = public_names()
    listed = {name for group in GROUPS.values() for name in group}
    groups = {**GROUPS, "Other types": [name for name in names if name not in listed]}
    lines = [
        "The Python interface",
        "====================",
        "",
        "For readers who look up a function. Import the package as ``import filterdb as fdb``; every name on this page "
        "is then ``fdb.NAME``. Analyses take a database first and return an ``xarray.Dataset``.",
        "",
        "The installed version is ``fdb.__version__``.",
    ]
    for heading, members in groups.items():
        present = [name for name in members if name in names]
        if present:
            lines += ["", heading, "-" * len(heading)]
        for name in present:
            value = getattr(filterdb, name)
            if inspect.isclass(value):
                lines += ["", f".. autoclass:: filterdb.{name}()", "   :members:"]
            elif not callable(value):  # an alias in signatures
                lines += ["", f".. py:data:: filterdb.{name}", "", f"   ``{value}``"]
            else:
                lines += ["", f".. autofunction:: filterdb.{name}"]
    lines += [
        "",
        "Figures",
        "-------",
        "",
        "Each function of ``fdb.plot`` draws the result of an analysis into matplotlib Axes and returns them. "
        ":doc:`The gallery <gallery>` shows each.",
    ]
    for name in filterdb.plot.__all__:
        lines += ["", f".. autofunction:: filterdb.plot.{name}"]
    lines += [
        "",
        "Errors",
        "------",
        "",
        ".. automodule:: filterdb.errors",
        "   :members:",
        "   :show-inheritance:",
        "",
    ]
    return "\n".join(lines)
