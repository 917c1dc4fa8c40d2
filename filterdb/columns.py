"""Tables and results without xarray: the few parts of an `xarray.Dataset` that commands need.

xarray imports pandas. Both together take half a second, which is most of the time of a check, and 95 MB of disk, which
an install without the extra `analysis` saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb.extras import named_extras

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True)
class Column:
    """An array with named dimensions and attributes, as `xarray.Variable`."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.values.shape

    def item(self) -> Any:
        """Return the only value, as a type of Python."""
        return self.values.item()


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns by name, and attributes of the whole, as `xarray.Dataset`. `coords` names those that are coordinates."""

    variables: dict[str, Column]
    coords: frozenset[str]
    attrs: dict[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any], coords: Mapping[str, Any], attrs: dict[str, Any]) -> Columns:
        """Create from the arguments of `xarray.Dataset`: a tuple of dimension, array and attributes, or a list."""
        variables = {name: _column(name, value) for name, value in {**data, **coords}.items()}
        return cls(variables, frozenset(coords), attrs)

    def __getitem__(self, name: str) -> Column:
        return self.variables[name]

    def __setitem__(self, name: str, value: tuple[Any, ...]) -> None:
        self.variables[name] = _column(name, value)

    def __contains__(self, name: str) -> bool:
        return name in self.variables

    def assign(self, **new: tuple[Any, ...]) -> Columns:
        """Return these columns and new ones, each a tuple of dimension, array and attributes."""
        added = {name: _column(name, value) for name, value in new.items()}
        return Columns({**self.variables, **added}, self.coords, self.attrs)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each dimension."""
        return {
            dim: size for column in self.variables.values() for dim, size in zip(column.dims, column.shape, strict=True)
        }

    def isel(self, **chosen: Any) -> Columns:
        """Return the columns at a position of a dimension, or at those that an array (bool or int) selects."""
        ((dim, index),) = chosen.items()
        variables = dict(self.variables)
        for name, column in self.variables.items():
            if dim in column.dims:
                axis = column.dims.index(dim)
                values = np.asarray(column.values[(slice(None),) * axis + (index,)])
                dims = column.dims if np.ndim(index) else tuple(other for other in column.dims if other != dim)
                variables[name] = Column(dims, values, column.attrs)
        return Columns(variables, self.coords, self.attrs)

    def to_dataset(self) -> xr.Dataset:
        """Return the same as an `xarray.Dataset`."""
        with named_extras():
            import xarray as xr

        def arrays(*, coords: bool) -> dict[str, Any]:
            return {
                name: (column.dims, column.values, column.attrs)
                for name, column in self.variables.items()
                if (name in self.coords) is coords
            }

        return xr.Dataset(arrays(coords=False), arrays(coords=True), self.attrs)


def _column(name: str, value: Any) -> Column:
    """Return a column from what `xarray.Dataset` takes; an array alone is the coordinate of the dimension `name`."""
    dims, values, *attrs = value if isinstance(value, tuple) else ((name,), value)
    return Column((dims,) if isinstance(dims, str) else tuple(dims), np.asarray(values), *(dict(a) for a in attrs))
