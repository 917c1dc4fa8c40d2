"""Open a database at a snapshot as xarray: filters as lazy Dask arrays, with labels of layers and models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb import schema
from filterdb.arguments import as_path, unexpected
from filterdb.columns import Columns
from filterdb.errors import ConflictError, DamageError, StoreMissingError, UsageError
from filterdb.ledger import is_unread
from filterdb.numerics.fingerprint import same_filters
from filterdb.schema import AnyKernel, as_kernel
from filterdb.store import snapshot as snapshots
from filterdb.store.files import Files
from filterdb.store.pages import Entry
from filterdb.store.segment import Segment
from filterdb.store.selection import Values, as_values, column_of, meeting, none_found
from filterdb.store.snapshot import Snapshot, StoredBasis
from filterdb.store.snapshot_tables import SnapshotTables
from filterdb.store.stored_tables import StoredTables, read_all
from filterdb.store.summary_cache import SummaryCache
from filterdb.store.tables import read_tables

if TYPE_CHECKING:
    import xarray as xr


def open_database(url: AnyDatabase, snapshot: int | str | None = None) -> Database:
    """Open the database at a path or URL.

    Parameters
    ----------
    url
        A path or URL. A Database is opened again, with all layers.
    snapshot
        Number or tag of a snapshot. Default: the newest.

    Returns
    -------
    Database
        The database at this snapshot.

    Raises
    ------
    StoreMissingError
        If there is no database at `url`.
    DamageError
        If the snapshot differs from what was committed.
    UsageError
        If `url` is not a path or URL, or if there is no such snapshot.
    ExpiredSnapshotError
        If the snapshot has expired.

    Examples
    --------
    >>> db = fdb.open("s3://bucket/db", snapshot="cvpr-2026")  # doctest: +SKIP
    """
    files = Files.at(as_url(url, "url"))
    if snapshot is not None and (isinstance(snapshot, bool) or not isinstance(snapshot, int | str)):
        raise unexpected("snapshot", "a number or a tag", snapshot)
    if snapshot is None:
        state = snapshots.latest(files)
    elif isinstance(snapshot, str) and not snapshot.isdigit():
        state = snapshots.tagged(files, snapshot)
    else:
        state = snapshots.of_history(files, int(snapshot))
    if state is None:
        raise StoreMissingError(
            f"{files.root}: expected a filterdb database, found no snapshot; `filterdb ingest` makes one"
        )
    return Database(files, state)


def open_readable(url: AnyDatabase, snapshot: int | str | None = None) -> Database:
    """Open as `open_database`; if the newest snapshot is lost or damaged, open the newest that can be read."""
    try:
        return open_database(url, snapshot)
    except DamageError:
        files = Files.at(as_url(url))
        readable, _ = snapshots.survey(files)
        if snapshot is not None or not readable:
            raise
        return Database(files, readable[-1])


_DATABASE = "a Database, a path or a URL"


def as_database(db: Any, parameter: str = "db", *, kernel: AnyKernel | None = None) -> Database:
    """Return a Database unchanged, or open a path or URL at the newest snapshot; with `kernel`, return that bank of it.

    Raises UsageError for anything else.
    """
    opened: Database = db if isinstance(db, Database) else open_database(as_path(db, parameter, _DATABASE))
    return opened if kernel is None else opened.bank(kernel)


def as_url(db: Any, parameter: str = "url") -> str:
    """Return the URL of a Database, or a path or URL as text. Raises UsageError for anything else."""
    return db.url if isinstance(db, Database) else as_path(db, parameter, "a path, a URL or a Database")


@dataclass(frozen=True, eq=False)
class Database:
    """A database at a snapshot, or a view of some of its layers.

    Create one with `filterdb.open`. A view has the basis, range, weights and π of its snapshot; `whole` is the
    database with all layers.

    Examples
    --------
    >>> db = fdb.open("db")  # doctest: +SKIP
    >>> db.select(task="segmentation").counts  # doctest: +SKIP
    {'filters': 1234, 'layers': 56, 'models': 7}
    """

    files: Files
    state: Snapshot
    chosen: np.ndarray | None = None
    """Which of the snapshot's layers the view has, (layers,) bool. None: all."""
    conditions: tuple[str, ...] = ()
    """The conditions of the view, as text."""
    labels: tuple[tuple[str, Values, bool], ...] | None = ()
    """The conditions as arguments of `where`; None if one of them is not about labels."""
    kept: SummaryCache = field(default_factory=SummaryCache, repr=False)
    """Summaries in memory, up to CACHE_BYTES, so that they are read once, or computed once for a read-only store."""
    parent: Database | None = field(default=None, repr=False)
    kernel: schema.Kernel = schema.KERNEL
    """Shape of the filters that the view has."""
    origin: Database | None = field(default=None, repr=False)
    """The database of the 3×3 filters, if the view has filters of another shape."""

    @property
    def weights(self) -> int:
        """Number of weights of a filter."""
        return self.kernel[0] * self.kernel[1]

    @property
    def url(self) -> str:
        """Path or URL of the database."""
        return self.files.root

    @property
    def snapshot(self) -> int:
        """Number of the snapshot. Every result states it."""
        return self.state.number

    @property
    def whole(self) -> Database:
        """The database with all layers of the snapshot."""
        return self if self.parent is None else self.parent

    @property
    def segments(self) -> list[Segment]:
        """The segments of the snapshot, or of the bank of each, in order."""
        return [entry.segment(self.files) for entry in self.entries]

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """What the snapshot says of its segments, or of the bank of each, in order."""
        return tuple(entry.of(self.kernel) for entry in self.state.segments)

    @cached_property
    def kernels(self) -> tuple[schema.Kernel, ...]:
        """The kernel shapes of which the snapshot has filters, 3×3 first, then by number of weights."""
        names = {name for entry in self.state.segments for name in entry.banks} - {schema.OTHER}
        others = sorted(
            (schema.parse_kernel(name) for name in names), key=lambda kernel: (kernel[0] * kernel[1], kernel)
        )
        return (schema.KERNEL, *others)

    def bank(self, kernel: AnyKernel) -> Database:
        """Return the filters of another kernel shape, as a Database with its layers, summaries and basis.

        The conditions of a view hold for the layers of the other shape.

        Parameters
        ----------
        kernel
            The shape, such as (5, 5) or "5x5".

        Returns
        -------
        Database
            The bank at the same snapshot. It has no layers if the snapshot has no such filters.

        Raises
        ------
        UsageError
            If that is no kernel shape, or if the view is one of layers with certain verdicts.
        InputError
            If no layer of this shape meets the conditions of the view.

        Examples
        --------
        >>> fdb.open("db").bank("5x5").counts  # doctest: +SKIP
        {'filters': 1234, 'layers': 56, 'models': 7}
        """
        shape = as_kernel(kernel)
        if shape == self.kernel:
            return self
        if self.labels is None:
            name, own = schema.kernel_name(shape), schema.kernel_name(self.kernel)
            raise UsageError(
                f"kernel: expected {own}, the shape of the chosen layers, got {name}; choose the shape first, with "
                f'db.bank("{name}")'
            )
        root = self.root
        if shape != schema.KERNEL and shape not in root.banks:
            root.banks[shape] = Database(self.files, self.state, kept=self.kept, kernel=shape, origin=root)
        bank = root if shape == schema.KERNEL else root.banks[shape]
        for name, values, negate in self.labels:
            bank = bank.where(name, values, negate=negate)
        return bank

    @property
    def root(self) -> Database:
        """The 3×3 filters of the snapshot, all layers."""
        return self.whole if self.origin is None else self.origin

    @cached_property
    def banks(self) -> dict[schema.Kernel, Database]:
        """The banks that were asked for, so that their tables are made once."""
        return {}

    @cached_property
    def basis(self) -> StoredBasis | None:
        """The basis of the snapshot; None until the first reduce fits one."""
        basis = self.state.basis_of(self.kernel)
        return None if basis is None else snapshots.read_basis(self.files, basis)

    @property
    def present(self) -> np.ndarray:
        """Which layers of the segments belong to the snapshot, (stored layers,) bool. Removed models' layers do not."""
        if not self.state.without:
            return np.ones(sum(entry.layers for entry in self.entries), bool)
        return self._snapshot_tables.present_layers

    @cached_property
    def tables(self) -> StoredTables:
        """The tables of each segment, verified against the snapshot's digests."""
        if self.parent is not None:
            return self.parent.tables
        if self.origin is not None:
            return self.origin.tables.bank(schema.kernel_name(self.kernel), self.entries)
        return read_all(self.files, self.state.segments)

    def damaged_tables(self) -> dict[str, str]:
        """Return what is wrong with the tables of each damaged segment, by the segment's id."""
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
        """Return the same layers at another snapshot, which must have the same models and labels."""
        if not state.has_content_of(self.state):
            raise ConflictError(
                f"{self.url}: expected snapshot {state.number} to have the layers of snapshot {self.snapshot}, "
                "it has others; open it anew"
            )
        root = Database(self.files, state, kept=self.kept)
        root.__dict__["tables"] = self.root.tables
        whole = root.bank(self.kernel)
        return whole if self.chosen is None else replace(self, state=state, parent=whole, origin=whole.origin)

    def followed_by(self, state: Snapshot, tables: dict[str, np.ndarray]) -> Database:
        """Return the database at a snapshot, without reading tables if it only adds a segment with these `tables`."""
        db = Database(self.files, state, kept=self.kept)
        if state.segments[:-1] == self.state.segments:
            db.__dict__["tables"] = self.tables.followed_by(tables, state.segments)
        return db

    @cached_property
    def _snapshot_tables(self) -> SnapshotTables:
        if self.parent is not None:
            return self.parent._snapshot_tables
        if self.origin is not None:
            return self.origin._snapshot_tables.bank(schema.kernel_name(self.kernel), self.entries)
        return SnapshotTables(self.files, self.state, self.tables, self.entries)

    @property
    def all_layer_columns(self) -> Columns:
        """`all_layers` as columns, for callers that need no xarray."""
        return self._snapshot_tables.layers

    @cached_property
    def all_layers(self) -> xr.Dataset:
        """Every layer of the snapshot (layer): its variables, and the labels of its model."""
        return self.all_layer_columns.to_dataset() if self.parent is None else self.parent.all_layers

    @cached_property
    def layer_columns(self) -> Columns:
        """`layers` as columns, for callers that need no xarray."""
        if self.chosen is None and self.origin is None:
            return self.all_layer_columns
        layers = self.all_layer_columns
        layers = layers if self.chosen is None else layers.isel(layer=self.chosen)
        index = np.unique(layers["model_index"].values, return_inverse=True)[1].astype(np.int64)
        return layers.assign(model_index=("layer", index, layers["model_index"].attrs))

    @cached_property
    def layers(self) -> xr.Dataset:
        """The layers of the view (layer): their variables, and the labels of their models.

        `layer` is the label of a layer in every result. `model_index` is a position in `models`.
        """
        is_all = self.chosen is None and self.origin is None
        return self.all_layers if is_all else self.layer_columns.to_dataset()

    @cached_property
    def same_filters(self) -> np.ndarray:
        """For each of `all_layers`, the first layer that has its filters apart from scales, (layers,) int64."""
        if self.parent is not None:
            return self.parent.same_filters
        layers = self.all_layer_columns
        return same_filters(layers["hash"].values, layers["fingerprint"].values, layers["row_size"].values)

    @cached_property
    def model_columns(self) -> Columns:
        """`models` as columns, for callers that need no xarray."""
        index = self.all_layer_columns["model_index"].values
        index = index if self.chosen is None else index[self.chosen]
        models = self._snapshot_tables.models
        number = models.sizes["model"]
        filters = np.zeros(number, np.int64)
        np.add.at(filters, index, self.layer_columns["row_size"].values)
        layers = np.bincount(index, minlength=number)
        models = models.assign(filters=("model", filters), layers=("model", layers))
        return models if self.chosen is None and self.origin is None else models.isel(model=layers > 0)

    @cached_property
    def models(self) -> xr.Dataset:
        """The models of the view (model), with their numbers of `filters` and `layers` in the view."""
        return self.model_columns.to_dataset()

    @cached_property
    def other_columns(self) -> Columns:
        """The layers (layer) whose filters are not stored: kernels of one weight, and of more than a bank may have."""
        others = [entry.others for entry in self.state.segments]
        return self.root._snapshot_tables.bank(schema.OTHER, others).layers

    @property
    def skipped_columns(self) -> Columns:
        """`skipped` as columns, for callers that need no xarray."""
        return self._snapshot_tables.skipped

    @cached_property
    def skipped(self) -> xr.Dataset:
        """The ledger (skipped) of the whole snapshot: every convolution that is not stored, and why."""
        return self.skipped_columns.to_dataset()

    @cached_property
    def unread_columns(self) -> Columns:
        """`unread` as columns, for callers that need no xarray."""
        codes = self.skipped_columns["skipped_code"].values.astype(str)
        return self.skipped_columns.isel(skipped=np.array([is_unread(code) for code in codes], bool))

    @cached_property
    def unread(self) -> xr.Dataset:
        """The rows of the ledger (skipped) for convolutions that should have been read but could not be."""
        return self.unread_columns.to_dataset()

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The filters of the view: `filters` (filter, weight) float32, a lazy Dask array in the store's chunks.

        Coordinates along `filter` are the labels of the filter's layer and model: `layer`, `model`, `task` and all
        others that `select` accepts. They are stored once per layer, and xarray can select and group filters by them.
        The tables `layers` and `models` have a row for each layer and each model.

        >>> db.dataset.sel(task="segmentation", conv_depth=[0, 1])  # doctest: +SKIP
        >>> db.dataset.groupby("task").mean()  # doctest: +SKIP
        """
        from filterdb.store.lazy_filters import dataset

        is_whole = self.chosen is None and not self.state.without
        attrs = {
            "snapshot": self.snapshot,
            "url": self.url,
            "selection": " and ".join(self.conditions) or "all",
            "kernel": schema.kernel_name(self.kernel),
        }
        return dataset(self.segments, self.layer_columns, self.kernel, is_whole=is_whole, attrs=attrs)

    def select(self, *functions: Callable[[xr.Dataset], Any], **labels: Any) -> Database:
        """Return a view of the layers that meet all of these conditions.

        Parameters
        ----------
        *functions
            Functions that take `layers`, the table of the view's layers with the labels of their models, and return a
            mask (layer) of those to keep.
        **labels
            A condition for each column of `layers`: a value; a list of values; for a column of numbers a slice, which
            includes both ends, as label slices in xarray do; or a function that takes the column's values and returns
            a mask. `filters` is the number of filters of a layer, `depth` its `conv_depth`. A slice leaves out layers
            whose number is unknown.

        Returns
        -------
        Database
            The view, at the same snapshot. No filter is read.

        Raises
        ------
        UsageError
            If a label is unknown, if a slice is used on a column of texts, or if a function does not return a mask.
        InputError
            If no layer is left.

        Examples
        --------
        >>> db.select(task=["classification", "detection"], depth=slice(0, 1)).counts
        {'filters': 1584, 'layers': 8, 'models': 4}
        >>> db.select(filters=slice(400, None)).conditions
        ('400 ≤ filters',)
        >>> db.select(lambda layers: layers["out_channels"] > layers["in_channels"]).conditions
        ('layers chosen by a function (8 of 12 layers)',)
        """
        view = self
        for function in functions:
            if not callable(function):
                raise unexpected("select", "a function of the table of layers, or labels as NAME=VALUE", function)
            view = view.where("", function)
        for name, value in labels.items():
            view = view.where(name, value)
        return view

    def where(self, name: str, values: Any, *, negate: bool = False) -> Database:
        """Return a view of the layers that meet a condition of `select` or, with `negate`, do not.

        Without a name, `values` is a function of `layers`.
        """
        kept = values if isinstance(values, slice) or callable(values) else as_values(values)
        mask, words = meeting(self.layer_columns, name, kept, negate=negate)
        if not mask.any():
            raise none_found(self.url, self.layer_columns, name, words)
        labels = None if self.labels is None else (*self.labels, (name, kept, negate))
        return replace(self.keep(mask, words), labels=labels)

    def keep(self, mask: np.ndarray, words: str) -> Database:
        """Return a view of the layers for which `mask` (layers,) is true. `words` describe the condition."""
        chosen = np.zeros(self.all_layer_columns.sizes["layer"], bool) if self.chosen is None else self.chosen.copy()
        if self.chosen is None:
            chosen[:] = mask
        else:
            chosen[chosen] = mask
        conditions = (*self.conditions, words)
        return replace(self, chosen=chosen, conditions=conditions, labels=None, parent=self.whole)

    def column(self, name: str) -> np.ndarray:
        """Return the values of a label of the view's layers, (layers,). Raises UsageError if it is unknown."""
        return column_of(self.layer_columns, name)

    @property
    def layers_key(self) -> str:
        """A text that is equal for snapshots of one database with the same layers of this shape."""
        key = self.state.layers_key
        return key if self.kernel == schema.KERNEL else f"{schema.kernel_name(self.kernel)} {key}"

    @property
    def counts(self) -> Mapping[str, int]:
        """Numbers of filters, layers and models in the view. For the 3×3 filters of a snapshot, no table is read."""
        if self.chosen is None and self.origin is None:
            return self.state.counts
        return {
            "filters": int(self.layer_columns["row_size"].values.sum()),
            "layers": int(self.layer_columns.sizes["layer"]),
            "models": int(self.model_columns.sizes["model"]),
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{number:,} {what}" for what, number in self.counts.items())
        view = f" where {' and '.join(self.conditions)}" if self.conditions else ""
        if self.kernel != schema.KERNEL:
            view = f" {schema.kernel_name(self.kernel)}{view}"
        return f"<filterdb.Database {self.url} snapshot {self.snapshot}{view}: {counts}>"

    def _repr_html_(self) -> str:
        from filterdb.store import html

        return html.database(self)


AnyDatabase = Database | str | os.PathLike[str]
"""What public functions accept as `db`: a Database, or its path or URL."""
