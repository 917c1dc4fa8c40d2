"""The index of `Database.dataset`, which maps every filter to its layer, so that xarray can select filters by label.

The index stores one range of rows per layer for all labels: `ds.sel(task="segmentation")` becomes ranges of rows.
Operations that would need a value for each of 1.46 billion filters raise an error with a remedy.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import xarray as xr
from xarray.core.indexing import IndexSelResult

from filterdb import schema
from filterdb.errors import LabelError, UsageError
from filterdb.plan import offsets
from filterdb.store.run_length import RunLengthArray, Runs, positions
from filterdb.wording import counted

NOT_LABELS = ("row_size", "model_index", "segment", "first_row")
"""Variables of layers that describe where a layer is stored, so they are not labels of its filters."""


class FilterIndex(xr.Index):
    """An xarray index along `filter` with the labels of each filter's layer and model.

    Selecting a label selects all its filters in order; a list of labels selects the filters of each label in turn.
    Labels repeat, so filters cannot be aligned by them: aligning two different selections raises an error.
    """

    def __init__(self, dim: Hashable, runs: Runs, tables: Mapping[Hashable, np.ndarray]) -> None:
        self.dim = dim
        self.runs = runs
        self.tables = dict(tables)
        """The values of each label by code, (layers,)."""

    @classmethod
    def of_layers(cls, layers: xr.Dataset, dim: str) -> FilterIndex:
        """Create the index of these layers' filters: consecutive rows, `row_size` for each layer."""
        excluded = {*NOT_LABELS, *schema.FILTERS.dims}
        names = ["layer", "model", *schema.LABELS]
        names += [str(name) for name in layers.variables if name not in excluded and name not in names]
        sizes = layers["row_size"].values.astype(np.int64)
        return cls(dim, Runs.of(sizes, np.arange(len(sizes))), {name: layers[name].values for name in names})

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> FilterIndex:
        """Raise UsageError, because only `Database.dataset` can create this index."""
        raise UsageError(
            "FilterIndex comes with db.dataset; for other datasets use ds.set_xindex(name) without a class"
        )

    def coordinates(self, attrs: Mapping[Hashable, Mapping[str, Any]]) -> xr.Coordinates:
        """Return the labels as coordinates with these attributes and this index."""
        variables = self.create_variables()
        for name, variable in variables.items():
            variable.attrs.update(attrs.get(name, {}))
        return xr.Coordinates(variables, indexes=dict.fromkeys(self.tables, self))

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Any, xr.Variable]:
        """Return a variable along `filter` for every label, with the attributes of `variables`."""
        known = variables or {}
        return {
            name: xr.Variable(
                (self.dim,), RunLengthArray(self.runs, table), known[name].attrs if name in known else None
            )
            for name, table in self.tables.items()
        }

    def _with(self, runs: Runs) -> FilterIndex:
        return FilterIndex(self.dim, runs, self.tables)

    def isel(self, indexers: Mapping[Any, Any]) -> FilterIndex | None:
        """Select by position along `filter`; None if the result is a single filter or has other dimensions."""
        if self.dim not in indexers:
            raise UsageError(
                f"Labels lie along {self.dim}, got positions along {', '.join(map(str, indexers))}; "
                f"instead of swap_dims use ds.set_index({self.dim}=name)"
            )
        key = indexers[self.dim]
        if isinstance(key, slice):
            return self._with(self.runs.pick(key))
        if isinstance(key, xr.Variable | xr.DataArray):
            if key.dims != (self.dim,) and key.ndim == 1:
                return None
            key = key.data
        if isinstance(key, RunLengthArray):
            key = np.nonzero(key)[0]
        rows = np.asarray(key)
        if rows.ndim != 1:
            return None
        return self._with(self.runs.pick(rows if rows.size else rows.astype(np.int64)))

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> IndexSelResult:
        """Select by labels: a value, a list of values, or for numbers a slice that includes both ends.

        Several labels are applied in turn: `sel(a=x, b=y)` is `sel(a=x).sel(b=y)`.
        """
        if method is not None or tolerance is not None:
            raise UsageError(
                f"sel: labels of filters match exactly, got method={method!r}; leave method and tolerance out"
            )
        runs = np.arange(len(self.runs.codes))
        for name, label in labels.items():
            values = self.tables[name][self.runs.codes[runs]]
            runs = runs[_matching(str(name), values, label)]
        starts, lengths = self.runs.bounds[:-1][runs], self.runs.lengths[runs]
        if np.array_equal(starts[1:], (starts + lengths)[:-1]):
            first = int(starts[0]) if len(starts) else 0
            return IndexSelResult({self.dim: slice(first, first + int(lengths.sum()))})
        return IndexSelResult({self.dim: positions(starts, lengths)})

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Return whether both have the same labels for the same filters."""
        if not isinstance(other, FilterIndex) or self.dim != other.dim or set(self.tables) != set(other.tables):
            return False
        if self.runs.same(other.runs) and all(self.tables[name] is other.tables[name] for name in self.tables):
            return True
        return np.array_equal(self.runs.bounds, other.runs.bounds) and all(
            _all_equal(table[self.runs.codes], other.tables[name][other.runs.codes])
            for name, table in self.tables.items()
        )

    def join(self, other: FilterIndex, how: str = "inner") -> NoReturn:
        """Raise UsageError: labels repeat, so filters cannot be matched by them."""
        raise _not_alignable()

    def reindex_like(self, other: FilterIndex) -> NoReturn:
        """Raise UsageError: labels repeat, so filters cannot be matched by them."""
        raise _not_alignable()

    def to_pandas_index(self) -> NoReturn:
        """Raise TypeError, because pandas would need a tuple of labels for every filter."""
        raise TypeError(
            "Filters have no pandas index: labels are stored once a layer, in db.layers. "
            "For ds.indexes and map_blocks first ds.drop_indexes(list(ds.xindexes))"
        )

    def roll(self, shifts: Mapping[Any, int]) -> FilterIndex:
        """Return the index with its rows shifted; rows beyond the end move to the start."""
        cut = -shifts[self.dim] % max(1, self.runs.rows)
        return self._with(Runs.joined([self.runs.cut(cut, self.runs.rows), self.runs.cut(0, cut)]))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> FilterIndex:
        """Return the index with labels and dimension renamed."""
        tables = {name_dict.get(name, name): table for name, table in self.tables.items()}
        return FilterIndex(dims_dict.get(self.dim, self.dim), self.runs, tables)

    @classmethod
    def concat(
        cls, indexes: Sequence[Any], dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> FilterIndex:
        """Join the filters of several indexes one after another, or at the given positions."""
        first = indexes[0]
        for index in indexes:
            if set(index.tables) != set(first.tables):
                odd = sorted(map(str, set(index.tables) ^ set(first.tables)))
                raise UsageError(
                    f"concat: expected datasets with the same labels, got {', '.join(odd[:3])} in some only; "
                    "concatenate ds.filters.drop_vars(list(ds.coords)) instead"
                )
        if all(table is index.tables[name] for index in indexes for name, table in first.tables.items()):
            tables, shifts = first.tables, np.zeros(len(indexes), np.int64)
        else:
            tables = {name: np.concatenate([index.tables[name] for index in indexes]) for name in first.tables}
            shifts = offsets(np.array([len(next(iter(index.tables.values()))) for index in indexes]))[:-1]
        parts = [
            Runs(index.runs.bounds, index.runs.codes + shift) for index, shift in zip(indexes, shifts, strict=True)
        ]
        runs = Runs.joined(parts)
        if positions is not None:
            rows = np.arange(runs.rows)
            parts_of: list[Any] = list(positions)
            order = np.concatenate([rows[part] if isinstance(part, slice) else np.asarray(part) for part in parts_of])
            runs = runs.take(np.argsort(order))
        return cls(dim, runs, tables)

    def __repr__(self) -> str:
        # xarray's error when a single label is replaced or dropped ends with this text.
        size = f"{counted(self.runs.rows, 'filter')} in {counted(len(self.runs.codes), 'layer')}"
        return f"<FilterIndex: {size}; to change single labels, first ds.drop_indexes(list(ds.xindexes))>"

    def _repr_inline_(self, max_width: int) -> str:
        return f"FilterIndex ({counted(len(self.runs.codes), 'layer')})"[:max_width]


def _matching(name: str, values: np.ndarray, label: Any) -> np.ndarray:
    """Return the positions in `values` of a label, or of each label of a list in turn."""
    if isinstance(label, xr.Variable | xr.DataArray):
        if label.ndim and label.dims != (name,):
            raise UsageError(f"sel: expected a value, a list or a slice for {name}, got an array along {label.dims[0]}")
        label = label.values
    if isinstance(label, slice):
        return _between(name, values, label)
    wanted = np.asarray(label, object)
    if wanted.ndim > 1:
        raise UsageError(
            f"sel: expected a value, a list or a slice for {name}, got an array of {wanted.ndim} dimensions"
        )
    hits = []
    for value in np.atleast_1d(wanted).tolist():
        rows = np.flatnonzero(np.array(values == value, bool)) if len(values) else np.zeros(0, np.int64)
        if not len(rows):
            raise LabelError(f"sel: expected filters with {name} = {value!r}, found none; {name} has {_listed(values)}")
        hits.append(rows)
    return np.concatenate(hits) if hits else np.zeros(0, np.int64)


def _between(name: str, values: np.ndarray, ends: slice) -> np.ndarray:
    if values.dtype.kind not in "iuf" or ends.step is not None:
        raise UsageError(f"sel: expected a value or a list of values for {name}, got {ends}; slices are for numbers")
    low = -np.inf if ends.start is None else ends.start
    high = np.inf if ends.stop is None else ends.stop
    rows: np.ndarray = np.flatnonzero((values >= low) & (values <= high))
    return rows


def _listed(values: np.ndarray) -> str:
    """List some of the distinct values for a message."""
    names = sorted(map(str, dict.fromkeys(values.tolist())))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _all_equal(some: np.ndarray, others: np.ndarray) -> bool:
    """Return whether two arrays have the same elements. NaN equals NaN."""
    if some.dtype.kind == others.dtype.kind == "f":
        return np.array_equal(some, others, equal_nan=True)
    return np.array_equal(some, others)


def _not_alignable() -> UsageError:
    return UsageError(
        "Cannot align two selections of filters by labels, which repeat. By position: ds.drop_vars(list(ds.coords)) on "
        "both sides, or .data; to put one after the other: xr.concat([a, b], 'filter')"
    )
