"""Dask's settings for filterdb's work: one file, `filterdb/dask.yaml`, for laptops, images and batch jobs."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import dask
import yaml
from dask.utils import parse_timedelta


@cache
def apply() -> None:
    """Make `filterdb/dask.yaml` Dask's defaults in this process; the user's own settings take precedence."""
    dask.config.update_defaults(defaults())


def defaults() -> dict[str, Any]:
    """Return the settings in `filterdb/dask.yaml`."""
    text = resources.files("filterdb").joinpath("dask.yaml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def seconds(name: str) -> float:
    """Return a duration from Dask's configuration, or from filterdb's own if Dask's has none."""
    value = dask.config.get(name, None)
    return float(parse_timedelta(dask.config.get(name, config=defaults()) if value is None else value))
