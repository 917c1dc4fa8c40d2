"""A run-length encoded array, which holds a label for every filter but stores one value per layer.

A database has up to 1.46 billion filters and 21,436 layers. Comparing, selecting and concatenating labels works on the
runs through NumPy's protocols; all other operations expand the runs, up to MAX_EXPANDED elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from filterdb.errors import UsageError
from filterdb.plan import offsets

MAX_EXPANDED = 16_777_216
"""Most filters whose labels or positions are expanded: 128 MiB per array. xarray groups a million filters in 2 s."""


def check_expanded(number: int, what: str) -> None:
    """Raise UsageError if `number` filters are too many to hold `what` of each."""
    if number > MAX_EXPANDED:
        raise UsageError(
            f"{number:,} filters are too many to hold {what} of each (at most {MAX_EXPANDED:,}): take fewer with "
            "db.select(task=…).dataset, or use fdb.pca(db, by=…) and db.layers"
        )


@dataclass(frozen=True, eq=False)
class Runs:
    """Rows [bounds[i], bounds[i + 1]) belong to the layer codes[i]. Neighbouring runs belong to different layers."""

    bounds: np.ndarray
    """(runs + 1,) int64, ascending from 0."""
    codes: np.ndarray
    """(runs,) int64."""

    @classmethod
    def of(cls, lengths: np.ndarray, codes: np.ndarray) -> Runs:
        """Create from runs that may be empty, or have neighbours of the same layer, which are joined."""
        is_nonempty = lengths > 0
        lengths, codes = lengths[is_nonempty], codes[is_nonempty]
        starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])) if len(codes) else np.zeros(0, int)
        bounds = offsets(lengths)
        return cls(np.concatenate([bounds[:-1][starts], bounds[-1:]]), codes[starts])

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.bounds[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Number of rows of each run, (runs,)."""
        lengths: np.ndarray = np.diff(self.bounds)
        return lengths

    def same(self, other: Runs) -> bool:
        """Return whether both have the same runs."""
        return self is other or (np.array_equal(self.bounds, other.bounds) and np.array_equal(self.codes, other.codes))

    def run_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the run of each row. Raises IndexError for a row that does not exist."""
        if rows.size and not (-self.rows <= rows.min() and rows.max() < self.rows):
            raise IndexError(f"index {rows.min()} or {rows.max()} is out of bounds for {self.rows} filters")
        rows = np.where(rows < 0, rows + self.rows, rows)
        runs: np.ndarray = np.searchsorted(self.bounds, rows, side="right") - 1
        return runs

    def take(self, rows: np.ndarray) -> Runs:
        """Return the runs of the given rows (n,), in the given order."""
        codes = self.codes[self.run_of(rows)]
        return Runs.of(np.ones(len(codes), np.int64), codes)

    def cut(self, start: int, stop: int) -> Runs:
        """Return the runs of the rows [start, stop)."""
        return Runs.of(np.diff(np.clip(self.bounds, start, max(start, stop))), self.codes)

    def pick(self, key: slice | np.ndarray) -> Runs:
        """Return the runs of the rows that a slice, a mask (rows,) or positions (n,) select."""
        if isinstance(key, slice):
            start, stop, step = key.indices(self.rows)
            if step == 1:
                return self.cut(start, stop)
            check_expanded(len(range(start, stop, step)), "the position")
            return self.take(np.arange(start, stop, step))
        if key.dtype.kind == "b":
            if key.shape != (self.rows,):
                raise IndexError(f"boolean index of {key.shape} does not fit {self.rows} filters")
            key = np.flatnonzero(key)
        return self.take(key.astype(np.int64))

    @staticmethod
    def joined(parts: list[Runs]) -> Runs:
        """Return the runs of all parts, one after another."""
        return Runs.of(np.concatenate([part.lengths for part in parts]), np.concatenate([part.codes for part in parts]))


class RunLengthArray(NDArrayOperatorsMixin):
    """An immutable one-dimensional array whose element i is `table[code]` of the run that contains row i.

    >>> labels = RunLengthArray(Runs(np.array([0, 2, 5]), np.array([1, 0])), np.array(["a", "b"], object))
    >>> np.asarray(labels).tolist()
    ['b', 'b', 'a', 'a', 'a']
    >>> np.nonzero(labels == "b")
    (array([0, 1]),)
    """

    __slots__ = ("runs", "table")

    def __init__(self, runs: Runs, table: np.ndarray) -> None:
        _register_with_dask()
        self.runs = runs
        self.table = table

    @property
    def shape(self) -> tuple[int]:
        """Shape, (rows,)."""
        return (self.runs.rows,)

    @property
    def ndim(self) -> int:
        """Number of dimensions: 1."""
        return 1

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.runs.rows

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the elements."""
        return self.table.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the encoded array takes."""
        return int(self.table.nbytes + self.runs.bounds.nbytes + self.runs.codes.nbytes)

    @property
    def run_values(self) -> np.ndarray:
        """The element of each run, (runs,)."""
        values: np.ndarray = self.table[self.runs.codes]
        return values

    @property
    def flags(self) -> Any:
        """Flags of an array that owns its data. xarray reads them after a failed assignment."""
        return np.zeros(0).flags

    def __getattr__(self, name: str) -> Any:
        # Other methods of arrays, such as argsort or ravel, work on the expanded array.
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(np.asarray(self), name)

    def __len__(self) -> int:
        return self.runs.rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        check_expanded(self.size, "a label")
        if copy is False:
            raise ValueError("an array of run lengths is expanded into a copy")
        dense = np.repeat(self.run_values, self.runs.lengths)
        return dense if dtype is None else dense.astype(dtype)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if any(part is None for part in keys):
            return np.asarray(self)[key]
        picks = [part for part in keys if part is not Ellipsis] or [slice(None)]
        if len(picks) > 1:
            raise IndexError(f"too many indices: the array has 1 dimension, {len(picks)} were indexed")
        pick = picks[0]
        if isinstance(pick, slice):
            return RunLengthArray(self.runs.pick(pick), self.table)
        if isinstance(pick, RunLengthArray):
            pick = np.nonzero(pick)[0] if pick.dtype.kind == "b" else np.asarray(pick)
        rows = np.asarray(pick)
        if rows.ndim == 1:
            return RunLengthArray(self.runs.pick(rows if rows.size else rows.astype(np.int64)), self.table)
        values = self.run_values[self.runs.run_of(rows)]
        # NumPy returns a zero-dimensional array if the key has an ellipsis, as xarray's keys have.
        return np.asarray(values, self.dtype) if rows.ndim or len(keys) > len(picks) else values

    def __setitem__(self, key: Any, value: Any) -> None:
        raise UsageError(
            "Labels of db.dataset are read-only: change them in the database with fdb.relabel, or in a copy with "
            "ds.drop_indexes(list(ds.xindexes)).assign_coords(task=…)"
        )

    def astype(self, dtype: Any, **options: Any) -> RunLengthArray:
        """Return the array with another dtype."""
        return RunLengthArray(self.runs, self.table.astype(dtype, **options))

    def copy(self, order: str = "K") -> RunLengthArray:
        """Return the array itself, since it is immutable."""
        return self

    def __copy__(self) -> RunLengthArray:
        return self

    def __deepcopy__(self, memo: Any) -> RunLengthArray:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return RunLengthArray, (self.runs, self.table)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "filterdb.RunLengthArray", self.runs.bounds, self.runs.codes, self.table

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        known = (RunLengthArray, np.ndarray, np.generic, int, float, complex, str, bytes, bool)
        if any(hasattr(value, "__array_ufunc__") and not isinstance(value, known) for value in inputs):
            return NotImplemented
        bounds = next(value.runs.bounds for value in [*inputs, self] if isinstance(value, RunLengthArray))
        if method != "__call__" or options or not all(_fits(value, bounds) for value in inputs):
            dense = [np.asarray(value) if isinstance(value, RunLengthArray) else value for value in inputs]
            return getattr(ufunc, method)(*dense, **options)
        values = [value.run_values if isinstance(value, RunLengthArray) else value for value in inputs]
        results = ufunc(*values)
        runs = Runs(bounds, np.arange(len(bounds) - 1))
        if isinstance(results, tuple):
            return tuple(RunLengthArray(runs, result) for result in results)
        return RunLengthArray(runs, results)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        if not all(issubclass(kind, RunLengthArray | np.ndarray) for kind in types):
            return NotImplemented
        if func in _ON_RUNS:
            result = _ON_RUNS[func](*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*_expanded(args), **_expanded(kwargs))

    def __repr__(self) -> str:
        return f"<{self.size:,} labels in {len(self.runs.codes):,} runs, {self.dtype}: {self._sample(60)}>"

    def _repr_inline_(self, max_width: int) -> str:
        return self._sample(max_width)

    def _sample(self, width: int) -> str:
        """Return the values of the first and last run as "a … b", in at most `width` characters."""
        if not self.size:
            return ""
        text = " … ".join(str(self.table[code]) for code in dict.fromkeys(self.runs.codes[[0, -1]].tolist()))
        return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def _fits(value: Any, bounds: np.ndarray) -> bool:
    """Return whether a ufunc can take `value` run by run: a scalar, or labels with the same runs."""
    if not isinstance(value, RunLengthArray):
        return np.ndim(value) == 0
    return value.runs.bounds is bounds or np.array_equal(value.runs.bounds, bounds)


def _expanded(value: Any) -> Any:
    """Expand every run-length array in the arguments of a NumPy function."""
    if isinstance(value, RunLengthArray):
        return np.asarray(value)
    if isinstance(value, dict):
        return {name: _expanded(part) for name, part in value.items()}
    return type(value)(map(_expanded, value)) if isinstance(value, list | tuple) else value


def _nonzero(array: RunLengthArray) -> tuple[np.ndarray]:
    hits = array.run_values.astype(bool)
    return (positions(array.runs.bounds[:-1][hits], array.runs.lengths[hits]),)


def _isin(element: Any, test_elements: Any, **options: Any) -> Any:
    if not isinstance(element, RunLengthArray):
        return NotImplemented
    hits = np.isin(element.table, _expanded(test_elements), **options)
    return RunLengthArray(element.runs, hits)


def _concatenate(arrays: Any, axis: int | None = 0, **options: Any) -> Any:
    parts = list(arrays)
    if options or axis not in (0, -1, None) or not all(isinstance(part, RunLengthArray) for part in parts):
        return NotImplemented
    values = np.concatenate([part.run_values for part in parts])
    lengths = np.concatenate([part.runs.lengths for part in parts])
    return RunLengthArray(Runs(offsets(lengths), np.arange(len(lengths))), values)


def _result_type(*values: Any) -> np.dtype[Any]:
    return np.result_type(*(value.dtype if isinstance(value, RunLengthArray) else value for value in values))


_ON_RUNS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.nonzero: _nonzero,
    np.isin: _isin,
    np.concatenate: _concatenate,
    np.result_type: _result_type,
    np.shape: lambda array: array.shape,
    np.ndim: lambda array: array.ndim,
    np.size: lambda array, axis=None: array.size,
    np.copy: lambda array, **options: array,
}
"""The functions that work on runs without expanding them."""


def positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the rows of ranges that begin at `starts`, one range after another. Raises UsageError for too many."""
    bounds = offsets(lengths)
    check_expanded(int(bounds[-1]), "the position")
    rows: np.ndarray = np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1])
    return rows


@cache
def _register_with_dask() -> None:
    """Make the class a chunk of Dask's arrays, once in a process that has one: the import takes 0.7 s."""
    from dask.array import register_chunk_type

    register_chunk_type(RunLengthArray)
