"""Results with a matrix too large for memory: a Zarr group that is filled in blocks and opened lazily."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning

from filterdb.errors import UsageError
from filterdb.extras import named_extras
from filterdb.store.files import Files
from filterdb.store.remote import store_errors


@dataclass(frozen=True, slots=True)
class Target:
    """A Zarr group whose matrix is being filled."""

    files: Files
    matrix: zarr.Array[Any]

    def finish(self, name: str, values: np.ndarray) -> xr.Dataset:
        """Write the variable that depends on the whole matrix, and open the group."""
        with store_errors("writing", self.files.root), _quiet():
            array = zarr.open_array(self.files.zarr(name, read_only=False), mode="r+")
            array[...] = values
            opened: xr.Dataset = xr.open_zarr(self.files.zarr("", read_only=True), consolidated=True)
            return opened


def create(url: str | os.PathLike[str], result: xr.Dataset, name: str, dims: tuple[str, str], block: int) -> Target:
    """Create a Zarr group with a result and an empty matrix `name` (dims) float64, in chunks of `block` × `block`.

    Raises UsageError if there is already something at `url`.
    """
    files = Files.at(url)
    if files.list(""):
        raise UsageError(f"{files.root}: expected nothing there, found objects; choose another place or remove them")
    with named_extras():
        import dask.array as da  # takes 0.7 s

    shape = tuple(result.sizes[dim] for dim in dims)
    template = result.assign({name: (dims, da.full(shape, np.nan, chunks=min(block, max(shape))))})
    with store_errors("writing", files.root), _quiet():
        template.to_zarr(files.zarr("", read_only=False), mode="w-", zarr_format=3, consolidated=True, compute=False)
        matrix = zarr.open_array(files.zarr(name, read_only=False), mode="r+")
    return Target(files, matrix)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Zarr's warnings that version 3 does not yet specify consolidated metadata and text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        yield
