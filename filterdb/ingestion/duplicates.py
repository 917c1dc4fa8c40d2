"""Find models that a database already has, as the same file or as the same filters in another file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from filterdb.numerics.fingerprint import models_by_filters, same_filters
from filterdb.store.database import Database

_DTYPES: dict[str, Any] = {"hash": object, "fingerprint": object, "row_size": np.int64, "model_index": np.int64}
_COLUMNS = tuple(_DTYPES)


@dataclass(frozen=True, slots=True)
class Stored:
    """The models of a database, by what duplicates of them are recognised.

    `names` and `files` (models,) are ids and hashes of files, `columns` what is compared of the layers, (layers,) each.
    """

    names: list[str]
    files: list[str]
    columns: dict[str, np.ndarray]

    @classmethod
    def of(cls, db: Database | None) -> Stored:
        """Return the models of a database; none if there is no database yet."""
        if db is None:
            return cls([], [], {name: np.array([], _DTYPES[name]) for name in _COLUMNS})
        models, layers = db.model_columns, db.all_layer_columns
        columns = {name: layers[name].values for name in _COLUMNS}
        names, files = (models[name].values.astype(str).tolist() for name in ("model", "file_hash"))
        return cls(names, files, columns)

    def with_models(self, new: Sequence[tuple[str, str]], layers: Mapping[str, np.ndarray]) -> Stored:
        """Return these models and the new ones: their ids and hashes, and the table of their layers."""
        columns = {name: np.concatenate([self.columns[name], layers[name]]) for name in _COLUMNS}
        columns["model_index"][len(self.columns["model_index"]) :] += len(self.names)
        return Stored(
            [*self.names, *(model for model, _ in new)], [*self.files, *(digest for _, digest in new)], columns
        )

    def originals(self, new: Sequence[tuple[str, str]], layers: Mapping[str, np.ndarray]) -> list[str]:
        """Return, for each new (model, file hash), the id of an earlier model with the same content, or an empty text.

        `layers` is the table of the new models' layers. A model with the same file comes before one that has the same
        filters apart from the scales of output channels, such as another format of the same network.
        """
        together = self.with_models(new, layers)
        filters = _filter_keys(together.columns, len(together.names))
        first_file: dict[str, str] = {}
        first_filters: dict[object, str] = {}
        originals = []
        for name, file, key in zip(together.names, together.files, filters, strict=True):
            same = first_filters.setdefault(key, name) if key is not None else name
            same = first_file.get(file, same)
            first_file.setdefault(file, name)
            originals.append("" if same == name else same)
        return originals[len(self.names) :]


def _filter_keys(columns: Mapping[str, np.ndarray], models: int) -> list[tuple[int, tuple[int, ...]] | None]:
    """Return a key for each model that is equal for models with the same filters."""
    sizes = columns["row_size"].astype(np.int64)
    labels = same_filters(columns["hash"], columns["fingerprint"], sizes)
    return models_by_filters(labels, columns["fingerprint"], sizes, columns["model_index"].astype(np.int64), models)
