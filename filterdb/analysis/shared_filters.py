"""Find the layers of a file that a database has: with the same filters apart from the scales of output channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from filterdb.numerics.fingerprint import models_by_filters, same_filters

if TYPE_CHECKING:
    from filterdb.store.database import Database

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class FileLayers(NamedTuple):
    """Hold hash, fingerprint and number of filters of a file's layers, (layers,) each."""

    hashes: Sequence[str]
    fingerprints: Sequence[str]
    sizes: Ints


class Shared(NamedTuple):
    """Hold what a file has in common with a view's models, (models,), and layers."""

    equal_layers: Ints
    """Layers of the file whose filters the model has."""
    same_filters: Bools
    """Whether file and model have the same filters: the same number, and the same layers that can be told apart."""
    can_tell: bool
    """Whether the file has layers that can be told apart from others."""
    stored: Ints
    """For each layer of the file, the first of the view's layers with the same filters, or −1, (file's layers,)."""


def find_shared(db: Database, file: FileLayers) -> Shared:
    """Compare the layers of a file with those of a view. Layers of the file without a fingerprint are not compared."""
    layers, models = db.layer_columns, db.model_columns.sizes["model"]
    stored, owner = layers.sizes["layer"], layers["model_index"].values
    hashes = [*map(str, layers["hash"].values), *file.hashes]
    fingerprints = [*map(str, layers["fingerprint"].values), *file.fingerprints]
    sizes = np.concatenate([layers["row_size"].values, file.sizes]).astype(np.int64)
    labels = same_filters(hashes, fingerprints, sizes)
    # The label is the position of the first layer with these filters: one of the view's, if it has them.
    own = labels[stored:]
    is_stored = (own < stored) & (np.array(file.fingerprints, object) != "")
    equal = np.zeros(models, np.int64)
    for label in own[is_stored].tolist():
        equal[np.unique(owner[labels[:stored] == label])] += 1
    owners = np.concatenate([owner, np.full(len(own), models)])
    *keys, key = models_by_filters(labels, fingerprints, sizes, owners, models + 1)
    same = np.array([key is not None and other == key for other in keys], bool)
    return Shared(equal, same, key is not None, np.where(is_stored, own, -1))
