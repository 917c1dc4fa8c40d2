"""The tables of a snapshot as columns: the layers, models and skipped convolutions of its segments, with their labels.

`Database` presents them as xarray. Commands that need no more than columns use them as they are, because importing
xarray takes half a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from filterdb import schema
from filterdb.columns import Columns
from filterdb.plan import offsets
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.pages import Entry
from filterdb.store.snapshot import Snapshot
from filterdb.store.stored_tables import StoredTables
from filterdb.store.tables import to_columns

_MODEL_ONLY = {"operators", "filter_shapes", "extra", "total_filters", "share_3x3", "segment"}
"""Variables of a model that are not labels of its layers."""

_RESERVED = {v.name for v in (schema.FILTERS, *schema.TABLES)} | {
    "segment",
    "first_row",
    "layer",
    "filters",
    "layers",
}


@dataclass(frozen=True, eq=False)
class SnapshotTables:
    """The tables of a snapshot, without its removed models, made from the tables of its segments.

    `entries` are its segments, of the bank whose layers `stored` has; `variables` are those of the layers.
    """

    files: Files
    state: Snapshot
    stored: StoredTables
    entries: Sequence[Entry]
    variables: tuple[schema.Variable, ...] = schema.LAYER_VARIABLES

    @cached_property
    def present_layers(self) -> np.ndarray:
        """Which layers of the segments belong to the snapshot, (stored layers,) bool. Removed models' layers do not."""
        of_layer: np.ndarray = self._stored_models[1][self._of_segments(self.variables)["model_index"].values]
        return of_layer

    @cached_property
    def layers(self) -> Columns:
        """Every layer of the snapshot (layer): its variables, and the labels of its model."""
        layers = self._of_segments(self.variables)
        bounds = offsets(layers["row_size"].values)
        row_segment = np.repeat(np.arange(len(self.stored)), [entry.layers for entry in self.entries])
        layers = layers.assign(segment=("layer", row_segment), first_row=("layer", bounds[:-1]))
        if self.state.without:
            layers = layers.isel(layer=self.present_layers)
            # Positions among the models of the snapshot, without the removed ones.
            index = np.cumsum(self._stored_models[1]) - 1
            layers["model_index"] = ("layer", index[layers["model_index"].values], layers["model_index"].attrs)
        index = layers["model_index"].values
        for name, column in self.models.variables.items():
            if name not in _MODEL_ONLY:
                layers[name] = ("layer", column.values[index], column.attrs)
        labels = layer_labels(layers["model"].values, layers["layer_name"].values)
        return layers.assign(layer=("layer", labels, {"long_name": "model/name of the layer, unique"}))

    def bank(self, bank: str, entries: Sequence[Entry]) -> SnapshotTables:
        """Return the tables with the layers of a bank instead of the 3×3 ones. `entries` are those of the bank."""
        own = SnapshotTables(
            self.files, self.state, self.stored.bank(bank, entries), entries, schema.variables_of(bank)
        )
        own.__dict__.update(models=self.models, _stored_models=self._stored_models)  # those of every bank
        return own

    @cached_property
    def _stored_models(self) -> tuple[Columns, np.ndarray]:
        """Every model of the segments, and which of them belong to the snapshot, (stored models,) bool."""
        stored = self._of_segments(schema.MODEL_VARIABLES)
        removed_keys = {(removed.segment, removed.model) for removed in self.state.without}
        ids = [entry.id for entry in self.entries for _ in range(entry.models)]
        names = map(str, stored["model"].values)
        is_present = np.array([key not in removed_keys for key in zip(ids, names, strict=True)], bool)
        row_segment = np.repeat(np.arange(len(self.stored)), [entry.models for entry in self.entries])
        return stored.assign(segment=("model", row_segment)), is_present

    @cached_property
    def models(self) -> Columns:
        """Every model of the snapshot (model), with the labels of its newest catalog row."""
        stored, is_present = self._stored_models
        models = stored.assign() if is_present.all() else stored.isel(model=is_present)
        rows = snapshots.read_labels(self.files, self.state.labels)
        if rows:
            ids = [str(model) for model in models["model"].values]
            for name in (*schema.LABELS, "extra"):
                values = models[name].values.copy()
                for position, model in enumerate(ids):
                    if model in rows:
                        values[position] = rows[model][name]
                models[name] = ("model", values, models[name].attrs)
        extra = [json.loads(text) for text in models["extra"].values]
        for name in dict.fromkeys(name for row in extra for name in row):
            if name not in _RESERVED:
                models[name] = ("model", np.array([row.get(name, schema.UNKNOWN) for row in extra], dtype=object))
        return models

    @cached_property
    def skipped(self) -> Columns:
        """The ledger (skipped) of the whole snapshot: every convolution that is not stored, and why."""
        ledger = self._of_segments(schema.SKIPPED_VARIABLES)
        names = ledger["skipped_model"].values.astype(str)
        # Drop the rejection of a file that was fixed and ingested later.
        is_model = np.isin(names, self.models["model"].values.astype(str))
        is_rejected = ledger["skipped_code"].values == schema.REJECTED
        is_removed = np.isin(names, [removed.model for removed in self.state.without]) & ~is_model
        return ledger.isel(skipped=~((is_model & is_rejected) | is_removed))

    def _of_segments(self, kinds: tuple[schema.Variable, ...]) -> Columns:
        """Return the tables of all segments. The `model_index` of layers counts the models of all segments."""
        table = to_columns(self.stored.columns, kinds)
        if "model_index" in table:
            index = table["model_index"]
            table["model_index"] = (index.dims, index.values + self.stored.first_model, index.attrs)
        return table


def layer_labels(models: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return the label model/name of each layer, made unique, (layers,) object."""
    labels = schema.distinct([f"{model}/{name}" for model, name in zip(models, names, strict=True)])
    return np.array(labels, dtype=object)
