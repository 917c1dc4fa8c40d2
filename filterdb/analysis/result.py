"""The class of results: an `xarray.Dataset` that a notebook shows with a plot and a table."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pandas as pd
import xarray as xr

from filterdb.analysis import frames, notebook


class Result(xr.Dataset):  # type: ignore[no-untyped-call]
    """Hold the result of an analysis.

    It is an `xarray.Dataset` in all respects but two: notebooks show its plot and the most important rows, and
    `to_dataframe` returns the rows that a reader expects. Selecting, assigning, aggregating, concatenating, copying and
    pickling keep the class; arithmetic of two, merging and files return an `xarray.Dataset`. A result that lacks
    variables of its analysis or their dimensions, after the selection of one label for example, is shown and converted
    as any other dataset; without a dimension, which xarray refuses, its table has one row.
    `xarray.merge([result])` returns the plain dataset, which `xarray.testing` needs to compare it with one from a file.
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return the HTML that notebooks show: what was compared, a plot, the first rows, and xarray's own HTML."""
        plain = super()._repr_html_()
        return notebook.html(self, plain) or plain

    def to_dataframe(self, dim_order: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Return the rows of the result, one for each pair, layer, model or component.

        Columns are those of the command's JSON rows. docs/how-to/use-python.md lists what a row stands for.

        Parameters
        ----------
        dim_order : sequence of str, optional
            Return xarray's table instead: a row for each combination of all dimensions, in this order.
        """
        if dim_order is not None:
            return super().to_dataframe(dim_order)
        frame = frames.frame(self)
        if frame is not None:
            return frame
        return xr.Dataset.to_dataframe(self if self.sizes else self.expand_dims("row"))
