"""Dask's settings for filterdb's work: `filterdb/dask.yaml`, in one place for laptops, images and batch jobs."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import dask
import yaml
from dask.utils import parse_timedelta


@cache
def apply() -> None:
    """Make `filterdb/dask.yaml` Dask's defaults in this process; what the user has set stays."""
    dask.config.update_defaults(defaults())


def defaults() -> dict[str, Any]:
    """What `filterdb/dask.yaml` says."""
    text = resources.files("filterdb").joinpath("dask.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def seconds(name: str) -> float:
    """A duration of Dask's configuration, filterdb's own where that has none."""
    value = dask.config.get(name, None)
    return float(parse_timedelta(dask.config.get(name, config=defaults()) if value is None else value))
