"""Dask's settings for filterdb's work: one file, `filterdb/dask.yaml`, for laptops, images and batch jobs."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import dask
import yaml
from dask.utils import parse_timedelta


@cache
def apply() -> None:
    """Make `filterdb/dask.yaml` Dask's defaults in this process; the user's own settings take precedence."""
    dask.config.update_defaults(defaults())
    _ensure_home()


def _ensure_home() -> None:
    """Name a home for a user that the system does not know, as in some containers: Dask's dashboard looks for one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()


def defaults() -> dict[str, Any]:
    """Return the settings in `filterdb/dask.yaml`."""
    text = resources.files("filterdb").joinpath("dask.yaml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def seconds(name: str) -> float:
    """Return a duration from Dask's configuration, or from filterdb's own if Dask's has none."""
    value = dask.config.get(name, None)
    return float(parse_timedelta(dask.config.get(name, config=defaults()) if value is None else value))
