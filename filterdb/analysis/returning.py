"""Mark the functions whose results notebooks show, without importing xarray before they run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


def returns_result[**P](analysis: Callable[P, xr.Dataset]) -> Callable[P, xr.Dataset]:
    """Wrap an analysis so that it returns a `Result` with the attribute `analysis`, its name."""

    @functools.wraps(analysis)
    def returning(*args: P.args, **kwargs: P.kwargs) -> xr.Dataset:
        dataset = analysis(*args, **kwargs)
        from filterdb.analysis.result import Result

        return Result(dataset.data_vars, dataset.coords, {**dataset.attrs, "analysis": analysis.__name__})

    return returning
