"""The plot of a codebook: its codes as pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.plotting.drawing import check_result, drawn, new_figure

if TYPE_CHECKING:
    from filterdb.plotting.drawing import AnyFigure


@drawn
def codebook(result: xr.Dataset, codes: int = 64, *, fig: AnyFigure | None = None) -> npt.NDArray[Any]:
    """Draw the most frequent codes of a `codebook` result as pictures, with the share of the filters that have each."""
    check_result("codebook", result, "fdb.codebook", "codes", "share")
    pictures = result["codes"].values[:codes]
    shares = result["share"].values[:codes]
    height, width = map(int, result.attrs["kernel"].split("x"))
    columns = min(16, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = new_figure(0.62 * columns + 0.2, 0.78 * rows + 0.55) if fig is None else fig
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    limit = float(np.abs(pictures).max()) or 1.0
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture, share in zip(grid.flat, pictures, shares, strict=False):
        axes.imshow(picture.reshape(height, width), cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(f"{share:.1%}", fontsize=7)
    explained, noise = result.attrs["explained_variance"], result.attrs["noise_explained_variance"]
    shown = (
        "" if len(pictures) == result.sizes["code"] else f", the {len(pictures)} most frequent of {result.attrs['k']}"
    )
    figure.suptitle(f"codes{shown}: {explained:.1%} of the variance, of noise {noise:.1%}", fontsize=9)
    return grid.ravel()[: len(pictures)]  # type: ignore[no-any-return]
