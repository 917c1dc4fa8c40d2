"""Group layers by any label, by depth decile, by layer, or by products of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.arguments import as_names
from filterdb.errors import InputError, UsageError
from filterdb.numerics.depth import DECILES, NO_DECILE, depth_decile
from filterdb.numerics.histogram import sum_groups
from filterdb.numerics.modes import AnyMode, Mode, as_mode
from filterdb.reduce.basis import has_scale
from filterdb.schema import UNKNOWN, distinct, kernel_name
from filterdb.store.database import Database
from filterdb.store.shapes import no_filters
from filterdb.version import __version__
from filterdb.wording import counted

Key = str | Sequence[str]
"""One label, several joined with commas, or a list of labels."""

TIMES = " × "
"""Joins the labels of a product."""

WHOLE = "all"
"""The label of the only group, if layers are not grouped."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Hold the groups of a view's layers.

    Attributes
    ----------
    by : str
        The keys, joined with commas.
    labels : list of str
        The label of each group.
    index : ndarray (layers,) of int
        The position of each layer's group in `labels`.
    ordered : bool
        Whether the order of the groups has a meaning, as that of depth deciles has.
    parts : dict
        For a product of keys: the label of each key, by group.
    """

    by: str
    labels: list[str]
    index: npt.NDArray[np.int64]
    ordered: bool
    parts: dict[str, list[str]] = field(default_factory=dict)

    def sums(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the sums of values (layers, …) by group, (groups, …), int64 for integers.

        If each layer is a group, these are the values themselves, without a copy if they are int64.
        """
        if np.array_equal(self.index, np.arange(len(self.labels))):
            return values.astype(np.int64, copy=False) if values.dtype.kind in "iu" else values
        return sum_groups(values, self.index, len(self.labels))


def group(db: Database, by: Key | None, mode: AnyMode = "sound") -> Grouping:
    """Group a view's layers by a label, "depth_decile", "layer", or several of these ("task,depth_decile" or a list).

    None makes one group, "all". In `paper` mode every task that contains "Segmentation" becomes "Segmentation". Raises
    UsageError for an unknown label, InputError if the view has no layers.
    """
    mode = as_mode(mode)
    layers = db.layer_columns.sizes["layer"]
    if not layers:
        raise no_filters(db)
    if by is None:
        return Grouping(WHOLE, [WHOLE], np.zeros(layers, np.int64), ordered=True)
    keys = _names(by)
    if not keys or not all(keys):
        raise UsageError(f"by: expected labels joined with commas, got {by!r}")
    parts = [_single(db, key, mode) for key in keys]
    if len(parts) == 1:
        return parts[0]
    codes = np.ravel_multi_index([part.index for part in parts], [len(part.labels) for part in parts])
    present, index = np.unique(codes, return_inverse=True)
    picks = np.unravel_index(present, [len(part.labels) for part in parts])
    labels = [
        TIMES.join(part.labels[i] for part, i in zip(parts, pick, strict=True)) for pick in zip(*picks, strict=True)
    ]
    of_key = {part.by: [part.labels[i] for i in pick] for part, pick in zip(parts, picks, strict=True)}
    return Grouping(",".join(keys), distinct(labels), index, ordered=False, parts=of_key)


def _single(db: Database, key: str, mode: Mode) -> Grouping:
    """Group a view's layers by one key."""
    if key == "depth_decile":
        codes = depth_decile(db.layer_columns["conv_depth_norm"].values)
        present, index = np.unique(np.where(codes == NO_DECILE, len(DECILES), codes), return_inverse=True)
        return Grouping(key, [(*DECILES, UNKNOWN)[code] for code in present], index, ordered=True)
    if key == "layer":
        labels = db.layer_columns["layer"].values.tolist()
        return Grouping(key, labels, np.arange(len(labels)), ordered=False)
    column = mode.labels(key, db.column(key))
    values, index = np.unique(column if column.dtype.kind in "biuf" else column.astype(str), return_inverse=True)
    labels = [str(value) for value in values.tolist()]
    order = sorted(range(len(labels)), key=lambda position: _by_number(labels[position]))
    return Grouping(key, [labels[position] for position in order], np.argsort(order)[index], ordered=False)


def _by_number(label: str) -> tuple[bool, float, str]:
    """Return a key that sorts numbers by value, so that epoch 10 follows epoch 9, and other labels after them."""
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (False, number, label) if math.isfinite(number) else (True, 0.0, label)


def with_scale(db: Database, *, scaled: bool) -> Database:
    """Return the view, for raw filters without the layers whose scale is unknown. Raises InputError if all are."""
    known = has_scale(db, scaled=scaled)
    if known.all():
        return db
    if not known.any():
        raise InputError(
            f"{db.url}: raw filters: expected layers whose scale is known, got none: their integer weights have no "
            "scale in the file; scaled filters need none"
        )
    return db.keep(known, "scale known")


DEPTHS = {"depth_decile", "conv_depth", "conv_depth_norm", "graph_depth"}
"""The keys that need to know the depth of a layer."""


def with_depth(db: Database, *keys: Key | None) -> Database:
    """Return the view, without the layers of unknown depth if one of the keys is a depth. The condition counts them.

    Raises InputError if no layer is left.
    """
    names = {name for key in keys if key is not None for name in _names(key)}
    known = np.isfinite(db.layer_columns["conv_depth_norm"].values)
    if not names & DEPTHS or known.all():
        return db
    if not known.any():
        raise InputError(
            f"{db.url}: expected layers whose depth is known, got none: their files have no graph and no order; ingest "
            "them with --order, or group by another label"
        )
    return db.keep(known, f"depth known ({counted(int(np.count_nonzero(~known)), 'layer')} left out)")


def _names(key: Key) -> list[str]:
    """Return the labels of a key."""
    return [name.strip() for name in key.split(",")] if isinstance(key, str) else as_names(key, "by")


def check_raw(db: Database) -> None:
    """Raise InputError if raw filters of the view cannot be compared, because only some have a norm's scale in them."""
    apart, inside = _kinds_of_norm(db)
    if not (apart.any() and inside.any()):
        return
    kinds = " or ".join(sorted(set(db.layer_columns["batch_norm"].values[inside].astype(str).tolist())))
    layers = counted(int(np.count_nonzero(apart)), "layer")
    raise InputError(
        f"{db.url}: raw filters: expected one kind of batch normalisation, got {layers} "
        f"whose scale is apart (unfolded) and {np.count_nonzero(inside):,} in whose weights it is or may be "
        f"({kinds}); choose with --where batch_norm=unfolded or --where batch_norm!=unfolded"
    )


def raw_view(db: Database) -> tuple[Database, int]:
    """Return the largest part of a view whose raw filters can be compared, and the number of layers left out.

    Layers whose batch normalisation is apart stay, or those in whose weights it is, whichever have more filters.
    """
    apart, inside = _kinds_of_norm(db)
    if not (apart.any() and inside.any()):
        return db, 0
    filters = db.layers["row_size"].values
    words, other = ("apart", inside) if filters[apart].sum() > filters[inside].sum() else ("in the weights", apart)
    return db.keep(~other, f"batch normalisation {words}"), int(np.count_nonzero(other))


def _kinds_of_norm(db: Database) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which layers have a batch normalisation apart, and which have it, or may have it, in their weights.

    A layer without batch normalisation is neither, and can be compared with any other. What is unknown in files of one
    format was written by one kind of exporter; beside another format's weights whose norm is apart, it counts as
    folded.
    """
    where, formats = (db.layer_columns[name].values.astype(str) for name in ("batch_norm", "source_format"))
    apart = where == "unfolded"
    others = {known for known in np.unique(formats).tolist() if (apart & (formats != known)).any()}
    return apart, (where == "folded") | ((where == "unknown") & np.isin(formats, sorted(others)))


def chosen(db: Database) -> slice | npt.NDArray[np.int64]:
    """Return the index of the view's layers in an array of the snapshot's layers."""
    return slice(None) if db.chosen is None else db.chosen


def provenance(db: Database, **more: Any) -> dict[str, Any]:
    """Return the attributes that every result carries, and those of `more` that are not None."""
    return {
        "snapshot": db.snapshot,
        "database": db.url,
        "selection": " and ".join(db.conditions) or WHOLE,
        "kernel": kernel_name(db.kernel),
        "filterdb_version": __version__,
        **db.counts,
        **{name: value for name, value in more.items() if value is not None},
    }
