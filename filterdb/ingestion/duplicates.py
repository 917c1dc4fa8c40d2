"""Find models that a database already has, as the same file or as the same filters in another file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from filterdb import schema
from filterdb.numerics.fingerprint import models_by_filters, same_filters
from filterdb.store.database import Database
from filterdb.store.segment import Tables
from filterdb.store.tables import banks_of, of_bank

_DTYPES: dict[str, Any] = {"hash": object, "fingerprint": object, "row_size": np.int64, "model_index": np.int64}

Columns = dict[str, np.ndarray]
"""What is compared of layers, (layers,) each."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The models of a database, by what duplicates of them are recognised.

    `names` and `files` (models,) are ids and hashes of files, `threes` what is compared of the 3×3 layers, and `others`
    that of the layers of other kernel shapes, which decides about models without 3×3 layers that can be told apart.
    """

    names: list[str]
    files: list[str]
    threes: Columns
    others: Columns

    @classmethod
    def of(cls, db: Database | None) -> Stored:
        """Return the models of a database; none if there is no database yet."""
        if db is None:
            return cls([], [], _joined([]), _joined([]))
        models, banks = db.model_columns, [db.bank(kernel).all_layer_columns for kernel in db.kernels]
        threes, *others = ({name: layers[name].values for name in _DTYPES} for layers in banks)
        names, files = (models[name].values.astype(str).tolist() for name in ("model", "file_hash"))
        return cls(names, files, threes, _joined(others))

    def with_models(self, new: Sequence[tuple[str, str]], tables: Tables) -> Stored:
        """Return these models and the new ones: their ids and hashes, and the tables of their layers in all banks."""
        banks = [of_bank(tables, bank) for bank in banks_of(tables) if bank != schema.OTHER]
        return Stored(
            [*self.names, *(model for model, _ in new)],
            [*self.files, *(digest for _, digest in new)],
            self._followed_by(self.threes, [tables]),
            self._followed_by(self.others, banks),
        )

    def _followed_by(self, columns: Columns, tables: Sequence[Tables]) -> Columns:
        """Return columns followed by those of new models' layers, whose models follow the models that are there."""
        new = [{**own, "model_index": own["model_index"] + len(self.names)} for own in tables]
        return _joined([columns, *new])

    def originals(self, new: Sequence[tuple[str, str]], tables: Tables) -> list[str]:
        """Return, for each new (model, file hash), the id of an earlier model with the same content, or an empty text.

        `tables` are those of the new models' layers. A model with the same file comes before one that has the same
        filters apart from the scales of output channels, such as another format of the same network.
        """
        together = self.with_models(new, tables)
        number = len(together.names)
        by_threes, by_others = _filter_keys(together.threes, number), _filter_keys(together.others, number)
        first_file: dict[str, str] = {}
        first_filters: dict[object, str] = {}
        originals = []
        for name, file, threes, others in zip(together.names, together.files, by_threes, by_others, strict=True):
            key = threes if threes is not None else others and ("others", others)
            same = first_filters.setdefault(key, name) if key is not None else name
            same = first_file.get(file, same)
            first_file.setdefault(file, name)
            originals.append("" if same == name else same)
        return originals[len(self.names) :]


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Columns:
    """Return columns one after the other."""
    return {
        name: np.concatenate([np.array([], dtype), *(part[name] for part in parts)]) for name, dtype in _DTYPES.items()
    }


def _filter_keys(columns: Columns, models: int) -> list[tuple[int, tuple[int, ...]] | None]:
    """Return a key for each model that is equal for models with the same filters."""
    sizes = columns["row_size"].astype(np.int64)
    labels = same_filters(columns["hash"], columns["fingerprint"], sizes)
    return models_by_filters(labels, columns["fingerprint"], sizes, columns["model_index"].astype(np.int64), models)
