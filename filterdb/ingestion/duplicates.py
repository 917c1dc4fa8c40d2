"""Find models that a database already has, as the same file or as the same filters in another file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from filterdb.numerics.fingerprint import models_by_filters, same_filters
from filterdb.store.database import Database

_COLUMNS = ("hash", "fingerprint", "row_size", "model_index")


def duplicates(old: Database | None, new: Sequence[tuple[str, str]], layers: Mapping[str, np.ndarray]) -> list[str]:
    """Return, for each new (model, file hash), the id of an earlier model with the same content, or an empty text.

    `layers` is the table of the new models' layers. A model with the same file comes before one that has the same
    filters apart from the scales of output channels, such as another format of the same network.
    """
    names, files = [model for model, _ in new], [digest for _, digest in new]
    columns = {name: layers[name] for name in _COLUMNS}
    if old is not None:
        models = old.models
        columns = {name: np.concatenate([old.all_layers[name].values, columns[name]]) for name in _COLUMNS}
        columns["model_index"][old.all_layers.sizes["layer"] :] += models.sizes["model"]
        names = [*models["model"].values.astype(str).tolist(), *names]
        files = [*models["file_hash"].values.astype(str).tolist(), *files]
    filters = _filter_keys(columns, len(names))
    first_file: dict[str, str] = {}
    first_filters: dict[object, str] = {}
    originals = []
    for name, file, key in zip(names, files, filters, strict=True):
        same = first_filters.setdefault(key, name) if key is not None else name
        same = first_file.get(file, same)
        first_file.setdefault(file, name)
        originals.append("" if same == name else same)
    return originals[len(names) - len(new) :]


def _filter_keys(columns: Mapping[str, np.ndarray], models: int) -> list[tuple[int, tuple[int, ...]] | None]:
    """Return a key for each model that is equal for models with the same filters."""
    sizes = columns["row_size"].astype(np.int64)
    labels = same_filters(columns["hash"], columns["fingerprint"], sizes)
    return models_by_filters(labels, columns["fingerprint"], sizes, columns["model_index"].astype(np.int64), models)
