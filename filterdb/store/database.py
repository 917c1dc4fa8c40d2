"""A database at one snapshot, as xarray: filters lazily by Dask, layers and models as coordinates."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from filterdb import schema
from filterdb.arguments import as_path, unexpected
from filterdb.errors import ConflictError, DamageError, InputError, StoreMissingError, UsageError, portable
from filterdb.ledger import is_unread
from filterdb.plan import offsets
from filterdb.store import html
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.filter_index import FilterIndex
from filterdb.store.segment import Segment, read_tables, to_dataset
from filterdb.store.snapshot import Snapshot, StoredBasis
from filterdb.store.summary_cache import SummaryCache


def open_database(url: AnyDatabase, snapshot: int | str | None = None) -> Database:
    """Open the database at a path or URL, at a snapshot's number or tag, or the newest.

    A Database is opened anew: all layers, at `snapshot` or the newest. Raises StoreMissingError where there is none,
    DamageError where it is not what was committed, UsageError for what is no place or no snapshot.
    """
    files = Files.at(as_url(url, "url"))
    if snapshot is not None and (isinstance(snapshot, bool) or not isinstance(snapshot, int | str)):
        raise unexpected("snapshot", "a number or a tag", snapshot)
    if snapshot is None:
        found = snapshots.latest(files)
    elif isinstance(snapshot, str) and not snapshot.isdigit():
        found = snapshots.tagged(files, snapshot)
    else:
        found = snapshots.read(files, int(snapshot))
    if found is None:
        raise StoreMissingError(
            f"{files.root}: expected a filterdb database, found no snapshot; `filterdb ingest` makes one"
        )
    return Database(files, found)


def open_readable(url: AnyDatabase, snapshot: int | str | None = None) -> Database:
    """Open as `open_database`, but where the newest snapshot is lost or damaged, the newest that can be read."""
    try:
        return open_database(url, snapshot)
    except DamageError:
        files = Files.at(as_url(url))
        readable, _ = snapshots.survey(files)
        if snapshot is not None or not readable:
            raise
        return Database(files, readable[-1])


def as_database(db: Any, parameter: str = "db") -> Database:
    """Return a Database as it is; open a path or URL at its newest snapshot. Raises UsageError for anything else."""
    if isinstance(db, Database):
        return db
    return open_database(as_path(db, parameter, "a Database, a path or a URL"))


def as_url(db: Any, parameter: str = "url") -> str:
    """Return the place of a Database, or a path or URL as text. Raises UsageError for anything else."""
    return db.url if isinstance(db, Database) else as_path(db, parameter, "a path, a URL or a Database")


@dataclass(frozen=True, eq=False)
class Database:
    """A database pinned to one snapshot, or a view of some of its layers.

    A view keeps its snapshot's basis, range, weights and π; `whole` is what it was taken from.
    """

    files: Files
    state: Snapshot
    chosen: np.ndarray | None = None
    """Which of the snapshot's layers the view has, (layers,) bool; None: all."""
    conditions: tuple[str, ...] = ()
    """How the view was chosen, in words."""
    kept: SummaryCache = field(default_factory=SummaryCache, repr=False)
    """Summaries in memory, up to CACHE_BYTES: read once, or computed where the store cannot be written."""
    parent: Database | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it lies."""
        return self.files.root

    @property
    def snapshot(self) -> int:
        """Number of its snapshot; every result names it."""
        return self.state.number

    @property
    def whole(self) -> Database:
        """All layers of the snapshot."""
        return self if self.parent is None else self.parent

    @property
    def segments(self) -> list[Segment]:
        """The snapshot's segments in order."""
        return [entry.segment(self.files) for entry in self.state.segments]

    @cached_property
    def basis(self) -> StoredBasis | None:
        """The basis of the snapshot; None until a first reduce has fitted one."""
        return None if self.state.basis is None else snapshots.read_basis(self.files, self.state.basis)

    @cached_property
    def present(self) -> np.ndarray:
        """Which of the segments' layers the snapshot has, (stored layers,) bool: not those of removed models."""
        if self.parent is not None:
            return self.parent.present
        has_model = self._stored_models[1]
        index = np.concatenate([part["model_index"].values for part in self._parts(schema.LAYER_VARIABLES, "layer")])
        found: np.ndarray = has_model[index.astype(np.int64)]
        return found

    @cached_property
    def tables(self) -> list[dict[str, np.ndarray]]:
        """Each segment's tables, checked against the snapshot's digests."""
        if self.parent is not None:
            return self.parent.tables
        return [read_tables(entry.segment(self.files), entry.digests) for entry in self.state.segments]

    def damaged_tables(self) -> dict[str, str]:
        """Return what is wrong with the tables of each segment that is damaged, by the segment's id."""
        damaged = {}
        try:
            _ = self.tables
        except DamageError:
            for entry in self.state.segments:
                try:
                    read_tables(entry.segment(self.files), entry.digests)
                except DamageError as error:
                    damaged[entry.id] = str(error)
        return damaged

    def at(self, state: Snapshot) -> Database:
        """The same layers at another snapshot with the same segments."""
        if not state.has_content_of(self.state):
            raise ConflictError(
                f"{self.url}: expected snapshot {state.number} to have the layers of snapshot {self.snapshot}, "
                "it has others; open it anew"
            )
        whole = Database(self.files, state, kept=self.kept)
        whole.__dict__["tables"] = self.tables
        return whole if self.chosen is None else replace(self, state=state, parent=whole)

    @cached_property
    def all_layers(self) -> xr.Dataset:
        """Every layer of the snapshot (layer): its variables, and its model's labels under their own names."""
        if self.parent is not None:
            return self.parent.all_layers
        layers = xr.concat(self._parts(schema.LAYER_VARIABLES, "layer"), dim="layer", combine_attrs="override")
        bounds = offsets(layers["row_size"].values)
        row_segment = np.repeat(np.arange(len(self.segments)), [entry.layers for entry in self.state.segments])
        layers = layers.assign(segment=("layer", row_segment), first_row=("layer", bounds[:-1]))
        if not self.present.all():
            layers = layers.isel(layer=self.present)
            # Counted among the models that are left.
            index = np.cumsum(self._stored_models[1]) - 1
            layers["model_index"] = ("layer", index[layers["model_index"].values], layers["model_index"].attrs)
        models = self._all_models
        of_layer = models.isel(model=xr.DataArray(layers["model_index"].values, dims="layer"))
        wanted = [name for name in of_layer.variables if name not in _MODEL_ONLY]
        layers = layers.assign({name: of_layer[name].variable for name in wanted})
        names = layer_labels(layers["model"].values, layers["layer_name"].values)
        return layers.assign_coords(layer=("layer", names, {"long_name": "model/name of the layer, unique"}))

    @cached_property
    def layers(self) -> xr.Dataset:
        """Return the view's layers (layer): their variables, and their models' labels under their own names.

        The label of a layer, `layer`, is the one that every result has. `model_index` counts along `models`.
        """
        if self.chosen is None:
            return self.all_layers
        layers = self.all_layers.isel(layer=self.chosen)
        index = np.unique(layers["model_index"].values, return_inverse=True)[1].astype(np.int64)
        return layers.assign(model_index=("layer", index, layers["model_index"].attrs))

    @cached_property
    def _stored_models(self) -> tuple[xr.Dataset, np.ndarray]:
        """Every model of the segments, and which of them the snapshot has, (stored models,) bool."""
        parts = self._parts(schema.MODEL_VARIABLES, "model")
        stored = xr.concat(parts, dim="model", combine_attrs="override")
        gone = {(one.segment, one.model) for one in self.state.without}
        ids = [entry.id for entry in self.state.segments for _ in range(entry.models)]
        names = map(str, stored["model"].values)
        has = np.array([key not in gone for key in zip(ids, names, strict=True)], bool)
        row_segment = np.repeat(np.arange(len(self.segments)), [entry.models for entry in self.state.segments])
        return stored.assign(segment=("model", row_segment)), has

    @cached_property
    def _all_models(self) -> xr.Dataset:
        stored, has = self._stored_models
        models = stored if has.all() else stored.isel(model=has)
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
                models[name] = (
                    "model",
                    np.array([row.get(name, schema.UNKNOWN) for row in extra], dtype=object),
                )
        return models

    @cached_property
    def models(self) -> xr.Dataset:
        """The view's models (model), with `filters` and `layers`, their numbers in the view."""
        index = self.all_layers["model_index"].values
        index = index if self.chosen is None else index[self.chosen]
        number = self._all_models.sizes["model"]
        filters = np.zeros(number, np.int64)
        np.add.at(filters, index, self.layers["row_size"].values)
        layers = np.bincount(index, minlength=number)
        models = self._all_models.assign(filters=("model", filters), layers=("model", layers))
        return models if self.chosen is None else models.isel(model=layers > 0)

    @cached_property
    def skipped(self) -> xr.Dataset:
        """The skip ledger (skipped) of the whole snapshot: every convolution that is not stored, and why."""
        ledger = xr.concat(self._parts(schema.SKIPPED_VARIABLES, "skipped"), dim="skipped", combine_attrs="override")
        names = ledger["skipped_model"].values.astype(str)
        # A file that was rejected once and has been mended since is a model now.
        mended = np.isin(names, self._all_models["model"].values.astype(str))
        rejected = ledger["skipped_code"].values == schema.REJECTED
        gone = np.isin(names, [one.model for one in self.state.without]) & ~mended
        return ledger.isel(skipped=~((mended & rejected) | gone))

    @cached_property
    def unread(self) -> xr.Dataset:
        """The part of the ledger (skipped) of convolutions that should have been read and could not be."""
        codes = self.skipped["skipped_code"].values.astype(str)
        return self.skipped.isel(skipped=np.array([is_unread(code) for code in codes], bool))

    def _parts(self, kinds: tuple[schema.Variable, ...], dim: str) -> list[xr.Dataset]:
        """Each segment's table; layers tied to the models of all segments."""
        parts = []
        models = 0
        for tables in self.tables:
            part = to_dataset(tables, kinds)
            if dim == "layer":
                part["model_index"] = part["model_index"] + models
            models += len(tables["model"])
            parts.append(part)
        return parts or [to_dataset({v.name: v.array([]) for v in kinds}, kinds)]

    @cached_property
    def dataset(self) -> xr.Dataset:
        """Return `filters` (filter, weight) float32, lazily by Dask in the store's chunks, with labels for each filter.

        The labels of a filter are those of its layer and its layer's model, along `filter`: `layer`, `model`, `task`
        and all else that `select` takes. They are stored once per layer, and xarray selects and groups filters by
        them. `layers` and `models` are the tables with a row for each layer and each model.

        >>> db.dataset.sel(task="segmentation", conv_depth=[0, 1])  # doctest: +SKIP
        >>> db.dataset.groupby("task").mean()  # doctest: +SKIP
        """
        parts = [
            da.map_blocks(
                _read_block,
                segment,
                chunks=(
                    tuple(stop - start for start, stop in map(segment.bounds, range(segment.chunks))),
                    schema.WEIGHTS,
                ),
                dtype=schema.FILTERS.dtype,
                meta=np.empty((0, 0), schema.FILTERS.dtype),
                name=f"filters-{tokenize(self.url, segment.id)}",
            )
            for segment in self.segments
            if segment.rows
        ]
        if not parts:
            parts = [da.zeros((0, schema.WEIGHTS), dtype=schema.FILTERS.dtype)]
        filters = da.concatenate(parts)
        if self.chosen is not None or self.state.without:
            ranges = [filters[start:stop] for start, stop in _row_ranges(self)]
            filters = da.concatenate(ranges) if ranges else filters[:0]
        layers = self.layers
        index = FilterIndex.of_layers(layers, schema.FILTERS.dims[0])
        return xr.Dataset(
            {schema.FILTERS.name: (schema.FILTERS.dims, filters, schema.FILTERS.attrs)},
            coords=index.coordinates({name: layers[name].attrs for name in index.tables}),
            attrs={
                "snapshot": self.snapshot,
                "url": self.url,
                "selection": " and ".join(self.conditions) or "all",
            },
        )

    def select(self, **labels: Any) -> Database:
        """A view of the layers whose labels have these values, each a value or a list of values.

        >>> db.select(task="segmentation", conv_depth=[0, 1])  # doctest: +SKIP

        Raises UsageError for an unknown label, InputError where no layer is left.
        """
        view = self
        for name, value in labels.items():
            view = view.where(name, value)
        return view

    def where(self, name: str, values: Any, *, negate: bool = False) -> Database:
        """Return a view of the layers whose label is (or with `negate` is not) `values`, or one of them."""
        column = self.column(name)
        values = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
        hit = np.isin(column.astype(str), [str(value) for value in values])
        words = f"{name} {'!=' if negate else '='} {', '.join(map(str, values))}"
        if not (hit ^ negate).any():
            values_there = [
                str(value) for value in np.unique(column if column.dtype.kind in "biuf" else column.astype(str))
            ]
            there = ", ".join(values_there[:12]) + (
                f" and {len(values_there) - 12} more" if len(values_there) > 12 else ""
            )
            raise InputError(f"{self.url}: expected layers with {words}, found none; `{name}` has {there}")
        return self.keep(hit ^ negate, words)

    def keep(self, mask: np.ndarray, words: str) -> Database:
        """A view of the view's layers for which `mask` (layers,) is true, chosen as `words` say."""
        chosen = np.zeros(self.all_layers.sizes["layer"], bool) if self.chosen is None else self.chosen.copy()
        if self.chosen is None:
            chosen[:] = mask
        else:
            chosen[chosen] = mask
        return replace(self, chosen=chosen, conditions=(*self.conditions, words), parent=self.whole)

    def column(self, name: str) -> np.ndarray:
        """A label of the view's layers, (layers,). Raises UsageError for an unknown one."""
        if name not in self.layers.variables:
            known = sorted({*map(str, self.layers.variables), "depth_decile"})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? There are" if near else "one of"
            raise UsageError(f"{name}: expected a label of layers or models; {hint} {', '.join(known)}")
        return np.asarray(self.layers[name].values)

    @property
    def counts(self) -> Mapping[str, int]:
        """Numbers of filters, layers and models in the view; those of a whole snapshot without reading a table."""
        if self.chosen is None:
            return self.state.counts
        return {
            "filters": int(self.layers["row_size"].sum()),
            "layers": int(self.layers.sizes["layer"]),
            "models": int(self.models.sizes["model"]),
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{number:,} {what}" for what, number in self.counts.items())
        view = f" where {' and '.join(self.conditions)}" if self.conditions else ""
        return f"<filterdb.Database {self.url} snapshot {self.snapshot}{view}: {counts}>"

    def _repr_html_(self) -> str:
        return html.database(self)


AnyDatabase = Database | str | os.PathLike[str]
"""What public functions take where they say `db`: a Database, or the path or URL of one."""


def layer_labels(models: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return one text per layer, model/name, told apart where two read the same, (layers,) object."""
    labels = schema.distinct([f"{model}/{name}" for model, name in zip(models, names, strict=True)])
    return np.array(labels, dtype=object)


_MODEL_ONLY = {"operators", "filter_shapes", "extra", "total_filters", "share_3x3", "segment"}
"""Facts of a model that are no labels of its layers."""

_RESERVED = {v.name for v in (schema.FILTERS, *schema.TABLES)} | {
    "segment",
    "first_row",
    "layer",
    "filters",
    "layers",
}


def _read_block(segment: Segment, *, block_id: tuple[int, int]) -> np.ndarray:
    """One chunk, opened where it is read: the graph carries neither open files nor what opens them."""
    try:
        return segment.read_chunk(block_id[0])
    except Exception as error:
        portable(error)
        raise


def _row_ranges(db: Database) -> list[tuple[int, int]]:
    """Rows of the view's layers among all rows of the segments, neighbours joined."""
    first, sizes = db.layers["first_row"].values, db.layers["row_size"].values
    ranges: list[tuple[int, int]] = []
    for start, stop in zip(first.tolist(), (first + sizes).tolist(), strict=True):
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return ranges
